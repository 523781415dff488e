"""`trace drops` counts every lost packet once, and looks into the ring that did not take it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from kernels import EMULATED
from live import running, until
from tap import Taps

from xdpctl.btf import kernel
from xdpctl.netlink import netns
from xdpctl.trace.devices import chosen
from xdpctl.trace.drops import DropTrace
from xdpctl.trace.frames import Port, ethernet, udp4
from xdpctl.trace.tracer import arguments_of

pytestmark = pytest.mark.kernel

MAC = "02:00:00:00:00:99"
FRAMES = 3_000 if EMULATED else 40_000
QUEUES, SIZE = 4, 64
SO_SNDBUFFORCE = 32


def gives_reasons():
    """Linux 5.17: kfree_skb has a third argument."""
    return (arguments_of(kernel.vmlinux(), "kfree_skb") or 0) > 2


def describes(name):
    """Whether this kernel describes the type of a driver: in modules from Linux 5.11 on."""
    blobs = [path.read_bytes() for path in Path("/sys/kernel/btf").iterdir()]
    return any(b"\0" + name.encode() + b"\0" in blob for blob in blobs)


def flood(interface, frames, count):
    """Send through a packet socket, whatever becomes of it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        sender.setsockopt(
            socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20
        )  # what lies in rings stays charged to it
        for number in range(count):
            sender.send(frames[number % len(frames)])


def test_a_macvtap_nobody_reads_loses_exactly_what_its_rings_do_not_hold(world, tmp_path):
    here = world.namespace()
    world.veth("pa", "pb", netns_a=here, netns_b=here)
    world.ip(f"link add link pb name mt0 address {MAC} txqueuelen {SIZE} type macvtap mode bridge", here)
    world.ip("link set mt0 up", here)
    frames = [udp4(b"x" * 20, destination=MAC, ports=(1000 + number, 9)) for number in range(64)]
    with netns.enter(here):
        world.run("mount", "-t", "sysfs", "sysfs", "/sys")
        try:
            taps = Taps("mt0", QUEUES, tmp_path)
            with DropTrace() as trace:
                flood("pa", frames, FRAMES)
                lost = FRAMES - QUEUES * SIZE
                ours = chosen(["mt0"])
                assert until(lambda: trace.read().about(ours).packets >= lost)
                report = trace.read().about(ours)
            dropped = int(Path("/sys/class/net/mt0/statistics/rx_dropped").read_text())
            drained = taps.drain()
            taps.close()
        finally:
            world.run("umount", "/sys")
    assert (report.packets, dropped, drained, report.lost) == (lost, lost, [SIZE] * QUEUES, 0)
    assert {one.place.name for one in report.drops} == {"tap_handle_frame"}
    if not gives_reasons():
        assert {one.reason for one in report.drops} == {None}
        assert report.rings == ()  # nothing says that it was a ring
        return
    assert {one.reason for one in report.drops} == {"FULL_RING"}
    assert sum(one.drops for one in report.rings) == lost
    assert {one.kind for one in report.rings} == {"tap"}
    if not describes("macvtap_dev"):
        assert {one.unreadable for one in report.rings} == {lost}
        return
    assert sorted(one.queue for one in report.rings) == list(range(QUEUES))
    for ring in report.rings:
        assert (ring.full, ring.not_full, ring.size) == (ring.drops, 0, SIZE)
        assert (ring.taken.least, ring.taken.most, ring.unread.last) == (SIZE, SIZE, SIZE)
        assert sum(one.packets for one in ring.producers) == ring.drops
        assert {one.source.name for one in ring.producers} == {"pb"}


