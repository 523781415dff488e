"""`trace drops` at each kind of ring: filled on purpose it is told as full, refused for another reason as not full."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct

import pytest
from held_veth import SOURCE as HOLD
from held_veth import flood, held, packet_socket
from kernels import RELEASE
from live import until

from xdpctl.bpf.link import link_xdp
from xdpctl.bpf.object import Object
from xdpctl.libbpf.uapi import XDP_MODE_FLAGS
from xdpctl.netlink import netns
from xdpctl.netlink.interfaces import ifindex
from xdpctl.netlink.link_stats import link_stats
from xdpctl.trace.devices import chosen
from xdpctl.trace.drops import DropTrace
from xdpctl.trace.frames import Port, ethernet, udp4
from xdpctl.trace.qdisc import QdiscTrace
from xdpctl.trace.standing import judge, lengths

pytestmark = pytest.mark.kernel

FRAME = ethernet(b"x", destination="02:00:00:00:00:99")
BPF_LOOP = RELEASE >= (5, 17)
REASONS = RELEASE >= (5, 17)
"""SKB_DROP_REASON_*: before, nothing says that a packet was lost at a ring."""
TYPES_OF_MODULES = RELEASE >= (5, 11)
"""Before, the BTF of modules is not there, and with it the types of tun and veth."""
STOPS_THE_QUEUE = RELEASE >= (6, 16)
"""A veth whose ring is full stops its queue where it has a qdisc (veth_xmit()); some older ones have it backported."""
VETH_RING = 256

PROGRAMS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); }
	cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 2); __uint(key_size, 4); __uint(value_size, 4); }
	devices SEC(".maps");
const volatile unsigned cpu;
SEC("xdp") int aside(struct xdp_md *ctx) { return bpf_redirect_map(&cpus, cpu, 0); }
SEC("xdp") int onto(struct xdp_md *ctx) { return bpf_redirect_map(&devices, 0, 0); }
SEC("xdp") int twice(struct xdp_md *ctx) { return bpf_redirect_map(&devices, 0, BPF_F_BROADCAST); }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
char _license[] SEC("license") = "GPL";
"""
XSK = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); }
	sockets SEC(".maps");
SEC("xdp") int into(struct xdp_md *ctx) { return bpf_redirect_map(&sockets, 0, 0); }
char _license[] SEC("license") = "GPL";
"""


@contextlib.contextmanager
def one_cpu():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield max(before)
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def here(world):
    name = world.namespace()
    world.veth("va", "vb", netns_a=name, netns_b=name)
    with netns.enter(name):
        yield name


@pytest.fixture
def programs(compile_c):
    """Loaded, with the cpumap's slot for the last CPU; this process is on that CPU."""
    with one_cpu() as cpu, Object.open(compile_c(PROGRAMS, "rings")) as opened:
        next(one for name, one in opened.maps.items() if name.endswith(".rodata")).patch_initial_value(
            0, struct.pack("=I", cpu)
        )
        opened.map("cpus").set_max_entries(cpu + 1)
        opened.load()
        yield opened, cpu


def live(program, count, *, length=60, batch=None, index=None):
    program.test_run(
        FRAME.ljust(length, b"\0"), repeat=count, batch_size=batch or count, live_frames=True,
        ifindex=index if index is not None else ifindex("va"),
    )  # fmt: skip


def rings_of(trace, count, *interfaces):
    """The rings of these interfaces, once they have lost so many."""
    ours = chosen(interfaces)

    def found():
        return [one for one in trace.read().about(ours).rings if not one.map_id]

    assert until(lambda: sum(one.drops for one in found()) >= count), trace.read()
    return found()


def test_a_tap_nobody_reads_loses_what_its_ring_does_not_hold(world):
    here, size, sent = world.namespace(), 64, 100
    world.ip("tuntap add tap0 mode tap", here)
    world.ip(f"link set tap0 txqueuelen {size}", here)
    with netns.enter(here), contextlib.closing(opened_tap("tap0")) as tap:
        world.ip("link set tap0 up", here)
        world.run(*"tc qdisc replace dev tap0 root noqueue".split(), netns=here)
        with DropTrace() as trace:
            with packet_socket("tap0") as sender:
                flood(sender, FRAME, sent)
            ours = chosen(["tap0"])
            assert until(lambda: trace.read().about(ours).packets >= sent - size)
            report = trace.read().about(ours)
        assert link_stats()[ifindex("tap0")]["tx_dropped"] == report.packets == sent - size
        assert len(read_all(tap.fileno())) == size
    assert {one.place.name for one in report.drops} == {"tun_net_xmit"}
    if not REASONS:
        assert report.rings == ()
        return
    (ring,) = report.rings
    assert (ring.kind, ring.queue, ring.drops) == ("tun", 0, sent - size)
    assert (ring.full, ring.not_full, ring.size, ring.taken.least) == (sent - size, 0, size, size)
    assert sum(one.packets for one in ring.producers) == sent - size


