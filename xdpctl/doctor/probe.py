"""Proving a path: one marked frame through the real program and its redirect, and what the tracepoints say of it.

Live frames of BPF_PROG_TEST_RUN (net/bpf/test_run.c, 5.18) run a program as if the frame had come in on a device,
and let XDP_REDIRECT and XDP_TX really happen; before that, and for generic mode, a packet socket on a veth's other
end sends a frame to the attached program. One frame, half a second, nothing is attached and nothing stays.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.doctor import intents_from
from xdpctl.doctor.diagnose import choose
from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import Redirect
from xdpctl.doctor.rules.case import Case
from xdpctl.doctor.rules.measured import DELIVERED, LOST, NOT_PROVEN, NOT_REDIRECTED
from xdpctl.errors import ConfigError, XdpctlError, errno_name, errno_text
from xdpctl.netlink import netns
from xdpctl.trace import frames, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.diagnose import Question
    from xdpctl.doctor.rules.case import Mistake
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.model import ObjFile, ObjProgram

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
BPF_REDIRECT = 23


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
    events: tuple[watch.Event, ...]
    how: str


def probe(question: Question, prog: Path | None, snapshot: Snapshot) -> tuple[Finding, ...]:
    """Prove the paths that a question is about.

    Args:
        question: what `xdpctl doctor` was asked; it must name interfaces.
        prog: the object that `question.obj` was read from.
        snapshot: the machine as just observed.

    Raises:
        ConfigError: no interface is named.
        NotFoundError: something named is not there.
        VerifierError, MapError, ObjectError: the object does not load.
    """
    if not question.interfaces:
        raise ConfigError(
            "--probe needs the interface whose path is to be proven", hint="xdpctl doctor IFACE --probe"
        )
    case = Case.of(snapshot)
    found = []
    for link in choose(snapshot, question):
        with _in_namespace(case, link):
            found += list(_of_link(case, question, prog, link))
    return tuple(found)


@contextlib.contextmanager
def _in_namespace(case: Case, link: Link) -> Iterator[None]:
    with netns.enter(case.netns(link)):
        yield


def _of_link(case: Case, question: Question, prog: Path | None, link: Link) -> Iterator[Finding]:
    """Every path of one link: of the object, of --redirect-to, of the attached program, or into the link itself."""
    mode = "generic" if question.mode == "generic" else "native"
    if question.obj is not None and prog is not None:
        yield from _object(case, question, prog, link, mode)
        return
    if question.redirect_to:
        for name in question.redirect_to:
            target = intents_from.named(case.snapshot, link, name)
            yield _plain(case, Way(link, target, mode, "a plain bpf_redirect()"))
        return
    attached = link.xdp.native or link.xdp.generic
    if attached and case.snapshot.redirect_calls.get(attached) is not False:
        yield _attached(case, link, attached)
        return
    yield _plain(case, Way(link, link, mode, "a plain bpf_redirect()"))


# -- three ways to have a program run


def _plain(case: Case, path: Way) -> Finding:
    """A two-line program that redirects to the target."""
    if path.mode != "native":
        return _cannot(case, path, "generic mode only runs for frames that really come in")
    from xdpctl.bpf import asm, load
    from xdpctl.libbpf import uapi
    from xdpctl.libbpf.library import CallError

    assert path.target is not None  # noqa: S101 - a plain redirect has one
    code = (
        asm.mov_imm(asm.R1, path.target.ifindex)
        + asm.mov_imm(asm.R2, 0)
        + asm.call(BPF_REDIRECT)
        + asm.leave()
    )
    try:
        program = load.program(uapi.PROG_TYPE_XDP, code, attach_type=uapi.XDP)
    except CallError as error:
        return _cannot(case, path, f"a program could not be loaded: {errno_text(error.code)}")
    try:
        return _run(case, path, program)
    finally:
        os.close(program)


def _attached(case: Case, link: Link, program_id: int) -> Finding:
    """The program that is attached now, with its own maps."""
    from xdpctl.bpf.program import program_by_id

    known = case.snapshot.programs.get(program_id)
    name = known.name if known and known.name else f"program {program_id}"
    generic = not link.xdp.native
    targets = [
        target
        for one in intents_from.live(case.snapshot)
        if one.source == link.ref and (target := case.link(one.target)) is not None
    ]
    path = Way(link, targets[0] if len(targets) == 1 else None, "generic" if generic else "native", name)
    if generic or not _has_live_frames():
        return _by_wire(case, path, program_id)
    try:
        with program_by_id(program_id) as program:
            return _run(case, path, program.fd)
    except XdpctlError as error:
        return _cannot(case, path, error.message)


def _object(case: Case, question: Question, prog: Path, link: Link, mode: str) -> Iterator[Finding]:
    """The object's program, loaded beside whatever is attached, its globals set and its devmaps filled."""
    from xdpctl.bpf.object import Object

    obj = question.obj
    assert obj is not None  # noqa: S101 - the caller looked
    chosen = intents_from.pick(obj, question.program)
    words = f"{chosen.name} of {prog.name}"
    if mode != "native" or not _has_live_frames():
        why = (
            "generic mode only runs for frames that really come in"
            if mode != "native"
            else "live frames need 5.18"
        )
        yield _cannot(case, Way(link, None, mode, words), f"{why}: attach it, then probe")
        return
    wish = intents_from.Wish(obj, chosen, settings=question.settings, redirect_to=question.redirect_to)
    wanted = [one for one in intents_from.from_wish(wish, case.snapshot, link) if isinstance(one, Redirect)]
    targets = [target for one in wanted if (target := case.link(one.target)) is not None]
    with Object.open(prog) as opened:
        for one in opened.programs.values():
            if one.name != chosen.name and not chosen.tail_calls:
                one.set_autoload(False)
        for setting in intents_from.settings_of(wish, case.snapshot, link):
            for section in opened.maps.values():
                if section.internal and section.name.endswith(setting.section):
                    section.patch_initial_value(setting.offset, setting.data)
        opened.load()
        ends: list[Link | None] = list(targets) or [None]
        for target in ends:
            if target is not None:
                _fill(opened, obj, chosen, target)
            yield _run(case, Way(link, target, mode, words), opened.program(chosen.name).fd)


