"""Which qdiscs stand: packets in the queue, nothing sent, and nobody who has stopped it.

How long a queue is netlink tells for lockless qdiscs too (qdisc_qlen_sum(), net/sched/sch_generic.h), whether it is
stopped and whose turn it is the live struct Qdisc and netdev_queue by BTF. One look decides nothing: a queue is
judged by two looks and by what was sent between them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from xdpctl.errors import NotFoundError, PrivilegeError
from xdpctl.netlink import interfaces, netns, tc
from xdpctl.records import dataclass
from xdpctl.trace.devices import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.netlink.tc import RawQdisc
    from xdpctl.trace.qdisc import LiveQdisc, QdiscTrace

TIMED = frozenset(
    ("cake", "cbq", "cbs", "dualpi2", "etf", "fq", "hfsc", "htb", "netem", "plug", "taprio", "tbf", "teql")
)
"""Qdiscs that hold packets back by a rate, a time, or an order of their own: waiting there is their work."""
LEAST_SECONDS = 0.05
"""Between two looks; a queue that sends nothing for less is no news."""

Key = tuple[Device, int]
"""A device and its tx queue."""


@dataclass(frozen=True, slots=True)
class Length:
    """One tx queue at one moment."""

    live: LiveQdisc
    packets: int
    """In its qdisc, with those that a lockless one counts a CPU."""
    sent: int
    """By its qdisc, since that was made."""
    timed: bool
    """Its qdisc, or one below it, is one of `TIMED`."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A tx queue that had packets at two looks and sent none between them."""

    device: Device
    queue: int
    kind: str
    lockless: bool
    packets: int
    seconds: float
    """Between the two looks."""
    verdict: str
    """``stuck``; ``stopped``: by the driver or the stack; ``timed``: its qdisc may hold packets back."""

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys; see docs/json.md."""
        return {
            "device": self.device.to_json(labels),
            "queue": self.queue,
            "kind": self.kind,
            "lockless": self.lockless,
            "packets": self.packets,
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict,
        }


def lengths(
    tracer: QdiscTrace, wanted: frozenset[tuple[int, int]] | None = None, places: Iterable[NetnsRef] = ()
) -> dict[Key, Length]:
    """The tx queues with packets in them.

    Args:
        tracer: what reads the live qdiscs.
        wanted: (namespace's inode, ifindex) of the devices to look at; None: all.
        places: namespaces to look in; none: the calling thread's. One that is gone is left out.
    """
    found: dict[Key, Length] = {}
    for place in tuple(places) or (netns.current(),):
        with contextlib.suppress(NotFoundError, PrivilegeError), netns.enter(place):
            found.update(_lengths(tracer, place.inode, wanted))
    return found


def _lengths(tracer: QdiscTrace, inode: int, wanted: frozenset[tuple[int, int]] | None) -> dict[Key, Length]:
    """Those of the calling thread's namespace."""
    of: dict[int, list[RawQdisc]] = {}
    for one in tc.qdiscs():
        if wanted is None or (inode, one.ifindex) in wanted:
            of.setdefault(one.ifindex, []).append(one)
    found: dict[Key, Length] = {}
    names = interfaces.names()
    for ifindex, own in of.items():
        if not any(one.qlen for one in own):
            continue
        timed = any(one.kind in TIMED for one in own)
        for live in tracer.queues(ifindex):
            told = _netlinks(own, live)
            if told is not None and told.qlen:
                device = Device(inode, ifindex, names.get(ifindex))
                found[device, live.queue] = Length(live, told.qlen, told.packets or 0, timed)
    return found


def _netlinks(own: list[RawQdisc], live: LiveQdisc) -> RawQdisc | None:
    """What netlink calls this queue's qdisc: by its handle, a default one of mq by the queue's number."""
    if live.handle:
        return next((one for one in own if one.handle == live.handle), None)
    same = [one for one in own if one.kind == live.kind and not one.handle]
    of_queue = [one for one in same if one.parent & 0xFFFF == live.queue + 1]
    return next(iter(of_queue if len(same) > 1 else same), None)


def judge(
    before: Mapping[Key, Length],
    now: Mapping[Key, Length],
    seconds: float,
    sent: Mapping[tuple[int, int, int], int],
) -> list[Standing]:
    """The queues that stand. Pure.

    Args:
        before: an earlier look, `seconds` ago.
        now: this look.
        seconds: between them.
        sent: packets that the tracer saw leave meanwhile, by (namespace's inode, ifindex, tx queue).
    """
    if seconds < LEAST_SECONDS:
        return []
    found = []
    for (device, queue), one in now.items():
        then = before.get((device, queue))
        if then is None or then.live.kind != one.live.kind or one.sent != then.sent:
            continue
        if sent.get((device.netns, device.ifindex, queue)):
            continue
        verdict = "stopped" if one.live.stopped else "timed" if one.timed else "stuck"
        found.append(Standing(device, queue, one.live.kind, one.live.lockless, one.packets, seconds, verdict))
    return found
