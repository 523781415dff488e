"""Plans are carried out here: one lock, every change journalled before it is made, and taken back when one fails.

An interrupted one is finished or undone by `recover`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.attach.model import iso
from xdpctl.attach.transaction import held_signals
from xdpctl.bpf import pins
from xdpctl.deploy import holding, journal, lock, programs, state
from xdpctl.deploy.change import Context, execute
from xdpctl.deploy.journal import Journal, die
from xdpctl.errors import NotFoundError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpctl.deploy.change import Change
    from xdpctl.deploy.plan import Plan
    from xdpctl.deploy.state import Stored

Progress = "Callable[[int, int, Change], None]"


class InterruptedError_(XdpctlError):  # noqa: N801, N818 - InterruptedError is Python's
    """Something was left half done, and has to be finished or undone first."""

    exit_code = 76


class Applied(NamedTuple):
    """What an apply did."""

    changes: tuple[Change, ...]
    generation: int


def ignore(_number: int, _count: int, _change: Change) -> None:
    """Progress that nobody wants to see."""


def commands() -> str:
    """This process's command line, for journal and history."""
    return " ".join(["xdpctl", *sys.argv[1:]])


def run(plan: Plan, *, command: str | None = None, progress: Callable[[int, int, Change], None] = ignore,
        tell: Callable[[str], None] = lambda _text: None) -> Applied:  # fmt: skip
    """Carry out a plan; the caller holds the lock.

    When a change is refused, those before it are taken back and the machine is as it was.

    Raises:
        XdpctlError: the refusal, and what was put back.
        KeyboardInterrupt: Ctrl-C; the machine is as it was.
    """
    assert plan.commit is not None  # noqa: S101 - plans that are carried out have one
    wanted = replace(plan.commit, applied_at=iso(time.time()) or "", command=command or commands())
    stored = state.current(plan.deployment.name)
    if not plan.changes and stored is not None and same(stored, wanted):
        return Applied((), stored.generation)
    if stored is not None and same(stored, wanted):
        wanted = stored  # put back, not changed: history has it already
    else:
        wanted = replace(wanted, deployment=state.keep_objects(wanted.deployment))
    writing = Journal.begin(wanted, plan.changes, wanted.command, time.time())
    with contextlib.closing(writing):
        try:
            with held_signals() as signals, context(tell) as shared:
                for number, change in enumerate(plan.changes):
                    signals.check()
                    progress(number, len(plan.changes), change)
                    _make(writing, number, shared)
                signals.check()
        except BaseException as error:
            _failed(writing, error, tell)
            raise
        finish(writing)
    return Applied(plan.changes, wanted.generation)


LOCAL = ("place", "object", "origin", "source")
"""Keys of a deployment that say where it was written, not what it is."""


def same(stored: Stored, wanted: Stored) -> bool:
    """Whether what is written down already says what would be."""
    return (
        _placeless(stored) == _placeless(wanted)
        and stored.found == wanted.found
        and dict(stored.entries) == dict(wanted.entries)
        and (stored.programs, stored.maps, stored.destroyed)
        == (wanted.programs, wanted.maps, wanted.destroyed)
    )


