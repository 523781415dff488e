"""What happened between two looks at a machine: links, verdicts, programs, redirects, drops, pools. Pure.

A `Sample` holds totals as the kernel counts them, a `Tick` the differences of two: counts of the time between, exact.
Rates are counts by `seconds`. What can't be known is None. Rows are named tuples, as there are thousands a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.records import dataclass
from xdpctl.trace.redirect import VERDICTS
from xdpctl.trace.xdp_actions import ABORTED, DROP, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xdpctl.host.pool_model import ListedPool
    from xdpctl.trace.devices import Device
    from xdpctl.trace.drops import DropReport
    from xdpctl.trace.redirect import Edge, RedirectReport

Key = tuple[int, int]
"""Inode of a network namespace, and ifindex."""


class LinkFacts(NamedTuple):
    """What changes seldom about a link."""

    netns: int
    ifindex: int
    name: str
    kind: str | None
    """rtnl's (``veth``); None for hardware."""
    up: bool
    mode: str | None
    """native, generic, offload, multi; None: no XDP program."""
    program_id: int
    """0: none."""
    driver: str | None
    """As ethtool says; None: not asked (no XDP program), or it does not say."""


class Counters(NamedTuple):
    """Some of struct rtnl_link_stats64."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    errors: int = 0
    dropped: int = 0
    """rx_dropped, tx_dropped and rx_missed_errors."""


def counters(values: Sequence[int]) -> Counters:
    """Those of a link, from its counters in the order of `link_stats.NAMES`."""
    missed = values[15] if len(values) > 15 else 0
    return Counters(
        values[0], values[1], values[2], values[3], values[4] + values[5], values[6] + values[7] + missed
    )


class ProgramRuns(NamedTuple):
    """A loaded program, and what was counted of its runs."""

    id: int
    type: str
    name: str | None
    runs: int
    run_ns: int
    where: tuple[str, ...] = ()
    """Links and hooks that it runs on, as far as they are watched."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one moment."""

    at: float
    """Seconds, time.monotonic()."""
    time: float
    """Seconds of the epoch."""
    links: Mapping[Key, LinkFacts]
    counters: Mapping[Key, Sequence[int]]
    """In the order of `link_stats.NAMES`."""
    verdicts: Mapping[Key, Mapping[str, int]]
    """By the drivers' own counters; see `xdp_actions`. Only links with a native program whose driver counts."""
    programs: Mapping[int, ProgramRuns] | None
    """None: we may not list programs."""
    counted_seconds: float
    """Of the time so far, how long the kernel counted runs."""
    redirects: RedirectReport | None
    """None: the tracer is not there (see `notes`); as `drops`."""
    drops: DropReport | None
    pools: tuple[ListedPool, ...] | None
    """None: this kernel lists none (before 6.8)."""
    boottime: float
    """CLOCK_BOOTTIME, seconds: what a pool's `detach_time` counts from."""
    labels: Mapping[int, str]
    """Inode -> how people name a namespace; "" for the caller's."""
    notes: tuple[str, ...] = ()
    """What could not be looked at, and why."""


class Interface(NamedTuple):
    """A link and its frames."""

    facts: LinkFacts
    program: str | None
    counts: Counters
    verdicts: Mapping[str, int | None] | None
    """Frames by `xdp_actions.ACTIONS`; None for the whole: no XDP program; for one: it can't be known."""

    @property
    def packets(self) -> int:
        """Both ways."""
        return self.counts.rx_packets + self.counts.tx_packets


class Program(NamedTuple):
    """A program and its runs."""

    id: int
    type: str
    name: str | None
    runs: int
    """That were counted (see `Tick.counted_seconds`)."""
    run_ns: int
    where: tuple[str, ...]

    @property
    def cost_ns(self) -> float | None:
        """Nanoseconds a run, which is a frame; None: it did not run."""
        return self.run_ns / self.runs if self.runs else None


class Route(NamedTuple):
    """A way that redirected frames take, and how they fare: the edges of the tracer that differ only in the errno."""

    way: str
    """redirect, tx (XDP_TX in bulks), exception (no verdict that could be done), cpumap-in, cpumap-out."""
    program_id: int
    program: str | None
    source: Device | None
    target: Device | None
    map_type: str | None
    map_id: int
    map_name: str | None
    slot: int | None
    verdict: str | None
    sent: int
    lost: int
    errnos: Mapping[str, int]
    """Frames lost by errno; those of drivers that say none are "none"."""

    @property
    def error_rate(self) -> float:
        """Share of the frames that were lost."""
        return self.lost / (self.sent + self.lost) if self.sent + self.lost else 0.0


class Pool(NamedTuple):
    """A page pool, and what went in and out."""

    pool: ListedPool
    interface: str | None
    statistics: Mapping[str, int] | None
    """Counts of the time between; None: a kernel without CONFIG_PAGE_POOL_STATS, or a pool that is new."""
    closing_seconds: float | None
    """How long its shutdown has waited for pages; None: it is in use."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened between two samples."""

    time: float
    """Seconds of the epoch, at the end."""
    seconds: float
    counted_seconds: float
    """Of these, how long programs' runs were counted."""
    interfaces: tuple[Interface, ...]
    programs: tuple[Program, ...] | None
    routes: tuple[Route, ...] | None
    drops: DropReport | None
    pools: tuple[Pool, ...] | None
    lost: int
    """Events that tracers could not count."""
    labels: Mapping[int, str]
    notes: tuple[str, ...]


