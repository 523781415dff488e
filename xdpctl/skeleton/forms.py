"""Keys and values as people write and read them, by their BTF type: addresses, names, ``hits=0 bytes=7``.

| C | written, and in JSON |
|---|---|
| integers | 7, 0x1f, 'a' in a char; an interface's name where 4 or 8 bytes hold its ifindex |
| __be16, __be64 | the number, stored in network byte order |
| __be32, struct in_addr | 10.0.0.1 |
| struct in6_addr, __be32[4] | 2001:db8::1 |
| __u8[6] | 02:00:00:00:00:01 |
| enum | the enumerator's name, or a number |
| bool | true, false |
| char[N] | text |
| other arrays | [1,2,3] |
| struct, union | hits=0 bytes=7 pair.a=1, or as JSON {"hits": 0, "pair": {"a": 1}} |

What is written may leave out members; they stay as they are. `read` gives what JSON can hold, `write` takes that back,
or text. See `obj.texts` for how a text becomes a number.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.btf.layout import Layout, Scalar, StructLayout
from xdpctl.btf.numbers import misfit
from xdpctl.errors import ConfigError
from xdpctl.obj.texts import Place, encode_text, in_network_order
from xdpctl.skeleton.fieldtext import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    Readable = bytes | bytearray | memoryview


class Column(NamedTuple):
    """A number or text at a fixed place of a key or value."""

    path: tuple[str, ...]
    """Members that lead there; empty for the whole key or value."""
    offset: int
    """Bytes."""
    form: Form


class Form:
    """How one type is written and read.

    Attributes:
        size: bytes.
        spelled: the type in C.
    """

    __slots__ = ("size", "spelled")

    def __init__(self, size: int, spelled: str) -> None:
        self.size = size
        self.spelled = spelled

    def read(self, data: Readable, at: int) -> Any:
        """What JSON shows for the value at a byte offset."""
        raise NotImplementedError

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """Put what people wrote (text, or what JSON holds) at a byte offset; `path` names it in errors.

        Raises:
            ConfigError: it does not fit.
        """
        raise NotImplementedError

    def write_text(self, out: bytearray, at: int, text: str, path: str) -> None:
        """Put a text as `text` gives it, or as people write it; quotes are taken off.

        Raises:
            ConfigError: it does not fit.
        """
        self.write(out, at, text, path)

    def columns(self) -> Iterator[Column]:
        """The places it is made of, in order; one, itself, where it is no struct."""
        yield Column((), 0, self)

    def text(self, data: Readable, at: int = 0) -> str:
        """One line of text, which `write` takes back."""
        return shown(self.read(data, at))

    def encode(self, value: Any, *, into: bytes | None = None, path: str = "") -> bytes:
        """The bytes of what people wrote; what it does not mention comes from `into`, or is zero.

        Raises:
            ConfigError: it does not fit.
        """
        out = bytearray(into if into is not None else self.size)
        self.write(out, 0, value, path)
        return bytes(out)

    def parse(self, text: str, *, into: bytes | None = None, path: str = "") -> bytes:
        """The bytes of a text, as `encode`.

        Raises:
            ConfigError: it does not fit.
        """
        out = bytearray(into if into is not None else self.size)
        self.write_text(out, 0, text, path)
        return bytes(out)


def shown(value: Any) -> str:
    """A value of `Form.read` as one line."""
    if isinstance(value, dict):
        return " ".join(f"{name}={one}" for name, one in _flat("", value))
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={one}" for name, one in _flat("", value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_short, value)) + "]"
    return json.dumps(value)


def _flat(prefix: str, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, one in value.items():
        if isinstance(one, dict) and one:
            yield from _flat(f"{prefix}{name}.", one)
        else:
            yield prefix + name, _short(one)


class TypedForm(Form):
    """Of a BTF type."""

    __slots__ = ("layout",)

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout.size, layout.spelled)
        self.layout = layout

    def _text(self, text: str, path: str) -> bytes:
        """The bytes that a text stands for."""
        place = Place(self.layout.btf, path or "the value", self.layout.type_id, 0, _ifindex_here)
        return encode_text(place, text, 0)[0]


def _ifindex_here(name: str) -> int:
    from xdpctl.netlink.interfaces import ifindex

    return ifindex(name)


class NumberForm(TypedForm):
    """An integer, enum, bool, float or pointer.

    Attributes:
        network: stored in network byte order whatever the machine's.
    """

    __slots__ = ("_by_value", "_number", "network")

    layout: Scalar

    def __init__(self, layout: Scalar) -> None:
        super().__init__(layout)
        self._number = layout.number
        self.network = layout.kind == "uint" and in_network_order(layout.btf, layout.type_id)
        self._by_value: dict[int, str] = {}
        for name, number in layout.enumerators:
            self._by_value.setdefault(number, name)

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        if self.network:
            return int.from_bytes(data[at : at + self.size], "big")
        return self.named(self._number.read(data, at))

    def named(self, number: Any) -> Any:
        """The enumerator's name of a number, or what else JSON takes."""
        if self._by_value:
            return self._by_value.get(number, number)
        if isinstance(number, float) and not math.isfinite(number):
            return str(number)
        return number

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, str):
            text = value.strip()
            if len(text) == 3 and text[0] == text[2] == "'":
                value = ord(text[1])
            elif not text.isdecimal() or (text[0] == "0" and len(text) > 1) or self.layout.kind == "float":
                out[at : at + self.size] = self._text(text, path)
                return
            elif len(text) > 40:
                raise misfit(text, self.spelled, path)
            else:
                value = int(text)
        if isinstance(value, bool) and self.layout.kind != "bool":
            value = int(value)
        if self.network:
            raw = self._number.check(value, path).to_bytes(self.size, "big")
            out[at : at + self.size] = raw
        else:
            self._number.write(out, at, value, path)


