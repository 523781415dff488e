"""What ``xdpctl metrics`` exposes: one table of metrics, each with how its samples are read from a `Sample`. Pure.

Names and units follow the conventions of Prometheus: base units, ``_total`` for counters, nothing in a label that
changes from one scrape to the next. Counters of links and pools are the kernel's own totals; those of redirects and
drops begin when the command starts. What can't be known has no sample, so that an absent series never reads as zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl import __version__
from xdpctl.records import dataclass
from xdpctl.trace.tick import aborted_by_link, counters, routes
from xdpctl.trace.xdp_actions import verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from xdpctl.host.pool_model import ListedPool
    from xdpctl.trace.devices import Device
    from xdpctl.trace.tick import Counters, Key, LinkFacts, Route, Sample

Row = tuple[tuple[str, ...], float]
"""Values of the labels, in their order, and the value."""


class Metric(NamedTuple):
    """A row of the table."""

    name: str
    """Without the ``_total`` of counters."""
    kind: str
    """counter or gauge."""
    labels: tuple[str, ...]
    help: str
    read: Callable[[Look], Iterable[Row]]

    @property
    def exposed(self) -> str:
        """The name of its samples."""
        return self.name + ("_total" if self.kind == "counter" else "")


@dataclass(slots=True)
class Look:
    """A sample, what is made of it once for several metrics, and how it was taken."""

    sample: Sample
    seconds: float
    """That taking it took."""
    tracing: Mapping[str, bool]
    """Tracer -> whether it is there."""
    routes: tuple[Route, ...] = ()
    aborted: Mapping[Key, int] | None = None

    @classmethod
    def of(cls, sample: Sample, seconds: float, tracing: Mapping[str, bool]) -> Look:
        """The look at a sample."""
        if sample.redirects is None:
            return cls(sample, seconds, tracing)
        made = routes(sample.redirects.edges)
        return cls(sample, seconds, tracing, made, aborted_by_link(made))

    def where(self, inode: int) -> str:
        """A namespace as a label: "" for the caller's."""
        return self.sample.labels.get(inode, f"net:[{inode}]")

    def of_link(self, facts: LinkFacts) -> tuple[str, str]:
        """Labels netns and interface."""
        return self.where(facts.netns), facts.name

    def of_device(self, device: Device | None) -> tuple[str, str]:
        """The same of a device of a tracer; "" where there is none."""
        if device is None:
            return "", ""
        return self.where(device.netns), device.name or f"ifindex {device.ifindex}"


def _of_links(read: Callable[[Counters], int]) -> Callable[[Look], Iterator[Row]]:
    def rows(look: Look) -> Iterator[Row]:
        for key, values in look.sample.counters.items():
            yield look.of_link(look.sample.links[key]), read(counters(values))

    return rows


def _field(place: int) -> Callable[[Look], Iterator[Row]]:
    """A counter by its place in `link_stats.NAMES`."""

    def rows(look: Look) -> Iterator[Row]:
        for key, values in look.sample.counters.items():
            yield look.of_link(look.sample.links[key]), values[place]

    return rows


def _xdp(look: Look) -> Iterator[Row]:
    for facts in look.sample.links.values():
        if facts.mode is not None:
            program = (look.sample.programs or {}).get(facts.program_id)
            yield (*look.of_link(facts), facts.mode, (program.name if program else None) or ""), 1


def _verdicts(look: Look) -> Iterator[Row]:
    for key, facts in look.sample.links.items():
        if facts.mode is None:
            continue
        found = verdicts(facts.driver, look.sample.verdicts.get(key, {}))
        if found["aborted"] is None and look.aborted is not None:
            found["aborted"] = look.aborted.get(key, 0)
        for action, value in found.items():
            if value is not None:
                yield (*look.of_link(facts), action), value


def _runs(look: Look) -> Iterator[Row]:
    for one in (look.sample.programs or {}).values():
        if one.runs:
            yield (one.name or "", one.type, str(one.id)), one.runs


def _run_seconds(look: Look) -> Iterator[Row]:
    for one in (look.sample.programs or {}).values():
        if one.runs:
            yield (one.name or "", one.type, str(one.id)), one.run_ns / 1e9


ROUTE = ("program", "way", "from_netns", "from", "to_netns", "to")