def opened_tap(name):
    """Its queue, as a file."""
    opened = open("/dev/net/tun", "r+b", buffering=0)  # noqa: SIM115, PTH123 - the caller closes it
    fcntl.ioctl(opened, 0x400454CA, struct.pack("16sH14x", name.encode(), 0x1002))
    os.set_blocking(opened.fileno(), False)
    return opened


def read_all(descriptor):
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(os.read(descriptor, 65536))
    return found


@pytest.mark.needs("live_frames")
def test_bulks_beyond_a_veths_ring_are_lost_at_a_full_ring(here, programs):
    """All frames of a batch reach the ring before its NAPI may run on this CPU."""
    opened, _ = programs
    with link_xdp(opened.programs["drop"].fd, ifindex("vb"), XDP_MODE_FLAGS["native"]), DropTrace() as trace:
        for slot in (0, 1):
            opened.map("devices").update(struct.pack("=I", slot), struct.pack("=I", ifindex("va")))
        live(opened.programs["twice"], VETH_RING, index=ifindex("lo"))
        (ring,) = rings_of(trace, VETH_RING, "vb")
    assert (ring.kind, ring.device.name, ring.drops) == ("veth", "vb", VETH_RING)
    assert (ring.full, ring.not_full, ring.size) == (VETH_RING, 0, VETH_RING)
    assert (ring.taken.least, ring.taken.most) == (VETH_RING, VETH_RING)


@pytest.mark.needs("live_frames")
def test_frames_too_long_for_the_receiver_are_lost_at_a_ring_that_is_not_full(here, programs, world):
    """veth_xdp_xmit() asks the length by the receiver's MTU: from outside it looks like a ring without room."""
    opened, _ = programs
    world.ip("link set vb mtu 500", here)
    with link_xdp(opened.programs["drop"].fd, ifindex("vb"), XDP_MODE_FLAGS["native"]), DropTrace() as trace:
        opened.map("devices").update(bytes(4), struct.pack("=I", ifindex("va")))
        live(opened.programs["onto"], 10, length=1000, index=ifindex("lo"))
        (ring,) = rings_of(trace, 10, "vb")
    assert (ring.kind, ring.drops, ring.not_full, ring.full) == ("veth", 10, 10, 0)
    assert (ring.taken.most, ring.size) == (0, VETH_RING)


@pytest.mark.needs("live_frames")
def test_a_cpumap_loses_what_its_ring_does_not_hold(here, programs):
    opened, cpu = programs
    size, sent = 8, 64
    number = opened.map("cpus").info().id
    opened.map("cpus").update(struct.pack("=I", cpu), struct.pack("=I", size))
    with DropTrace() as trace:
        live(opened.programs["aside"], 1)  # its thread is what leads to its ring
        assert until(lambda: trace._tracer.map("readers").lookup(struct.pack("=II", number, cpu)) is not None)
        live(opened.programs["aside"], sent)
        assert until(lambda: any(one.map_id == number for one in trace.read().rings))
        (ring,) = [one for one in trace.read().rings if one.map_id == number]
    assert (ring.kind, ring.queue, ring.drops) == ("cpumap", cpu, sent - size)
    assert (ring.full, ring.not_full, ring.size) == (sent - size, 0, size)


@pytest.mark.alone
@pytest.mark.needs("bpf_loop")
@pytest.mark.parametrize("qdisc", ["noqueue", "pfifo_fast"])
def test_a_held_veth_loses_at_its_full_ring_or_in_a_full_band(here, world, compile_c, qdisc):
    assert len(os.sched_getaffinity(0)) > 1, "the receiver is held up on another CPU than the sender's"
    band, sent = 3, 300
    world.ip(f"link set va txqueuelen {band}", here)
    world.run(*f"tc qdisc replace dev va root {qdisc}".split(), netns=here)
    with DropTrace() as trace, QdiscTrace(chosen(["va"])) as follow:
        with held(here, "va", "vb", compile_c(HOLD, "hold"), FRAME) as sender:
            flood(sender, FRAME, sent)
            least = sent - VETH_RING - band - 2  # the ring, the band, and what is on its way
            rings = rings_of(trace, least, "va", "vb")
            stands = standing(follow)
        dropped = link_stats()[ifindex("va")]["tx_dropped"]
    assert all(one.not_full == 0 for one in rings), rings
    kinds = {one.kind: one for one in rings}
    if qdisc == "noqueue" or not (STOPS_THE_QUEUE or "pfifo_fast" in kinds):
        ring = kinds["veth"]
        assert (ring.device.name, ring.drops) == ("vb", dropped)
        assert (ring.full + ring.freeing, ring.size) == (ring.drops, VETH_RING)
        assert sent - VETH_RING <= dropped <= sent - VETH_RING + 1  # the first frame may hold its slot still
        assert stands == []
        return
    ring = kinds["pfifo_fast"]
    assert (ring.device.name, ring.band, ring.size) == ("va", 1, band)
    assert (ring.full, ring.taken.least) == (ring.drops, band)
    (one,) = stands
    assert (one.verdict, one.kind, one.lockless) == ("stopped", "pfifo_fast", True)


