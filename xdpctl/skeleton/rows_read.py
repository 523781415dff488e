"""Files of keys and values: CSV whose header names fields, JSON lines, or what ``map dump --json`` wrote.

Where all lines of a piece look like its first one (`Template`), the piece is read as columns at once; any other piece
goes line by line, which also finds the words for what is wrong with a line.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.bpf.elements import possible_cpus
from xdpctl.errors import ConfigError, NotFoundError, XdpctlError
from xdpctl.skeleton import digits
from xdpctl.skeleton.composite import StructForm
from xdpctl.skeleton.row_template import Template, csv_template, json_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from xdpctl.skeleton.forms import Form
    from xdpctl.skeleton.shape import Shape

    Format = Literal["csv", "jsonl", "json"]

PIECE = 1 << 20
"""Bytes read as columns at once."""
MOST_PROBLEMS = 1000
"""Bad lines that are told; those after them are counted."""


class Chunk(NamedTuple):
    """Elements of some lines."""

    keys: bytes
    values: bytes
    lines: Sequence[int]
    """Of each element."""


class Problem(NamedTuple):
    """A bad line."""

    line: int
    text: str
    hint: str | None = None


class Field(NamedTuple):
    """A column of CSV."""

    name: str
    side: int
    """0: of the key, 1: of the value."""
    offset: int
    form: Form


class Rows:
    """The elements that a file holds.

    Args:
        data: the file's bytes.
        shape: of the map.
        form: csv, jsonl or json; None: told by the first character.

    Attributes:
        problems: bad lines found so far, at most `MOST_PROBLEMS`.
        bad: how many there were.

    Raises:
        ConfigError: the header names no fields of the map.
    """

    def __init__(self, data: bytes, shape: Shape, form: Format | None = None) -> None:
        self._shape = shape
        self._data = data
        self._cpus = possible_cpus() if shape.stride else 1
        self.value_bytes = shape.stride * self._cpus if shape.stride else shape.value.size
        self.key_bytes = shape.key.size if shape.key is not None else 0
        self.problems: list[Problem] = []
        self.bad = 0
        first = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        self.format = form or ("jsonl" if first in {b"{", b"["} else "csv")

    def chunks(self) -> Iterator[Chunk]:
        """The elements in the order of the file; bad lines are left out, see `problems`."""
        if self.format == "csv":
            yield from self._csv()
        else:
            yield from self._json()

    def _problem(self, line: int, why: XdpctlError) -> None:
        self.bad += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(line, why.message, why.hint))

    def _finish(self, raw: bytes) -> bytes:
        """A value as the map takes it: of one CPU for each of them."""
        stride = self._shape.stride
        return raw.ljust(stride, b"\0") * self._cpus if stride else raw

    # -- CSV ---------------------------------------------------------------------------------------------------

    def _csv(self) -> Iterator[Chunk]:
        data = self._data.removeprefix(b"\xef\xbb\xbf")
        at = data.find(b"\n") + 1 or len(data)
        try:
            names = next(csv.reader([_decode(data[:at]).rstrip("\r\n")]), [])
        except csv.Error as why:
            raise ConfigError(f"line 1 is not CSV: {why}", hint=self._example()) from why
        fields = self.fields([one.strip() for one in names])
        if b'"' in data:  # cells may hold commas and line ends: no pieces
            yield from self._csv_rows(self._quoted(data), fields)
            return
        line = 2
        while at < len(data):
            end = _end_of_piece(data, at)
            piece = data[at:end]
            template = csv_template(piece, fields, self.key_bytes, self._shape) if digits.numpy() else None
            chunk = self._columns(template, piece, line)
            if chunk is not None:
                yield chunk
                line += len(chunk.lines)
            else:
                # not splitlines(), which ends lines at characters that no counting editor does
                lines = _decode(piece.removesuffix(b"\n")).split("\n")
                yield from self._csv_rows(
                    (
                        (line + n, one.removesuffix("\r").split(","))
                        for n, one in enumerate(lines)
                        if one.strip()
                    ),
                    fields,
                )
                line += len(lines)
            at = end

    def _quoted(self, data: bytes) -> Iterator[tuple[int, list[str]]]:
        """Rows behind the header where cells are in quotes, with the line that each ends on."""
        reader = csv.reader(io.StringIO(_decode(data), newline=""))
        first = True
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as why:
                self._problem(reader.line_num, ConfigError(f"not CSV: {why}"))
                continue
            if not first:
                yield reader.line_num, row
            first = False

    def fields(self, names: list[str]) -> list[Field]:
        """What each column of CSV is.

        Raises:
            ConfigError: a name is no field, or one comes twice.
        """
        if not names or names == [""]:
            raise ConfigError("the file is empty: its first line names the fields", hint=self._example())
        found = [self._field(name) for name in names]
        doubles = [name for at, name in enumerate(names) if name in names[:at]]
        if doubles:
            raise ConfigError(f"line 1: {doubles[0]} is named twice")
        if self._shape.key is not None and not any(one.side == 0 for one in found):
            raise ConfigError(
                f"line 1: no column is the key, or of it: {', '.join(names)}", hint=self._example()
            )
        return found

    def _sides(self) -> list[tuple[str, int, Form]]:
        shape = self._shape
        return [
            (name, side, of)
            for side, (name, of) in enumerate((("key", shape.key), ("value", shape.value)))
            if of is not None
        ]

    def _field(self, name: str) -> Field:
        for side_name, side, of in self._sides():
            if name == side_name:
                return Field(name, side, 0, of)
        candidates = []
        for side_name, side, of in self._sides():
            struct = of if isinstance(of, StructForm) else getattr(of, "typed", None)
            inner = name.removeprefix(f"{side_name}.")
            if isinstance(struct, StructForm):
                try:
                    form, offset, _ = struct.follow(inner, "")
                except ConfigError:
                    continue
                candidates.append((inner != name, Field(name, side, offset, form)))
        exact = [one for prefixed, one in candidates if prefixed] or [one for _, one in candidates]
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise ConfigError(
                f"line 1: {name} is in the key and in the value", hint=f"key.{name} or value.{name}"
            )
        known = [f"{side}{'.' if column.path else ''}{'.'.join(column.path)}" for side, _, of in self._sides()
                 for column in of.columns()]  # fmt: skip
        raise NotFoundError("field", name, known=["key", "value", *known], where="line 1, the header")

    def _example(self) -> str:
        names = [".".join((side, *column.path)) for side, _, of in self._sides() for column in of.columns()]
        return f"the header names fields: {','.join(names[:8])}"

    def _csv_rows(self, rows: Iterator[tuple[int, list[str]]], fields: list[Field]) -> Iterator[Chunk]:
        keys, values, lines = bytearray(), bytearray(), []
        key_size, value_size = self.key_bytes, self._shape.value.size
        for line, row in rows:
            if not row:
                continue
            sides = bytearray(key_size), bytearray(value_size)
            try:
                if len(row) != len(fields):
                    raise ConfigError(f"{len(row)} cells, the header names {len(fields)} fields")
                for one, cell in zip(fields, row, strict=True):
                    one.form.write_text(sides[one.side], one.offset, cell, one.name)
            except XdpctlError as why:
                self._problem(line, why)
                continue
            keys += sides[0]
            values += self._finish(bytes(sides[1]))
            lines.append(line)
            if len(lines) == digits_rows():
                yield Chunk(bytes(keys), bytes(values), lines)
                keys, values, lines = bytearray(), bytearray(), []
        if lines:
            yield Chunk(bytes(keys), bytes(values), lines)

    def _columns(self, template: Template | None, piece: bytes, line: int) -> Chunk | None:
        """A piece read as columns, or None where its lines differ from its first one."""
        if template is None:
            return None
        found = template.read(piece)
        if found is None:
            return None
        keys, values = found
        if self._shape.stride:
            np = digits.numpy()
            padded = np.zeros((len(values), self._cpus, self._shape.stride), np.uint8)
            padded[:, :, : values.shape[1]] = values[:, None, :]
            values = padded
        return Chunk(keys.tobytes(), values.tobytes(), range(line, line + len(keys)))

    # -- JSON --------------------------------------------------------------------------------------------------

    def _json(self) -> Iterator[Chunk]:
        data = self._data.removeprefix(b"\xef\xbb\xbf")
        start, end = _entries(data)
        if start is None or (self.format == "json" and start == 0):
            yield from self._document(data)
            return
        line = data.count(b"\n", 0, start) + 1
        at = start
        while at < end:
            stop = min(_end_of_piece(data, at), end)
            piece = data[at:stop]
            if not piece.endswith(b"\n"):
                piece += b"\n"
            even = piece
            if start and stop == end:  # the last entry of a document has no comma behind it
                even = piece.rstrip() + b",\n"
            template = json_template(even, self.key_bytes, self._shape) if digits.numpy() else None
            chunk = self._columns(template, even, line)
            if chunk is not None:
                yield chunk
                line += len(chunk.lines)
            else:
                lines = piece.split(b"\n")[:-1]
                yield from self._json_rows(
                    ((line + n, one.strip().removesuffix(b",")) for n, one in enumerate(lines) if one.strip())
                )
                line += len(lines)
            at = stop

    def _json_rows(self, rows: Iterator[tuple[int, bytes]]) -> Iterator[Chunk]:
        keys, values, lines = bytearray(), bytearray(), []
        for line, text in rows:
            try:
                key, value = self._entry(_loads(text))
            except XdpctlError as why:
                self._problem(line, why)
                continue
            keys += key
            values += value
            lines.append(line)
            if len(lines) == digits_rows():
                yield Chunk(bytes(keys), bytes(values), lines)
                keys, values, lines = bytearray(), bytearray(), []
        if lines:
            yield Chunk(bytes(keys), bytes(values), lines)

    def _document(self, data: bytes) -> Iterator[Chunk]:
        """One JSON value: a list of entries, or an object with ``entries``; entries are counted for lines."""
        found = _loads(data)
        entries = found.get("entries") if isinstance(found, dict) and "entries" in found else found
        if isinstance(entries, dict) and set(entries) <= {"key", "value", "sum"}:
            entries = [entries]
        if not isinstance(entries, list):
            raise ConfigError(
                "the file holds no entries",
                hint='a list of {"key": ..., "value": ...}, or one such object a line',
            )
        yield from self._json_rows((at + 1, json.dumps(one).encode()) for at, one in enumerate(entries))

    def _entry(self, found: Any) -> tuple[bytes, bytes]:
        shape = self._shape
        if not isinstance(found, dict):
            raise ConfigError('not of the form {"key": ..., "value": ...}')
        unknown = found.keys() - {"key", "value", "sum"}
        if unknown:
            raise NotFoundError("field", str(min(unknown)), known=("key", "value"))
        if shape.key is not None and "key" not in found:
            raise ConfigError("key is missing")
        if "value" not in found:
            raise ConfigError("value is missing")
        key = shape.key.encode(found["key"], path="key") if shape.key is not None else b""
        value = found["value"]
        if shape.stride and isinstance(value, list) and len(value) == self._cpus:
            each = (shape.value.encode(one, path=f"value[{cpu}]") for cpu, one in enumerate(value))
            return key, b"".join(one.ljust(shape.stride, b"\0") for one in each)
        return key, self._finish(shape.value.encode(value, path="value"))


def digits_rows() -> int:
    """Rows of a chunk that is read line by line."""
    return 1 << 14


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as why:
        raise ConfigError(f"not valid JSON: {str(why).replace(': line 1 column', ' at character')}") from why


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _end_of_piece(data: bytes, at: int) -> int:
    """Where a piece that starts at `at` ends: behind a line."""
    if at + PIECE >= len(data):
        return len(data)
    end = data.rfind(b"\n", at, at + PIECE)
    if end < 0:
        end = data.find(b"\n", at)
    return end + 1 if end >= 0 else len(data)


def _entries(data: bytes) -> tuple[int | None, int]:
    """Where the lines of entries start and end; None: the file is one JSON value written otherwise."""
    stripped = data.lstrip()
    start = len(data) - len(stripped)
    first = data[start : data.find(b"\n", start) % (len(data) + 1)]
    try:
        found = json.loads(first)
        if isinstance(found, dict):
            return (None if "entries" in found else start), len(data)
    except (ValueError, RecursionError):
        pass
    head = data.find(b'"entries": [\n', 0, 1 << 16)
    tail = data.rfind(b"\n  ]\n}", max(0, len(data) - 64))
    if first == b"{" and 0 <= head < tail:
        return head + len(b'"entries": [\n'), tail
    # a list, or an object over several lines; what is neither goes line by line, so that the bad line is told
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return start, len(data)
    return None, len(data)