@pytest.mark.needs("drop_reasons")
@pytest.mark.needs("module_types")
def test_frames_that_are_read_meanwhile_tell_slots_taken_from_frames_unread(world, tmp_path):
    """A reader frees slots a batch at a time: right after one read, all are taken still."""
    here = world.namespace()
    world.veth("pa", "pb", netns_a=here, netns_b=here)
    world.ip(f"link add link pb name mt0 address {MAC} txqueuelen {SIZE} type macvtap mode bridge", here)
    world.ip("link set mt0 up", here)
    frame = udp4(b"x" * 20, destination=MAC)
    with netns.enter(here):
        world.run("mount", "-t", "sysfs", "sysfs", "/sys")
        try:
            taps = Taps("mt0", 1, tmp_path)
            with DropTrace() as trace:
                flood("pa", [frame], SIZE)
                for _ in range(3):
                    os.read(taps.queues[0], 65536)
                flood("pa", [frame], 1)
                ours = chosen(["mt0"])
                assert until(lambda: trace.read().about(ours).packets == 1)
                (ring,) = trace.read().about(ours).rings
            taps.close()
        finally:
            world.run("umount", "/sys")
    assert (ring.full, ring.taken.last, ring.unread.last) == (1, SIZE, SIZE - 3)


def test_a_native_redirect_nobody_takes_is_lost_with_its_errno(world):
    here, far = world.namespace(), world.namespace()
    world.veth("s0", "s1", netns_a=here, netns_b=far)
    world.veth("t0", "t1", netns_a=here, netns_b=far)
    with running("redirect", "s0", netns_name=here, target="t0"), DropTrace() as trace:
        with netns.enter(here):
            ours = chosen(["s0", "t0"])
        with netns.enter(far), Port("s1") as port:
            for _ in range(50):
                port.send(ethernet(b"x", destination=MAC))
        assert until(lambda: trace.read().about(ours).packets >= 50)
        (drop,) = trace.read().about(ours).drops
    assert drop.packets == 50
    assert (drop.via, drop.reason) in {("xdp_redirect_err", "EOPNOTSUPP"), ("xdp_devmap_xmit", "ENXIO")}


def test_xdp_drop_in_generic_mode_names_the_program(world):
    here, far = world.namespace(), world.namespace()
    world.veth("s0", "s1", netns_a=here, netns_b=far)
    with running("drop", "s0", netns_name=here, generic=True) as program, DropTrace() as trace:
        with netns.enter(here):
            ours = chosen(["s0"])
        with netns.enter(far), Port("s1") as port:
            for _ in range(50):
                port.send(ethernet(b"x", destination=MAC))
        assert until(lambda: trace.read().about(ours).packets >= 50)
        (drop,) = trace.read().about(ours).drops
        (dropping,) = program.programs.values()
        assert (drop.packets, drop.program_id) == (50, dropping.info().id)
        assert "xdp" in drop.place.name


@pytest.mark.needs("drop_reasons")
def test_a_full_qdisc_is_told_with_its_length_and_limit(world):
    here = world.namespace()
    world.veth("q0", "q1", netns_a=here, netns_b=here)
    # 8 kbit/s pass: one frame at once, then nothing for a long while
    world.run(
        *"tc qdisc replace dev q0 root handle 1: tbf rate 8kbit burst 1600 limit 1600".split(), netns=here
    )
    world.run(*"tc qdisc replace dev q0 parent 1:1 pfifo limit 3".split(), netns=here, check=False)
    frame = ethernet(b"x", destination=MAC, length=1000)
    with netns.enter(here), DropTrace() as trace:
        flood_until_refused("q0", frame, 20)
        ours = chosen(["q0"])
        assert until(lambda: trace.read().about(ours).packets > 0)
        report = trace.read().about(ours)
    assert {one.kind for one in report.rings} == {"qdisc"}
    (ring,) = report.rings
    assert (ring.qdisc, ring.drops) == ("tbf", sum(one.packets for one in report.drops))


def flood_until_refused(interface, frame, count):
    """As `flood`; a qdisc that is full answers ENOBUFS."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        for _ in range(count):
            try:
                sender.send(frame)
            except OSError:
                pass
