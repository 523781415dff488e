"""Running fixes: each finding's steps in their namespaces, then a fresh look; what did not help is taken back."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.doctor.finding import Finding, Fix, Status
from xdpctl.errors import XdpctlError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

Key = tuple[str, "str | None", "str | None", tuple[tuple[str, ...], ...]]

TIMEOUT_S = 60
"""Seconds that one command may take."""
MOST = 64
"""Findings fixed in one go."""


def command_line(fix: Fix, argv: Sequence[str] | None = None) -> str:
    """The fix exactly as one types it, namespace prefix included."""
    words = list(argv if argv is not None else fix.argv)
    label = fix.netns
    if not label:
        return shlex.join(words)
    if words[0] == "xdpctl":  # `ip netns exec` would hide /sys/fs/bpf
        return shlex.join([*words[:2], "--netns", label, *words[2:]])
    if label.startswith("pid:"):
        return shlex.join(["nsenter", "-t", label.removeprefix("pid:"), "-n", *words])
    if label.startswith("net:["):
        return f"{shlex.join(words)}   # in {label}"
    return shlex.join(["ip", "netns", "exec", label, *words])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one finding's fix."""

    finding: Finding
    done: tuple[str, ...]
    """Command lines that ran and stayed."""
    helped: bool
    undone: tuple[str, ...] = ()
    """Command lines that took back what did not help."""
    error: str | None = None
    """Why a step could not run, or could not be taken back."""

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "id": self.finding.id,
            "interface": self.finding.interface,
            "netns": self.finding.netns,
            "helped": self.helped,
            "done": list(self.done),
            "undone": list(self.undone),
            "error": self.error,
        }


class StepFailed(Exception):  # noqa: N818 - told within this module, never raised to a user
    """A command could not be run or answered no."""


def apply(
    check: Callable[[], Sequence[Finding]],
    *,
    agree: Callable[[Finding], bool],
    statuses: Collection[Status] = (Status.FAIL,),
    tell: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """Fix findings one by one, looking afresh after each.

    Args:
        check: observes and judges.
        agree: shows a finding's commands and asks; False leaves them be.
        statuses: which findings are worth fixing.
        tell: hears each command line before it runs.

    Raises:
        XdpctlError: from `check`.
    """
    outcomes: list[Outcome] = []
    tried: set[Key] = set()
    findings = check()
    while len(outcomes) < MOST:
        chosen = next(
            (one for one in findings if one.status in statuses and one.fix and _key(one) not in tried), None
        )
        if chosen is None:
            break
        tried.add(_key(chosen))
        if not agree(chosen):
            continue
        outcome, findings = _try(chosen, check, tell)
        outcomes.append(outcome)
    return outcomes


def _key(finding: Finding) -> Key:
    """A finding and its remedy: both directions of a veth pair are two, though told at one end."""
    return finding.id, finding.interface, finding.netns, tuple(one.argv for one in finding.fix)


def _same(finding: Finding, later: Sequence[Finding], statuses: Collection[Status]) -> bool:
    """The finding is still there, told by what its fix was meant to change."""
    return any(
        _key(one) == _key(finding) and one.fix == finding.fix and one.status in statuses for one in later
    )


def _try(
    finding: Finding, check: Callable[[], Sequence[Finding]], tell: Callable[[str], None]
) -> tuple[Outcome, Sequence[Finding]]:
    ran: list[Fix] = []
    error = None
    try:
        for step in finding.fix:
            tell(command_line(step))
            run(step, step.argv)
            ran.append(step)
    except StepFailed as failure:
        error = str(failure)
    later = check()
    if error is None and not _same(finding, later, (Status.FAIL, finding.status)):
        return Outcome(finding, tuple(command_line(one) for one in ran), True), later
    undone = []
    kept = []
    for step in reversed(ran):
        if step.inverse is None:
            kept.append(command_line(step))
            continue
        tell(command_line(step, step.inverse))
        try:
            run(step, step.inverse)
            undone.append(command_line(step, step.inverse))
        except StepFailed as failure:
            error = f"{error + '; ' if error else ''}not taken back: {failure}"
    return Outcome(finding, tuple(reversed(kept)), False, tuple(undone), error), check() if ran else later


def run(fix: Fix, argv: Sequence[str]) -> None:
    """Run one command in its namespace.

    Raises:
        StepFailed: it could not be run, or answered no; with its own words.
    """
    from xdpctl.netlink import netns

    words, line = _resolve(argv), command_line(fix, argv)
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"}
    try:
        with netns.enter(fix.netns or None):
            done = subprocess.run(
                words,
                check=False,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
    except FileNotFoundError as error:
        raise StepFailed(f"{words[0]} is not installed ({line})") from error
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"{line}: no end after {TIMEOUT_S} s") from error
    except OSError as error:
        raise StepFailed(f"{line}: {error.strerror or error}") from error
    except XdpctlError as error:
        raise StepFailed(f"{line}: {error.message}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise StepFailed(f"{line}: {said[0] if said else f'exit code {done.returncode}'}")


def _resolve(argv: Sequence[str]) -> list[str]:
    """xdpctl is this one, wherever PATH leads."""
    words = list(argv)
    if words[0] != "xdpctl":
        return words
    beside = Path(sys.executable).with_name("xdpctl")
    words[0] = str(beside) if beside.exists() else words[0]
    return words
