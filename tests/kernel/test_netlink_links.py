"""What rtnetlink, ethtool and netdev tell us is what ip, tc, ethtool and pyroute2 tell about the very same links."""

from __future__ import annotations

import json
import re
import struct
import time

import pytest
from kernels import CHANNELS_OF_VETH, NETDEV, configuration

from xdpctl.errors import NetlinkError, UnsupportedError
from xdpctl.netlink import channels, ethtool_ioctl, features, netdev, netns, rtnl, tc, wire

pytestmark = pytest.mark.kernel

RUNNING, LOWER_UP = 1 << 6, 1 << 16
"""IFF_RUNNING, IFF_LOWER_UP (uapi/linux/if.h)."""


@pytest.fixture
def zoo(world):
    """A namespace with a link of every kind that this kernel makes, and one that holds peers."""
    here, there = world.namespace(), world.namespace()
    world.veth("v0", "v1", netns_a=here, netns_b=there, numrxqueues=3, numtxqueues=2)
    world.veth("w0", "w1", netns_a=here, netns_b=here, up=False)
    world.ip_batch(
        here,
        "link add br0 type bridge",
        "link set w0 master br0",
        "link set br0 up",
        "link add mv0 link w1 type macvlan mode bridge",
        "link add mt0 link w1 type macvtap mode vepa",
        "link add ifb9 type ifb",
        "link add vx0 type vxlan id 42 dev w1 dstport 4789",
        "tuntap add tap0 mode tap",
        "tuntap add tapm mode tap multi_queue",
        "tuntap add tun0 mode tun",
        "link set v0 mtu 3000",
        "link set w1 up",
        "link set v0 gso_max_size 20000 gso_max_segs 100",
        "link property add dev v0 altname another-name-for-v0",
        f"link add mv1 link w1 netns {there} type macvlan",
    )
    return here, there


@pytest.fixture
def settled(zoo):
    """The same, once linkwatch has taken RUNNING from what has no carrier: within a second."""
    with netns.enter(zoo[0]):
        end = time.monotonic() + 5
        while any(one.flags & RUNNING and not one.flags & LOWER_UP for one in rtnl.links()):
            assert time.monotonic() < end
            time.sleep(0.01)
    return zoo


def test_links_are_those_of_ip(world, settled):
    for name in settled:
        theirs = {
            one["ifindex"]: one for one in json.loads(world.run("ip", "-j", "-d", "link", netns=name).stdout)
        }
        with netns.enter(name):
            ours = {one.ifindex: one for one in rtnl.links()}
        assert ours.keys() == theirs.keys()
        by_name = {one["ifname"]: index for index, one in theirs.items()}
        for index, link in ours.items():
            told = theirs[index]
            info = told.get("linkinfo", {})
            assert link.name == told["ifname"]
            assert link.mtu == told["mtu"]
            assert link.kind == info.get("info_kind")
            assert link.slave_kind == info.get("info_slave_kind")
            assert link.operstate == told["operstate"].lower()
            assert link.address == told.get("address")
            assert link.min_mtu == told["min_mtu"]
            assert (link.max_mtu or 0) == told["max_mtu"]
            assert (link.num_rx_queues, link.num_tx_queues) == (told["num_rx_queues"], told["num_tx_queues"])
            assert (link.gso_max_size, link.gso_max_segs) == (told["gso_max_size"], told["gso_max_segs"])
            assert link.link_netnsid == told.get("link_netnsid")
            assert link.master == (by_name[told["master"]] if "master" in told else None)
            assert link.qdisc == told["qdisc"]
            assert list(link.altnames) == told.get("altnames", [])
            assert bool(link.flags & 1) == ("UP" in told["flags"])
            if "link_index" in told:
                assert link.link == told["link_index"]
            elif told.get("link"):
                assert link.link == by_name[told["link"]]
            data = info.get("info_data", {})
            if link.kind == "tun":
                assert {1: "tun", 2: "tap"}[link.data["type"]] == data["type"]
                assert bool(link.data["multi_queue"]) == data["multi_queue"]
                assert bool(link.data["persist"]) == data["persist"]
            elif link.kind in ("macvlan", "macvtap"):
                assert link.data["mode"] == {"vepa": 2, "bridge": 4}[data["mode"]]
            elif link.kind == "vxlan":
                assert link.data["id"] == data["id"]
                assert link.data["link"] == by_name[data["link"]]


