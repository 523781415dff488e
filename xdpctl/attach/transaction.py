"""All or nothing: changes that are taken back together when one of them fails or somebody presses Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

from xdpctl.errors import XdpctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpctl.bpf.program import LoadedProgram

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that would otherwise end the process between an attachment and the note of how to undo it."""


class HeldSignals:
    """Signals that came while they were held back."""

    def __init__(self) -> None:
        self.pending: list[int] = []

    def check(self) -> None:
        """Act on a signal that came meanwhile: called where it is safe to stop.

        Raises:
            KeyboardInterrupt: one came.
        """
        if self.pending:
            raise KeyboardInterrupt


@contextlib.contextmanager
def held_signals() -> Iterator[HeldSignals]:
    """Hold back `HELD` in the block; what was not acted on by `check` is delivered at its end.

    In other threads than the main one there is nothing to hold: Python delivers signals to the main thread alone.
    """
    held = HeldSignals()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in HELD:
            handler = signal.getsignal(number)
            if handler not in (
                signal.SIG_IGN,
                None,
            ):  # somebody chose to ignore it: nohup, a shell's background
                before[number] = handler
                signal.signal(number, lambda number, _frame: held.pending.append(number))
    acted = False
    try:
        yield held
    except KeyboardInterrupt:
        acted = True
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for came in held.pending:
            # KeyboardInterrupt is already on its way for SIGINT; SIGTERM and SIGHUP must end the process as such
            if not (acted and came == signal.SIGINT):
                signal.raise_signal(came)


class Transaction:
    """Changes made so far, each with how to take it back."""

    def __init__(self, signals: HeldSignals) -> None:
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self._closing = contextlib.ExitStack()
        self._programs: dict[int, LoadedProgram] = {}
        self._signals = signals
        self._settled = False

    def add(self, what: str, undo: Callable[[], object]) -> None:
        """Note a change that was just made; `what` names it in a message should undoing it fail."""
        self._undo.append((what, undo))

    def check(self) -> None:
        """Act on a signal that came meanwhile: called where it is safe to stop.

        Raises:
            KeyboardInterrupt: one came.
        """
        if not self._settled:
            self._signals.check()

    def settle(self) -> None:
        """Nothing is taken back from here on: a signal that came is delivered when the block has ended."""
        self._undo.clear()
        self._settled = True

    def program(self, number: int) -> LoadedProgram:
        """The program with this id, open until the end: undoing needs it, and else nobody may hold it any more.

        Raises:
            NotFoundError: it is gone.
            PrivilegeError: CAP_SYS_ADMIN is missing.
        """
        if number not in self._programs:
            from xdpctl.bpf.program import program_by_id

            self._programs[number] = program_by_id(number)
            self._closing.callback(self._programs[number].close)
        return self._programs[number]

    def take_back(self) -> list[str]:
        """Undo everything, last first; what could not be undone, in words."""
        failed = []
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except Exception as error:  # noqa: BLE001 - the others must be undone all the same
                failed.append(f"{what} ({error})")
        return failed

    def close(self) -> None:
        """Let go of what was held."""
        self._closing.close()


@contextlib.contextmanager
def transaction() -> Iterator[Transaction]:
    """A block whose changes all stay, or none: any exception, and any signal of `HELD`, takes them back.

    Raises:
        KeyboardInterrupt: SIGINT came; everything is as it was.
        XdpctlError: what the block raised, told with what could not be taken back.
    """
    with held_signals() as signals:
        changes = Transaction(signals)
        try:
            yield changes
            changes.check()
        except BaseException as error:
            failed = changes.take_back()
            if failed and isinstance(error, XdpctlError):
                error.message += f"; could not be put back: {', '.join(failed)}"
            elif failed:
                raise XdpctlError(f"interrupted, and could not be put back: {', '.join(failed)}") from error
            raise
        finally:
            changes.close()