def tick(before: Sample, after: Sample) -> Tick:
    """What happened between two samples. A link that is new since tells nothing yet."""
    redirects = None if after.redirects is None else after.redirects.minus(before.redirects)
    drops = None if after.drops is None else after.drops.minus(before.drops)
    made = None if redirects is None else routes(redirects.edges)
    return Tick(
        time=after.time,
        seconds=max(after.at - before.at, 1e-9),
        counted_seconds=max(after.counted_seconds - before.counted_seconds, 0.0),
        interfaces=tuple(_interfaces(before, after, made)),
        programs=_programs(before.programs, after.programs),
        routes=made,
        drops=drops,
        pools=_pools(before, after),
        lost=(redirects.lost if redirects else 0) + (drops.lost if drops else 0),
        labels=after.labels,
        notes=after.notes,
    )


def _interfaces(before: Sample, after: Sample, made: Iterable[Route] | None) -> Iterable[Interface]:
    aborted = aborted_by_link(made) if made is not None else None
    names = after.programs or {}
    nothing = Counters()
    for key, facts in after.links.items():
        new, old = after.counters.get(key), before.counters.get(key)
        counts = nothing
        if new is not None and old is not None and new != old:
            # a counter that fell was reset: nobody knows by how much it grew since
            counts = Counters(*(max(0, a - b) for a, b in zip(counters(new), counters(old), strict=True)))
        program = names.get(facts.program_id)
        yield Interface(
            facts,
            program.name if program else None,
            counts,
            _verdicts(facts, before.verdicts.get(key), after.verdicts.get(key), aborted)
            if facts.mode
            else None,
        )


def aborted_by_link(made: Iterable[Route]) -> dict[Key, int]:
    """Frames of verdict XDP_ABORTED, or of none that exists, by the link they came in on."""
    found: dict[Key, int] = {}
    for one in made:
        if one.way == "exception" and one.source is not None and one.verdict not in VERDICTS[1:]:
            key = (one.source.netns, one.source.ifindex)
            found[key] = found.get(key, 0) + one.lost
    return found


def _verdicts(
    facts: LinkFacts,
    old: Mapping[str, int] | None,
    new: Mapping[str, int] | None,
    aborted: Mapping[Key, int] | None,
) -> dict[str, int | None]:
    counted = {}
    if old is not None and new is not None:
        counted = {what: max(0, value - old.get(what, 0)) for what, value in new.items()}
    return with_aborted(verdicts(facts.driver, counted), (facts.netns, facts.ifindex), aborted)


def with_aborted(
    found: dict[str, int | None], key: Key, aborted: Mapping[Key, int] | None
) -> dict[str, int | None]:
    """Verdicts with what the tracer knows of XDP_ABORTED, which most drivers count as a drop."""
    if found[ABORTED] is None and aborted is not None:
        found[ABORTED] = times = aborted.get(key, 0)
        if found[DROP] is not None:
            found[DROP] = max(0, (found[DROP] or 0) - times)
    return found


def _programs(
    before: Mapping[int, ProgramRuns] | None, after: Mapping[int, ProgramRuns] | None
) -> tuple[Program, ...] | None:
    if after is None:
        return None
    none = ProgramRuns(0, "", None, 0, 0)
    old = before or {}
    return tuple(
        Program(
            one.id,
            one.type,
            one.name,
            max(0, one.runs - old.get(number, none).runs),
            max(0, one.run_ns - old.get(number, none).run_ns),
            one.where,
        )
        for number, one in after.items()
    )


WAYS = {
    "xdp_bulk_tx": "tx",
    "xdp_exception": "exception",
    "xdp_cpumap_enqueue": "cpumap-in",
    "xdp_cpumap_kthread": "cpumap-out",
}
"""Tracepoint -> way; the others are redirects."""


def routes(edges: Iterable[Edge]) -> tuple[Route, ...]:
    """Edges put together that differ only in what went wrong; most losses first."""
    found: dict[tuple[object, ...], list[Edge]] = {}
    for one in edges:
        if one.event != "xdp_redirect":  # the same frames, counted at the call
            way = (WAYS.get(one.event, "redirect"), one.program_id, one.source, one.target)
            found.setdefault((*way, one.map_type, one.map_id, one.slot, one.verdict), []).append(one)
    made = []
    for parts in found.values():
        first = parts[0]
        errnos: dict[str, int] = {}
        for one in parts:
            if one.dropped:
                name = one.errno or "none"
                errnos[name] = errnos.get(name, 0) + one.dropped
        made.append(
            Route(
                WAYS.get(first.event, "redirect"), first.program_id, first.program, first.source, first.target,
                first.map_type, first.map_id, first.map_name, first.slot, first.verdict,
                sum(one.sent for one in parts), sum(one.dropped for one in parts), errnos,
            )
        )  # fmt: skip
    return tuple(sorted(made, key=lambda one: (-one.lost, -one.sent, one.way)))


def _pools(before: Sample, after: Sample) -> tuple[Pool, ...] | None:
    if after.pools is None:
        return None
    old = {(one.netns, one.id): one for one in before.pools or ()}
    made = []
    for one in after.pools:
        link = after.links.get((one.netns, one.ifindex or 0))
        earlier = old.get((one.netns, one.id))
        statistics = None
        if earlier is not None and earlier.statistics is not None and one.statistics is not None:
            was = earlier.statistics
            statistics = {name: max(0, value - was.get(name, 0)) for name, value in one.statistics.items()}
        made.append(
            Pool(
                one,
                link.name if link else None,
                statistics,
                None if one.detach_time is None else max(0.0, after.boottime - one.detach_time),
            )
        )
    return tuple(made)