def _fill(opened: object, obj: ObjFile, program: ObjProgram, target: Link) -> None:
    """Put the target into every slot of the program's devmaps that its instructions may name: they are made empty."""
    import struct

    for call in program.redirects:
        found = obj.map(call.map) if call.map else None
        if found is None or found.type not in intents_from.DEVMAPS:
            continue
        live = opened.maps[found.name]  # type: ignore[attr-defined]
        keys = [call.key] if call.key is not None else range(min(found.max_entries, 64))
        value = struct.pack("=I", target.ifindex).ljust(found.value_size, b"\0")
        if found.value_size >= 8:
            value = struct.pack("=Ii", target.ifindex, 0)  # struct bpf_devmap_val, without a program
        for key in keys:
            with contextlib.suppress(XdpctlError):
                live.update(struct.pack("=I", key), value)


# -- the frame and what it meets


def _has_live_frames() -> bool:
    from xdpctl.bpf import features

    return features.probe("live_frames") is not False


def _tracefs() -> Path | None:
    return next((one for one in TRACEFS if (one / "events" / "xdp").is_dir()), None)


def _run(case: Case, path: Way, program: int) -> Finding:
    """Live frames: one, as if it had come in on the source."""
    from xdpctl.bpf.program import run

    def send(frame: bytes) -> None:
        run(program, frame, ifindex=path.source.ifindex, live_frames=True, repeat=1, batch_size=1)

    from xdpctl.bpf.query import program_info

    return _measure(case, path, program_info(program).id, send, "live frame of BPF_PROG_TEST_RUN")


def _by_wire(case: Case, path: Way, program_id: int) -> Finding:
    """A frame from the veth's other end, to the program that is attached."""
    peer = case.peer(path.source) if path.source.kind == "veth" else None
    if peer is None:
        return _cannot(case, path, "only a veth whose other end is seen can be sent a frame")
    with netns.enter(case.netns(peer)):
        try:
            port = frames.Port(peer.name)
        except XdpctlError as error:
            return _cannot(case, path, error.message)
    with port:
        return _measure(case, path, program_id, port.send, f"packet socket on {case.name(peer)}")


def _measure(case: Case, path: Way, program_id: int, send: object, how: str) -> Finding:
    tracefs = _tracefs()
    if tracefs is None:
        return _cannot(case, path, "no tracefs is mounted: mount -t tracefs tracefs /sys/kernel/tracing")
    mark = b"xdpctl-probe-" + secrets.token_bytes(8)
    destination = path.source.address or frames.BROADCAST
    frame = frames.udp4(mark, destination=destination if len(destination) == 17 else frames.BROADCAST)
    try:
        with watch.Watch(tracefs=tracefs, events=EVENTS) as seen, _outlet(case, path) as outlet:
            send(frame)  # type: ignore[operator]
            measured = _wait(path, seen, outlet, program_id, mark, how)
    except XdpctlError as error:
        return _cannot(case, path, error.message)
    return _verdict(case, path, measured)


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
    events: list[watch.Event] = []
    end = time.monotonic() + PATIENCE_S
    while True:
        if outlet is not None and any(mark in one for one in outlet.arrived()):
            return Measured(True, tuple(events), how)
        events += [one for one in seen.read() if _ours(one, path, program_id)]
        if any(_complains(one) for one in events) or time.monotonic() > end:
            return Measured(False, tuple(events), how)
        if outlet is None and any(one.name == "xdp_devmap_xmit" for one in events):
            return Measured(False, tuple(events), how)
        time.sleep(0.001)


def _ours(event: watch.Event, path: Way, program_id: int) -> bool:
    if "prog_id" in event.fields:
        return event.number("prog_id") == program_id
    sides = (event.number("from_ifindex"), event.number("ifindex"))
    return path.source.ifindex in sides


def _complains(event: watch.Event) -> bool:
    if event.name in ("xdp_devmap_xmit", "xdp_bulk_tx"):
        return event.number("drops") > 0
    return event.name in ("xdp_redirect_err", "xdp_redirect_map_err", "xdp_exception")


# -- what it means


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
        if path.mode == "native":
            why = "it was redirected, and no transmission was seen"
        else:
            why = "it was redirected, and did not arrive"
        return _finding(
            case,
            LOST,
            Status.FAIL,
            path,
            f"measured: a frame from {way} by {path.words} was lost: {why}",
            evidence,
        )
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


def _cannot(case: Case, path: Way, why: str) -> Finding:
    return _finding(
        case,
        NOT_PROVEN,
        Status.UNKNOWN,
        path,
        f"no frame could be sent through {case.name(path.source)}: {why}",
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
