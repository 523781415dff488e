"""Where in the kernel is an address: function and offset, by /proc/kallsyms (kernel/kallsyms.c)."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import NamedTuple

KALLSYMS = Path("/proc/kallsyms")
_CODE = b"tTwW"


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
        rows = []
        for line in table.splitlines():
            fields = line.split(None, 3)
            if len(fields) >= 3 and fields[1] in _CODE and fields[0].strip(b"0"):
                rows.append(
                    (int(fields[0], 16), fields[2], fields[3].strip(b"[]\t ") if len(fields) > 3 else b"")
                )
        rows.sort()
        self._rows = rows
        self._starts = [row[0] for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, address: int) -> Symbol | None:
        """The function that an address is in; None: below all, or nothing known."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start, name, module = self._rows[index]
        return Symbol(name.decode(errors="replace"), address - start, module.decode(errors="replace") or None)

    def extents(self, *names: str) -> list[tuple[int, int]]:
        """(first, behind last) address of each function of these names that there is."""
        wanted = {name.encode() for name in names}
        return [
            (start, self._starts[index + 1] if index + 1 < len(self._starts) else start + 4096)
            for index, (start, name, _) in enumerate(self._rows)
            if name in wanted
        ]


@cache
def symbols() -> Symbols:
    """The running kernel's, read once a process (0.2 s); empty where it can't be read."""
    try:
        return Symbols(KALLSYMS.read_bytes())
    except OSError:
        return Symbols(b"")
