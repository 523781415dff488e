"""What doctor says before the act, and whether its fixes work: the side that is judged."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.doctor import intent as intents
from xdpctl.doctor import intents_from
from xdpctl.doctor.finding import Finding, Fix, Status
from xdpctl.doctor.rules.registry import judge
from xdpctl.host.collect import collect
from xdpctl.host.model import LinkRef
from xdpctl.libbpf import libc

from .acts import Act, Attach, Redirect, Transmit

if TYPE_CHECKING:
    from .ground import Ground

ROOT = Path(__file__).resolve().parents[3]
ONE_BUFFER = 3520
"""Longest frame that veth holds in one buffer: SKB_WITH_OVERHEAD(PAGE_SIZE - XDP_PACKET_HEADROOM)."""


@dataclass(frozen=True)
class Prediction:
    """The findings about one act."""

    findings: tuple[Finding, ...]

    def of(self, *states: Status) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.status in states)

    @property
    def status(self) -> Status:
        """The gravest: any fail, else any unknown, else any warning."""
        for status in (Status.FAIL, Status.UNKNOWN, Status.WARN):
            if self.of(status):
                return status
        return Status.OK

    @property
    def errnos(self) -> set[str | None]:
        return {one.errno for one in self.of(Status.FAIL)}

    @property
    def fixes(self) -> tuple[Fix, ...]:
        """The steps offered against what fails, in order, each once."""
        steps: dict[tuple[object, ...], Fix] = {}
        for finding in self.of(Status.FAIL):
            for fix in finding.fix:
                steps.setdefault((fix.netns, fix.argv), fix)
        return tuple(steps.values())

    def __str__(self) -> str:
        told = [f"{one.id}{f' {one.errno}' if one.errno else ''}" for one in self.of(self.status)]
        return self.status.value if self.status is Status.OK else f"{self.status.value}: {', '.join(told)}"


def intents_of(act: Act, ground: Ground) -> list[intents.Intent]:
    """What `xdpctl attach` would ask the rules before doing the same."""

    def link(name: str) -> LinkRef:
        nic = ground.nics[name]
        return LinkRef(ground.spaces[nic.space].inode, nic.ifindex)

    if isinstance(act, Attach):
        return [
            intents.AttachXdp(
                link(act.on),
                act.mode,
                "oracle",
                frags=act.frags,
                attach_type=act.attach_type,
                bound_ifindex=ground.nics[act.bound_to].ifindex if act.bound_to else None,
                offloaded=act.offloaded,
                via=act.via,
                replace=act.replace,
            )
        ]
    if isinstance(act, Redirect):
        source = link(act.source)
        attach = intents.AttachXdp(
            source,
            act.mode,
            "oracle",
            frags=act.frags,
            via="netlink",
            redirects=True,
            entry_programs=act.entry is not None,
        )
        if not act.fill:
            return [attach, intents.EmptySlot(source, "oracle", "devmap", act.map or "", key=3, flags=0)]
        return [
            attach,
            intents.Redirect(
                source,
                link(act.target),
                act.mode,
                via_map=act.map is not None,
                frame_len=act.length,
                multi_buffer=act.frags and act.length > ONE_BUFFER,
            ),
        ]
    assert isinstance(act, Transmit)
    on = link(act.on)
    return [
        intents.AttachXdp(on, act.mode, "oracle", frags=act.frags, via="netlink", sends_tx=True),
        intents.Transmit(on, act.mode),
    ]


def predict(act: Act, ground: Ground) -> Prediction:
    """Observe the machine and ask the rules."""
    return Prediction(tuple(judge(collect(netns="all"), intents_of(act, ground))))


_OF_THE_PAIR = (
    "redirect.veth-peer-napi",
    "redirect.veth-stale-features",
    "redirect.veth-peer-down",
    "redirect.veth-queues",
)


def ends(act: Redirect, said: Prediction, ground: Ground) -> str:
    """Asked about either end of the target's pair, doctor says the same as about the redirect; else what is off."""
    target = ground.nics[act.target]
    snapshot = collect(netns="all")
    wanted = {one.id for one in said.findings if one.id in _OF_THE_PAIR}
    for name in (act.target, target.wire):
        nic = ground.nics[name]
        ref = LinkRef(ground.spaces[nic.space].inode, nic.ifindex)
        about = judge(snapshot, [intents.Health(ref, named=True)])
        told = {
            one.id for one in about if f"into {target.name}" in one.summary and one.status is not Status.OK
        }
        if told != wanted:
            return f"asked about {name} doctor says {sorted(told)}, about the redirect {sorted(wanted)}"
    return ""


def watched(act: Redirect, ground: Ground) -> Prediction:
    """What doctor says of the attached program, whose map it reads (the length of its frames nobody knows)."""
    nic = ground.nics[act.source]
    source = LinkRef(ground.spaces[nic.space].inode, nic.ifindex)
    snapshot = collect(netns="all")
    found: list[intents.Intent] = [one for one in intents_from.live(snapshot) if one.source == source]
    return Prediction(tuple(judge(snapshot, found)))


def shown(fix: Fix) -> str:
    """A step as a person would type it."""
    where = f"nsenter --net=/run/netns/{fix.netns} " if fix.netns else ""
    return where + shlex.join(fix.argv)


def apply(fix: Fix, *, back: bool = False) -> str | None:
    """Run one step (or its inverse) as `xdpctl doctor --fix` would; returns what went wrong."""
    argv = fix.inverse if back else fix.argv
    if argv is None:
        return "no inverse"
    return _run(argv, fix.netns)


def typed(command: str) -> str | None:
    """Run a command line as a person would who reads it in a finding; returns what went wrong."""
    return _run(tuple(shlex.split(command)), None)


def _forked(words: tuple[str, ...], netns: str | None) -> str | None:
    """xdpctl's command line in a child of ours: where the CPU is emulated, a start takes seconds."""
    from xdpctl.attach import detach, run  # noqa: F401 - imported here, so that not every child has to
    from xdpctl.cli import app, attach, main  # noqa: F401

    with tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(told.fileno(), 1)
                os.dup2(told.fileno(), 2)
                sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
                if netns:
                    with Path("/run/netns", netns).open() as place:
                        libc.setns(place.fileno(), libc.CLONE_NEWNET)
                os.chdir(ROOT)
                code = main.main(words)
                sys.stdout.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        told.seek(0)
        return told.read().strip() or f"ended with {status}" if status else None


def _run(argv: tuple[str, ...], netns: str | None) -> str | None:
    if argv[0] == "xdpctl":
        return _forked(argv[1:], netns)
    where = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [*where, *argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,  # some fixes name objects of build/bpf
        env={**os.environ, "PATH": path},
    )
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()
