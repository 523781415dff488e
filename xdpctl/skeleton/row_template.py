"""Lines that differ in their digits alone, read as columns: the first line says where each number belongs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.skeleton import digits
from xdpctl.skeleton.composite import StructForm
from xdpctl.skeleton.forms import AddressForm, Form, NumberForm
from xdpctl.skeleton.plain import PrefixForm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.skeleton.rows_read import Field
    from xdpctl.skeleton.shape import Shape

_RUN = re.compile(rb"\d+")
_DIGITS = b"0123456789"
_JSON = re.compile(
    r'\s*(?:(\{)|(\})|("(?:[^"\\]|\\.)*")\s*(:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|([,\[\]])|([a-z]+))'
)


class Run(NamedTuple):
    """What a run of digits stands for."""

    side: int
    """0: the key, 1: the value; -1: digits of a name, the same in all lines."""
    offset: int
    """Bytes."""
    dtype: str
    """How it is stored."""
    most: int
    """Largest number that fits; of a name its number."""
    prefix: int = -1
    """Byte offset of the address that this length belongs to; -1: it is no prefix length."""


class Template:
    """How all lines of a piece look.

    Args:
        line: the first one, with its end.
        runs: one for each run of digits in it.
        sizes: bytes of a key and of a value.
    """

    def __init__(self, line: bytes, runs: list[Run], sizes: tuple[int, int]) -> None:
        self._line = line
        self._runs = runs
        self._sizes = sizes
        self._spans = [one.span() for one in _RUN.finditer(line)]

    def read(self, piece: bytes) -> tuple[Any, Any] | None:
        """(lines, bytes) arrays of keys and values; None where a line looks otherwise, or a number does not fit."""
        lines = piece.count(b"\n")
        if piece.translate(None, _DIGITS) != self._line.translate(None, _DIGITS) * lines:
            return None
        np = digits.numpy()
        first, last = self._spans[0][0], len(self._line) - self._spans[-1][1]
        gaps = [after[0] - before[1] for before, after in zip(self._spans, self._spans[1:])]  # noqa: B905
        text = digits.Text(piece)
        if not text.find(lines, first, [*gaps, last + first]):
            return None
        sides = [np.zeros((lines, size), np.uint8) for size in self._sizes]
        for field, run in enumerate(self._runs):
            numbers = text.numbers(field)
            if numbers is None:
                return None
            if run.side < 0:
                if (numbers != run.most).any():
                    return None
                continue
            if int(numbers.max()) > run.most:
                return None
            size = int(run.dtype[2:])
            out = sides[run.side]
            if run.prefix >= 0 and _behind(np, out, run.prefix, numbers):
                return None
            out[:, run.offset : run.offset + size] = (
                numbers.astype(run.dtype).view(np.uint8).reshape(lines, size)
            )
        return sides[0], sides[1]


def _behind(np: Any, out: Any, at: int, lengths: Any) -> bool:
    """Whether an address has bits set behind its prefix."""
    address = np.ascontiguousarray(out[:, at : at + 4]).view(">u4").reshape(-1).astype(np.int64)
    hosts = (np.int64(1) << (32 - lengths.astype(np.int64))) - 1
    return bool((address & hosts).any())


def _runs(form: Form, side: int, offset: int, text: bytes) -> list[Run] | None:
    """The runs of digits of a cell; None: it is not made of digits in the plain way."""
    if isinstance(form, NumberForm) and form.layout.kind in {"uint", "int", "pointer"}:
        if type(form) is not NumberForm or form.size not in {1, 2, 4, 8} or not text.isdigit():
            return None
        number = form.layout.number
        order = ">" if form.network else "<"
        kind = "i" if form.layout.kind == "int" else "u"
        return [Run(side, offset, f"{order}{kind}{form.size}", number.high)]
    if isinstance(form, AddressForm) and form.size == 4 and re.fullmatch(rb"\d+\.\d+\.\d+\.\d+", text):
        return [Run(side, offset + at, "<u1", 255) for at in range(4)]
    if isinstance(form, PrefixForm) and form.size == 8 and re.fullmatch(rb"\d+\.\d+\.\d+\.\d+/\d+", text):
        octets = [Run(side, offset + 4 + at, "<u1", 255) for at in range(4)]
        return [*octets, Run(side, offset, "<u4", 32, prefix=offset + 4)]
    return None


def csv_template(piece: bytes, fields: list[Field], key_bytes: int, shape: Shape) -> Template | None:
    """The template of CSV, from a piece's first line; None: it is not plain."""
    line = piece[: piece.find(b"\n") + 1]
    cells = line.rstrip(b"\r\n").split(b",")
    if not line or len(cells) != len(fields):
        return None
    runs: list[Run] = []
    for one, cell in zip(fields, cells, strict=True):
        found = _runs(one.form, one.side, one.offset, cell)
        if found is None:
            return None
        runs += found
    return Template(line, runs, (key_bytes, shape.value.size))


def json_template(piece: bytes, key_bytes: int, shape: Shape) -> Template | None:
    """The template of JSON lines, from a piece's first line; None: it is not plain."""
    line = piece[: piece.find(b"\n") + 1]
    if not line or not line.isascii():
        return None
    spans = dict[int, list[Run]]()
    for start, end, path in _scalars(line.decode("ascii")):
        if path is None:
            return None
        target = _target(path, shape)
        runs = _runs(target[2], target[0], target[1], line[start:end]) if target is not None else None
        if runs is None:
            return None
        for run, found in zip(runs, _RUN.finditer(line, start, end), strict=True):
            spans[found.start()] = [run]
    every = [
        spans.get(one.start(), [Run(-1, 0, "", int(one[0]) if len(one[0]) < 18 else -1)])[0]
        for one in _RUN.finditer(line)
    ]
    if {run.side for run in every} - {-1} != ({0, 1} if shape.key is not None else {1}):
        return None  # key or value is missing, or an empty object
    return Template(line, every, (key_bytes, shape.value.size))


def _target(path: tuple[str, ...], shape: Shape) -> tuple[int, int, Form] | None:
    """(side, offset, form) of a member in an entry."""
    sides = {"key": shape.key, "value": shape.value}
    form = sides.get(path[0])
    side, offset = int(path[0] == "value"), 0
    for name in path[1:]:
        if not isinstance(form, StructForm) or name not in form.members:
            return None
        form, more = form.members[name]
        offset += more
    return None if form is None else (side, offset, form)


def _scalars(line: str) -> Iterator[tuple[int, int, tuple[str, ...] | None]]:
    """(start, end, path) of each number and text in a line of nested objects; path None: it has something else."""
    path: list[str] = []
    depth, at, name, seen = 0, 0, "", set()
    while True:
        found = _JSON.match(line, at)
        if found is None:
            if line[at:].strip() not in {"", ","} or depth:
                yield 0, 0, None
            return
        opened, closed, text, colon, number, other, word = found.groups()
        at = found.end()
        if word or other in {"[", "]"} or (text and "\\" in text):
            yield 0, 0, None
            return
        if opened:
            depth += 1
            if depth > 1:
                path.append(name)
        elif closed:
            depth -= 1
            if depth > 0 and path:
                path.pop()
        elif colon:
            name = text[1:-1]
            if (*path, name) in seen:
                yield 0, 0, None
                return
            seen.add((*path, name))
        elif text:
            yield found.start(3) + 1, found.end(3) - 1, (*path, name)
        elif number:
            yield found.start(5), found.end(5), (*path, name)
