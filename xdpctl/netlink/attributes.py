"""Netlink attributes (struct nlattr): building them, and decoding them through tables.

A table maps an attribute's number to its name and kind, so that it can be held against the uapi header line
by line. What the kernel should never send ends in a NetlinkError, whatever the bytes.
"""

from __future__ import annotations

import errno as errno_module
import os
import struct
from typing import TYPE_CHECKING, Any

from xdpctl.errors import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NLA_TYPE_MASK = 0x3FFF
NLA_F_NESTED = 0x8000

_ATTRIBUTE = struct.Struct("=HH")
_unpack_attribute = _ATTRIBUTE.unpack_from


def attr(number: int, value: bytes) -> bytes:
    """One attribute (struct nlattr) with its padding."""
    return _ATTRIBUTE.pack(4 + len(value), number) + value + b"\0" * (-len(value) % 4)


def attr_flag(number: int) -> bytes:
    """An attribute that says yes by being there."""
    return attr(number, b"")


def attr_u8(number: int, value: int) -> bytes:
    """An attribute holding a __u8."""
    return attr(number, struct.pack("=B", value))


def attr_uint(number: int, value: int) -> bytes:
    """An attribute holding generic netlink's ``uint``: 4 bytes where they do, else 8 (nla_put_uint())."""
    return attr(number, struct.pack("=I" if value < 1 << 32 else "=Q", value))


def attr_u32(number: int, value: int) -> bytes:
    """An attribute holding a __u32."""
    return attr(number, struct.pack("=I", value))


def attr_text(number: int, value: str) -> bytes:
    """An attribute holding a NUL-terminated string."""
    return attr(number, os.fsencode(value) + b"\0")


def attr_nest(number: int, *inner: bytes) -> bytes:
    """An attribute that holds others."""
    return attr(number | NLA_F_NESTED, b"".join(inner))


class Kind:
    """How an attribute's bytes are read: `size`, `code` (struct's) and `unpack` for fixed ones, `decode` for the rest.

    `table` names what is inside a nest.
    """

    __slots__ = ("code", "decode", "size", "table", "unpack")

    def __init__(
        self,
        *,
        size: int = 0,
        code: str | None = None,
        unpack: Callable[[bytes, int], tuple[Any, ...]] | None = None,
        decode: Callable[[bytes, int, int], Any] | None = None,
        table: Mapping[int, tuple[str, Kind]] | None = None,
    ) -> None:
        self.size = size
        self.code = code
        self.unpack = unpack
        self.decode = decode
        self.table = table


def _fixed(code: str) -> Kind:
    made = struct.Struct("=" + code)
    return Kind(size=made.size, code=code, unpack=made.unpack_from)


def _text(data: bytes, start: int, end: int) -> str:
    stop = data.find(b"\0", start, end)
    text = data[start : end if stop < 0 else stop]
    return text.decode() if text.isascii() else os.fsdecode(text)


def _uint(data: bytes, start: int, end: int) -> int:
    if end - start not in (1, 2, 4, 8):
        raise malformed(f"an integer of {end - start} bytes")
    return int.from_bytes(data[start:end], BYTE_ORDER)


LITTLE_ENDIAN = struct.pack("=H", 1)[0] == 1
BYTE_ORDER: Any = "little" if LITTLE_ENDIAN else "big"

U8 = _fixed("B")
U16 = _fixed("H")
U32 = _fixed("I")
S32 = _fixed("i")
U64 = _fixed("Q")
UINT = Kind(decode=_uint)
"""Generic netlink's ``uint``: 4 or 8 bytes, whichever the value needs."""
TEXT = Kind(decode=_text)
RAW = Kind(decode=lambda data, start, end: data[start:end])
FLAG = Kind(decode=lambda _data, _start, _end: True)
MAC = Kind(decode=lambda data, start, end: data[start:end].hex(":"))
"""A hardware address, as ``02:00:00:00:00:01``; "" for devices without one."""


def record(layout: str) -> Kind:
    """A fixed struct: decodes to the tuple of its members."""
    made = struct.Struct("=" + layout)

    def decode(data: bytes, start: int, end: int) -> tuple[Any, ...]:
        if end - start < made.size:
            raise malformed(f"a struct of {made.size} bytes in {end - start}")
        return made.unpack_from(data, start)

    return Kind(decode=decode)


def nest(table: Mapping[int, tuple[str, Kind]]) -> Kind:
    """Attributes inside an attribute, decoded to a dict by another table."""
    return Kind(decode=lambda data, start, end: attributes(data, start, end, table), table=table)


def nests(number: int, kind: Kind) -> Kind:
    """An array: every inner attribute `number`, decoded by `kind`, in order."""

    def decode(data: bytes, start: int, end: int) -> list[Any]:
        return [
            value_of(kind, data, at, stop) for found, at, stop in walk(data, start, end) if found == number
        ]

    return Kind(decode=decode)


