"""One marked frame followed: sent, seen where it comes out, told by the tracepoints, and what that means.

Mirrors include/trace/events/xdp.h: xdp_redirect_err and xdp_devmap_xmit name the errno that nobody else hears.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.rules.measured import DELIVERED, LOST, NOT_PROVEN, NOT_REDIRECTED
from xdpctl.errors import XdpctlError, errno_name
from xdpctl.netlink import netns
from xdpctl.records import dataclass
from xdpctl.trace import frames, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpctl.doctor.rules.case import Case, Mistake
    from xdpctl.host.model import Link

PATIENCE_S = 0.5
"""Seconds to wait for the frame or an event."""
TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
EVENTS = (
    "xdp_redirect",
    "xdp_redirect_err",
    "xdp_redirect_map",
    "xdp_redirect_map_err",
    "xdp_devmap_xmit",
    "xdp_bulk_tx",
    "xdp_exception",
)


@dataclass(frozen=True, slots=True)
class Way:
    """One path to prove."""

    source: Link
    target: Link | None
    """None: wherever the program redirects to."""
    mode: str
    words: str
    """Whose program runs: ``xdp_redirect of redirect.bpf.o``."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one frame met."""

    arrived: bool
    """It came out at the other end of the target."""
    watched: bool
    """That other end could be watched at all."""
    events: tuple[watch.Event, ...]
    how: str


def _tracefs() -> Path | None:
    return next((one for one in TRACEFS if (one / "events" / "xdp").is_dir()), None)


def measure(case: Case, path: Way, program_id: int, send: Callable[[bytes], None], how: str) -> Finding:
    """Send one marked frame and follow it.

    Args:
        case: the machine.
        path: what is to be proven.
        program_id: whose events are ours.
        send: puts the frame in.
        how: in words, for the evidence.
    """
    tracefs = _tracefs()
    if tracefs is None:
        return cannot(case, path, "no tracefs is mounted: mount -t tracefs tracefs /sys/kernel/tracing")
    mark = b"xdpctl-probe-" + secrets.token_bytes(8)
    destination = path.source.address or frames.BROADCAST
    frame = frames.udp4(mark, destination=destination if len(destination) == 17 else frames.BROADCAST)
    try:
        with watch.Watch(tracefs=tracefs, events=EVENTS) as seen, _outlet(case, path) as outlet:
            send(frame)
            measured = _wait(path, seen, outlet, program_id, mark, how)
    except XdpctlError as error:
        return cannot(case, path, error.message)
    told = _told_target(case, path, measured)
    if told is not None:  # now that it is known where it goes, look there
        return measure(case, replace(path, target=told), program_id, send, how)
    return _verdict(case, path, measured)


def _told_target(case: Case, path: Way, measured: Measured) -> Link | None:
    """Where a program whose target nobody knew redirected to, as the event says."""
    if path.target is not None:
        return None
    events = [one for one in measured.events if one.name.startswith("xdp_redirect")]
    return next(
        (link for one in events if (link := case.by_ref.get((path.source.netns, one.number("to_ifindex"))))),
        None,
    )


@contextlib.contextmanager
def _outlet(case: Case, path: Way) -> Iterator[frames.Port | None]:
    """Where a frame that leaves through the target can be seen: the other end of a veth."""
    peer = case.peer(path.target) if path.target is not None and path.target.kind == "veth" else None
    if peer is None or not peer.up:
        yield None
        return
    with netns.enter(case.netns(peer)):
        try:
            port = frames.Port(peer.name)
        except XdpctlError:
            port = None
    if port is None:
        yield None
        return
    with port:
        yield port


def _wait(
    path: Way, seen: watch.Watch, outlet: frames.Port | None, program_id: int, mark: bytes, how: str
) -> Measured:
    """Until the frame arrives, an event complains, or patience ends."""
    told: list[watch.Event] = []
    end = time.monotonic() + PATIENCE_S
    while True:
        if outlet is not None and any(mark in one for one in outlet.arrived()):
            return Measured(True, True, tuple(_believed(told)), how)
        told += [one for one in seen.read() if _ours(one, path, program_id)]
        events = _believed(told)
        if any(_complains(one) for one in events) or time.monotonic() > end:
            return Measured(False, outlet is not None, tuple(events), how)
        if outlet is None and any(one.name == "xdp_devmap_xmit" for one in events):
            return Measured(False, outlet is not None, tuple(events), how)
        time.sleep(0.001)


