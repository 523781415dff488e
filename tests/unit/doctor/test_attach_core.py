"""What the core and veth refuse when XDP is attached: each mistake with its errno and words, and its healthy twin."""

from dataclasses import replace

import pytest

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachTc, AttachXdp
from xdpctl.doctor.rules import judge
from xdpctl.host.model import Feature, LinkRef, Peer, Qdisc, Rings


def attach(host, name="a", mode="native", **more):
    return judge(host.snapshot(), [AttachXdp(host.links[name].ref, mode, "prog", **more)])


@pytest.fixture
def pair(machine):
    def make(version=(6, 18, 0), **more):
        host = machine(version=version, **more)
        host.veth("a", "b", netns_b=host.netns("blue"))
        return host

    return make


def ids(findings):
    return [one.id for one in findings]


def test_a_healthy_veth_takes_both_modes(pair):
    for mode in ("native", "generic"):
        assert attach(pair(), mode=mode) == []


@pytest.mark.parametrize("kind", ["bridge", "vlan", "macvlan", "macvtap", "ipvlan", "ifb", "dummy", "vxlan"])
def test_devices_without_ndo_bpf_refuse_native_and_offload_and_take_generic(machine, kind):
    host = machine()
    host.link("d", kind, xdp_features=0)
    for mode in ("native", "offload"):
        (finding,) = attach(host, "d", mode)
        assert (finding.id, finding.errno) == ("attach.no-native", "EOPNOTSUPP")
        assert finding.extack == "Underlying driver does not support XDP in native mode"
    assert attach(host, "d", "generic") == []


def test_lo_and_a_tun_have_no_native_xdp_and_a_tap_has(machine):
    host = machine()
    host.link("lo", None, type=772, driver=None)
    host.link("tun0", "tun", type=65534)
    host.link("tap0", "tun", type=1)
    assert ids(attach(host, "lo")) == ["attach.no-native"]
    assert ids(attach(host, "tun0")) == ["attach.no-native"]
    assert attach(host, "tap0") == []


def test_a_driver_nobody_knows_is_unknown_unless_its_features_tell(machine):
    host = machine()
    host.link("eth", None, driver="newnic", xdp_features=0)
    assert [one.status for one in attach(host, "eth")] == [Status.UNKNOWN]
    host.change("eth", xdp_features=1)
    assert attach(host, "eth") == []


def test_a_driver_that_is_younger_than_the_kernel_is_refused_unless_the_vendor_takes_newer_drivers(machine):
    host = machine(version=(6, 1, 0))
    host.link("eth", None, driver="vmxnet3")
    (finding,) = attach(host, "eth")
    assert (finding.id, finding.status) == ("attach.no-native", Status.FAIL)
    assert any(one.source == "uname" for one in finding.evidence)
    host.kernel = replace(host.kernel, release="5.14.0-427.el9.x86_64")
    (finding,) = attach(host, "eth")
    assert (finding.id, finding.status) == ("attach.native-unknown", Status.UNKNOWN)


def test_the_other_mode_is_in_the_way(pair):
    for held, wanted in (("native", "generic"), ("generic", "native")):
        host = pair()
        host.attach("a", held)
        (finding,) = attach(host, mode=wanted)
        assert (finding.id, finding.errno) == ("attach.mode-conflict", "EEXIST")
        assert finding.fix[0].argv[-1] == "off"


def test_a_link_holds_the_mode(pair):
    host = pair()
    host.attach("a", link_id=5)
    for via in ("link", "netlink"):
        (finding,) = attach(host, via=via)
        assert (finding.id, finding.errno) == ("attach.link-in-the-way", "EBUSY")
        assert finding.fix[0].argv == ("bpftool", "link", "detach", "id", "5")
    assert attach(host, via="link", replace=True) == []
    assert ids(attach(host, via="netlink", replace=True)) == ["attach.link-in-the-way"]


