"""What becomes of redirected XDP frames: errors and drops by program, from, to and errno, counted in the kernel.

Mirrors include/trace/events/xdp.h as bpf/trace_redirect.bpf.c counts it. A failure shows in one of several places:
xdp_redirect_err (the core refused a frame), xdp_devmap_xmit and xdp_bulk_tx (a driver took fewer of a bulk than it
was given), xdp_exception (an empty slot, an unknown verdict), the cpumap's two.
"""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.errors import errno_name
from xdpctl.records import dataclass
from xdpctl.trace.devices import Device, Names, read_devices
from xdpctl.trace.tracer import Missing, Tracer, hook

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from typing_extensions import Self

EVENTS = (
    "xdp_redirect_err",
    "xdp_devmap_xmit",
    "xdp_bulk_tx",
    "xdp_exception",
    "xdp_cpumap_enqueue",
    "xdp_cpumap_kthread",
    "xdp_redirect",
)
"""enum event of the tracer."""

HOOKS = (
    hook("redirect_err", "xdp_redirect_err", "frames that the core refuses to redirect", 7),
    hook("redirect_err_m", "xdp_redirect_err", "frames that the core refuses to redirect", 6),
    hook("devmap_xmit", "xdp_devmap_xmit", "what a driver did with a bulk of redirected frames", 5),
    hook("bulk_tx", "xdp_bulk_tx", "what a driver did with a bulk of XDP_TX", 4),
    hook("exception", "xdp_exception", "XDP_ABORTED and verdicts that the driver does not know", 3),
    hook("cpumap_enqueue", "xdp_cpumap_enqueue", "frames that a cpumap's ring did not take", 4),
    hook("cpumap_kthread", "xdp_cpumap_kthread", "frames that a cpumap's thread lost", 5),
)
PER_FRAME = (
    hook("redirect_ok", "xdp_redirect", "every frame handed to a redirect", 7),
    hook("redirect_ok_m", "xdp_redirect", "every frame handed to a redirect", 6),
)

MAP_TYPES = {0: None, 14: "devmap", 16: "cpumap", 17: "xskmap", 25: "devmap_hash"}
"""enum bpf_map_type of redirects; None: bpf_redirect() without a map."""
VERDICTS = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")

