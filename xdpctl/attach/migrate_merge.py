"""Changes to single numbers of a map's values while programs work on them, done by a BPF program of our own.

What a system call writes replaces a whole value, and with it whatever a program added since we read it. A BPF program
adds atomically (BPF_ATOMIC), and on a per-CPU map nothing else runs on its CPU between its read and its write: so a
small one is assembled for each map and run by BPF_PROG_TEST_RUN, once for each entry (``repeat``).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.bpf import asm, load
from xdpctl.bpf.program import run
from xdpctl.errors import AttachError
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError
from xdpctl.skeleton.convert import read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy import ndarray

    from xdpctl.bpf.elements import Elements
    from xdpctl.obj.flow import Counted
    from xdpctl.skeleton.fields import Field
    from xdpctl.skeleton.schema import Side

    Block = ndarray[Any, Any]

MOST_WORDS = 512
"""Numbers of one value; a larger one is changed as a whole, by a system call."""
ROOM = 1 << 20
"""Bytes of changes handed over at once."""
LOOKUP = 1
"""BPF_FUNC_map_lookup_elem."""
LOADS = {8: 0x79, 4: 0x61, 2: 0x69, 1: 0x71}
STORES = {8: 0x7B, 4: 0x63, 2: 0x6B, 1: 0x73}
ADDS = {8: 0xDB, 4: 0xC3}
"""BPF_STX | BPF_ATOMIC (BPF_XADD before 5.12), of 8 and 4 bytes; BPF_ADD is 0."""
JUMP_NE = 0x5D


class Word(NamedTuple):
    """A number within a value that is changed by one instruction."""

    offset: int
    size: int
    counter: bool
    """Add the change, whatever is there now; else write the new one, if the expected one is there."""


def words(value: Side, counted: Iterable[Counted]) -> tuple[Word, ...]:
    """The numbers of a value, counters told by what the new program adds to; without what is the kernel's own."""
    found: list[Word] = []
    marks = tuple(counted)
    if value.field is None:
        taken = [
            Word(one.offset, one.size, True)
            for one in marks
            if _can_add(one.offset, one.size) and one.offset + one.size <= value.size
        ]
        at = 0
        for one in sorted(taken):
            found += [*_pieces(at, one.offset), one]
            at = one.offset + one.size
        return (*found, *_pieces(at, value.size))
    _collect(value.field, 0, marks, found)
    merged: dict[tuple[int, int], Word] = {}
    for one in found:  # bitfields share bytes
        merged.setdefault((one.offset, one.size), one)
    return tuple(sorted(merged.values()))


def _can_add(offset: int, size: int) -> bool:
    return size in ADDS and offset % size == 0