def _placeless(stored: Stored) -> object:
    """A deployment's JSON without the lines that things stand in, and without the paths of objects."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(one) for key, one in value.items() if key not in LOCAL}
        if isinstance(value, list):
            return [strip(one) for one in value]
        return value

    return strip(state.deployment_to_json(stored.deployment))


@contextlib.contextmanager
def context(tell: Callable[[str], None] = lambda _text: None) -> Iterator[Context]:
    """What executions share, closed at the end."""
    shared = Context(tell)
    try:
        yield shared
    finally:
        holding.of(shared).close()


def _make(writing: Journal, number: int, shared: Context) -> None:
    writing.starting(number)
    die(f"before:{number}")
    perform(writing.changes[number], shared)
    die(f"after:{number}")
    writing.made(number)


def perform(change: Change, shared: Context) -> None:
    """One change, with the thread in the namespace that its executor expects."""
    if change.kind.startswith("device."):
        holding.of(shared).leave()
    execute(change, shared)


def _failed(writing: Journal, error: BaseException, tell: Callable[[str], None]) -> None:
    """Take back what was done; where that does not work, the journal stays for `recover`."""
    try:
        count = len(writing.begun)
        undo(writing, tell)
    except XdpctlError as second:
        if isinstance(error, XdpctlError):
            error.message += f"; taking the changes before it back failed: {second.message}"
            error.hint = "xdpctl apply --undo tries again, --resume goes on"
        return
    if isinstance(error, XdpctlError) and count > 1:
        error.message += (
            f"; the {count - 1} changes before it are taken back"
            if count > 2
            else "; the change before it is taken back"
        )


def finish(writing: Journal) -> None:
    """Write down what is now, and let go of what it does not need any more."""
    die("commit")
    if not writing.committed:
        state.write(writing.commit)
        writing.commits()
    die("end")
    collect_garbage(writing.deployment)
    writing.end()


def undo(writing: Journal, tell: Callable[[str], None] = lambda _text: None,
         progress: Callable[[int, int, Change], None] = ignore) -> list[Change]:  # fmt: skip
    """Take back every change that was begun, last first; then nothing is left of the plan.

    Raises:
        XdpctlError: one can't be taken back; those before it are still there, and the journal too.
    """
    if not writing.undoing:
        writing.write({"undoing": True})
        writing.undoing = True
    undone = []
    with context(tell) as shared:
        numbers = sorted(writing.begun, reverse=True)
        for place, number in enumerate(numbers):
            inverse = writing.changes[number].inverse()
            progress(place, len(numbers), inverse)
            die(f"before-undo:{number}")
            with contextlib.suppress(NotFoundError):  # of a device that is gone nothing is left to put back
                perform(inverse, shared)
            writing.undone(number)
            undone.append(inverse)
    collect_garbage(writing.deployment)
    writing.end()
    return undone


def resume(writing: Journal, progress: Callable[[int, int, Change], None] = ignore,
           tell: Callable[[str], None] = lambda _text: None) -> list[Change]:  # fmt: skip
    """Make every change that is not made yet, and commit.

    Raises:
        XdpctlError: one was refused; the journal stays.
    """
    made = []
    if not writing.committed:
        with context(tell) as shared:
            for number, change in enumerate(writing.changes):
                if number not in writing.done:
                    progress(number, len(writing.changes), change)
                    _make(writing, number, shared)
                    made.append(change)
    finish(writing)
    return made


def pending() -> Journal | None:
    """What was left half done, if anything; the caller holds the lock."""
    return journal.read()


def require_nothing_pending() -> None:
    """Stop where something is half done.

    Raises:
        InterruptedError_: it is, and what to type.
    """
    found = journal.read()
    if found is not None:
        raise InterruptedError_(
            found.told, hint="xdpctl apply --resume finishes it, xdpctl apply --undo takes it back"
        )


def wait_until_settled(wait: float = 0.0) -> None:
    """Wait while another command is in the midst of its changes; stop where something was left half done.

    Raises:
        InterruptedError_: it was, and what to type.
        LockedError: the other one takes longer than `wait` seconds.
    """
    until = time.monotonic() + wait
    while True:
        stamp, who = lock.taken(), lock.holder()
        if journal.read() is None:
            return
        if who is None:
            if lock.taken() == stamp:
                require_nothing_pending()
        elif time.monotonic() >= until:
            raise lock.LockedError(
                f"{who} is changing this machine", hint="--wait SECONDS waits until it has ended"
            )
        time.sleep(lock.STEP_SECONDS)


def collect_garbage(name: str) -> None:
    """Unpin what the present generation of a deployment does not use: old versions, what was held of others."""
    stored = state.current(name)
    programs_used = set(stored.programs) if stored is not None and not stored.destroyed else set()
    maps_used = set(stored.maps) if stored is not None and not stored.destroyed else set()
    base = state.pin_folder(name)
    if not programs_used:
        from xdpctl.deploy import drift, observe

        # links whose device went without us: nothing else would name them once the programs are gone
        gone = set(observe.programs_below(base).values())
        drift.clear_stale(observe.link_pins() if gone else (), gone)
    with contextlib.suppress(OSError):
        for folder in sorted((base / "programs").iterdir()):
            if folder.name not in programs_used:
                programs.forget_folder(name, folder.name)
    for path in pins.walk(base / "maps"):
        if str(path.relative_to(base)) not in maps_used:
            pins.unpin(path)
    for path in pins.walk(base / "kept"):
        pins.unpin(path)
    state.forget_objects(name)
