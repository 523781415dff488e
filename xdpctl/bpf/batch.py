"""Many elements of a map by one system call each time (BPF_MAP_*_BATCH, Linux 5.6), or one by one where there is none.

Which types of map have batches differs: hashes and arrays from 5.6, percpu_array and lpm_trie from 5.13, maps of maps
from 5.19 (`.map_lookup_batch` in kernel/bpf/*.c). Nothing is asked beforehand: an operation that answers EINVAL or
ENOTSUPP is done one by one, and the map remembers.
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import walk
from xdpctl.bpf.refused import ENOTSUPP
from xdpctl.errors import KernelError, MapError
from xdpctl.libbpf import memory
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import MapBatchOpts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdpctl.bpf.elements import Elements

PIECE = 1 << 16
"""Elements a call: few enough for Ctrl-C and progress, many enough that the call costs nothing."""
MEMORY = 1 << 23
"""Bytes of values a call."""
_MISSING = frozenset({errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP})


class Batch(NamedTuple):
    """Elements in a row: keys and values, each without gaps."""

    length: int
    """Elements."""
    keys: bytes
    values: bytes
    key_bytes: int
    value_bytes: int

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of each."""
        key, value, keys, values = self.key_bytes, self.value_bytes, self.keys, self.values
        for at in range(self.length):
            yield keys[at * key : (at + 1) * key], values[at * value : (at + 1) * value]

    def head(self, most: int) -> Batch:
        """The first elements of it."""
        count = min(most, self.length)
        return self._replace(
            length=count,
            keys=self.keys[: count * self.key_bytes],
            values=self.values[: count * self.value_bytes],
        )


class PartlyDoneError(MapError):
    """An operation on many elements that the kernel stopped in the middle.

    Attributes:
        done: elements that were done before, from the first on.
        why: what stopped it.
    """

    def __init__(self, why: KernelError, done: int) -> None:
        super().__init__(why.message, errno=why.errno, hint=why.hint)
        self.why = why
        self.done = done


