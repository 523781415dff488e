"""Keys and values of one version of a map made into those of the next, by field name, many at a time.

What `skeleton.changes` says that copying does to each field is compiled once into moves of bytes and conversions of
numbers, which numpy then does to whole columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import MapError
from xdpctl.skeleton.changes import CHECKED, KEPT, WIDENED, own_change, pairs
from xdpctl.skeleton.fields import SCALARS, Field, same_kind

if TYPE_CHECKING:
    from numpy import ndarray

    from xdpctl.skeleton.schema import Side

    Block = ndarray[Any, Any]
    """uint8, one row an element."""

MAX_STEPS = 1 << 16


class Move(NamedTuple):
    """Bytes that stay what they are."""

    source: int
    target: int
    size: int


class Number(NamedTuple):
    """A number that gets another width or sign, or lies between bytes."""

    path: str
    source: int
    """In bits, as `source_bits`."""
    source_bits: int
    source_signed: bool
    target: int
    target_bits: int
    target_signed: bool
    target_bool: bool
    type: str
    """Of the target, for messages."""


class Cut(NamedTuple):
    """Bytes that the new version has no room for: they must be zero."""

    path: str
    source: int
    size: int


class MisfitError(MapError):
    """A key or value that does not fit the new version.

    Attributes:
        row: which one of the block.
    """

    def __init__(self, row: int, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.row = row
        self.path = path
        self.why = why


class Converter(NamedTuple):
    """How the bytes of one version become those of the other."""

    old_size: int
    new_size: int
    moves: tuple[Move, ...]
    numbers: tuple[Number, ...]
    cuts: tuple[Cut, ...]
    injective: bool
    """Different ones stay different: no field is dropped."""

    @property
    def same(self) -> bool:
        """Nothing changes."""
        return (
            self.old_size == self.new_size and self.moves == (Move(0, 0, self.old_size),) and not self.numbers
        )

    def convert(self, rows: Block) -> Block:
        """New rows of old ones; what nothing says anything of is zero.

        Args:
            rows: shape (n, old_size).

        Raises:
            MisfitError: a number does not fit, or an array's cut tail is not zero; the first such row.
        """
        import numpy as np

        if self.same:
            return rows
        for cut in self.cuts:
            bad = rows[:, cut.source : cut.source + cut.size].any(axis=1)
            if bad.any():
                raise MisfitError(
                    int(bad.argmax()), cut.path, "the elements that the new one has no room for are not zero"
                )
        made = np.zeros((len(rows), self.new_size), dtype=np.uint8)
        for one in self.moves:
            made[:, one.target : one.target + one.size] = rows[:, one.source : one.source + one.size]
        for number in self.numbers:
            _convert(number, rows, made)
        return made


def converter(part: str, old: Side, new: Side) -> Converter:
    """Compile a copy by field name.

    Args:
        part: key or value, for messages.
        old: as it is.
        new: as it is to be; `Difference.why_not_copy` has no objection.

    Raises:
        MapError: too many fields.
    """
    if old.field is None or new.field is None:
        # without BTF on one side sizes are the same, or nobody came here
        size = min(old.size, new.size)
        return Converter(old.size, new.size, (Move(0, 0, size),), (), (), old.size == new.size)
    steps = _Steps(part)
    steps.field("", old.field, new.field, 0, 0)
    moves = tuple(_joined(steps.moves))
    if old.size == new.size and not steps.numbers and all(one.source == one.target for one in moves):
        covered = sum(one.size for one in moves)
        if covered == _bytes_used(old.field) and covered == _bytes_used(new.field) and steps.injective:
            moves = (Move(0, 0, old.size),)  # the paddings too, at once
    return Converter(old.size, new.size, moves, tuple(steps.numbers), tuple(steps.cuts), steps.injective)


class _Steps:
    def __init__(self, part: str) -> None:
        self.part = part
        self.moves: list[Move] = []
        self.numbers: list[Number] = []
        self.cuts: list[Cut] = []
        self.injective = True

    def _name(self, path: str) -> str:
        return f"{self.part}.{path}" if path else self.part

    def field(self, path: str, old: Field, new: Field, old_base: int, new_base: int) -> None:
        """Copy one field; the bases are bits from the start of the key or value to the struct around it."""
        if len(self.moves) + len(self.numbers) > MAX_STEPS:
            raise MapError(f"{self.part}: too many fields to copy")
        source, target = old_base + old.offset, new_base + new.offset
        if "opaque" in (old.kind, new.kind):
            return
        _, copy, _ = own_change(old, new)
        if old.kind == new.kind == "struct":
            kept = min(old.elements, new.elements)
            for at in range(kept):
                below = f"{path}[{at}]" if old.dims else path
                self._members(below, old, new, source + at * old.element_bits, target + at * new.element_bits)
            self._cut(path, source, old, kept)
        elif (old.kind in SCALARS and new.kind in SCALARS) and (
            old.element_bits != new.element_bits
            or not same_kind(old, new)
            or old.element_bits % 8
            or source % 8
            or target % 8
        ):
            self._scalars(path, old, new, source, target)
        elif copy in (KEPT, WIDENED, CHECKED):
            size = min(old.bits, new.bits) // 8
            self.moves.append(Move(source // 8, target // 8, size))
            if copy == CHECKED and old.bits > new.bits:
                self.cuts.append(Cut(self._name(path), source // 8 + size, old.bits // 8 - size))

    def _members(self, path: str, old: Field, new: Field, source: int, target: int) -> None:
        for before, after in pairs(old, new):
            if before is None:
                continue
            if after is None:
                self.injective = False
                continue
            label = f"{path}.{after.label}" if path else after.label
            self.field(label, before, after, source, target)

    def _cut(self, path: str, source: int, old: Field, kept: int) -> None:
        if old.elements > kept:
            first = (source + kept * old.element_bits) // 8
            self.cuts.append(Cut(self._name(path), first, (old.elements - kept) * old.element_bits // 8))

    def _scalars(self, path: str, old: Field, new: Field, source: int, target: int) -> None:
        if bool(old.dims) != bool(new.dims):
            self.moves.append(Move(source // 8, target // 8, old.bits // 8))
            return
        kept = min(old.elements, new.elements)
        for at in range(kept):
            name = self._name(f"{path}[{at}]" if old.dims else path)
            self.numbers.append(
                Number(
                    name,
                    source + at * old.element_bits,
                    old.element_bits,
                    old.kind == "int",
                    target + at * new.element_bits,
                    new.element_bits,
                    new.kind == "int",
                    new.kind == "bool" and old.kind != "bool",
                    new.type,
                )
            )
        self._cut(path, source, old, kept)


def _joined(moves: list[Move]) -> list[Move]:
    """The same, with those that follow each other put together."""
    found: list[Move] = []
    for one in sorted(moves, key=lambda move: move.target):
        if found:
            last = found[-1]
            if last.target + last.size == one.target and last.source + last.size == one.source:
                found[-1] = Move(last.source, last.target, last.size + one.size)
                continue
        found.append(one)
    return found


def _bytes_used(field: Field) -> int:
    """Bytes that fields lie in, without padding; those of unions once."""
    if field.kind == "struct":
        return field.elements * sum(map(_bytes_used, field.members))
    return (field.bits + 7) // 8


def _convert(number: Number, rows: Block, made: Block) -> None:
    import numpy as np

    values = read(rows, number.source, number.source_bits, signed=number.source_signed)
    low, high = _range(number.target_bits, signed=number.target_signed)
    if number.target_bool:
        low, high = 0, 1
    kind = np.iinfo(values.dtype)
    low, high = max(low, int(kind.min)), min(high, int(kind.max))
    bad = (values < low) | (values > high)
    if bad.any():
        row = int(bad.argmax())
        raise MisfitError(row, number.path, f"{int(values[row])} does not fit {number.type}")
    write(made, number.target, number.target_bits, values)


def _range(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def read(rows: Block, offset: int, bits: int, *, signed: bool) -> Block:
    """A column of numbers, int64 or uint64: `bits` of each row from bit `offset` on."""
    import numpy as np

    first, last = offset // 8, (offset + bits + 7) // 8
    word = np.zeros((len(rows), 8), dtype=np.uint8)
    big = not np.little_endian
    where = slice(8 - (last - first), 8) if big else slice(0, last - first)
    word[:, where] = rows[:, first:last]
    values = word.view(np.uint64)[:, 0]
    shift = 8 * (last - first) - (offset - 8 * first) - bits if big else offset - 8 * first
    if shift:
        values = values >> np.uint64(shift)
    left = np.uint64(64 - bits)
    found: Block = values << left  # drops what lies above
    moved: Block = found.view(np.int64) >> np.int64(64 - bits) if signed else found >> left
    return moved


def write(rows: Block, offset: int, bits: int, values: Block) -> None:
    """Put a column of numbers into `bits` of each row from bit `offset` on; the bits beside stay."""
    import numpy as np

    first, last = offset // 8, (offset + bits + 7) // 8
    big = not np.little_endian
    where = slice(8 - (last - first), 8) if big else slice(0, last - first)
    shift = 8 * (last - first) - (offset - 8 * first) - bits if big else offset - 8 * first
    mask = np.uint64((1 << bits) - 1)
    word = np.zeros((len(rows), 8), dtype=np.uint8)
    word[:, where] = rows[:, first:last]
    flat = word.view(np.uint64)[:, 0]
    flat &= ~(mask << np.uint64(shift))
    flat |= (values.view(np.uint64) & mask) << np.uint64(shift)
    rows[:, first:last] = word[:, where]