def standing(follow):
    """The queues of this namespace that stand, by two looks."""
    import time

    start, before, then = time.monotonic(), lengths(follow), follow.read()
    time.sleep(0.06)
    since = follow.read().minus(then)
    sent = {(one.device.netns, one.device.ifindex, one.queue): one.all.packets for one in since.residences}
    return judge(before, lengths(follow), time.monotonic() - start, sent)


def test_a_shaper_that_holds_its_packets_is_not_called_stuck(here, world, monkeypatch):
    world.run(*"tc qdisc replace dev va root tbf rate 80bit burst 1600 limit 9000".split(), netns=here)
    with QdiscTrace(chosen(["va"])) as follow, Port("va") as port:
        for _ in range(4):
            port.send(ethernet(b"x", length=1000))
        (one,) = standing(follow)
        assert (one.verdict, one.device.name, one.packets) == ("timed", "va", 3)
        # the same queue under a qdisc of which nobody knows that it has a clock
        monkeypatch.setattr("xdpctl.trace.standing.TIMED", frozenset())
        (one,) = standing(follow)
        assert one.verdict == "stuck"


@contextlib.contextmanager
def xdp_socket(name, *, filled, rx):
    """An AF_XDP socket in copy mode with `filled` buffers to receive into and an rx ring of `rx` entries."""
    chunks, chunk = 64, 4096
    with socket.socket(44, socket.SOCK_RAW) as made, mmap.mmap(-1, chunks * chunk) as memory:
        import ctypes

        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        made.setsockopt(283, 4, struct.pack("=QQIIII", address, chunks * chunk, chunk, 0, 0, 0))
        for option, entries in ((5, 64), (6, 64), (2, rx)):
            made.setsockopt(283, option, struct.pack("=I", entries))
        offsets = struct.unpack("=16Q", made.getsockopt(283, 1, 128))
        producer, _, descriptors, _ = offsets[8:12]  # rx, tx, fill, completion: four words each
        with mmap.mmap(made.fileno(), descriptors + 64 * 8, offset=0x100000000) as fill:
            for number in range(filled):
                struct.pack_into("=Q", fill, descriptors + 8 * number, number * chunk)
            struct.pack_into("=I", fill, producer, filled)
            packed = struct.pack("=HHIII", 44, 2, ifindex(name), 0, 0)
            ctypes.CDLL(None).bind(made.fileno(), packed, len(packed))
            yield made
        del address


@pytest.mark.parametrize(
    ("kind", "filled", "rx", "got"),
    [("xsk-rx", 32, 4, 4), ("xsk-fill", 5, 32, 5)],
    ids=["rx full", "fill empty"],
)
def test_an_xdp_socket_loses_at_its_full_rx_ring_or_its_empty_fill_ring(
    here, compile_c, kind, filled, rx, got
):
    sent = 20
    with (
        Object.open(compile_c(XSK, "sockets")) as opened,
        xdp_socket("vb", filled=filled, rx=rx) as made,
        DropTrace() as trace,
        Port("va") as port,
    ):
        opened.load()
        opened.map("sockets").update(bytes(4), struct.pack("=I", made.fileno()))
        with link_xdp(opened.programs["into"].fd, ifindex("vb"), XDP_MODE_FLAGS["native"]):
            for _ in range(sent):
                port.send(udp4(bytes(20)))
            ours = chosen(["vb"])

            def lost():  # the kernel's own frames may be dropped elsewhere
                return [one for one in trace.read().about(ours).drops if one.via == "xdp_redirect_err"]

            assert until(lambda: sum(one.packets for one in lost()) >= sent - got)
            (drop,) = lost()
            report = trace.read().about(ours)
    assert drop.packets == sent - got
    if RELEASE < (5, 19):
        assert drop.reason == "ENOSPC"  # one errno for both: nothing says which ring
        assert report.rings == ()
        return
    assert drop.reason == {"xsk-rx": "ENOBUFS", "xsk-fill": "ENOMEM"}[kind]
    (ring,) = report.rings
    assert (ring.kind, ring.queue, ring.drops) == (kind, 0, sent - got)
    assert (ring.full, ring.not_full) == (sent - got, 0)
    assert (ring.size, ring.taken.most) == ((4, 4) if kind == "xsk-rx" else (64, 0))