def _believed(events: list[watch.Event]) -> list[watch.Event]:
    """A bulk tells interfaces alone, and another namespace may have the same: it is ours once a redirect was."""
    redirected = any("prog_id" in one.fields for one in events)
    return [one for one in events if redirected or one.name != "xdp_devmap_xmit"]


def _ours(event: watch.Event, path: Way, program_id: int) -> bool:
    if "prog_id" in event.fields:
        return event.number("prog_id") == program_id
    sides = (event.number("from_ifindex"), event.number("ifindex"))
    return path.source.ifindex in sides


def _complains(event: watch.Event) -> bool:
    if event.name in ("xdp_devmap_xmit", "xdp_bulk_tx"):
        return event.number("drops") > 0
    return event.name in ("xdp_redirect_err", "xdp_redirect_map_err", "xdp_exception")


def _verdict(case: Case, path: Way, measured: Measured) -> Finding:
    loud = [one for one in measured.events if _complains(one)]
    evidence = tuple(Evidence(one.text, f"xdp:{one.name}") for one in measured.events)
    way = f"{case.name(path.source)} to {case.name(path.target) if path.target else 'wherever it redirects'}"
    if path.target is path.source:
        way = f"a redirect into {case.name(path.source)}"
    if measured.arrived:
        peer = case.peer(path.target) if path.target is not None else None
        told = Evidence(
            f"the frame arrived at {case.name(peer)}" if peer else "the frame arrived", measured.how
        )
        return _finding(
            case,
            DELIVERED,
            Status.OK,
            path,
            f"proven: a frame went from {way} by {path.words}",
            (told, *evidence),
        )
    if loud and loud[0].name != "xdp_exception":
        first = loud[0]
        errno = errno_name(first.number("err"))
        return _finding(
            case,
            LOST,
            Status.FAIL,
            path,
            f"measured: a frame from {way} by {path.words} was lost{f' with {errno}' if errno else ''}"
            f" in xdp:{first.name}",
            evidence,
            errno=errno,
            shows_in=f"xdp:{first.name}",
        )
    if any(one.name == "xdp_devmap_xmit" for one in measured.events):
        return _finding(
            case,
            DELIVERED,
            Status.OK,
            path,
            f"proven: the target took a frame from {way} by {path.words}",
            evidence,
        )
    if any(one.name in ("xdp_redirect", "xdp_redirect_map") for one in measured.events):
        if path.mode == "generic" and not measured.watched:
            return cannot(
                case, path, "it was redirected without an error, and where it comes out can't be watched"
            )
        why = "no transmission was seen" if path.mode == "native" else "it did not arrive"
        summary = f"measured: a frame from {way} by {path.words} was redirected and lost: {why}"
        return _finding(case, LOST, Status.FAIL, path, summary, evidence)
    exception = f": {loud[0].text}" if loud else ""
    return _finding(
        case,
        NOT_REDIRECTED,
        Status.UNKNOWN,
        path,
        f"{path.words} did not redirect the marked frame from {case.name(path.source)}{exception}",
        evidence or (Evidence("no redirect event", measured.how),),
        alternatives=("it may want other frames than IPv4 UDP, or its map is empty",),
    )


def cannot(case: Case, path: Way, why: str) -> Finding:
    """The path can't be proven, and why."""
    return _finding(
        case,
        NOT_PROVEN,
        Status.UNKNOWN,
        path,
        f"the path from {case.name(path.source)} can't be proven: {why}",
        (),
        alternatives=("what doctor says without --probe is inferred from the machine's state",),
    )


def _finding(
    case: Case,
    mistake: Mistake,
    status: Status,
    path: Way,
    summary: str,
    evidence: tuple[Evidence, ...],
    *,
    errno: str | None = None,
    shows_in: str | None = None,
    alternatives: tuple[str, ...] = (),
) -> Finding:
    return case.find(
        mistake,
        status,
        path.source,
        summary,
        errno=errno,
        shows_in=shows_in,
        evidence=evidence,
        alternatives=alternatives,
    )