def room(elements: Elements) -> int:
    """How many elements one call carries."""
    return max(1, min(PIECE, MEMORY // max(1, elements.value_bytes)))


def read(elements: Elements, *, size: int | None = None) -> Iterator[Batch]:
    """Every element once, also while the map changes: what comes or goes meanwhile may be left out.

    Args:
        elements: of the map.
        size: elements a batch, about; by default `room`.

    Raises:
        MapError: this type of map can't be read, or it changes too fast.
    """
    size = size or room(elements)
    if "lookup" not in elements.one_by_one:
        batches = _read(elements, size)
        if elements.type in walk.PASSED_OVER:
            batches = _once(itertools.chain(batches, _read(elements, size)))
        first = next(batches, None)
        if first is not None:
            yield first
            yield from batches
            return
        if "lookup" not in elements.one_by_one:
            return
    keys, values = bytearray(), bytearray()
    count = 0
    for key in walk.keys(elements):
        value = elements.lookup(key)
        if value is None:
            continue
        keys += key
        values += value
        count += 1
        if count == size:
            yield Batch(count, bytes(keys), bytes(values), elements.key_bytes, elements.value_bytes)
            keys, values, count = bytearray(), bytearray(), 0
    if count:
        yield Batch(count, bytes(keys), bytes(values), elements.key_bytes, elements.value_bytes)


def _read(elements: Elements, size: int, function: str = "bpf_map_lookup_batch") -> Iterator[Batch]:
    opts = MapBatchOpts()
    key, value = elements.key_bytes, elements.value_bytes
    keys, values = memory.buffer(size * key), memory.buffer(size * value)
    # a hash keeps a u32 in the cursor whatever the key's size (generic_map_lookup_batch keeps a key)
    cursors = memory.buffer(max(key, 8)), memory.buffer(max(key, 8))
    turn, started, ended = 0, False, False
    while not ended:
        count = memory.U32(size)
        try:
            getattr(lib(), function)(
                elements.fd, cursors[1 - turn] if started else None, cursors[turn], keys, values, count, opts
            )
        except CallError as why:
            if why.code == errno.ENOSPC and size * value < 2**30:  # a hash bucket longer than the room
                size *= 4
                keys, values = memory.buffer(size * key), memory.buffer(size * value)
                continue
            if why.code == errno.EINTR:
                continue
            if why.code != errno.ENOENT:
                if not started and why.code in _MISSING:
                    elements.one_by_one.add("lookup")
                    return
                raise elements.failed("lookup", why) from why
            ended = True
        started, turn = True, 1 - turn
        if count.value:
            yield Batch(
                count.value,
                memory.read(memory.address(keys), count.value * key),
                memory.read(memory.address(values), count.value * value),
                key,
                value,
            )


def _once(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Without keys that came before: a trie starts again where the key of the cursor is gone."""
    seen: set[bytes] = set()
    repeated = 0
    for one in batches:
        fresh = []
        for key, value in one.pairs():  # it may start again amidst a batch
            if key not in seen:
                seen.add(key)
                fresh.append((key, value))
        repeated += one.length - len(fresh)
        if repeated > walk.RESTARTS * max(1000, len(seen)):
            raise MapError("the map changes faster than it can be read")
        if len(fresh) == one.length:
            yield one
        elif fresh:
            keys, values = (b"".join(column) for column in zip(*fresh, strict=True))
            yield Batch(len(fresh), keys, values, one.key_bytes, one.value_bytes)


def write(elements: Elements, keys: bytes, values: bytes, *, flags: int = 0) -> Iterator[int]:
    """Write elements in their order; yields how many are written so far, from time to time and at the end.

    Args:
        elements: of the map.
        keys: without gaps.
        values: as many, without gaps.
        flags: uapi.BPF_ANY, BPF_NOEXIST, BPF_EXIST; the latter two go one by one, no batch knows them.

    Raises:
        PartlyDoneError: the kernel refused one; those before it are written.
    """
    key, value = elements.key_bytes, elements.value_bytes
    total = len(keys) // key
    if len(keys) != total * key or len(values) != total * value:
        raise MapError(
            f"{len(keys)} bytes of keys and {len(values)} of values are not the same number of elements"
        )
    opts, done, size = MapBatchOpts(elem_flags=flags), 0, room(elements)
    while done < total:
        if flags or "update" in elements.one_by_one:
            yield from _each(elements, keys, values, done, flags)
            return
        part = keys[done * key : (done + size) * key]
        count = memory.U32(len(part) // key)
        try:
            lib().bpf_map_update_batch(
                elements.fd, part, values[done * value : (done + size) * value], count, opts
            )
        except CallError as why:
            # a count that was not touched means: refused before the first one
            before = count.value if count.value < len(part) // key else 0
            done += before
            if why.code in _MISSING and not before:
                elements.one_by_one.add("update")
                continue
            if why.code == errno.EINTR:
                continue
            # once more alone: the error then is that of the element, not of the batch
            yield from _each(elements, keys, values, done, flags, most=1)
            done += 1
            continue
        done += len(part) // key
        yield done


def _each(
    elements: Elements, keys: bytes, values: bytes, done: int, flags: int, most: int | None = None
) -> Iterator[int]:
    key, value = elements.key_bytes, elements.value_bytes
    total = len(keys) // key
    for at in range(done, total if most is None else min(done + most, total)):
        try:
            elements.update(keys[at * key : (at + 1) * key], values[at * value : (at + 1) * value], flags)
        except KernelError as why:
            raise PartlyDoneError(why, at) from why
        if at % 4096 == 4095 or at + 1 == total:
            yield at + 1


def delete(elements: Elements, keys: bytes) -> int:
    """Delete keys; those that are not there are passed over.

    Returns:
        how many were there.

    Raises:
        PartlyDoneError: the kernel refused one; those before it are gone.
    """
    key = elements.key_bytes
    total, at, gone = len(keys) // key, 0, 0
    opts = MapBatchOpts()
    while at < total:
        if "delete" not in elements.one_by_one:
            part = keys[at * key : (at + PIECE) * key]
            asked = len(part) // key
            count = memory.U32(asked)
            try:
                lib().bpf_map_delete_batch(elements.fd, part, count, opts)
                at, gone = at + asked, gone + asked
                continue
            except CallError as why:
                done = count.value if count.value < asked else 0
                at, gone = at + done, gone + done
                if why.code in _MISSING and not done:
                    elements.one_by_one.add("delete")
                # ENOENT: the first that is not there ends a batch; alone, it is passed over
        try:
            gone += elements.delete(keys[at * key : (at + 1) * key])
        except KernelError as why:
            raise PartlyDoneError(why, at) from why
        at += 1
    return gone


def lookup_many(elements: Elements, keys: Sequence[bytes]) -> list[bytes | None]:
    """The value of each key, None where it is not there; the kernel has no batch of keys of one's choice."""
    return [elements.lookup(key) for key in keys]