def _collect(field: Field, base: int, marks: tuple[Counted, ...], found: list[Word]) -> None:
    start = base + field.offset
    if field.kind == "opaque":
        return
    if field.kind == "struct":
        for at in range(field.elements):
            for one in field.members:
                _collect(one, start + at * field.element_bits, marks, found)
        return
    size = field.element_bits // 8
    if (
        field.kind in ("int", "uint", "enum")
        and not start % 8
        and not field.element_bits % 8
        and size in ADDS  # what can't be a counter needs no word of its own
    ):
        end = start // 8 + field.elements * size
        every = any(one.indexed and one.size == size and start // 8 <= one.offset < end for one in marks)
        single = {one.offset for one in marks if one.size == size}
        for at in range(field.elements):
            offset = start // 8 + at * size
            counter = _can_add(offset, size) and (every or offset in single)
            if offset % size == 0:
                found.append(Word(offset, size, counter))
            else:  # of a packed struct
                found += _pieces(offset, offset + size)
        return
    found += _pieces(start // 8, (start + field.bits + 7) // 8)


def _pieces(start: int, end: int) -> Iterator[Word]:
    """Bytes as naturally aligned words."""
    while start < end:
        size = next(one for one in (8, 4, 2, 1) if start % one == 0 and start + one <= end)
        yield Word(start, size, False)
        start += size


class Merger:
    """A loaded program that changes numbers in one map's values.

    Args:
        target: the map.
        value_size: of one CPU's value.
        parts: what it may change.

    Raises:
        CallError: the kernel refuses it: a map that programs may not write to, or too large a value.
    """

    def __init__(self, target: Elements, value_size: int, parts: tuple[Word, ...]) -> None:
        self._words = parts
        self._key = target.key_bytes
        self._key_room = target.key_bytes + 7 & ~7
        self._size = self._key_room + 16 * len(parts)
        self._room = max(1, min(1 << 14, ROOM // self._size))
        self._value_size = value_size
        self._fds: list[int] = []
        try:
            self._changes = self._hold(
                load.map_(uapi.MAP_TYPE_ARRAY, 4, self._size, self._room, name="xdpctl_changes")
            )
            self._cursor = self._hold(load.map_(uapi.MAP_TYPE_ARRAY, 4, 16, 1, name="xdpctl_cursor"))
            code = _assemble(target.fd, self._changes, self._cursor, self._key_room, parts)
            self._program = self._hold(
                load.program(uapi.PROG_TYPE_XDP, code, name="xdpctl_merge", attach_type=uapi.XDP)
            )
        except BaseException:
            self.close()
            raise

    def _hold(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Let go of the program and its maps."""
        while self._fds:
            os.close(self._fds.pop())

    def change(self, keys: Block, expected: Block, wanted: Block, cpu: int | None = None) -> int:
        """Change the values of keys that are there.

        Args:
            keys: shape (n, key size).
            expected: values as they were written before, shape (n, value size).
            wanted: values as they are to be, but for what programs did meanwhile.
            cpu: of a per-CPU map, whose values to change: the calling thread moves there.

        Returns:
            how many keys were not there.
        """
        import numpy as np

        from xdpctl.bpf.map import LoadedMap

        missing = 0
        for start in range(0, len(keys), self._room):
            piece = slice(start, start + self._room)
            rows = self._rows(keys[piece], expected[piece], wanted[piece])
            at = np.arange(len(rows), dtype=np.uint32).tobytes()
            with LoadedMap(os.dup(self._changes)) as changes, LoadedMap(os.dup(self._cursor)) as cursor:
                from xdpctl.bpf import batch

                for _ in batch.write(changes, at, rows.tobytes()):
                    pass
                cursor.update(bytes(4), bytes(16))
                with on_cpu(cpu):
                    self._run(cursor, len(rows))
                state = np.frombuffer(cursor.lookup(bytes(4)) or bytes(16), np.uint64)
                missing += int(state[1])
        return missing

    def _run(self, cursor: Any, count: int) -> None:
        import numpy as np

        done = 0
        while done < count:
            try:
                run(self._program, bytes(64), repeat=count - done)
            except AttachError as why:
                if why.errno != errno.EINTR:  # a signal came: the cursor tells how far it got
                    raise
            done = int(np.frombuffer(cursor.lookup(bytes(4)), np.uint64)[0])

    def _rows(self, keys: Block, expected: Block, wanted: Block) -> Block:
        import numpy as np

        rows = np.zeros((len(keys), self._size), np.uint8)
        rows[:, : self._key] = keys
        at = self._key_room
        for one in self._words:
            old = read(expected, 8 * one.offset, 8 * one.size, signed=False)
            new = read(wanted, 8 * one.offset, 8 * one.size, signed=False)
            pair = np.stack([new - old, new] if one.counter else [old, new], axis=1)
            rows[:, at : at + 16] = pair.view(np.uint8)
            at += 16
        return rows


class on_cpu:  # noqa: N801 - read as a phrase
    """The calling thread on one CPU, and back."""

    def __init__(self, cpu: int | None) -> None:
        self._cpu = cpu

    def __enter__(self) -> None:
        if self._cpu is not None:
            self._before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {self._cpu})

    def __exit__(self, *_: object) -> None:
        if self._cpu is not None:
            os.sched_setaffinity(0, self._before)


def _assemble(target: int, changes: int, cursor: int, key_room: int, parts: tuple[Word, ...]) -> bytes:
    """One run takes the change that the cursor points to, moves the cursor on, and does it."""
    body = b""
    at = key_room
    for one in parts:
        if one.counter:
            body += asm.load(asm.R1, asm.R6, at)
            body += asm.insn(ADDS[one.size], asm.R7, asm.R1, one.offset)
        else:
            body += asm.load(asm.R1, asm.R6, at) + asm.load(asm.R2, asm.R6, at + 8)
            body += asm.insn(0x1D, asm.R1, asm.R2, off=3)  # nothing to change
            body += asm.load(asm.R3, asm.R7, one.offset, LOADS[one.size])
            body += asm.insn(JUMP_NE, asm.R3, asm.R1, off=1)
            body += asm.insn(STORES[one.size], asm.R7, asm.R2, one.offset)
        at += 16
    leave = asm.mov_imm(asm.R0, 1) + asm.leave()  # XDP_DROP
    missing = asm.load(asm.R1, asm.R8, 8) + asm.add_imm(asm.R1, 1) + asm.insn(0x7B, asm.R8, asm.R1, 8) + leave

    def lookup(fd: int) -> bytes:
        return asm.load_map(asm.R1, fd) + asm.call(LOOKUP)

    return b"".join(
        (
            asm.store_imm(asm.R10, -4, 0),
            asm.mov(asm.R2, asm.R10) + asm.add_imm(asm.R2, -4) + lookup(cursor),
            asm.jump_ne_imm(asm.R0, 0, 2) + leave,
            asm.mov(asm.R8, asm.R0),
            asm.load(asm.R1, asm.R8, 0) + asm.insn(0x63, asm.R10, asm.R1, -4),
            asm.add_imm(asm.R1, 1) + asm.insn(0x7B, asm.R8, asm.R1, 0),
            asm.mov(asm.R2, asm.R10) + asm.add_imm(asm.R2, -4) + lookup(changes),
            asm.jump_ne_imm(asm.R0, 0, 2) + leave,
            asm.mov(asm.R6, asm.R0),
            asm.mov(asm.R2, asm.R6) + lookup(target),
            asm.jump_ne_imm(asm.R0, 0, len(missing) // 8) + missing,
            asm.mov(asm.R7, asm.R0),
            body,
            leave,
        )
    )


def merger(target: Elements, value_size: int, parts: tuple[Word, ...]) -> Merger | None:
    """A `Merger`, or None where the kernel takes no such program: then values are changed as a whole."""
    if not parts or len(parts) > MOST_WORDS:
        return None
    try:
        return Merger(target, value_size, parts)
    except CallError:
        return None