_EDGE = struct.Struct("=HHIIIIIIi")
_OUTCOME = struct.Struct("=QQQ")
_SLOT = struct.Struct("=32sQQQQ")
_SLOTS = 32
_RETRIES = 5
"""Readings after which a slot that changes hands all the time is taken as it is."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One way that frames took, and how they fared on it since the trace began (or between two reports)."""

    event: str
    """The tracepoint that told."""
    program_id: int
    """0: not known (the event does not carry it, and none runs on the device natively)."""
    program: str | None
    source: Device | None
    """None for a cpumap's events, which do not say."""
    target: Device | None
    """None: no such device, a broadcast, or none (cpumap, xskmap, an exception)."""
    map_type: str | None
    map_id: int
    map_name: str | None
    slot: int | None
    """CPU of a cpumap, queue of an xskmap, slot of a devmap (per-frame counts)."""
    verdict: str | None
    """Of an xdp_exception."""
    errno: str | None
    """Name; None: no errno (a driver that took fewer frames says none)."""
    events: int
    sent: int
    """Frames."""
    dropped: int
    """Frames."""

    @property
    def key(self) -> tuple[object, ...]:
        """What tells one edge from another."""
        return (
            self.event,
            self.program_id,
            self.source,
            self.target,
            self.map_id,
            self.slot,
            self.verdict,
            self.errno,
        )

    def minus(self, earlier: Edge | None) -> Edge:
        """The same edge with what was counted since an earlier report."""
        if earlier is None:
            return self
        return replace(
            self,
            events=self.events - earlier.events,
            sent=self.sent - earlier.sent,
            dropped=self.dropped - earlier.dropped,
        )

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys; see docs/json.md."""
        return {
            "event": self.event,
            "program": {"id": self.program_id, "name": self.program} if self.program_id else None,
            "from": self.source.to_json(labels) if self.source else None,
            "to": self.target.to_json(labels) if self.target else None,
            "map": {"id": self.map_id, "type": self.map_type, "name": self.map_name}
            if self.map_type
            else None,
            "slot": self.slot,
            "verdict": self.verdict,
            "errno": self.errno,
            "events": self.events,
            "sent": self.sent,
            "dropped": self.dropped,
        }


@dataclass(frozen=True, slots=True)
class RedirectReport:
    """All edges at one moment."""

    at: float
    """Seconds, time.monotonic()."""
    edges: tuple[Edge, ...]
    lost: int
    """Events that could not be counted: the map was full, or the tracer was running on that CPU already."""

    def minus(self, earlier: RedirectReport | None) -> RedirectReport:
        """What was counted since; edges on which nothing happened are left out."""
        if earlier is None:
            return self
        before = {one.key: one for one in earlier.edges}
        edges = tuple(one.minus(before.get(one.key)) for one in self.edges)
        return RedirectReport(self.at, tuple(one for one in edges if one.events), self.lost - earlier.lost)

    def about(self, devices: frozenset[tuple[int, int]] | None) -> RedirectReport:
        """Only what came from or goes to one of these (namespace, ifindex); None: everything.

        A cpumap's events name no device; they are kept.
        """
        if devices is None:
            return self
        kept = tuple(
            one
            for one in self.edges
            if (one.source is None and one.target is None)
            or any(at is not None and (at.netns, at.ifindex) in devices for at in (one.source, one.target))
        )
        return replace(self, edges=kept)

    @property
    def dropped(self) -> int:
        """Frames lost on all edges."""
        return sum(one.dropped for one in self.edges)


class RedirectTrace:
    """Counts redirects while it is open, in every network namespace.

    Args:
        per_frame: also count every frame that a redirect takes on (`xdp_redirect`), a program run for each, about a
            third of what a bare redirect takes (docs/benchmarks.md); without, errors and bulks alone are counted.

    Attributes:
        missing: tracepoints that this kernel lacks, and what they would have told.

    Raises:
        UnsupportedError: no BTF, or none of the tracepoints.
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
    """

    def __init__(self, *, per_frame: bool = False) -> None:
        self._tracer = Tracer("trace_redirect", (*HOOKS, *(PER_FRAME if per_frame else ())))
        self._names = Names.empty()
        self.missing: tuple[Missing, ...] = self._tracer.missing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach; safe to repeat."""
        self._tracer.close()

    def program_ids(self) -> frozenset[int]:
        """Ids of its own BPF programs."""
        return self._tracer.program_ids()

    def read(self) -> RedirectReport:
        """What was counted so far."""
        counted = self._counted()
        devices = read_devices(self._tracer.map("devices"))
        edges = tuple(
            self._edge(_EDGE.unpack(key), outcome, devices) for key, outcome in counted.items() if outcome[0]
        )
        return RedirectReport(
            time.monotonic(),
            tuple(sorted(edges, key=lambda one: (-one.dropped, -one.sent, one.event))),
            lost(self._tracer) + self._tracer.missed(),
        )

    def _counted(self) -> dict[bytes, tuple[int, int, int]]:
        """Edge -> events, sent, dropped: what `edges` holds and what the slots of every CPU hold beside it."""
        slots = self._slots()
        for _ in range(_RETRIES):
            found = {key: _sum(value) for key, value in self._tracer.map("edges").items()}
            again = self._slots()
            if [one[::4] for one in slots] == [one[::4] for one in again]:  # edge and claims
                break
            slots = again
        for key, events, sent, dropped, claims in slots:
            if claims and key in found:
                one = found[key]
                found[key] = (one[0] + events, one[1] + sent, one[2] + dropped)
        return found

    def _slots(self) -> list[tuple[bytes, int, int, int, int]]:
        return [
            one
            for number in range(_SLOTS)
            for one in _SLOT.iter_unpack(
                self._tracer.map("slots").lookup(number.to_bytes(4, "little")) or b""
            )
        ]

    def _edge(
        self, key: tuple[int, ...], outcome: tuple[int, int, int], devices: Mapping[tuple[int, int], Device]
    ) -> Edge:
        event, map_type, program, from_netns, from_, to_netns, to, map_id, error = key
        name = EVENTS[event]
        source = devices.get((from_netns, from_), Device(from_netns, from_, None)) if from_ else None
        target = None
        if to and to_netns and name != "xdp_exception":
            target = devices.get((to_netns, to), Device(to_netns, to, None))
        return Edge(
            event=name,
            program_id=program,
            program=self._names.program(program),
            source=source,
            target=target,
            map_type=MAP_TYPES.get(map_type, str(map_type)) if map_type else None,
            map_id=map_id,
            map_name=self._names.map(map_id),
            slot=to
            if map_type and not to_netns and (name != "xdp_redirect_err" or not _devmap(map_type))
            else None,
            verdict=(VERDICTS[to] if to < len(VERDICTS) else str(to)) if name == "xdp_exception" else None,
            errno=errno_name(error) if error else None,
            events=outcome[0],
            sent=outcome[1],
            dropped=outcome[2],
        )


def _devmap(map_type: int) -> bool:
    """A devmap's failed redirect names its device; without one (a broadcast) it has no slot either."""
    return (MAP_TYPES.get(map_type) or "").startswith("devmap")


def _sum(value: bytes) -> tuple[int, int, int]:
    """Of all CPUs."""
    events = sent = dropped = 0
    for one, two, three in _OUTCOME.iter_unpack(value):
        events, sent, dropped = events + one, sent + two, dropped + three
    return events, sent, dropped


def lost(tracer: Tracer, rows: Iterable[int] = (0,)) -> int:
    """What a tracer's map `lost` holds, of all CPUs."""
    counts = tracer.map("lost")
    return sum(
        one
        for row in rows
        for (one,) in struct.iter_unpack("=Q", counts.lookup(row.to_bytes(4, "little")) or b"")
    )
