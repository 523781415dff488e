"""Where in the kernel is an address: function and offset, by /proc/kallsyms (kernel/kallsyms.c)."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import NamedTuple

KALLSYMS = Path("/proc/kallsyms")
_FUNCTION = re.compile(rb"(?m)^(?!0+ )([0-9a-f]+) [tTwW] ([^\s]+)(?:[\t ]+\[([^]\n]*)\])?")


class Symbol(NamedTuple):
    """A place in the kernel's code."""

    name: str
    offset: int
    """Bytes behind the function's start."""
    module: str | None

    def __str__(self) -> str:
        return f"{self.name}+{self.offset:#x}" + (f" [{self.module}]" if self.module else "")


class Symbols:
    """The kernel's functions in the order of their addresses.

    Args:
        table: what /proc/kallsyms says: ``ffffffff81000000 T name [module]`` a line. Addresses that are hidden
            (kernel.kptr_restrict) read as zeros, and are left out.
    """

    def __init__(self, table: bytes) -> None:
        # some hundred thousand lines: addresses stay as they are written, all in so many digits, which sorts them too
        rows = _FUNCTION.findall(table)
        rows.sort()
        self._rows = rows
        self._starts = [row[0] for row in rows]
        self._digits = len(self._starts[0]) if rows else 16

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, address: int) -> Symbol | None:
        """The function that an address is in; None: below all, or nothing known."""
        index = bisect_right(self._starts, b"%0*x" % (self._digits, address)) - 1
        if index < 0:
            return None
        start, name, module = self._rows[index]
        offset = address - int(start, 16)
        return Symbol(name.decode(errors="replace"), offset, module.decode(errors="replace") or None)

    def extents(self, *names: str) -> list[tuple[int, int]]:
        """(first, behind last) address of each function of these names that there is."""
        wanted = {name.encode() for name in names}
        starts = self._starts
        return [
            (int(start, 16), int(starts[index + 1], 16) if index + 1 < len(starts) else int(start, 16) + 4096)
            for index, (start, name, _) in enumerate(self._rows)
            if name in wanted
        ]


@cache
def symbols() -> Symbols:
    """The running kernel's, read once a process (0.1 s); empty where it can't be read."""
    try:
        return Symbols(KALLSYMS.read_bytes())
    except OSError:
        return Symbols(b"")