def _of_route(look: Look, one: Route) -> tuple[str, ...]:
    to = look.of_device(one.target)
    if one.target is None:
        slot = "" if one.slot is None else f"[{one.slot}]"
        to = ("", one.verdict or (f"{one.map_name or one.map_type}{slot}" if one.map_type else ""))
    return (one.program or "", one.way, *look.of_device(one.source), *to)


def _summed(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of equal labels as one: two programs may bear one name."""
    total: dict[tuple[str, ...], float] = {}
    for labels, value in rows:
        total[labels] = total.get(labels, 0) + value
    yield from total.items()


def _sent(look: Look) -> Iterator[Row]:
    yield from _summed((_of_route(look, one), one.sent) for one in look.routes if one.way != "exception")


def _lost(look: Look) -> Iterator[Row]:
    yield from _summed(
        ((*_of_route(look, one), errno), frames)
        for one in look.routes
        for errno, frames in (one.errnos or {"none": 0}).items()
    )


def _drops(look: Look) -> Iterator[Row]:
    found = look.sample.drops
    yield from _summed(
        ((*look.of_device(one.device), one.reason or "unknown"), one.packets)
        for one in (found.drops if found else ())
    )


def _rings(look: Look) -> Iterator[Row]:
    found = look.sample.drops
    for one in found.rings if found else ():
        where = look.of_device(one.device) if one.device else ("", f"map {one.map_id}")
        states = {
            "full": one.full,
            "freeing": one.freeing,
            "not_full": one.not_full,
            "unknown": one.unreadable,
        }
        band = "" if one.band is None else f".{one.band}"
        for state, packets in states.items():
            yield (*where, one.qdisc or one.kind, f"{one.queue}{band}", state), packets


def _pools(look: Look) -> Iterator[tuple[tuple[str, str, str], ListedPool]]:
    for one in look.sample.pools or ():
        link = look.sample.links.get((one.netns, one.ifindex or 0))
        yield (look.where(one.netns), link.name if link else "", str(one.id)), one


def _inflight(look: Look) -> Iterator[Row]:
    return ((labels, one.inflight) for labels, one in _pools(look) if one.inflight is not None)


def _inflight_bytes(look: Look) -> Iterator[Row]:
    return ((labels, one.inflight_bytes) for labels, one in _pools(look) if one.inflight_bytes is not None)


def _closing(look: Look) -> Iterator[Row]:
    now = look.sample.boottime
    for labels, one in _pools(look):
        yield labels, 0.0 if one.detach_time is None else max(0.0, now - one.detach_time)


def _pool_events(look: Look) -> Iterator[Row]:
    for labels, one in _pools(look):
        for event, count in (one.statistics or {}).items():
            yield (*labels, event), count


def _not_counted(look: Look) -> Iterator[Row]:
    for name, report in (("redirects", look.sample.redirects), ("drops", look.sample.drops)):
        if report is not None:
            yield (name,), report.lost


LINK = ("netns", "interface")
PROGRAM = ("program", "type", "id")
POOL = ("netns", "interface", "pool")

VERDICTS = "xdpctl_interface_xdp_frames"
"""Its ``pass`` may be what is left of other counters, which are not read at one instant: see `Rising`."""

METRICS = (
    Metric("xdpctl_info", "gauge", ("version",), "1; the version of xdpctl.", lambda _: [((__version__,), 1)]),
    Metric(
        "xdpctl_look_seconds", "gauge", (), "How long reading everything took.",
        lambda look: [((), look.seconds)],
    ),
    Metric(
        "xdpctl_tracer_attached", "gauge", ("tracer",),
        "1 while the tracer counts; 0: this kernel or our privileges don't allow it, and its metrics are absent.",
        lambda look: [((name,), int(there)) for name, there in look.tracing.items()],
    ),
    Metric(
        "xdpctl_tracer_lost_events", "counter", ("tracer",), "Events that a tracer could not count.", _not_counted
    ),
    Metric("xdpctl_interface_receive_packets", "counter", LINK, "Frames received.", _field(0)),
    Metric("xdpctl_interface_transmit_packets", "counter", LINK, "Frames sent.", _field(1)),
    Metric("xdpctl_interface_receive_bytes", "counter", LINK, "Bytes received.", _field(2)),
    Metric("xdpctl_interface_transmit_bytes", "counter", LINK, "Bytes sent.", _field(3)),
    Metric(
        "xdpctl_interface_errors", "counter", LINK, "Bad frames, received or not sent.",
        _of_links(lambda one: one.errors),
    ),
    Metric(
        "xdpctl_interface_dropped_packets", "counter", LINK,
        "Frames that the interface dropped, both ways, or missed for want of buffers.",
        _of_links(lambda one: one.dropped),
    ),
    Metric(
        "xdpctl_interface_xdp_attached", "gauge", (*LINK, "mode", "program"),
        "1 for each interface with an XDP program; mode is native, generic, offload or multi.", _xdp,
    ),
    Metric(
        VERDICTS, "counter", (*LINK, "action"),
        "Frames by XDP verdict, as far as driver or tracer count them; most drivers count aborted as drop, too.",
        _verdicts,
    ),
    Metric(
        "xdpctl_program_runs", "counter", PROGRAM,
        "Runs of a BPF program that the kernel counted (--run-times, or kernel.bpf_stats_enabled).", _runs,
    ),
    Metric(
        "xdpctl_program_run_seconds", "counter", PROGRAM, "Time spent in those runs.", _run_seconds
    ),
    Metric(
        "xdpctl_redirect_sent_frames", "counter", ROUTE,
        "Frames that arrived on a way of redirects, XDP_TX bulks or cpumaps.", _sent,
    ),
    Metric(
        "xdpctl_redirect_lost_frames", "counter", (*ROUTE, "errno"),
        "Frames lost on it; errno is none where the driver says none.", _lost,
    ),
    Metric(
        "xdpctl_dropped_packets", "counter", (*LINK, "reason"),
        "Packets that the kernel gave up outside XDP, by its reason (unknown before Linux 5.17).", _drops,
    ),
    Metric(
        "xdpctl_ring_dropped_packets", "counter", (*LINK, "ring", "queue", "state"),
        "Packets that a ring or queue did not take, by how full it was: full, freeing, not_full, unknown.", _rings,
    ),
    Metric(
        "xdpctl_page_pool_inflight_pages", "gauge", POOL, "Pages that a page pool has given out.",
        _inflight,
    ),
    Metric(
        "xdpctl_page_pool_inflight_bytes", "gauge", POOL, "Their bytes.", _inflight_bytes
    ),
    Metric(
        "xdpctl_page_pool_closing_seconds", "gauge", POOL,
        "How long its shutdown has waited for pages; 0: in use.", _closing,
    ),
    Metric(
        "xdpctl_page_pool_events", "counter", (*POOL, "event"),
        "What happened to its pages: alloc_fast, alloc_slow, recycle_ring, recycle_released_refcnt, ...",
        _pool_events,
    ),
)  # fmt: skip
"""Everything that is exposed."""


class Rising:
    """Keeps a counter from falling by a hair, which Prometheus would take for a restart from zero."""

    def __init__(self) -> None:
        self._most: dict[tuple[str, ...], float] = {}

    def of(self, labels: tuple[str, ...], value: float) -> float:
        """The value, or the one before it; a counter that lost half of it did start anew."""
        before = self._most.get(labels, 0.0)
        self._most[labels] = found = before if before / 2 < value < before else value
        return found


PAGE = """# Metrics

`xdpctl metrics` serves these for Prometheus; `xdpctl metrics --once` prints them. This page is written by
`python -m xdpctl.trace.metrics`, from the table that the command reads.

Counters of interfaces and page pools are the kernel's own totals; those of redirects, drops and rings begin when the
command starts. What cannot be known has no sample: a series that is absent is not zero. `netns` is empty for the
namespace that the command was started in, which Prometheus shows as no label.

How many series there can be: some per interface that is watched (`--iface`, `--netns`), one per way of redirects
that was used (at most 4096), per reason and interface of drops, per loaded program that ran.

[configs/grafana-dashboard.json](../configs/grafana-dashboard.json) draws them, and
[configs/alerts.yml](../configs/alerts.yml) are alert rules; its head says what belongs into Prometheus' configuration.
Both are tried against a real Prometheus, and each alert on figures that raise it, by
[tests/kernel/test_metrics_prometheus.py](../tests/kernel/test_metrics_prometheus.py).
"""


def page() -> str:
    """docs/metrics.md."""
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{one.exposed}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in METRICS
    ]
    return PAGE + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
