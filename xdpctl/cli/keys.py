"""Keys as they are pressed: a terminal without line buffering and echo while it is open, as it was before afterwards.

termios(3): ICANON and ECHO are switched off, ISIG stays, so that Ctrl-C is a signal as ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
}
"""What terminals send (xterm's ctlseqs) -> name."""


def names(data: bytes) -> list[str]:
    """Keys of what was read: characters, or names of `SEQUENCES`; other sequences are dropped. Pure."""
    found: list[str] = []
    at = 0
    while at < len(data):
        if data[at] == 0x1B:
            known = next((one for one in SEQUENCES if data.startswith(one, at)), None)
            if known is not None:
                found.append(SEQUENCES[known])
                at += len(known)
                continue
            at += 1
            if at < len(data) and data[at] in b"[O":  # a sequence that we don't know ends with a letter or ~
                at += 1
                while at < len(data) and not (data[at : at + 1].isalpha() or data[at] == 0x7E):
                    at += 1
                at += 1
            continue
        found.append(chr(data[at]))
        at += 1
    return found


class Keys:
    """The keyboard, while open; without a terminal on stdin there are never any keys."""

    def __init__(self) -> None:
        self._fd = -1
        self._before: list[object] | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError):
            if sys.stdin is not None and sys.stdin.isatty():
                import termios

                self._fd = sys.stdin.fileno()
                try:
                    self._before = termios.tcgetattr(self._fd)
                    quiet = termios.tcgetattr(self._fd)
                    quiet[3] &= ~(termios.ICANON | termios.ECHO)
                    quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
                    termios.tcsetattr(self._fd, termios.TCSADRAIN, quiet)
                except termios.error:
                    self._fd = -1
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0 and self._before is not None:
            import termios

            with contextlib.suppress(termios.error, OSError):  # the terminal is gone
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> list[str]:
        """Keys pressed within this time; returns with the first."""
        if self._fd < 0:
            time.sleep(max(0.0, seconds))
            return []
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        if not ready:
            return []
        data = os.read(self._fd, 256)
        if not data:  # the terminal is gone
            raise KeyboardInterrupt
        return names(data)