def test_links_are_those_of_pyroute2(settled):
    from pyroute2 import IPRoute

    with netns.enter(settled[0]):
        ours = {one.ifindex: one for one in rtnl.links()}
        with IPRoute() as theirs:
            dumped = {one["index"]: one for one in theirs.get_links()}
    assert ours.keys() == dumped.keys()
    for index, link in ours.items():
        told = dumped[index]
        assert link.name == told.get_attr("IFLA_IFNAME")
        assert (link.type, link.flags) == (told["ifi_type"], told["flags"])
        assert link.link == told.get_attr("IFLA_LINK")
        assert link.link_netnsid == told.get_attr("IFLA_LINK_NETNSID")
        assert link.master == told.get_attr("IFLA_MASTER")
        assert link.carrier == bool(told.get_attr("IFLA_CARRIER"))
        assert link.txqlen == told.get_attr("IFLA_TXQLEN")


def test_one_link_is_as_in_the_dump_and_an_absent_one_is_enodev(settled):
    with netns.enter(settled[0]):
        for link in rtnl.links():
            assert rtnl.link(link.ifindex) == link
        with pytest.raises(NetlinkError, match="ENODEV") as refusal:
            rtnl.link(99999)
    assert refusal.value.errno == 19


def test_features_are_those_of_ethtool(world, zoo):
    with netns.enter(zoo[0]):
        found, names = features.features(), features.names()
        links = {one.name: one.ifindex for one in rtnl.links()}
    assert found.keys() == set(links.values())
    for name, index in links.items():
        told = world.run("ethtool", "-k", name, netns=zoo[0]).stdout
        bits = found[index]
        compared = 0
        for place, feature in enumerate(names):
            # legacy names (tx-checksumming, generic-receive-offload) stand for groups; compare those of one bit
            legacy = {"rx-gro": "generic-receive-offload", "rx-lro": "large-receive-offload"}
            shown = legacy.get(feature, feature)
            line = re.search(
                rf"^\s*{re.escape(shown)}: (on|off)( \[fixed\])?( \[requested on\])?", told, re.MULTILINE
            )
            if not feature or line is None:
                continue
            compared += 1
            fixed = not bits.hw >> place & 1 or bool(bits.nochange >> place & 1)
            assert (line[1] == "on") == bool(bits.active >> place & 1), (name, feature)
            assert (line[2] is not None) == fixed, (name, feature)
            if not fixed and line[1] == "off":
                assert (line[3] is not None) == bool(bits.wanted >> place & 1), (name, feature)
        assert compared > 40


def test_wanted_and_active_differ_where_the_driver_refuses(world):
    one = world.namespace()
    world.veth("a0", "a1", netns_a=one, netns_b=one)
    world.run("ethtool", "-K", "a0", "gro", "on", netns=one)
    with netns.enter(one):
        index = next(link.ifindex for link in rtnl.links() if link.name == "a0")
        place = features.names().index("rx-gro")
        bits = features.features_of(index)
        assert bits == features.features()[index]
    assert bits.wanted >> place & 1
    assert bits.active >> place & 1


