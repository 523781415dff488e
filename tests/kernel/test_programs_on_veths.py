"""The programs of bpf/ on real interfaces: real frames through veths, each one accounted for."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from kernels import VARIANTS

from xdpctl.bpf import features
from xdpctl.bpf.link import link_tcx, link_xdp
from xdpctl.bpf.net import tc_attach, tc_hook_create
from xdpctl.bpf.object import Object
from xdpctl.errors import AttachError
from xdpctl.lab.frames import BROADCAST, ETHERTYPE_ARP, Port, ethernet, mac, udp4
from xdpctl.libbpf import uapi
from xdpctl.netlink import netns
from xdpctl.obj import globals as obj_globals
from xdpctl.obj.reader import read

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
ABORTED, DROP, PASS, TX, REDIRECT = range(5)
ARP, IPV4_UDP, IPV6_UDP = 1, 4, 8
FRAMES = 20
"""A burst that a packet socket holds by default, at a page of truesize each (Linux 5.10)."""
MARK = b"one of ours"


@pytest.fixture
def attach(built):
    """``attach("count", "vb", namespace, "verdict=XDP_DROP", hook="native") -> Object``, for the length of a test."""
    held = []

    def make(name: str | Path, interface: str, where: str, *settings: str, hook: str = "native") -> Object:
        path = built / f"{name}.bpf.o" if isinstance(name, str) else name
        one = Object.open(path)
        held.append(one)
        with netns.enter(where):
            for setting in obj_globals.parse_all(read(path), settings):
                section = next(each for each in one.maps.values() if each.name.endswith(setting.section))
                section.patch_initial_value(setting.offset, setting.data)
            one.load()
            (program,) = one.programs.values()
            ifindex = socket.if_nametoindex(interface)
            if hook in uapi.XDP_MODE_FLAGS:
                held.append(link_xdp(program.fd, ifindex, uapi.XDP_MODE_FLAGS[hook]))
            elif features.probe("tcx"):
                kind = {"ingress": uapi.TCX_INGRESS, "egress": uapi.TCX_EGRESS}[hook]
                held.append(link_tcx(program.fd, ifindex, kind))
            else:  # before Linux 6.6; the filters go with the interface
                tc_hook_create(ifindex)
                tc_attach(ifindex, hook, program.fd, priority=len(held))
        return one

    yield make
    for one in reversed(held):
        one.close()


@pytest.fixture
def line(world):
    """Three namespaces in a line: va in the first - vb in the second, vc there too - vd in the third."""
    first, second, third = world.namespace(), world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=first, netns_b=second)
    world.veth("vc", "vd", netns_a=second, netns_b=third)
    return first, second, third


def port(interface: str, where: str) -> Port:
    with netns.enter(where):
        return Port(interface)


def mac_of(interface: str, where: str) -> str:
    with netns.enter(where), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind((interface, 0))
        return ":".join(f"{byte:02x}" for byte in probe.getsockname()[4])


def counters(one: Object, table: str) -> dict[int, tuple[int, int]]:
    """Rows that are not zero: key -> (packets, bytes) over all CPUs."""
    found = {}
    for key, value in one.map(table).items():
        pairs = list(struct.iter_unpack("=QQ", value))
        total = (sum(packets for packets, _ in pairs), sum(size for _, size in pairs))
        if any(total):
            found[int.from_bytes(key, "little")] = total
    return found


def settled(one: Object, table: str, expected: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """The counters, once they are `expected` or a second has gone by."""
    end = time.monotonic() + 1
    while (found := counters(one, table)) != expected and time.monotonic() < end:
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_count_counts_every_frame_and_byte_that_arrives(line, attach, mode):
    first, second, _ = line
    one = attach("count", "vb", second, hook=mode)
    frame, arp = udp4(MARK), ethernet(bytes(28), ethertype=ETHERTYPE_ARP)
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(FRAMES):
            sender.send(frame)
        sender.send(arp)
        assert receiver.count(MARK, expect=FRAMES) == FRAMES
    everything = {PASS: (FRAMES + 1, FRAMES * len(frame) + len(arp))}
    assert settled(one, "actions", everything) == everything
    assert counters(one, "protocols") == {IPV4_UDP: (FRAMES, FRAMES * len(frame)), ARP: (1, len(arp))}


def test_count_as_a_wall_lets_nothing_through_and_counts_it(line, attach):
    first, second, _ = line
    one = attach("count", "vb", second, "verdict=XDP_DROP")
    frame = udp4(MARK)
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(FRAMES):
            sender.send(frame)
        expected = {DROP: (FRAMES, FRAMES * len(frame))}
        assert settled(one, "actions", expected) == expected
        assert receiver.count(MARK, seconds=0.1) == 0


@pytest.mark.parametrize(("name", "arrive"), [("pass", FRAMES), ("drop", 0)])
def test_pass_lets_all_through_and_drop_nothing(line, attach, name, arrive):
    first, second, _ = line
    attach(name, "vb", second)
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(FRAMES):
            sender.send(udp4(MARK))
        assert receiver.count(MARK, expect=arrive or 1, seconds=0.3) == arrive


@pytest.mark.parametrize("variant", VARIANTS)
def test_redirect_delivers_every_frame_to_the_target(line, attach, variant):
    first, second, third = line
    attach(f"pass{variant}", "vd", third)  # a veth takes redirected frames when its peer has a program
    one = attach(f"redirect{variant}", "vb", second, "target_ifindex=vc")
    frame = udp4(MARK)
    with port("va", first) as sender, port("vd", third) as receiver:
        for _ in range(FRAMES):
            sender.send(frame)
        assert receiver.count(MARK, expect=FRAMES) == FRAMES
    assert counters(one, "actions") == {REDIRECT: (FRAMES, FRAMES * len(frame))}


def test_redirect_map_follows_its_slot_while_it_runs(line, attach):
    first, second, third = line
    attach("pass", "vd", third)
    one = attach("redirect_map", "vb", second, "if_empty=XDP_DROP")
    frame = udp4(MARK)
    with port("va", first) as sender, port("vd", third) as receiver:
        for _ in range(FRAMES):
            sender.send(frame)
        expected = {DROP: (FRAMES, FRAMES * len(frame))}
        assert settled(one, "actions", expected) == expected
        with netns.enter(second):
            one.map("tx_ports").update(bytes(4), struct.pack("=I", socket.if_nametoindex("vc")))
        for _ in range(FRAMES):
            sender.send(frame)
        assert receiver.count(MARK, expect=FRAMES) == FRAMES
    assert counters(one, "actions") == {**expected, REDIRECT: (FRAMES, FRAMES * len(frame))}


def test_tx_swap_sends_every_frame_back_to_its_sender(line, attach):
    first, second, _ = line
    attach("pass", "va", first)  # frames sent back need a program at the veth that takes them
    one = attach("tx-swap", "vb", second)
    to = mac_of("vb", second)
    frame = udp4(MARK, destination=to)
    with port("va", first) as sender:
        for _ in range(FRAMES):
            sender.send(frame)
        back = []
        end = time.monotonic() + 2
        while len(back) < FRAMES and time.monotonic() < end:
            back += [one_frame for one_frame in sender.arrived() if MARK in one_frame]
    assert back == [frame[6:12] + mac(to) + frame[12:]] * FRAMES
    assert counters(one, "actions") == {TX: (FRAMES, FRAMES * len(frame))}


def test_tx_swap_with_addresses_and_ports_is_a_udp_echo_server(line, world, attach):
    """No IP stack answers behind vb, yet a UDP socket hears its own words from the address it spoke to."""
    first, second, _ = line
    world.ip("addr add 192.0.2.1/24 dev va", first)
    world.ip(f"neigh add 192.0.2.2 lladdr {mac_of('vb', second)} dev va nud permanent", first)
    attach("pass", "va", first)
    attach("tx-swap", "vb", second, "swap_ip=true", "swap_ports=true")
    world.run("ethtool", "-K", "va", "tx", "off", netns=first)  # a veth leaves checksums out otherwise
    with netns.enter(first):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(2)
        client.connect(("192.0.2.2", 7))  # connected: it takes nothing but what comes from there
        for number in range(FRAMES):
            client.send(b"%d" % number)
            assert client.recv(64) == b"%d" % number


def test_blocklist_drops_who_is_listed_and_counts_him(line, attach):
    first, second, _ = line
    one = attach("blocklist", "vb", second)
    key = struct.pack("=I", 24) + socket.inet_aton("203.0.113.0")
    one.map("blocked4").update(key, bytes(16))
    bad = udp4(b"bad " + MARK, addresses=("203.0.113.5", "192.0.2.2"))
    good = udp4(b"good " + MARK, addresses=("203.0.112.5", "192.0.2.2"))
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(FRAMES):
            sender.send(bad)
            sender.send(good)
        assert receiver.count(b"good " + MARK, expect=FRAMES) == FRAMES
        assert receiver.count(b"bad " + MARK, seconds=0.1) == 0
    assert struct.unpack("=QQ", one.map("blocked4").lookup(key)) == (FRAMES, FRAMES * len(bad))
    assert counters(one, "actions") == {DROP: (FRAMES, FRAMES * len(bad)), PASS: (FRAMES, FRAMES * len(good))}


# jumbo MTU


@pytest.fixture
def jumbo(world):
    """va - vb with an MTU of 9000."""
    first, second = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=first, netns_b=second, mtu=9000)
    return first, second


@pytest.mark.needs("frags")
def test_only_the_frags_variant_goes_onto_a_jumbo_mtu(jumbo, attach):
    _, second = jumbo
    with pytest.raises(AttachError):
        attach("count", "vb", second)
    attach("count.frags", "vb", second)


@pytest.mark.needs("frags")
def test_count_frags_counts_whole_jumbo_frames(jumbo, attach):
    first, second = jumbo
    one = attach("count.frags", "vb", second)
    frame = udp4(MARK + bytes(8900))
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(10):
            sender.send(frame)
        assert receiver.count(MARK, expect=10) == 10
    assert counters(one, "actions") == {PASS: (10, 10 * len(frame))}


# TC


@pytest.mark.parametrize(("interface", "hook"), [("va", "egress"), ("vb", "ingress")])
def test_tc_count_counts_in_both_directions(line, attach, interface, hook):
    first, second, _ = line
    one = attach("tc_count", interface, first if interface == "va" else second, hook=hook)
    frame = udp4(MARK)
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(FRAMES):
            sender.send(frame)
        assert receiver.count(MARK, expect=FRAMES) == FRAMES
    assert counters(one, "protocols") == {IPV4_UDP: (FRAMES, FRAMES * len(frame))}


@pytest.mark.parametrize("tags", [1, 2])
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_tc_count_sees_through_vlan_tags(line, attach, tags, hook):
    """At ingress the kernel has taken the outer tag off; at egress all stand in the frame."""
    first, second, _ = line
    one = attach("tc_count", *(("vb", second) if hook == "ingress" else ("va", first)), hook=hook)
    plain = udp4(MARK)
    frame = plain[:12] + bytes.fromhex("81000007") * tags + plain[12:]
    with port("va", first) as sender, port("vb", second) as receiver:
        sender.send(frame)
        assert receiver.count(MARK) == 1
    assert list(counters(one, "protocols")) == [IPV4_UDP]


def test_tc_count_counts_packets_of_a_tun_without_ethernet(world, attach):
    where = world.namespace()
    with netns.enter(where):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(
            tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001)
        )  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    try:
        world.ip("link set tun0 up", where)
        one = attach("tc_count", "tun0", where, hook="ingress")
        packet = udp4(MARK)[14:]
        for _ in range(FRAMES):
            os.write(tun, packet)
        expected = {IPV4_UDP: (FRAMES, FRAMES * len(packet))}
        assert settled(one, "protocols", expected) == expected
    finally:
        os.close(tun)


@pytest.mark.parametrize("to_ingress", [False, True])
def test_tc_redirect_sends_out_of_the_target_or_lets_it_arrive_there(line, attach, to_ingress):
    """Nothing is needed at the target, unlike for an XDP redirect."""
    first, second, third = line
    one = attach("tc_redirect", "vb", second, "target_ifindex=vc", f"to_ingress={to_ingress}", hook="ingress")
    frame = udp4(MARK)
    with port("va", first) as sender, port("vd", third) as out, port("vc", second) as arriving:
        for _ in range(FRAMES):
            sender.send(frame)
        assert (arriving if to_ingress else out).count(MARK, expect=FRAMES) == FRAMES
        assert (out if to_ingress else arriving).count(MARK, seconds=0.1) == 0
    assert counters(one, "redirected") == {0: (FRAMES, FRAMES * len(frame))}


SEEN = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include "counters.h"
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct counter);
} seen SEC(".maps");
SEC("tc") int tc_seen(struct __sk_buff *skb)
{
	count_packet(&seen, skb->mark & 0xff, skb->len);
	return TC_ACT_UNSPEC;
}
char LICENSE[] SEC("license") = "GPL";
"""


def test_tc_mark_lets_the_next_program_see_the_mark(line, attach, compile_c):
    first, second, _ = line
    attach("tc_mark", "vb", second, "mark=0x2a", hook="ingress")
    after = attach(compile_c(SEEN), "vb", second, hook="ingress")
    frame = udp4(MARK)
    with port("va", first) as sender, port("vb", second) as receiver:
        for _ in range(FRAMES):
            sender.send(frame)
        assert receiver.count(MARK, expect=FRAMES) == FRAMES
    assert counters(after, "seen") == {0x2A: (FRAMES, FRAMES * len(frame))}


def test_tc_count_and_tc_mark_share_a_hook(line, attach):
    """Both answer TC_ACT_UNSPEC, so each packet meets both."""
    first, second, _ = line
    marking, counting = (attach(name, "vb", second, hook="ingress") for name in ("tc_mark", "tc_count"))
    with port("va", first) as sender:
        for _ in range(FRAMES):
            sender.send(udp4(MARK, destination=BROADCAST))
    size = len(udp4(MARK))
    expected = {IPV4_UDP: (FRAMES, FRAMES * size)}
    assert settled(counting, "protocols", expected) == expected
    assert counters(marking, "marked") == {0: (FRAMES, FRAMES * size)}