class BitsForm(NumberForm):
    """A bitfield; its place is the whole struct."""

    __slots__ = ("_bits",)

    def __init__(self, struct: StructLayout, name: str) -> None:
        layout = struct.fields[name].layout
        if not isinstance(layout, Scalar):
            raise TypeError(name)  # StructLayout has refused it
        super().__init__(layout)
        self._bits = struct.bitfield(name)

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        return self.named(self._bits.read(data, at))

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, str):
            value = self._number.read(self._text(value.strip(), path), 0)
        self._bits.write(out, at, int(value) if isinstance(value, bool) else value, path)


class AddressForm(TypedForm):
    """An IPv4 or IPv6 address (4 or 16 bytes), or a MAC address (6), in network byte order."""

    __slots__ = ()

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        raw = bytes(data[at : at + self.size])
        if self.size == 4:
            return "{}.{}.{}.{}".format(*raw)
        if self.size == 6:
            return raw.hex(":")
        import ipaddress

        return str(ipaddress.IPv6Address(raw))

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, str):
            raw = self._text(value, path)
        elif isinstance(value, int) and not isinstance(value, bool) and self.size == 4:
            if not 0 <= value < 2**32:
                raise misfit(value, self.spelled, path)
            raw = value.to_bytes(4, "big")
        else:
            raw = getattr(value, "packed", b"")  # ipaddress.IPv4Address and its kin
            if len(raw) != self.size:
                raw = self.layout.encode(value)
        out[at : at + self.size] = raw


class TextForm(TypedForm):
    """char[N]; bytes that are no text are shown as a list of numbers."""

    __slots__ = ()

    def read(self, data: Readable, at: int) -> Any:
        """As `Form.read`."""
        return self.layout.read(data, at)

    def write(self, out: bytearray, at: int, value: Any, path: str) -> None:
        """As `Form.write`."""
        if isinstance(value, int | float):
            value = str(value)
        self.layout.write(out, at, value, path)

    def write_text(self, out: bytearray, at: int, text: str, path: str) -> None:
        """As `Form.write_text`: bare, quoted, or a list of numbers."""
        one = text.strip()
        if len(one) > 1 and one[0] + one[-1] in {'""', "[]"}:
            self.write(out, at, from_json(one, path), path)
        else:
            self.write(out, at, text, path)


def from_json(text: str, path: str) -> Any:
    """What a JSON text holds.

    Raises:
        ConfigError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as why:
        raise ConfigError(f"{path or 'the value'} is not valid JSON: {why}") from why
