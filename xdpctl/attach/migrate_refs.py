"""The entries of a map that refer to devices, CPUs, programs or maps, carried over into its successor.

What such a map is read as and written as differs: an id when read, a file descriptor when written (struct
bpf_devmap_val, bpf_cpumap_val; bpf_map_copy_value() in kernel/bpf/syscall.c).
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from xdpctl.attach.migrate_counts import Counts
from xdpctl.bpf import query
from xdpctl.errors import KernelError, MapError
from xdpctl.libbpf import uapi

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.bpf.elements import Elements
    from xdpctl.skeleton.schema import Difference

MAPS = ("array_of_maps", "hash_of_maps")


class CopyReferences:
    """One map and its successor; see `migrate_copy.Copy` for the passes and arguments."""

    def __init__(
        self,
        name: str,
        old: Elements,
        new: Elements,
        difference: Difference,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._old, self._new = old, new
        self._to = difference.new
        self._check = check
        self._seen: dict[bytes, bytes] = {}

    def first(self) -> int:
        """Fill the new map.

        Raises:
            MapError: an entry does not fit.
        """
        self.again()
        return len(self._seen)

    def again(self) -> int:
        """Bring what changed since the last pass.

        Raises:
            MapError: an entry does not fit.
        """
        now = dict(self._old.items())
        changed = {key: value for key, value in now.items() if self._seen.get(key) != value}
        gone = self._seen.keys() - now.keys()
        for key in gone:
            self._new.delete(key)
        for key, value in changed.items():
            self._check()
            self._put(key, value)
        self._seen = now
        return len(changed) + len(gone)

    def last(self) -> Counts:
        """What the old program (or user space) changed until it ended; entries that the new one has changed stay.

        Raises:
            MapError: an entry does not fit.
        """
        now = dict(self._old.items())
        counts = {"changed": 0, "added": 0, "removed": 0}
        for key, value in now.items():
            before = self._seen.get(key)
            if before == value:
                continue
            if before is None and self._new.lookup(key) is None:
                counts["added"] += 1
                self._put(key, value)
            elif before is not None and self._same(self._new.lookup(key), before):
                counts["changed"] += 1
                self._put(key, value)
        for key in self._seen.keys() - now.keys():
            if self._same(self._new.lookup(key), self._seen[key]):
                counts["removed"] += self._new.delete(key)
        return Counts(len(self._seen), evicted=0, **counts)

    def keep(self, _folder: object, _number: int) -> None:
        """Nothing that is kept beyond this process: an upgrade that was cut short starts from what both maps hold."""

    def adopt(self, _folder: object, _number: int) -> None:
        """Take what both maps hold for what was copied."""
        there = dict(self._new.items())
        self._seen = {key: value for key, value in self._old.items() if self._same(there.get(key), value)}

    @staticmethod
    def _same(there: bytes | None, value: bytes) -> bool:
        """Whether both refer to the same; the shorter one to no program."""
        width = max(len(there or b""), len(value))
        return there is not None and there.ljust(width, b"\0") == value.ljust(width, b"\0")

    def _put(self, key: bytes, value: bytes) -> None:
        held = []
        try:
            if self._to.type in MAPS:
                held.append(query.open_id("map", struct.unpack("=I", value[:4])[0]))
                written = struct.pack("=i", held[0])
            else:
                program = struct.unpack("=I", value[4:8])[0] if len(value) >= 8 else 0
                if program and self._to.value.size < 8:
                    raise MapError(
                        f"map {self.name}, entry {self._old.key_text(key)}: program {program} does not fit,"
                        f" the new map's values have {self._to.value.size} bytes",
                        hint="--migrate recreate for an empty map",
                    )
                if program:
                    held.append(query.open_id("program", program))
                written = value[:4] + struct.pack("=i", held[0] if held else 0)
                written = written[: self._to.value.size].ljust(self._to.value.size, b"\0")
            self._new.update(key, written, uapi.BPF_ANY)
        except KernelError as why:
            if why.errno == errno.E2BIG:
                why.hint = why.hint or f"--map {self.name}=max_entries=N for more room"
            raise
        finally:
            for fd in held:
                os.close(fd)