def test_channels_are_those_of_ethtool(world, zoo):
    if not CHANNELS_OF_VETH:
        with netns.enter(zoo[0]), pytest.raises(NetlinkError, match="EOPNOTSUPP"):
            channels.channels()  # a dump gives up at the first link without
        return
    with netns.enter(zoo[0]):
        found = channels.channels()
        links = {one.name: one.ifindex for one in rtnl.links()}
    told = world.run("ethtool", "-l", "v0", netns=zoo[0]).stdout
    numbers = [
        [int(n) if n.isdigit() else 0 for n in re.findall(rf"^{word}:\s+(\S+)", told, re.MULTILINE)]
        for word in ("RX", "TX")
    ]
    ours = found[links["v0"]]
    assert numbers == [[ours.rx_max, ours.rx], [ours.tx_max, ours.tx]] == [[3, 3], [2, 2]]
    for name, index in links.items():
        has = world.run("ethtool", "-l", name, netns=zoo[0], check=False).returncode == 0
        assert (index in found) == has, name


def test_a_link_without_channels_says_eopnotsupp(zoo):
    with netns.enter(zoo[0]):
        bridge = next(one.ifindex for one in rtnl.links() if one.name == "br0")
        with pytest.raises(NetlinkError) as refusal:
            channels.channels_of(bridge)
    assert refusal.value.errno == 95


def test_xdp_features_follow_the_peers_gro(world):
    one = world.namespace()
    world.veth("a0", "a1", netns_a=one, netns_b=one)

    def feature_words(name):
        with netns.enter(one):
            index = next(link.ifindex for link in rtnl.links() if link.name == name)
            devices = netdev.devices()
            assert devices[index] == netdev.device(index)
            bits = devices[index].xdp_features
        return {word for bit, word in netdev.XDP_FEATURES.items() if bits & bit}

    if not NETDEV:
        with pytest.raises(UnsupportedError, match=r"netdev needs Linux 6\.3"):
            feature_words("a0")
        return
    assert feature_words("a0") == {"basic", "redirect", "rx-sg"}
    world.run("ethtool", "-K", "a1", "gro", "on", netns=one)
    assert feature_words("a0") == {"basic", "redirect", "rx-sg", "ndo-xmit", "ndo-xmit-sg"}
    assert feature_words("lo") == set()


def test_queues_in_use_are_those_of_sysfs(world, zoo):
    with netns.enter(zoo[0]):
        links = {one.name: one.ifindex for one in rtnl.links() if one.flags & 1}
        if not NETDEV:
            with pytest.raises(UnsupportedError, match=r"netdev needs Linux 6\.3"):
                netdev.queues()
            return
        queues = netdev.queues()
    shown = world.run(
        "unshare",
        "-m",
        "sh",
        "-c",
        "mount -t sysfs sysfs /sys && ls /sys/class/net/*/queues -d && ls /sys/class/net/v0/queues",
        netns=zoo[0],
    ).stdout
    assert {one.type + str(one.id) for one in queues if one.ifindex == links["v0"]} == {
        word.replace("-", "") for word in re.findall(r"\b[rt]x-\d+\b", shown)
    }


def test_napis_are_there_once_gro_is_on(world):
    one = world.namespace()
    world.veth("a0", "a1", netns_a=one, netns_b=one)
    with netns.enter(one):
        if not NETDEV:
            with pytest.raises(UnsupportedError, match=r"netdev needs Linux 6\.3"):
                netdev.napis()
            return
        assert netdev.napis() == []
        world.run("ethtool", "-K", "a0", "gro", "on", netns=one)
        index = next(link.ifindex for link in rtnl.links() if link.name == "a0")
        assert [napi.ifindex for napi in netdev.napis()] == [index]


def test_page_pools_of_veth_are_not_listed_and_their_statistics_say_why(world):
    one = world.namespace()
    with netns.enter(one):
        if not NETDEV:
            with pytest.raises(UnsupportedError, match=r"netdev needs Linux 6\.3"):
                netdev.page_pools()
            return
        assert netdev.page_pools() == []
        configured = configuration()
        try:
            assert netdev.page_pool_stats() == []
            has_stats = True
        except NetlinkError as refusal:
            assert refusal.errno == 95
            has_stats = False
        assert configured is None or has_stats == (b"CONFIG_PAGE_POOL_STATS=y" in configured)


