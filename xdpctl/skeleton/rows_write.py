"""Elements of a map as text: JSON lines, CSV, or lines for people; columns at once where numpy is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xdpctl.bpf.elements import possible_cpus
from xdpctl.errors import ConfigError
from xdpctl.skeleton import digits
from xdpctl.skeleton.composite import StructForm
from xdpctl.skeleton.forms import AddressForm, BitsForm, NumberForm, shown
from xdpctl.skeleton.percpu import total
from xdpctl.skeleton.plain import PrefixForm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from xdpctl.bpf.batch import Batch
    from xdpctl.skeleton.forms import Form
    from xdpctl.skeleton.shape import Shape

    Style = Literal["json", "csv", "text"]

ROWS = 1 << 15
"""Written at once; more would not fit the processor's cache."""
Part = bytes | tuple[str, int, "Form"]
"""A literal, or ``key`` or ``value``, a byte offset in it, and the form there."""


class RowWriter:
    """Writes elements of one shape in one style.

    Args:
        shape: of the map.
        style: json (an object a line), csv or text (for people).

    Raises:
        ConfigError: this shape can't be written in this style.
    """

    def __init__(self, shape: Shape, style: Style) -> None:
        self._shape = shape
        self._style = style
        if style == "csv" and shape.stride:
            raise ConfigError("per-CPU values have no place in CSV", hint="--json or --jsonl")
        self._key = list(_parts("key", 0, shape.key, style)) if shape.key is not None else []
        self._value = list(_parts("value", 0, shape.value, style))

    def header(self) -> str:
        """The first line of CSV; nothing in the other styles."""
        if self._style != "csv":
            return ""
        sides = [("key", self._shape.key), ("value", self._shape.value)]
        names = [
            ".".join((side, *column.path)) for side, of in sides if of is not None for column in of.columns()
        ]
        return ",".join(names) + "\n"

    def rows(self, batch: Batch, before: bytes = b"", after: bytes = b"\n") -> Iterator[str]:
        """The elements of a batch as text.

        Args:
            batch: of the map.
            before: of each row.
            after: of each row.
        """
        if self._shape.stride or digits.numpy() is None or batch.length < 64:
            yield "".join(self._slow(batch, before.decode(), after.decode()))
            return
        for start in range(0, batch.length, ROWS):
            stop = min(start + ROWS, batch.length)
            yield self._fast(batch, start, stop, before, after).decode()

    # -- many at once ------------------------------------------------------------------------------------------

    def _template(self) -> list[Part]:
        if self._style == "json":
            middle = [b', "value": '] if self._key else []
            first: list[Part] = [b'{"key": '] if self._key else [b'{"value": ']
            return [*first, *self._key, *middle, *self._value, b"}"]
        between = b"," if self._style == "csv" else b"  "
        return [*self._key, *([between] if self._key else []), *self._value]

    def _fast(self, batch: Batch, start: int, stop: int, before: bytes, after: bytes) -> bytes:
        count = stop - start
        sides = {
            "key": (batch.keys[start * batch.key_bytes : stop * batch.key_bytes], batch.key_bytes),
            "value": (batch.values[start * batch.value_bytes : stop * batch.value_bytes], batch.value_bytes),
        }
        parts: list[Any] = [before]
        for one in self._template():
            if isinstance(one, bytes):
                parts.append(one)
            else:
                side, offset, form = one
                data, row = sides[side]
                parts.append(self._column(form, data, row, offset, count))
        parts.append(after)
        return digits.joined(parts, count)

    def _column(self, form: Form, data: bytes, row: int, offset: int, count: int) -> Any:
        """Characters of one column."""
        np = digits.numpy()

        def view(kind: str, at: int = 0) -> Any:
            return np.ndarray((count,), kind, data, offset + at, (row,))

        def octets(at: int) -> Any:
            return np.ndarray((count, 4), np.uint8, data, offset + at, (row, 1))

        quote = b'"' if self._style == "json" else b""
        if type(form) is NumberForm and not form.layout.enumerators and form.size in {1, 2, 4, 8}:
            kind = form.layout.kind
            if kind in {"uint", "pointer"}:
                return digits.write_numbers(view(f"{'>' if form.network else '='}u{form.size}"))
            if kind == "int" and (form.size < 8 or (view("=i8") != -(2**63)).all()):
                return digits.write_signed(view(f"=i{form.size}"))
        if isinstance(form, AddressForm) and form.size == 4:
            return _quoted(digits.write_dotted(octets(0)), quote)
        if isinstance(form, PrefixForm) and form.size == 8:
            length = view("=u4").astype(np.int64)
            behind = (np.int64(1) << np.clip(32 - length, 0, 32)) - 1
            if (length <= 32).all() and not (view(">u4", 4).astype(np.int64) & behind).any():
                slash = np.full((count, 1), 47, np.uint8)
                parts = [
                    digits.write_dotted(octets(4)),
                    slash,
                    digits.write_numbers(length.astype(np.uint32)),
                ]
                return _quoted(np.concatenate(parts, axis=1), quote)
        spell = _speller(form, self._style)
        known: dict[bytes, bytes] = {}
        texts = []
        for at in range(offset, offset + count * row, row):
            raw = data[at : at + form.size]
            text = known.get(raw)
            if text is None:
                text = known[raw] = spell(raw).encode()
            texts.append(text)
        return digits.write_texts(texts)

    # -- one by one --------------------------------------------------------------------------------------------

    def _slow(self, batch: Batch, before: str, after: str) -> Iterator[str]:
        for key, value in batch.pairs():
            yield before
            if self._style == "json":
                yield json.dumps(self.entry(key, value))
            elif self._style == "text":
                yield self.text(key, value)
            else:
                yield ",".join(
                    _csv(column.form.text(raw, column.offset))
                    for form, raw in ((self._shape.key, key), (self._shape.value, value))
                    if form is not None
                    for column in form.columns()
                )
            yield after

    def entry(self, key: bytes, value: bytes) -> dict[str, Any]:
        """One element as JSON has it: ``key``, ``value``; per-CPU values as a list by CPU, with their ``sum``."""
        shape = self._shape
        found: dict[str, Any] = {} if shape.key is None else {"key": shape.key.read(key, 0)}
        found["value"] = cpus = read_value(shape, value)
        if shape.stride:
            found["sum"] = summed(cpus)
        return found

    def text(self, key: bytes, value: bytes) -> str:
        """One element as a line for people; of per-CPU values the sum, where they can be added."""
        shape = self._shape
        start = f"{shape.key.text(key)}  " if shape.key is not None else ""
        if not shape.stride:
            return start + shape.value.text(value)
        cpus = read_value(shape, value)
        added = summed(cpus)
        return start + (shown(cpus) if added is None else f"{shown(added)} (sum of {possible_cpus()} CPUs)")


