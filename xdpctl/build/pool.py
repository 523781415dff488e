"""Runs compilers side by side, and leaves none running however it ends."""

from __future__ import annotations

import contextlib
import selectors
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType, TracebackType

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Ended(Generic[Key]):
    """A process that came to its end.

    Attributes:
        key: what `Pool.start` was given.
        returncode: exit status, or minus the signal that ended it.
        output: what it wrote to stdout and stderr.
        began: when it was started, ns since the epoch.
        seconds: how long it ran.
    """

    key: Key
    returncode: int
    output: str
    began: int
    seconds: float


@dataclass(slots=True)
class _Running(Generic[Key]):
    key: Key
    process: subprocess.Popen[bytes]
    output: bytearray
    began: int
    clock: float


class Pool(Generic[Key]):
    """A context in which processes run; its end kills those that still do."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._running: list[_Running[Key]] = []

    def __len__(self) -> int:
        return len(self._running)

    def start(self, key: Key, argv: Sequence[str]) -> None:
        """Start `argv`.

        Raises:
            OSError: it can't be started.
        """
        with _no_interrupt():  # between fork and the list it would be nobody's
            began, clock = time.time_ns(), time.monotonic()
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            one = _Running(key, process, bytearray(), began, clock)
            self._running.append(one)
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            self._selector.register(process.stdout, selectors.EVENT_READ, one)

    def wait(self) -> Ended[Key]:
        """The next process to end; one must be running."""
        while True:
            for ready, _ in self._selector.select():
                one: _Running[Key] = ready.data
                pipe = one.process.stdout
                assert pipe is not None  # noqa: S101 - only pipes are registered
                data = pipe.read1(65536)  # type: ignore[attr-defined]
                if data:
                    one.output += data
                    continue
                self._selector.unregister(pipe)
                returncode = one.process.wait()
                pipe.close()
                self._running.remove(one)
                text = one.output.decode(errors="replace")
                return Ended(one.key, returncode, text, one.began, time.monotonic() - one.clock)

    def __enter__(self) -> Pool[Key]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._running:
            one.process.kill()
        for one in self._running:
            one.process.wait()
            if one.process.stdout is not None:
                one.process.stdout.close()
        self._running.clear()
        self._selector.close()


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; then it is delivered as ever."""
    if threading.current_thread() is not threading.main_thread() or not callable(
        signal.getsignal(signal.SIGINT)
    ):
        yield  # only the main thread gets it; and where it is ignored (a job in the background) it stays so
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)