def value_of(kind: Kind, data: bytes, start: int, end: int) -> Any:
    """One attribute's value.

    Raises:
        NetlinkError: it is too short for its kind.
    """
    if kind.unpack is not None:
        if end - start < kind.size:
            raise malformed(f"a value of {kind.size} bytes in {end - start}")
        return kind.unpack(data, start)[0]
    return kind.decode(data, start, end)  # type: ignore[misc]  # a Kind has the one or the other


def malformed(what: str) -> NetlinkError:
    """The error for bytes that the kernel should never send."""
    return NetlinkError(f"malformed netlink answer: {what}", errno=errno_module.EBADMSG)


def name_at(
    data: bytes, start: int, end: int, offset: int, table: Mapping[int, tuple[str, Kind]]
) -> str | None:
    """Name of the attribute that begins at, or holds, `offset`: ``wanted.bits``; None for one not in the table."""
    for number, at, stop in walk(data, start, end):
        if at - 4 <= offset < stop:
            name, kind = table.get(number, (None, None))
            if name is None:
                return None
            inner = None
            if offset >= at and kind is not None and kind.table is not None:
                inner = name_at(data, at, stop, offset, kind.table)
            return f"{name}.{inner}" if inner else name
    return None


def walk(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Every attribute between two offsets: number without flags, start and end of its value.

    Raises:
        NetlinkError: an attribute reaches beyond `end`.
    """
    while start + 4 <= end:
        length, number = _unpack_attribute(data, start)
        if length < 4 or start + length > end:
            raise malformed(f"an attribute of {length} bytes in {end - start}")
        yield number & NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def attributes(data: bytes, start: int, end: int, table: Mapping[int, tuple[str, Kind]]) -> dict[str, Any]:
    """The attributes that `table` names; others are skipped (a newer kernel's), a repeated one: the last.

    Raises:
        NetlinkError: an attribute reaches beyond `end` or is too short for its kind.
    """
    if end - start < LONG:
        return _walked(data, start, end, table)
    key = id(table), end - start
    known = _SHAPES.get(key, ())
    for shape in known:
        found = shape.read(data, start)
        if found is not None:
            return found
    found = _walked(data, start, end, table)
    if len(known) < MOST_ALIKE and len(_SHAPES) < MOST_LENGTHS:
        _SHAPES[key] = (*known, Shape(data, start, end, table))
    return found


LONG, MOST_ALIKE, MOST_LENGTHS = 64, 4, 512
"""Bytes from which a message is worth a shape; shapes a length of message, and lengths, that are remembered."""


class Shape:
    """The places of every attribute in a message: where the next has the same headers, its values stand there too.

    A link message has sixty attributes, a host a thousand links, most of them alike: comparing all headers at once
    and unpacking all numbers at once is a third of the work of going from attribute to attribute.
    """

    __slots__ = ("_decoded", "_expected", "_headers", "_names", "_table", "_values")

    def __init__(self, data: bytes, start: int, end: int, table: Mapping[int, tuple[str, Kind]]) -> None:
        self._table = table  # held, so that its id stays its own
        headers, values = ["="], ["="]
        read = unpacked = start
        names: list[str] = []
        self._decoded: list[tuple[str, Callable[[bytes, int, int], Any], int, int]] = []
        for number, at, stop in walk(data, start, end):
            headers.append(f"{at - 4 - read}xI")
            read = at
            name, kind = table.get(number, (None, None))
            if name is None or kind is None:
                continue
            if kind.code is None:
                self._decoded.append((name, kind.decode, at - start, stop - start))  # type: ignore[arg-type]
            else:
                values.append(f"{at - unpacked}x{kind.code}")
                unpacked = at + kind.size
                names.append(name)
        self._names = tuple(names)
        self._headers = struct.Struct("".join(headers)).unpack_from
        self._values = struct.Struct("".join(values)).unpack_from
        self._expected = self._headers(data, start)

    def read(self, data: bytes, start: int) -> dict[str, Any] | None:
        """The attributes of another message of the same length; None: it is of another shape."""
        if self._headers(data, start) != self._expected:
            return None
        found = dict(zip(self._names, self._values(data, start)))  # noqa: B905 - as long as each other, and often
        for name, decode, at, stop in self._decoded:
            found[name] = decode(data, start + at, start + stop)
        return found


_SHAPES: dict[tuple[int, int], tuple[Shape, ...]] = {}
"""By table and length of the message."""


def _walked(data: bytes, start: int, end: int, table: Mapping[int, tuple[str, Kind]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    get = table.get
    # spelled out rather than built on walk(): a link message has sixty attributes, a host a thousand links
    while start + 4 <= end:
        length, number = _unpack_attribute(data, start)
        stop = start + length
        if length < 4 or stop > end:
            raise malformed(f"an attribute of {length} bytes in {end - start}")
        entry = get(number & NLA_TYPE_MASK)
        if entry is not None:
            name, kind = entry
            unpack = kind.unpack
            if unpack is None:
                found[name] = kind.decode(data, start + 4, stop)  # type: ignore[misc]
            elif length - 4 < kind.size:
                raise malformed(f"{name} of {length - 4} bytes")
            else:
                found[name] = unpack(data, start + 4)[0]
        start += (length + 3) & ~3
    return found
