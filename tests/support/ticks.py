"""Samples and ticks made by hand: what top and metrics show without a kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xdpctl.host.pool_model import ListedPool
from xdpctl.trace.devices import Device
from xdpctl.trace.drops import Drop, DropReport, Ring, Span
from xdpctl.trace.redirect import Edge, RedirectReport
from xdpctl.trace.symbols import Symbol
from xdpctl.trace.tick import LinkFacts, ProgramRuns, Sample

HERE, POD = 100, 200
"""Inodes of namespaces: the caller's, and one called pod."""


def device(name: str, ifindex: int, netns: int = HERE) -> Device:
    """A device as a tracer names it."""
    return Device(netns, ifindex, name, "veth")


def edge(**more: Any) -> Edge:
    """Frames redirected from eth0 to veth0."""
    first = Edge(
        event="xdp_devmap_xmit", program_id=7, program="redirect", source=device("eth0", 2),
        target=device("veth0", 3), map_type=None, map_id=0, map_name=None, slot=None, verdict=None, errno=None,
        events=1, sent=10, dropped=0,
    )  # fmt: skip
    return replace(first, **more)


def drop(**more: Any) -> Drop:
    """Packets without a socket."""
    first = Drop(
        via="kfree_skb", device=device("eth0", 2), queue=None, reason="NO_SOCKET", place=Symbol("udp_rcv", 0, None),
        program_id=0, program=None, map_id=0, packets=3, bytes=300,
    )  # fmt: skip
    return replace(first, **more)


def ring(**more: Any) -> Ring:
    """A tap's ring that was not full."""
    first = Ring(
        kind="tap", device=device("tap0", 4), map_id=0, queue=1, band=None, qdisc=None, drops=5, full=3,
        freeing=0, not_full=2, unreadable=0, size=64, batch=16, taken=Span(10, 64, 64), unread=Span(0, 64, 64),
        producers=(),
    )  # fmt: skip
    return replace(first, **more)


def facts(name: str = "eth0", ifindex: int = 2, **more: Any) -> LinkFacts:
    """A veth without a program."""
    return LinkFacts(HERE, ifindex, name, "veth", True, None, 0, "veth")._replace(**more)


def counted(rx: int = 0, tx: int = 0, *, dropped: int = 0) -> tuple[int, ...]:
    """Counters of a link in the kernel's order."""
    return (rx, tx, rx * 100, tx * 100, 0, 0, dropped, 0, *[0] * 17)


def sample(at: float = 10.0, **more: Any) -> Sample:
    """Nothing anywhere."""
    first = Sample(
        at=at, time=1_700_000_000 + at, links={}, counters={}, verdicts={}, programs={}, counted_seconds=at,
        redirects=RedirectReport(at, (), 0), drops=DropReport(at, (), (), 0), pools=(), boottime=1000.0 + at,
        labels={HERE: "", POD: "pod"}, notes=(),
    )  # fmt: skip
    return replace(first, **more)


def busy(at: float, times: int) -> Sample:
    """A machine on which everything happened so many times."""
    xdp = facts("eth0", 2, mode="native", program_id=7)
    generic = facts("tap0", 4, mode="generic", program_id=8, kind="tun", driver="tun")
    bare = facts("veth0", 3)
    edges = (
        edge(events=times, sent=90 * times),
        edge(events=times, dropped=10 * times, sent=0, errno="ENXIO"),
        edge(events=times, event="xdp_exception", target=None, verdict="ABORTED", sent=0, dropped=times),
        edge(
            events=times, event="xdp_cpumap_enqueue", source=None, target=None, map_type="cpumap", map_id=9,
            map_name="cpus", slot=1, program_id=0, program=None, sent=times,
        ),
    )  # fmt: skip
    return sample(
        at,
        links={(HERE, one.ifindex): one for one in (xdp, bare, generic)},
        counters={
            (HERE, 2): counted(100 * times, 1), (HERE, 3): counted(5, 7 * times, dropped=times), (HERE, 4): counted(),
        },
        verdicts={
            (HERE, 2): {
                "seen": 100 * times, "drop": 4 * times, "tx": times, "redirect": 90 * times, "refused": 0,
            }
        },
        programs={
            7: ProgramRuns(7, "xdp", "redirect", 100 * times, 20_000 * times, ("eth0",)),
            8: ProgramRuns(8, "xdp", "idle", 0, 0, ("tap0",)),
            9: ProgramRuns(9, "tracing", "unseen", 0, 0),
        },
        redirects=RedirectReport(at, edges, 0),
        drops=DropReport(at, (drop(packets=3 * times),), (ring(drops=5 * times, not_full=2 * times),), times - 1),
        pools=(
            ListedPool(
                1, HERE, 2, 20, 0, 128, 524288, None,
                {"alloc_slow": 2 * times, "recycle_ring": 9 * times, "recycle_ring_full": times},
            ),
            ListedPool(2, HERE, None, None, None, 4, None, 1000 - 90, None),
        ),
    )  # fmt: skip
