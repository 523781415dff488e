"""Proving a path: one marked frame through the real program and its redirect, and what the tracepoints say of it.

Live frames of BPF_PROG_TEST_RUN (net/bpf/test_run.c, 5.18) run a program as if the frame had come in on a device,
and let XDP_REDIRECT and XDP_TX really happen; before that, and for generic mode, a packet socket on a veth's other
end sends a frame to the attached program. One frame, half a second, nothing is attached and nothing stays.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from xdpctl.doctor import intents_from
from xdpctl.doctor.diagnose import choose
from xdpctl.doctor.intent import Redirect
from xdpctl.doctor.measure import Way, cannot, measure
from xdpctl.doctor.rules.case import Case
from xdpctl.errors import ConfigError, XdpctlError, errno_text
from xdpctl.netlink import netns
from xdpctl.trace import frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xdpctl.bpf.object import Object
    from xdpctl.doctor.diagnose import Question
    from xdpctl.doctor.finding import Finding
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.model import ObjFile, ObjProgram

BPF_REDIRECT = 23


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
        return cannot(case, path, "generic mode only runs for frames that really come in")
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
        return cannot(case, path, f"a program could not be loaded: {errno_text(error.code)}")
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
        return cannot(case, path, error.message)


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
        yield cannot(case, Way(link, None, mode, words), f"{why}: attach it, then probe")
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


def _fill(opened: Object, obj: ObjFile, program: ObjProgram, target: Link) -> None:
    """Put the target into every slot of the program's devmaps that its instructions may name: they are made empty."""
    import struct

    for call in program.redirects:
        found = obj.map(call.map) if call.map else None
        if found is None or found.type not in intents_from.DEVMAPS:
            continue
        live = opened.maps[found.name]
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


def _run(case: Case, path: Way, program: int) -> Finding:
    """Live frames: one, as if it had come in on the source."""
    from xdpctl.bpf.program import run

    def send(frame: bytes) -> None:
        run(program, frame, ifindex=path.source.ifindex, live_frames=True, repeat=1, batch_size=1)

    from xdpctl.bpf.query import program_info

    return measure(case, path, program_info(program).id, send, "live frame of BPF_PROG_TEST_RUN")


def _by_wire(case: Case, path: Way, program_id: int) -> Finding:
    """A frame from the veth's other end, to the program that is attached."""
    peer = case.peer(path.source) if path.source.kind == "veth" else None
    if peer is None:
        return cannot(case, path, "only a veth whose other end is seen can be sent a frame")
    with netns.enter(case.netns(peer)):
        try:
            port = frames.Port(peer.name)
        except XdpctlError as error:
            return cannot(case, path, error.message)
    with port:
        return measure(case, path, program_id, port.send, f"packet socket on {case.name(peer)}")
