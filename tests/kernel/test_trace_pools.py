"""The page pool tracer against pools whose pages we hold on purpose: what it tells is what was sent.

Three shutdowns wait at once, each for another reason: frames in an unread socket behind a veth's native XDP (A), live
frames in an unread socket (B), live frames in a cpumap whose program is slow (C). The kernel asks once a second.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time
from dataclasses import dataclass, field

import pytest
from kernels import RELEASE

from xdpctl.bpf import net, query
from xdpctl.bpf.object import Object
from xdpctl.errors import XdpctlError
from xdpctl.libbpf import uapi
from xdpctl.netlink import netns, rtnl
from xdpctl.trace.frames import udp4
from xdpctl.trace.pool_records import RETRIES_EVERY, Shutdown
from xdpctl.trace.pools import PoolTracer

pytestmark = pytest.mark.kernel

SENT = 64
"""Live frames: as many pages as a pool takes from the allocator at once (PP_ALLOC_CACHE_REFILL)."""
BATCH = {"B": 53, "C": 47}
"""A pool is made for a batch, so its size tells ours from those of tests that run beside us."""
BURN_MS = "-DBURN_MS=20"
"""Of the CPU, for each frame in the cpumap."""
SO_RCVBUFFORCE = 33  # Linux has it, Python does not name it
PORTS = {"A": 901, "B": 902}

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 64); __uint(key_size, 4); __uint(value_size, 8); }
	cpus SEC(".maps");
const volatile unsigned cpu;
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int aside(struct xdp_md *ctx) { return bpf_redirect_map(&cpus, cpu, 0); }
static long over(__u32 turn, __u64 *end) { return bpf_ktime_get_ns() >= *end; }
SEC("xdp/cpumap") int slow(struct xdp_md *ctx)
{
	__u64 end = bpf_ktime_get_ns() + BURN_MS * 1000000ULL;
	bpf_loop(1 << 23, over, &end, 0);
	return XDP_DROP;
}
char _license[] SEC("license") = "GPL";
"""

RECYCLES_SKBS = RELEASE >= (6, 4)
"""__xdp_build_skb_from_frame() marks the skb for recycling; before, a page left its pool when it became an skb."""


def key(pool):
    return pool.address, pool.seen


@dataclass
class Story:
    """What two tracers saw from the first frame to the end of the last pool."""

    pools: dict = field(default_factory=dict)
    """Recipe -> (address, first seen) of its pool: the next pool may get the same address."""
    events: list = field(default_factory=list)
    second: list = field(default_factory=list)
    live: object = None
    """The veth's pool while XDP was on, and the same as it lay in memory."""
    lying: object = None
    got: dict = field(default_factory=dict)
    """Recipe -> datagrams that were waiting."""
    drained: float = 0.0
    at_drain: object = None
    """The reading just before the sockets were read."""
    last: object = None

    def attempts(self, recipe):
        return [one for one in self.events if one.kind == "attempt" and key(one.pool) == self.pools[recipe]]


def bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
    made.bind(("192.0.2.2", port))
    made.setblocking(False)
    return made


def drain(waiting: socket.socket) -> int:
    got = 0
    with contextlib.suppress(BlockingIOError):
        while waiting.recv(2048):
            got += 1
    return got


@contextlib.contextmanager
def one_cpu():
    """This process on one CPU: a freed frame waits on the list of the CPU that made it, else for seconds."""
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, before)


def veths(world) -> tuple[str, str]:
    """Two namespaces with a veth each, 192.0.2.2 here and 192.0.2.1 there."""
    here, there = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=there, netns_b=here)
    for name, space, address in (("va", there, "192.0.2.1"), ("vb", here, "192.0.2.2")):
        world.run("ethtool", "-K", name, "gro", "off", netns=space, check=False)
        world.ip(f"addr add {address}/24 dev {name}", space)
    return here, there


def send_over_the_veth(there: str, count: int) -> None:
    with netns.enter(there), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("192.0.2.2", PORTS["A"]))
        for _ in range(count):
            sender.send(bytes(100))


