"""How many entries an upgrade carried over from one map into the next."""

from __future__ import annotations

from typing import NamedTuple


class Counts(NamedTuple):
    """What was carried over."""

    copied: int
    """Entries that the old map held when it was last read before the new program started."""
    changed: int
    """Entries that the old program changed after that, merged into the new map."""
    added: int
    removed: int
    evicted: int
    """Of an LRU map: copied entries that the kernel let go of again, for it lacked room."""

    def describe(self) -> str:
        """``1000000 entries copied, 31 changed meanwhile``."""
        parts = [f"{self.copied} entr{'y' if self.copied == 1 else 'ies'} copied"]
        for count, verb in ((self.changed, "changed"), (self.added, "added"), (self.removed, "removed")):
            if count:
                parts.append(f"{count} {verb} meanwhile")
        if self.evicted:
            parts.append(f"{self.evicted} evicted (the LRU map had no room for them)")
        return ", ".join(parts)