def test_a_program_without_a_link_holds_the_mode(pair):
    host = pair()
    host.attach("a")
    by_link, by_netlink = attach(host, via="link"), attach(host, via="netlink")
    assert by_link[0].extack == "Can't replace active XDP program with BPF link"
    assert by_netlink[0].extack == "XDP program already attached"
    assert {one.errno for one in by_link + by_netlink} == {"EBUSY"}
    assert attach(host, via="netlink", replace=True) == []


def test_only_a_direct_upper_with_a_program_is_in_the_way_and_only_since_5_15(machine):
    for version, expected in (((6, 18, 0), ["attach.upper-has-program"]), ((5, 10, 0), [])):
        host = machine(version=version)
        host.veth("a", "b")
        bridge = host.link("br", "bridge")
        host.change("a", master=bridge.ifindex)
        host.link("br.7", "vlan", lower=Peer(bridge.ifindex, 1))
        host.attach("br.7", "generic", 8)
        assert attach(host) == []
        host.attach("br", "generic", 9)
        assert ids(attach(host)) == expected
        host.attach("a", "native", 7)
        assert ids(attach(host, "br", "generic")) != ["attach.mode-conflict"]


def test_an_upper_in_another_namespace_counts(machine):
    host = machine()
    host.veth("a", "b")
    blue = host.netns("blue")
    host.link("m", "macvlan", netns=blue, lower=Peer(host.links["a"].ifindex, 1))
    host.attach("m", "generic", 9)
    (finding,) = attach(host)
    assert finding.fix[0].netns == "blue"


def test_programs_that_belong_elsewhere(pair):
    for kind, word in (("xdp/devmap", "BPF_XDP_DEVMAP"), ("xdp/cpumap", "BPF_XDP_CPUMAP")):
        (finding,) = attach(pair(), attach_type=kind)
        assert finding.extack == f"{word} programs can not be attached to a device"


def test_bound_programs(pair):
    host = pair()
    own = host.links["a"].ifindex
    assert attach(host, bound_ifindex=own) == []
    assert ids(attach(host, bound_ifindex=own + 50)) == ["attach.bound-elsewhere"]
    assert ids(attach(host, mode="generic", bound_ifindex=own)) == ["attach.bound-generic"]
    assert attach(pair((6, 13, 0)), mode="generic", bound_ifindex=own) == []
    assert ids(attach(pair((6, 12, 13)), mode="generic", bound_ifindex=own)) == ["attach.bound-generic"]


def test_hardware_mode_needs_hardware(machine, pair):
    (finding,) = attach(pair(), mode="offload")
    assert (finding.id, finding.errno, finding.extack) == ("attach.no-offload", "EINVAL", None)
    host = machine()
    host.link("nfp", None, driver="nfp", xdp_features=16)
    assert attach(host, "nfp", "offload", offloaded=True) == []
    assert ids(attach(host, "nfp", "native", offloaded=True)) == ["attach.offloaded-program"]


def test_the_words_about_offloaded_programs_changed_in_6_3(machine):
    for version, word in (((6, 1, 0), "device-bound"), ((6, 18, 0), "offloaded")):
        host = machine(version=version)
        host.link("nfp", None, driver="nfp", xdp_features=16 if version >= (6, 3) else None)
        finding = next(
            one for one in attach(host, "nfp", offloaded=True) if one.id == "attach.offloaded-program"
        )
        assert word in finding.extack


def test_tcp_data_split_excludes_single_buffer_programs_since_6_14(machine):
    for version, expected in (((6, 18, 0), ["attach.tcp-data-split"]), ((6, 12, 0), [])):
        host = machine(version=version)
        host.link("eth", None, driver="mlx5_core", xdp_features=1, rings=Rings(tcp_data_split="on"))
        assert ids(attach(host, "eth")) == expected
        assert attach(host, "eth", frags=True) == []


def test_kernels_without_links_or_frags_are_known_by_their_probes(pair):
    host = pair((5, 8, 0), xdp_link=False, frags=False)
    assert ids(attach(host, via="link")) == ["attach.no-xdp-link"]
    assert attach(host, via="netlink") == []
    assert ids(attach(host, via="netlink", frags=True)) == ["attach.no-frags"]


