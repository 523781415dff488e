"""A session as a person would have typed it, printed while it runs, and stopped where it goes wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from xdpctl.lab.sandbox import LabError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from xdpctl.lab.sandbox import Sandbox


class Transcript:
    """Runs commands in a sandbox and prints them with what they said; colour only on a terminal."""

    def __init__(self, sandbox: Sandbox, write: Callable[[str], object] = sys.stdout.write) -> None:
        self.sandbox = sandbox
        self._write = write
        self._colour = sys.stdout.isatty()

    def _line(self, text: str = "", style: str = "") -> None:
        if style and self._colour:
            text = f"\033[{style}m{text}\033[0m"
        self._write(text + "\n")

    def chapter(self, title: str) -> None:
        """A heading."""
        self._line()
        self._line(f"== {title}", "1")

    def say(self, text: str) -> None:
        """What happens now, or what was seen, in words."""
        self._line(f"# {text}", "36")

    def shell(
        self, command: str, *, ends: int = 0, shows: tuple[str, ...] = (), only: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and print what it printed.

        Args:
            command: the command line.
            ends: the exit code it should have.
            shows: texts that its output should hold.
            only: print the lines that begin so, and dots for the others; none given: all.

        Raises:
            LabError: it did otherwise.
        """
        self._line(f"$ {command}", "1;32")
        done = self.sandbox.run(command, check=False)
        lines = done.stdout.rstrip().splitlines()
        for line in _shortened(lines, only) if only else lines:
            self._line(f"  {line}".rstrip())
        if done.returncode != ends:
            raise LabError(f"{command}: ended with {done.returncode}, expected {ends}")
        if ends:
            self._line(f"  (exit code {ends})", "2")
        for text in shows:
            self.expect(text in done.stdout, f"{command}: its output lacks {text!r}")
        return done

    def expect(self, held: bool, otherwise: str) -> None:
        """Go on only if something is as it should be.

        Raises:
            LabError: it isn't; `otherwise` says so in words.
        """
        if not held:
            raise LabError(otherwise)


def _shortened(lines: list[str], only: tuple[str, ...]) -> list[str]:
    """The lines that begin as asked; one "..." for each run of others."""
    kept: list[str] = []
    for line in lines:
        wanted = line.startswith(only)
        if wanted or kept[-1:] != ["..."]:
            kept.append(line if wanted else "...")
    return kept
