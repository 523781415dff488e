"""The entries of one map carried over into its successor: all at first, then what changed meanwhile, by field name.

Three kinds of pass over the old map: `first` fills the new one, `again` brings what changed since while the new one
is still unused, `last` merges what the old program did until it ended into the map that the new program already works
on.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.attach.migrate_counts import Counts
from xdpctl.attach.migrate_merge import merger, on_cpu, words
from xdpctl.bpf import batch
from xdpctl.bpf.elements import possible_cpus
from xdpctl.errors import KernelError, MapError
from xdpctl.libbpf import uapi
from xdpctl.skeleton.convert import MisfitError, converter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy import ndarray

    from xdpctl.bpf.elements import Elements
    from xdpctl.obj.flow import Counted
    from xdpctl.skeleton.schema import Difference

    Block = ndarray[Any, Any]

BPF_F_NO_COMMON_LRU = 2
ARRAYS = ("array", "percpu_array")


class Entries(NamedTuple):
    """Elements of a map as rows of bytes."""

    keys: Block
    """uint8, shape (n, key size)."""
    values: Block
    """uint8, shape (n, value bytes as system calls carry them)."""


class Copy:
    """One map and its successor.

    Args:
        name: of the map.
        old, new: their elements.
        difference: between the two.
        counted: numbers that the new program adds to.
        check: called between system calls, raises where it is time to stop.
        progress: told (name, entries done, entries in all).
    """

    def __init__(
        self,
        name: str,
        old: Elements,
        new: Elements,
        difference: Difference,
        *,
        counted: Iterable[Counted] = (),
        check: Callable[[], None] = lambda: None,
        progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> None:
        self.name = name
        self._old, self._new = old, new
        self._from, self._to = difference.old, difference.new
        self._keys = converter("key", difference.old.key, difference.new.key)
        self._values = converter("value", difference.old.value, difference.new.value)
        self._words = words(difference.new.value, counted)
        self._check, self._progress = check, progress
        self._seen: Entries | None = None
        self._evicted = 0

    @property
    def seen(self) -> Entries:
        """The old map's entries that the new one has been given."""
        assert self._seen is not None  # noqa: S101 - first() comes first
        return self._seen

    @seen.setter
    def seen(self, entries: Entries) -> None:
        self._seen = entries

    def first(self) -> int:
        """Fill the new map; how many entries it was given.

        Raises:
            MapError: a value does not fit, or the new map has no room.
        """
        self.seen = self._read()
        count = len(self.seen.keys)
        if self._to.type not in ARRAYS and count > self._to.max_entries:
            raise MapError(
                f"map {self.name} holds {count} entries, and the new one has room for {self._to.max_entries}",
                hint=f"--map {self.name}=max_entries={count} or more",
            )
        made = self._converted(self.seen)
        self._unique(made.keys)
        self._write(made)
        if self._to.type.startswith("lru"):
            there = sum(one.length for one in batch.read(self._new))
            self._evicted = max(0, count - there)
        return count

    def again(self) -> int:
        """Bring what changed since the last pass, while nobody works on the new map; how many entries that were.

        Raises:
            MapError: as `first`.
        """
        import numpy as np

        now = self._read()
        change = compare(self.seen, now)
        rows = np.concatenate([change.added, change.changed_now])
        made = self._converted(Entries(now.keys[rows], now.values[rows]))
        gone = self._keys.convert(self.seen.keys[change.removed])
        if self._to.type not in ARRAYS:
            batch.delete(self._new, gone.tobytes())
        self._write(made, told=False)
        self.seen = now
        return len(rows) + len(gone)

    def last(self) -> Counts:
        """Merge what changed since the last pass into the new map, while the new program works on it.

        The old program must have ended, or changes go on to come.

        Raises:
            MapError: a value does not fit, or the new map has no room any more.
        """
        now = self._read()
        change = compare(self.seen, now)
        before = Entries(self.seen.keys[change.changed_then], self.seen.values[change.changed_then])
        after = Entries(now.keys[change.changed_now], now.values[change.changed_now])
        old, new = self._converted(before), self._converted(after)
        added = self._converted(Entries(now.keys[change.added], now.values[change.added]))
        collided = self._insert(added)
        self._merge(old, new)
        if len(collided):
            rows = Entries(added.keys[collided], added.values[collided])
            self._merge(Entries(rows.keys, rows.values * 0), rows)
        gone = self._converted(Entries(self.seen.keys[change.removed], self.seen.values[change.removed]))
        removed = self._remove(gone) if self._to.type not in ARRAYS else 0
        return Counts(len(self.seen.keys), len(new.keys), len(added.keys), removed, self._evicted)

    def keep(self, folder: Path, number: int) -> None:
        """Write down what the new map has been given, for whoever finishes this should we be killed.

        Raises:
            OSError: no room; then what both maps hold must do.
        """
        for part, rows in zip(("keys", "values"), self.seen, strict=True):
            (folder / f"{number}.{part}").write_bytes(rows.tobytes())

    def adopt(self, folder: Path, number: int) -> None:
        """Take up what `keep` wrote; without it, what both maps hold counts as copied."""
        import numpy as np

        now = self._read()
        try:
            keys, values = ((folder / f"{number}.{part}").read_bytes() for part in ("keys", "values"))
            self.seen = Entries(
                np.frombuffer(keys, np.uint8).reshape(-1, now.keys.shape[1]),
                np.frombuffer(values, np.uint8).reshape(-1, now.values.shape[1]),
            )
        except (OSError, ValueError):
            there = {
                one.keys[at : at + one.key_bytes] for one in batch.read(self._new) for at in _starts(one)
            }
            known = [key.tobytes() in there for key in self._keys.convert(now.keys)]
            self.seen = Entries(now.keys[known], now.values[known])

    def _read(self) -> Entries:
        import numpy as np

        keys, values = [], []
        for one in batch.read(self._old):
            self._check()
            keys.append(np.frombuffer(one.keys, np.uint8).reshape(one.length, one.key_bytes))
            values.append(np.frombuffer(one.values, np.uint8).reshape(one.length, one.value_bytes))
        if not keys:
            return Entries(
                np.zeros((0, self._old.key_bytes), np.uint8), np.zeros((0, self._old.value_bytes), np.uint8)
            )
        found = Entries(np.concatenate(keys), np.concatenate(values))
        return self._within(found) if self._to.type in ARRAYS else found

    def _within(self, entries: Entries) -> Entries:
        """Without the elements of an array that the new one has no room for: they must be zero."""
        import numpy as np

        index = entries.keys.copy().view(np.uint32)[:, 0]
        beyond = index >= self._to.max_entries
        if not beyond.any():
            return entries
        full = beyond & entries.values.any(axis=1)
        if full.any():
            raise MapError(
                f"map {self.name} has {int(full.sum())} elements that are not zero beyond the"
                f" {self._to.max_entries} that the new one has room for, the first at {int(index[full.argmax()])}",
                hint=f"--map {self.name}=max_entries={self._from.max_entries}",
            )
        return Entries(entries.keys[~beyond], entries.values[~beyond])

    def _converted(self, entries: Entries) -> Entries:
        try:
            keys = self._keys.convert(entries.keys)
        except MisfitError as why:
            raise self._misfit(why, entries.keys[why.row]) from why
        if not self._from.per_cpu:
            try:
                return Entries(keys, self._values.convert(entries.values))
            except MisfitError as why:
                raise self._misfit(why, entries.keys[why.row]) from why
        cpus = possible_cpus()
        each = self._from.value.size + 7 & ~7
        slots = entries.values.reshape(len(keys) * cpus, each)[:, : self._from.value.size]
        try:
            made = self._values.convert(slots)
        except MisfitError as why:
            raise self._misfit(why, entries.keys[why.row // cpus], cpu=why.row % cpus) from why
        return Entries(keys, _padded(made).reshape(len(keys), self._new.value_bytes))

    def _misfit(self, why: MisfitError, key: Block, cpu: int | None = None) -> MapError:
        shown = self._old.key_text(key.tobytes())
        where = f" on CPU {cpu}" if cpu is not None else ""
        return MapError(
            f"map {self.name}, entry {shown}{where}: {why.path}: {why.why}",
            hint="change that entry, or --migrate recreate for an empty map",
        )

    def _unique(self, keys: Block) -> None:
        """Whether each entry keeps a key of its own where fields of the key are dropped."""
        import numpy as np

        if self._keys.injective or len(keys) < 2:
            return
        found, first, count = np.unique(_whole(keys), return_index=True, return_counts=True)
        if len(found) < len(keys):
            one = self.seen.keys[first[count.argmax()]].tobytes()
            raise MapError(
                f"map {self.name}: {len(keys)} entries would share {len(found)} keys in the new one, that of"
                f" {self._old.key_text(one)} for instance: the key loses a field",
                hint="--migrate recreate for an empty map",
            )

    def _write(self, entries: Entries, *, told: bool = True) -> None:
        total = len(entries.keys)
        if not total:
            return
        for cpu, part in self._shares(total):
            with on_cpu(cpu):
                for done in batch.write(
                    self._new, entries.keys[part].tobytes(), entries.values[part].tobytes()
                ):
                    self._check()
                    if told:
                        self._progress(self.name, part.start + done, total)

    def _shares(self, total: int) -> list[tuple[int | None, slice]]:
        """Which CPU writes which entries: an LRU map has free elements by CPU, and takes old ones where they end."""
        import os

        if not self._to.type.startswith("lru"):
            return [(None, slice(0, total))]
        cpus = sorted(os.sched_getaffinity(0))
        if not self._to.flags & BPF_F_NO_COMMON_LRU:
            return [(cpus[0], slice(0, total))]
        each = -(-total // len(cpus))
        return [(cpu, slice(at * each, min(total, (at + 1) * each))) for at, cpu in enumerate(cpus)]

    def _insert(self, entries: Entries) -> list[int]:
        """Add entries that the new program has not made itself; the rows of those that it has."""
        collided = []
        for row in range(len(entries.keys)):
            try:
                self._new.update(entries.keys[row].tobytes(), entries.values[row].tobytes(), uapi.BPF_NOEXIST)
            except KernelError as why:
                if why.errno != errno.EEXIST:
                    raise
                collided.append(row)
        return collided

    def _remove(self, entries: Entries) -> int:
        """Delete entries that the old program deleted, unless the new one has changed them."""
        gone = 0
        for row in range(len(entries.keys)):
            key = entries.keys[row].tobytes()
            if self._new.lookup(key) == entries.values[row].tobytes():
                gone += self._new.delete(key)
        return gone

    def _merge(self, old: Entries, new: Entries) -> None:
        """Carry changes from `old` to `new` over into values that programs change at the same time."""
        if not len(old.keys):
            return
        size = self._to.value.size
        made = merger(self._new, size, self._words)
        if made is None:
            self._exchange(old, new)
            return
        try:
            if not self._to.per_cpu:
                made.change(new.keys, old.values, new.values)
                return
            import os

            cpus = possible_cpus()
            shape = (len(new.keys), cpus, size + 7 & ~7)
            before, after = (one.values.reshape(shape)[:, :, :size] for one in (old, new))
            ours = os.sched_getaffinity(0)
            for cpu in range(cpus):
                rows = (before[:, cpu] != after[:, cpu]).any(axis=1)
                if not rows.any():
                    continue
                if cpu in ours:
                    made.change(new.keys[rows], before[rows, cpu], after[rows, cpu], cpu)
                else:  # not ours to run on: values that the new program has left alone are changed as a whole
                    self._exchange(
                        Entries(old.keys[rows], old.values[rows]), Entries(new.keys[rows], new.values[rows])
                    )
        finally:
            made.close()

    def _exchange(self, old: Entries, new: Entries) -> None:
        """The same by system calls, a value at a time: one that the new program has changed stays as it is."""
        for row in range(len(new.keys)):
            key = new.keys[row].tobytes()
            if self._new.lookup(key) == old.values[row].tobytes():
                self._new.update(key, new.values[row].tobytes())


def _starts(one: batch.Batch) -> range:
    return range(0, len(one.keys), one.key_bytes)


def _padded(rows: Block) -> Block:
    """Rows of whole 8 bytes, as a per-CPU value has them."""
    import numpy as np

    size = rows.shape[1]
    if size % 8 == 0:
        return rows
    made = np.zeros((len(rows), size + 7 & ~7), np.uint8)
    made[:, :size] = rows
    return made


class Changes(NamedTuple):
    """Rows of two readings of a map that differ."""

    added: Block
    """Rows of the later one whose key is new."""
    removed: Block
    """Rows of the earlier one whose key is gone."""
    changed_then: Block
    """Rows of the earlier one with another value, in the order of `changed_now`."""
    changed_now: Block


def compare(then: Entries, now: Entries) -> Changes:
    """What changed between two readings of a map."""
    import numpy as np

    nothing = np.zeros(0, np.int64)
    if then.keys.shape == now.keys.shape and np.array_equal(then.keys, now.keys):
        rows = _differing(then.values, now.values)
        return Changes(nothing, nothing, rows, rows)
    before, after = _whole(then.keys), _whole(now.keys)
    _, at_then, at_now = np.intersect1d(before, after, assume_unique=False, return_indices=True)
    differ = _differing(then.values[at_then], now.values[at_now])
    added = np.ones(len(after), bool)
    added[at_now] = False
    removed = np.ones(len(before), bool)
    removed[at_then] = False
    return Changes(np.flatnonzero(added), np.flatnonzero(removed), at_then[differ], at_now[differ])


def _differing(one: Block, other: Block) -> Block:
    """Rows that differ."""
    import numpy as np

    if one.shape[1] % 8 == 0 and len(one):
        one, other = (np.ascontiguousarray(rows).view(np.uint64) for rows in (one, other))
    return np.flatnonzero((one != other).any(axis=1))


def _whole(keys: Block) -> Block:
    """Each key as one value that sorts and compares: a number where it fits one, else its bytes."""
    import numpy as np

    size = keys.shape[1]
    if size <= 8:
        wide = np.zeros((len(keys), 8), np.uint8)
        wide[:, :size] = keys
        return wide.view(np.uint64)[:, 0]
    return np.ascontiguousarray(keys).view(np.dtype((np.void, size)))[:, 0]