def test_driver_and_statistics_are_those_of_ethtool(world, zoo):
    with netns.enter(zoo[0]):
        driver, counters = ethtool_ioctl.driver_info("v0"), ethtool_ioctl.statistics("v0")
        with pytest.raises(NetlinkError, match="ENODEV"):
            ethtool_ioctl.driver_info("nothing")
    told = world.run("ethtool", "-i", "v0", netns=zoo[0]).stdout
    assert f"driver: {driver.driver}\n" in told
    listed = re.findall(
        r"^ +([^:]+): (\d+)$", world.run("ethtool", "-S", "v0", netns=zoo[0]).stdout, re.MULTILINE
    )
    assert list(counters) == [name for name, _value in listed]
    with netns.enter(zoo[1]):
        peer = next(one.ifindex for one in rtnl.links() if one.name == "v1")
    assert counters["peer_ifindex"] == peer


def test_qdiscs_are_those_of_tc(world, zoo):
    here = zoo[0]
    world.run(
        "tc",
        "qdisc",
        "add",
        "dev",
        "w1",
        "root",
        "handle",
        "7:",
        "tbf",
        "rate",
        "1mbit",
        "burst",
        "10k",
        "latency",
        "70ms",
        netns=here,
    )
    world.run("tc", "qdisc", "add", "dev", "w1", "clsact", netns=here)
    told = json.loads(world.run("tc", "-s", "-j", "qdisc", "show", netns=here).stdout)
    with netns.enter(here):
        names = {one.ifindex: one.name for one in rtnl.links()}
        found = tc.qdiscs()

    def key(kind, dev, handle):
        return (kind, dev, handle)

    theirs = {key(one["kind"], one["dev"], int(one["handle"].rstrip(":"), 16)): one for one in told}
    ours = {key(one.kind, names[one.ifindex], one.handle >> 16): one for one in found}
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        shown = theirs[name]
        assert (one.bytes, one.packets, one.qlen, one.backlog, one.drops) == tuple(
            shown[word] for word in ("bytes", "packets", "qlen", "backlog", "drops")
        )
        assert (one.parent == tc.TC_H_ROOT) == bool(shown.get("root"))
    assert ours["tbf", "w1", 7].parent == tc.TC_H_ROOT
    assert [names[one.ifindex] for one in found if tc.has_clsact(one)] == ["w1"]


