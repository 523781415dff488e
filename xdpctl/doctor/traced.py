"""Why a traced redirect lost frames: the causes of `reference` that fit an edge, and doctor's finding about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.doctor import reference
from xdpctl.doctor.cause import REDIRECT, Cause
from xdpctl.doctor.finding import Finding, Status
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from xdpctl.host.model import LinkRef, Snapshot
    from xdpctl.trace.devices import Device
    from xdpctl.trace.redirect import Edge

WITHOUT_ERRNO = {
    "xdp_devmap_xmit": "the target's driver took fewer frames than it got: its ring is full, or they are too long",
    "xdp_bulk_tx": "the driver took fewer frames back than XDP_TX gave it: its ring is full, or they are too long",
    "xdp_cpumap_enqueue": "the cpumap's ring is full: its CPU does not keep up",
    "xdp_cpumap_kthread": "the cpumap's thread found no memory for packets",
}
"""Event -> what a loss that carries no errno means there."""


@dataclass(frozen=True, slots=True)
class Told:
    """Why, in words; with the finding where the machine's state decides it."""

    why: str
    finding: Finding | None
    candidates: tuple[Cause, ...]

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "why": self.why,
            "finding": self.finding.to_json() if self.finding else None,
            "candidates": [
                {"why": one.why, "finding": one.finding, "fix": one.fix} for one in self.candidates
            ],
        }


def causes_of(edge: Edge) -> tuple[Cause, ...]:
    """The reference's rows that fit an edge's event, errno and the target's kind; most often met first."""
    fits = [
        one
        for one in reference.causes()
        if one.op == REDIRECT
        and f"xdp:{edge.event}" in one.heard
        and ((edge.errno in one.errno) if edge.errno else not one.errno)
        and (not one.drivers or _kind(edge) is None or _kind(edge) in one.drivers)
    ]
    return tuple(sorted(fits, key=lambda one: -one.weight))


def _kind(edge: Edge) -> str | None:
    at = edge.target or edge.source
    return at.kind if at is not None else None


def explain(edge: Edge, snapshot: Snapshot | None) -> Told | None:
    """Why frames were lost on an edge; None where none were.

    Args:
        edge: as traced.
        snapshot: the machine, for the finding that names the fix; None: the reference alone.
    """
    if not edge.dropped:
        return None
    candidates = causes_of(edge)
    finding = _finding(edge, snapshot) if snapshot is not None else None
    if finding is not None:
        return Told(finding.summary, finding, candidates)
    if candidates:
        return Told(candidates[0].why, None, candidates)
    return Told(WITHOUT_ERRNO.get(edge.event, "no known cause fits"), None, ())


def _finding(edge: Edge, snapshot: Snapshot) -> Finding | None:
    """What the rules of doctor say about this very redirect, if they say that it fails with this errno."""
    from xdpctl.doctor.intent import Redirect, Transmit
    from xdpctl.doctor.rules.registry import judge

    source, target = _reference(edge.source, snapshot), _reference(edge.target, snapshot)
    if edge.event == "xdp_bulk_tx" and source is not None:
        found = judge(snapshot, [Transmit(source)])
    elif target is not None and edge.event in ("xdp_redirect_err", "xdp_devmap_xmit"):
        found = judge(snapshot, [Redirect(source, target)])
    else:
        return None
    failed = [one for one in found if one.status is Status.FAIL]
    return next((one for one in failed if one.errno == edge.errno), None)


def _reference(device: Device | None, snapshot: Snapshot) -> LinkRef | None:
    """The snapshot's name for a device; None: it was not observed."""
    from xdpctl.host.model import LinkRef

    if device is None or snapshot.link(ref := LinkRef(device.netns, device.ifindex)) is None:
        return None
    return ref
