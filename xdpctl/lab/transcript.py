"""A session as a person would have typed it, printed while it runs, and stopped where it goes wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from xdpctl.lab.sandbox import LabError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence


class Place(Protocol):
    """Where commands run: a `Sandbox`, or the machine itself."""

    def run(
        self, command: str, *, inside: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; see `xdpctl.lab.sandbox.run`."""

    def silence(self, name: str) -> None:
        """Switch IPv6 off in a named namespace."""


class Transcript:
    """Runs commands in a place and prints them with what they said; colour only on a terminal.

    Attributes:
        steps: the same as data: ``{"chapter"}``, ``{"say"}``, ``{"command", "output", "exit_code"}``, ``{"table"}``.
    """

    def __init__(
        self, sandbox: Place, write: Callable[[str], object] = sys.stdout.write, *, colour: bool | None = None
    ) -> None:
        self.sandbox = sandbox
        self.steps: list[dict[str, Any]] = []
        self._write = write
        self._colour = sys.stdout.isatty() if colour is None else colour

    def _line(self, text: str = "", style: str = "") -> None:
        if style and self._colour:
            text = f"\033[{style}m{text}\033[0m"
        self._write(text + "\n")

    def chapter(self, title: str) -> None:
        """A heading."""
        self.steps.append({"chapter": title})
        self._line()
        self._line(f"== {title}", "1")

    def say(self, text: str) -> None:
        """What happens now, or what was seen, in words."""
        self.steps.append({"say": text})
        self._line(f"# {text}", "36")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Figures in columns; numbers to the right."""
        cells = [[_cell(one) for one in row] for row in rows]
        self.steps.append({"table": {"columns": list(columns), "rows": cells}})
        widths = [max(len(line[at]) for line in [list(columns), *cells]) for at in range(len(columns))]
        numbers = [
            all(isinstance(row[at], int | float | None) for row in rows) and bool(rows)
            for at in range(len(columns))
        ]
        for number, line in enumerate([list(columns), *cells]):
            text = "  ".join(
                one.rjust(width) if right else one.ljust(width)
                for one, width, right in zip(line, widths, numbers, strict=True)
            )
            self._line(f"  {text}".rstrip(), "" if number else "1")

    def shell(
        self,
        command: str,
        *,
        ends: int | None = 0,
        shows: tuple[str, ...] = (),
        only: tuple[str, ...] = (),
        inside: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and print what it printed.

        Args:
            command: the command line.
            ends: the exit code it should have; None: any.
            shows: texts that its output should hold.
            only: print the lines that begin so, and dots for the others; none given: all.
            inside: a named namespace to run it in, shown as one would type it.

        Raises:
            LabError: it did otherwise.
        """
        shown = f"ip netns exec {inside} {command}" if inside else command
        self._line(f"$ {shown}", "1;32")
        done = self.sandbox.run(command, check=False, inside=inside)
        lines = done.stdout.rstrip().splitlines()
        self.steps.append({"command": shown, "output": lines, "exit_code": done.returncode})
        for line in _shortened(lines, only) if only else lines:
            self._line(f"  {line}".rstrip())
        if ends is not None and done.returncode != ends:
            raise LabError(f"{command}: ended with {done.returncode}, expected {ends}")
        if done.returncode:
            self._line(f"  (exit code {done.returncode})", "2")
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


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _shortened(lines: list[str], only: tuple[str, ...]) -> list[str]:
    """The lines that begin as asked; one "..." for each run of others."""
    kept: list[str] = []
    for line in lines:
        wanted = line.startswith(only)
        if wanted or kept[-1:] != ["..."]:
            kept.append(line if wanted else "...")
    return kept