CLS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int seen(struct __sk_buff *skb) { return 0; }
char _license[] SEC("license") = "GPL";
"""


def test_clsact_filters_are_those_of_tc(world, compile_c):
    one = world.namespace()
    world.veth("a0", "a1", netns_a=one, netns_b=one)
    built = compile_c(CLS, "seen")
    world.run("tc", "qdisc", "add", "dev", "a0", "clsact", netns=one)
    with netns.enter(one):
        index = next(link.ifindex for link in rtnl.links() if link.name == "a0")
        assert tc.bpf_filters(index, "ingress") == []
    for hook, pref in (("ingress", "5"), ("ingress", "9"), ("egress", "7")):
        world.run(
            "tc",
            "filter",
            "add",
            "dev",
            "a0",
            hook,
            "pref",
            pref,
            "bpf",
            "da",
            "obj",
            str(built),
            "sec",
            "tc",
            netns=one,
        )
    # another classifier on the same hook is none of ours
    world.run(
        "tc",
        "filter",
        "add",
        "dev",
        "a0",
        "ingress",
        "pref",
        "11",
        "matchall",
        "action",
        "ok",
        netns=one,
        check=False,
    )
    for hook, prefs in (("ingress", [5, 9]), ("egress", [7])):
        told = json.loads(world.run("tc", "-j", "filter", "show", "dev", "a0", hook, netns=one).stdout)
        theirs = {
            each["pref"]: each["options"] for each in told if "options" in each and each["kind"] == "bpf"
        }
        with netns.enter(one):
            ours = tc.bpf_filters(index, hook)
        assert [each.priority for each in ours] == prefs
        for each in ours:
            shown = theirs[each.priority]
            assert each.prog_id == shown["prog"]["id"]
            assert each.tag == shown["prog"]["tag"]
            assert each.name == shown["bpf_name"]
            assert each.handle == int(shown["handle"], 16)
            assert each.direct_action
            assert each.protocol == 3  # ETH_P_ALL
    with netns.enter(one):
        assert tc.bpf_filters(index + 1, "ingress") == []  # a link without clsact


def test_xdp_ids_by_mode_are_those_of_ip(world, compile_c):
    one = world.namespace()
    world.veth("a0", "a1", netns_a=one, netns_b=one)
    built = compile_c(
        '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("xdp") int p(struct xdp_md *c) { return 2; }\n',
        "xpass",
    )

    def seen():
        told = json.loads(world.run("ip", "-j", "link", "show", "a0", netns=one).stdout)[0].get("xdp", {})
        with netns.enter(one):
            return told, next(link.xdp for link in rtnl.links() if link.name == "a0")

    assert seen() == ({}, rtnl.NO_XDP)
    world.ip(f"link set a0 xdpdrv obj {built} sec xdp", one)
    told, ours = seen()
    assert (ours.attached, ours.native, ours.generic) == ("native", told["prog"]["id"], None)
    world.ip("link set a0 xdpdrv off", one)
    world.ip(f"link set a0 xdpgeneric obj {built} sec xdp", one)
    told, ours = seen()
    assert (ours.attached, ours.native, ours.generic) == ("generic", None, told["prog"]["id"])


def test_namespace_ids_lead_to_the_namespace(world, zoo):
    here, there = (netns.find(name) for name in zoo)
    descriptor = netns.open_nsfs(there)
    try:
        with netns.enter(here):
            listed = json.loads(world.run("ip", "-j", "netns", "list-id", netns=zoo[0]).stdout)
            nsid = rtnl.nsid_of(descriptor)
            assert nsid in rtnl.nsids()
            assert sorted(rtnl.nsids()) == sorted(one["nsid"] for one in listed)
            assert next(one.link_netnsid for one in rtnl.links() if one.name == "v0") == nsid
            own = netns.open_nsfs(netns.current())
            try:
                assert rtnl.nsid_of(own) is None
            finally:
                netns.os.close(own)
    finally:
        netns.os.close(descriptor)


def test_a_refusal_keeps_the_kernels_words(zoo):
    with netns.enter(zoo[0]), wire.Socket(wire.NETLINK_ROUTE) as sock:
        index = next(one.ifindex for one in rtnl.links(sock) if one.name == "v0")
        wrong = struct.pack("=BxHiII", 0, 0, index, 0, 0) + rtnl.attr_u32(4, 17)  # IFLA_MTU
        with pytest.raises(NetlinkError) as refusal:
            sock.request(16, wrong, what="setting the MTU")
        assert (refusal.value.errno, refusal.value.extack) == (22, "mtu less than device minimum")
        # the socket is usable after it
        assert rtnl.link(index, sock).name == "v0"


def test_a_thousand_links_come_in_few_datagrams(world):
    one = world.namespace()
    batch = "".join(f"link add p{i} type veth peer name q{i}\n" for i in range(150))
    world.run("sh", "-c", f"printf '{batch}' | ip -batch -", netns=one)
    with netns.enter(one), wire.Socket(wire.NETLINK_ROUTE) as sock:
        before = wire.Socket.total_sent
        links = rtnl.links(sock)
        assert len(links) == 301
        assert wire.Socket.total_sent - before == 1
        assert not sock.interrupted
