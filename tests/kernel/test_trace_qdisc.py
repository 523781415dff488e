"""`trace qdisc` times every packet once, says who sent it, and what the live qdisc is."""

from __future__ import annotations

import contextlib
import time

import pytest
from kernels import EMULATED

from xdpctl.errors import NetlinkError
from xdpctl.netlink import netns
from xdpctl.netlink.interfaces import ifindex
from xdpctl.trace.devices import chosen
from xdpctl.trace.frames import Port, ethernet
from xdpctl.trace.qdisc import QdiscTrace

pytestmark = pytest.mark.kernel

FRAMES = 200
FRAME = ethernet(b"x", destination="02:00:00:00:00:99")


@pytest.fixture(scope="module")
def here(world_of_module):
    name = world_of_module.namespace()
    world_of_module.veth("va", "vb", netns_a=name, netns_b=name)

    def with_qdisc(words):
        world_of_module.run(*f"tc qdisc replace dev va root {words}".split(), netns=name)
        return name

    return with_qdisc


@pytest.mark.parametrize(("qdisc", "lockless"), [("pfifo_fast", True), ("pfifo", False), ("noqueue", False)])
def test_every_packet_is_timed_once_and_the_live_qdisc_is_told(here, qdisc, lockless):
    with netns.enter(here(qdisc)), QdiscTrace(chosen(["va"])) as trace, Port("va") as port:
        for _ in range(FRAMES):
            port.send(FRAME)
        (queue,) = trace.queues(ifindex("va"))
        report = trace.read()
    (residence,) = report.residences
    assert (queue.kind, queue.lockless, queue.stopped) == (qdisc, lockless, False)
    assert residence.device.name == "va"
    assert residence.all.packets == FRAMES
    assert 0 < residence.all.percentile(0.5) <= residence.all.percentile(0.99) <= residence.all.most_ns
    assert (report.waiting, report.dropped, report.lost) == ((), 0, 0)


def test_a_packet_that_waits_is_told_and_then_timed(here):
    """tbf lets the first frames pass at once and holds the next for as long as its rate says."""
    name = here("tbf rate 12kbit burst 1600 latency 10s")
    frame = ethernet(b"x", destination="02:00:00:00:00:99", length=1000)
    with netns.enter(name), QdiscTrace(chosen(["va"])) as trace, Port("va") as port:
        for _ in range(3):
            port.send(frame)
        (waiting,) = trace.read().waiting
        assert (waiting.device.name, waiting.packets) in (("va", 2), ("va", 1))  # one, where sending is slow
        assert waiting.oldest_ns > 0
        end = time.monotonic() + 10
        while trace.read().waiting and time.monotonic() < end:
            time.sleep(0.02)
        (residence,) = trace.read().residences
        assert residence.all.packets == 3
        # 400 bytes lack for the second and 1,400 for the third, at 1.5 bytes a millisecond
        assert residence.all.above(20_000_000) in (2, 1)
        assert residence.by_softirq in ((3, 2, 1) if EMULATED else (2, 1))


def test_packets_dropped_while_they_wait_do_not_stay(here):
    name = here("tbf rate 8kbit burst 1600 limit 1600")
    frame = ethernet(b"x", destination="02:00:00:00:00:99", length=1000)
    with netns.enter(name), QdiscTrace(chosen(["va"])) as trace, Port("va") as port:
        for _ in range(6):
            with contextlib.suppress(NetlinkError):  # ENOBUFS: the qdisc is full
                port.send(frame)
        report = trace.read()
        waiting = sum(one.packets for one in report.waiting)
        sent = sum(one.all.packets for one in report.residences)
        assert (sent, sent + waiting + report.dropped) == (1, 6)
        assert report.dropped > 0


def test_devices_that_were_not_asked_for_are_not_followed(here, world_of_module):
    name = here("pfifo")
    with netns.enter(name), QdiscTrace(chosen(["vb"])) as trace, Port("va") as port:
        port.send(FRAME)
        assert trace.read().residences == ()
        assert trace.look(99999) is None