def new_pool(story: Story, events: list, size: int) -> tuple:
    """Key of the pool of that size that just tried to shut down."""
    story.events += events
    return next(key(one.pool) for one in reversed(events) if one.kind == "attempt" and one.pool.size == size)


@pytest.fixture(scope="module")
def story(compile_c, world_of_module):
    with contextlib.ExitStack() as held:
        cpu = held.enter_context(one_cpu())
        opened = held.enter_context(Object.open(compile_c(SOURCE, "pools", BURN_MS)))
        next(one for name, one in opened.maps.items() if name.endswith(".rodata")).patch_initial_value(
            0, struct.pack("=I", cpu)
        )
        opened.load()
        opened.maps["cpus"].update(
            struct.pack("=I", cpu), struct.pack("=Ii", 192, opened.programs["slow"].fd)
        )
        here, there = veths(world_of_module)
        held.enter_context(netns.enter(here))
        yield tell(opened, there, held)


def tell(opened: Object, there: str, held: contextlib.ExitStack) -> Story:
    told = Story()
    index = socket.if_nametoindex("vb")
    mac = next(one.address for one in rtnl.links() if one.ifindex == index)
    sockets = {name: held.enter_context(bound(port)) for name, port in PORTS.items()}
    with PoolTracer() as tracer, PoolTracer() as other:
        net.xdp_attach(index, opened.programs["pass"].fd, uapi.XDP_FLAGS_DRV_MODE)
        send_over_the_veth(there, 100)
        reading = tracer.read()
        told.live = next(
            (one for one in reading.pools if one.ifindex == index and one.interface == "vb"), None
        )
        told.lying = tracer.veth_pool(index)
        told.events += reading.events
        for recipe, name in (("B", "pass"), ("C", "aside")):
            frame = udp4(bytes(64), destination=mac, ports=(900, PORTS.get(recipe, 9)))
            opened.programs[name].test_run(
                frame, repeat=SENT, ifindex=index, live_frames=True, batch_size=BATCH[recipe]
            )
            told.pools[recipe] = new_pool(told, tracer.events(), BATCH[recipe])
        if told.live is not None:
            told.pools["A"] = key(told.live)
        net.xdp_attach(index, -1, uapi.XDP_FLAGS_DRV_MODE)
        start = time.monotonic()
        waiting = set(told.pools.values())
        while waiting and time.monotonic() < start + 8:
            fresh = tracer.events(0.1)
            told.events += fresh
            waiting -= {key(one.pool) for one in fresh if one.kind == "attempt" and not one.inflight}
            if not told.drained and time.monotonic() > start + 1.2:
                told.at_drain = tracer.read()
                told.events += told.at_drain.events
                told.drained = told.at_drain.at
                told.got = {name: drain(one) for name, one in sockets.items()}
        told.last = tracer.read()
        told.events += told.last.events
        told.second = other.read().events
    return told


@pytest.mark.needs("live_frames")
def test_live_frames_in_an_unread_socket_are_out_exactly_as_many_as_were_sent(story):
    first, *later = story.attempts("B")
    if not RECYCLES_SKBS:
        assert (first.inflight, first.pool.hold, first.pool.release, later) == (0, SENT, SENT, [])
        return
    assert (first.inflight, first.pool.hold, first.pool.release) == (SENT, SENT, 0)
    held = [one for one in later if one.at < story.drained]
    assert held
    assert {(one.inflight, one.pool.hold, one.pool.release) for one in held} == {(SENT, SENT, 0)}
    assert story.got["B"] == SENT