def read_value(shape: Shape, raw: bytes) -> Any:
    """A value as JSON has it; of a per-CPU map a list by CPU."""
    if not shape.stride:
        return shape.value.read(raw, 0)
    return [shape.value.read(raw, at) for at in range(0, len(raw), shape.stride)]


def summed(cpus: list[Any]) -> Any:
    """The sum of values of CPUs, or None where they can't be added."""
    try:
        return total(cpus)
    except TypeError:
        return None


def _quoted(characters: Any, quote: bytes) -> Any:
    if not quote:
        return characters
    np = digits.numpy()
    edge = np.full((len(characters), 1), quote[0], np.uint8)
    return np.concatenate([edge, characters, edge], axis=1)


def _speller(form: Form, style: Style) -> Callable[[bytes], str]:
    if style == "json":
        return lambda raw: json.dumps(form.read(raw, 0))
    if style == "csv":
        return lambda raw: _csv(form.text(raw))
    return form.text


def _csv(text: str) -> str:
    if any(one in text for one in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _parts(side: str, base: int, form: Form, style: Style) -> Iterator[Part]:
    """Literals and columns of a key or value."""
    if not isinstance(form, StructForm) or not form.members or _overlaps(form):
        yield side, base, form
        return
    if style == "json":
        before, between, after = "{", ", ", "}"
        for name, (one, offset) in form.members.items():
            yield f"{before}{json.dumps(name)}: ".encode()
            yield from _parts(side, base + offset, one, style)
            before = between
        yield after.encode()
        return
    comma = b""
    for column in form.columns():
        label = f"{'.'.join(column.path)}=".encode() if style == "text" else b""
        yield comma + label
        yield side, base + column.offset, column.form
        comma = b"," if style == "csv" else b" "


def _overlaps(form: StructForm) -> bool:
    """Whether members share bytes: a union, or bitfields."""
    return any(isinstance(one, BitsForm) for one, _ in form.members.values()) or [
        column.form for column in form.columns()
    ] == [form]
