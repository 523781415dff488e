"""From raw answers to links: what each fact is taken from, and that unknown stays unknown."""

from __future__ import annotations

import pytest

from xdpctl.host import links
from xdpctl.host.links import Assembler
from xdpctl.host.model import BpfProgram, Channels, Feature, Peer, TcHook
from xdpctl.host.namespace import Observed
from xdpctl.netlink.channels import RawChannels
from xdpctl.netlink.features import FeatureBits
from xdpctl.netlink.netdev import Device, Queue
from xdpctl.netlink.netns import NetnsRef
from xdpctl.netlink.rings import RawRings
from xdpctl.netlink.rtnl import RawLink
from xdpctl.netlink.tc import RawQdisc

HERE, THERE = 4026531840, 4026532999
UP = 0x1043


@pytest.fixture(autouse=True)
def no_sysfs(monkeypatch):
    monkeypatch.setattr(links, "_own_sysfs", lambda _seen: frozenset())


def raw(number=2, name="x0", kind=None, **more):
    return RawLink(number, name, 1, more.pop("flags", UP), 1500, kind, **more)


def one(link, known=None, programs=None, **answers):
    seen = Observed(NetnsRef(HERE, None, "/proc/self/ns/net"), links=[link], **answers)
    (made,) = Assembler(["rx-gro", "", "rx-lro"]).links(seen, known or {}, programs or {})
    return made


def test_what_no_dump_told_is_unknown():
    made = one(raw())
    for name in (
        "features",
        "channels",
        "rings",
        "private_flags",
        "qdiscs",
        "napis",
        "xdp_features",
        "statistics",
    ):
        assert getattr(made, name) is None, name
    assert (made.real_rx_queues, made.real_tx_queues) == (None, None)


def test_a_link_that_a_dump_left_out_has_none_of_it():
    made = one(raw(), qdiscs={}, napis={}, private_flags={}, channels={}, rings={}, devices={})
    assert (made.qdiscs, made.napis, made.private_flags) == ((), (), {})
    assert (made.channels, made.rings, made.xdp_features) == (None, None, None)


def test_queue_counts_come_from_channels_first():
    made = one(
        raw(num_rx_queues=8, num_tx_queues=8),
        channels={2: RawChannels(rx=1, tx=2, combined=3, rx_max=8, tx_max=8, combined_max=8)},
        queues={2: [Queue(2, "rx", 0)]},
    )
    assert (made.real_rx_queues, made.real_tx_queues) == (4, 5)
    assert made.channels == Channels(1, 2, 0, 3, 8, 8, 0, 8)


def test_a_single_allocated_queue_is_the_one_in_use():
    made = one(raw(num_rx_queues=1, num_tx_queues=1))
    assert (made.real_rx_queues, made.real_tx_queues) == (1, 1)


def test_queue_get_counts_for_links_that_are_up_only():
    queues = {2: [Queue(2, "rx", 0), Queue(2, "rx", 1), Queue(2, "tx", 0)]}
    made = one(raw(num_rx_queues=4, num_tx_queues=4), queues=queues)
    assert (made.real_rx_queues, made.real_tx_queues) == (2, 1)
    down = one(raw(num_rx_queues=4, num_tx_queues=1, flags=0x1002), queues={})
    assert (down.real_rx_queues, down.real_tx_queues) == (None, 1)


def test_a_peer_in_another_namespace_is_found_by_its_nsid():
    link = raw(kind="veth", link=5, link_netnsid=3)
    assert one(link, {(HERE, 3): THERE}).peer == Peer(5, THERE, 3)
    assert one(link, {(HERE, 4): THERE}).peer == Peer(5, None, 3)
    assert one(raw(kind="veth", link=5)).peer == Peer(5, HERE, None)


def test_a_veth_without_its_peer_has_none():
    assert one(raw(kind="veth", link=0)).peer is None


def test_stacked_links_have_a_lower_and_no_peer():
    for kind in ("vlan", "macvlan", "macvtap", "ipvlan"):
        made = one(raw(kind=kind, link=4))
        assert (made.lower, made.peer) == (Peer(4, HERE, None), None)
    made = one(raw(kind="vxlan", data={"id": 5, "link": 4}))
    assert made.lower == Peer(4, HERE, None)
    assert made.vlan_id is None
    # the link below a tunnel is where it sends, not what carries it: no upper and lower to the core
    assert one(raw(kind="gre", link=4)).lower is None


def test_features_tell_active_wanted_and_fixed():
    made = one(raw(), features={2: FeatureBits(hw=0b101, wanted=0b001, active=0b100, nochange=0b100)})
    assert made.features == {"rx-gro": Feature(False, True, False), "rx-lro": Feature(True, False, True)}


def test_links_with_the_same_bits_share_one_feature_set():
    seen = Observed(
        NetnsRef(HERE, None, ""),
        links=[raw(2), raw(3)],
        features={2: FeatureBits(1, 1, 1, 0), 3: FeatureBits(1, 1, 1, 0)},
    )
    first, second = Assembler(["rx-gro"]).links(seen, {}, {})
    assert first.features is second.features


def test_tun_queues_are_its_own_count_or_its_carrier():
    multi = {"type": 2, "multi_queue": 1, "persist": 1, "num_queues": 3, "num_disabled_queues": 1}
    assert one(raw(kind="tun", data=multi)).tun.queues == 3
    single = {"type": 2, "multi_queue": 0, "persist": 1}
    assert one(raw(kind="tun", data=single, carrier=False)).tun.queues == 0
    assert one(raw(kind="tun", data=single, carrier=True)).tun.queues == 1
    assert one(raw(kind="tun", data=single)).tun.queues is None
    assert one(raw(kind="tun", data={"type": 1})).tun.type == "tun"


def test_bonds_tell_mode_and_policy_in_ips_words():
    made = one(raw(kind="bond", data={"mode": 4, "xmit_hash_policy": 1, "active_slave": 0}))
    assert (made.bond.mode, made.bond.xmit_hash_policy, made.bond.active_slave) == (
        "802.3ad",
        "layer3+4",
        None,
    )
    assert one(raw(kind="bond", data={"mode": 99})).bond.mode == "mode 99"


def test_hooks_carry_the_programs_name():
    program = BpfProgram(9, "count", "sched_cls", "00", 0)
    made = one(
        raw(),
        programs={9: program},
        hooks={2: [TcHook("tcx-ingress", 9, "", 4), TcHook("clsact-egress", 8, "x.o:[tc]")]},
    )
    assert [hook.program_name for hook in made.tc] == ["count", "x.o:[tc]"]


def test_qdiscs_rings_and_xdp_features_are_taken_over():
    made = one(
        raw(),
        qdiscs={2: [RawQdisc(2, "mq", 1 << 16, 0xFFFFFFFF, qlen=1, backlog=2, drops=3)]},
        rings={2: RawRings(4096, 4096, 512, 256, 2048, "on", 64)},
        devices={2: Device(2, 0x23, 17, 7, 1)},
    )
    (qdisc,) = made.qdiscs
    assert (qdisc.kind, qdisc.qlen, qdisc.backlog, qdisc.drops) == ("mq", 1, 2, 3)
    assert (made.rings.rx, made.rings.tx_max, made.rings.tcp_data_split, made.rings.hds_thresh) == (
        512,
        4096,
        "on",
        64,
    )
    assert (made.xdp_features, made.xdp_zc_max_segs, made.xdp_rx_metadata) == (0x23, 17, 7)