@pytest.mark.needs("live_frames")
def test_the_kernel_asks_once_a_second_until_the_last_page_is_back_and_the_tracer_tells_each_time(story):
    for recipe in story.pools:
        attempts = story.attempts(recipe)
        gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(attempts)]
        # the kernel's timer is never early by more than its tick; a busy machine makes it late
        assert all(gap >= RETRIES_EVERY - 0.05 for gap in gaps), (recipe, gaps)
        assert [one.pool.attempts for one in attempts] == list(range(1, len(attempts) + 1))
        assert [one.inflight for one in attempts][-1] == 0
        assert all(one.inflight > 0 for one in attempts[:-1])
        assert attempts[-1].pool.stalls == len(attempts) - 1


@pytest.mark.needs("live_frames")
def test_a_slow_cpumap_gives_its_frames_back_one_after_the_other(story):
    counts = [one.inflight for one in story.attempts("C")]
    assert 0 < counts[0] <= SENT  # some may be through already when the kernel first asks
    assert counts == sorted(counts, reverse=True)
    assert {one.pool.hold for one in story.attempts("C")} == {SENT}
    assert counts[-1] == 0
    assert story.attempts("C")[-1].pool.release == SENT


@pytest.mark.needs("live_frames")
def test_pools_that_serve_xdp_say_with_which_memory_they_end(story):
    for recipe in ("B", "C"):
        last = story.attempts(recipe)[-1]
        ends = [
            one for one in story.events if one.kind == "disconnected" and one.pool.mem_id == last.pool.mem_id
        ]
        assert [one.pool.address for one in ends] == [last.pool.address]
        assert ends[0].at >= last.at


@pytest.mark.needs("live_frames")
def test_a_veths_pool_is_named_by_its_interface_and_keeps_its_pages_until_the_socket_is_read(story):
    if RELEASE < (6, 6):  # veth has no page pool
        assert "A" not in story.pools
        return
    assert story.live.interface == "vb"
    assert story.live.shutdown(story.drained) is Shutdown.LIVE
    first, *_ = story.attempts("A")
    assert first.inflight == first.pool.hold - first.pool.release > 0
    assert story.got["A"] == 100
    waiting = next(one for one in story.at_drain.pools if key(one) == story.pools["A"])
    assert waiting.inflight == first.inflight
    assert waiting.shutdown(story.drained) is Shutdown.CLOSING


@pytest.mark.needs("live_frames")
def test_a_veths_pool_can_be_looked_up_while_it_traces_nothing(story):
    if RELEASE < (6, 6):  # veth has no page pool
        assert story.lying is None
        return
    assert (story.lying.address, story.lying.interface) == (story.live.address, "vb")
    assert (story.lying.hold, story.lying.inflight) == (story.live.hold, story.live.inflight)


@pytest.mark.needs("live_frames")
def test_nothing_is_kept_of_pools_that_ended(story):
    assert {key(one) for one in story.last.pools}.isdisjoint(story.pools.values())


@pytest.mark.needs("live_frames")
def test_two_tracers_at_once_tell_the_same(story):
    sizes = set(BATCH.values())
    mine, theirs = (
        [(one.kind, one.pool.address, one.inflight) for one in events if one.pool.size in sizes]
        for events in (story.events, story.second)
    )
    assert mine == theirs
    assert mine


def test_a_tracer_leaves_no_program_behind():
    with PoolTracer() as tracer:
        ours = set()
        for one in tracer._object.programs.values():
            with contextlib.suppress(XdpctlError):  # not for this kernel
                ours.add(one.info().id)
        tracer.read()
    assert len(ours) >= 5
    left = ours
    deadline = time.monotonic() + 5  # the kernel frees them after a grace period
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = ours & {one.id for one in query.programs()}
    assert not left


@pytest.mark.needs("live_frames")
def test_pools_beyond_its_room_are_counted_as_lost(story, compile_c):
    with Object.open(compile_c(SOURCE, "pools", BURN_MS)) as opened, PoolTracer(most=1) as tracer:
        opened.load()
        for _ in range(2):
            opened.programs["pass"].test_run(bytes(64), repeat=1, live_frames=True)
        reading = tracer.read()
    assert reading.lost_events == 0
    assert reading.lost_pools + len(reading.events) >= 2