def test_a_generic_attach_says_what_it_switches_off(machine):
    host = machine()
    host.link("eth", None, driver="mlx5_core", features={"rx-lro": Feature(True, True, False)})
    (finding,) = attach(host, "eth", "generic")
    assert (finding.id, finding.status) == ("attach.generic-side-effects", Status.WARN)


def test_a_device_that_is_not_there_has_another_errno_for_links(machine):
    host = machine()
    for via, errno in (("link", "EINVAL"), ("netlink", "ENODEV")):
        (finding,) = judge(host.snapshot(), [AttachXdp(LinkRef(1, 99), "native", "p", via=via)])
        assert (finding.id, finding.errno) == ("attach.no-device", errno)
    (finding,) = judge(host.snapshot(), [AttachXdp(LinkRef(77, 99), "native", "p")])
    assert finding.status is Status.UNKNOWN


# -- veth


def test_the_peers_mtu_is_limited_to_a_page_less_what_xdp_needs(pair):
    host = pair()
    host.change("b", mtu=3506)
    assert attach(host) == []
    host.change("b", mtu=3507)
    (finding,) = attach(host)
    assert (finding.id, finding.errno) == ("attach.veth-peer-mtu", "ERANGE")
    assert finding.extack == "veth: Peer MTU is too large to set XDP"
    assert finding.fix[0].argv == ("ip", "link", "set", "dev", "b", "mtu", "3506")
    assert finding.fix[0].netns == "blue"
    assert attach(host, frags=True) == []
    assert attach(host, mode="generic") == []
    host.change("b", mtu=73139)
    assert ids(attach(host, frags=True)) == ["attach.veth-peer-mtu"]


def test_the_limit_is_a_formula(machine):
    for page, arch, limit in (
        (65536, "aarch64", 65536 - 256 - 320 - 14),
        (65536, "ppc64le", 65536 - 256 - 384 - 14),
    ):
        host = machine(page_size=page, arch=arch)
        host.veth("a", "b")
        host.change("b", mtu=limit)
        assert attach(host) == []
        host.change("b", mtu=limit + 1)
        assert ids(attach(host)) == ["attach.veth-peer-mtu"]


def test_queues_in_use_count_not_those_allocated(pair):
    host = pair()
    host.change("b", real_tx_queues=2, num_tx_queues=8)
    (finding,) = attach(host)
    assert (finding.id, finding.errno) == ("attach.veth-queues", "ENOSPC")
    assert finding.fix[0].argv == ("ethtool", "-L", "b", "tx", "1")
    host.change("b", real_tx_queues=1)
    assert attach(host) == []
    host.change("b", real_tx_queues=None)
    assert [one.status for one in attach(host)] == [Status.UNKNOWN]


def test_an_unseen_peer_is_unknown_and_a_gone_one_is_refused(pair):
    host = pair()
    host.forget("b")
    (finding,) = attach(host)
    assert (finding.id, finding.status) == ("attach.veth-peer-unseen", Status.UNKNOWN)
    assert finding.alternatives
    host.change("a", peer=None)
    (finding,) = attach(host)
    assert (finding.id, finding.errno) == ("attach.veth-peer-gone", "ENOTCONN")


# -- TC


def test_tc_hooks_that_a_kernel_or_device_lacks(pair):
    host = pair(tcx=False)
    ref = host.links["a"].ref
    assert ids(judge(host.snapshot(), [AttachTc(ref, "ingress", "p", "tcx")])) == ["attach.no-tcx"]
    assert judge(host.snapshot(), [AttachTc(ref, "ingress", "p", "clsact")]) == []
    assert ids(judge(host.snapshot(), [AttachTc(ref, "ingress", "p", "netkit")])) == ["attach.not-netkit"]
    host.change("a", qdiscs=(Qdisc("ingress", 0xFFFF0000, 0xFFFFFFF1),))
    assert ids(judge(host.snapshot(), [AttachTc(ref, "egress", "p", "clsact")])) == ["attach.ingress-qdisc"]
    assert judge(pair().snapshot(), [AttachTc(ref, "egress", "p", "tcx")]) == []
