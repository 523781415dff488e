"""Numbers in memory: integers up to 128 bits, enums, pointers, floats and bitfields, read, checked and written."""

from __future__ import annotations

import struct
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from xdpctl.btf.names import spell
from xdpctl.btf.types import Enum, Float, Int, Pointer
from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.btf.parse import Btf

_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FLOATS = {2: "e", 4: "f", 8: "d"}
POINTER = 8
"""Bytes of a pointer on every BPF target."""


def misfit(value: Any, spelled: str, path: str, why: str = "") -> ConfigError:
    """The error for a value that does not fit."""
    shown = repr(value)
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return ConfigError(f"{shown} does not fit {path.lstrip('.') + ': ' if path else ''}{spelled}{why}")


class Number:
    """How one number is read, checked and written.

    Attributes:
        kind: int, uint, bool, char, enum, float or pointer.
        size: bytes.
        signed: two's complement.
        low, high: what fits an integer, both inclusive.
        code: of `struct`; None where that has none (128 bits, odd sizes and widths).
        read: ``read(buffer, offset)``.
    """

    __slots__ = (
        "_bits",
        "_enumerators",
        "_ids",
        "code",
        "codec",
        "high",
        "kind",
        "low",
        "read",
        "signed",
        "size",
    )

    def __init__(self, btf: Btf, type_id: int, of: Int | Enum | Float | Pointer) -> None:
        self._ids = (btf, type_id)
        self.size: int = POINTER if isinstance(of, Pointer) else of.size
        self.signed: bool = of.signed if isinstance(of, Int | Enum) else False
        self._enumerators = dict(of.values) if isinstance(of, Enum) else None
        self._bits: Bits | None = None
        code = (_SIGNED if self.signed else _UNSIGNED).get(self.size)
        bits = 8 * self.size
        if isinstance(of, Float):
            self.kind, code = "float", _FLOATS.get(self.size)
        elif isinstance(of, Int):
            bits = of.bits
            self.kind = "int" if self.signed else "uint"
            if of.is_char or of.name == "char":
                self.kind = "char"
            if of.is_bool:
                self.kind, self.signed, code = "bool", False, "?" if self.size == 1 else None
        else:
            self.kind = "pointer" if isinstance(of, Pointer) else "enum"
        self.low, self.high = bounds(bits, self.signed)
        if self.kind == "bool":
            self.high = 1
        if bits != 8 * self.size:
            code = None
            self._bits = Bits(self, of.bit_offset if isinstance(of, Int) else 0, bits, self.size)
        self.code = code
        self.codec = struct.Struct(btf.order + code) if code else None
        self.read: Callable[[Any, int], Any] = self._reader()

    def _reader(self) -> Callable[[Any, int], Any]:
        if self._bits is not None:
            return self._bits.read
        if self.codec is not None:
            unpack = self.codec.unpack_from
            return lambda data, at: unpack(data, at)[0]
        size, endian, signed = self.size, self.endian, self.signed
        if self.kind == "float":  # long double: no C compiler for BPF has it, other BTF may
            return lambda data, at: bytes(data[at : at + size]).hex()
        if self.kind == "bool":
            return lambda data, at: any(data[at : at + size])
        return lambda data, at: int.from_bytes(data[at : at + size], endian, signed=signed)

    @property
    def spelled(self) -> str:
        """The type as C writes it."""
        return spell(*self._ids)

    @property
    def endian(self) -> Literal["little", "big"]:
        """Byte order."""
        return "little" if self._ids[0].order == "<" else "big"

    def many(self, count: int) -> struct.Struct | None:
        """Codec of `count` in a row."""
        return struct.Struct(f"{self._ids[0].order}{count}{self.code}") if self.code else None

    @staticmethod
    def row(order: str, numbers: list[tuple[int, Number]], size: int) -> struct.Struct | None:
        """One codec of numbers at these offsets; None where they overlap or one has no code."""
        form, at = [order], 0
        for offset, one in numbers:
            if one.code is None or offset < at:
                return None
            form.append(f"{offset - at}x{one.code}")
            at = offset + one.size
        return struct.Struct("".join([*form, f"{size - at}x"]))

    def check(self, value: Any, path: str, bits: int = 0) -> int:
        """The integer of a value that fits (in so many bits, if a bitfield holds it).

        Raises:
            ConfigError: it does not.
        """
        if self._enumerators is not None and isinstance(value, str):
            if value not in self._enumerators:
                names = ", ".join(list(self._enumerators)[:8])
                raise misfit(value, self.spelled, path, f" (one of {names})")
            value = self._enumerators[value]
        low, high = bounds(bits, self.signed) if bits and self.kind != "bool" else (self.low, self.high)
        if self.kind == "char" and isinstance(value, str) and len(value) == 1:
            value, low, high = ord(value), 0, max(high, 255)
        try:
            number = index(value)
        except TypeError:
            raise misfit(value, self.spelled, path) from None
        if number < 0 and self._enumerators is not None and number + high + 1 in self._enumerators.values():
            number += high + 1  # clang before 15 does not say that an enum is signed
        if not low <= number <= high:
            why = "" if self.kind == "bool" else f" ({low} to {high})"
            raise misfit(value, self.spelled, path, why)
        return number

    def write(self, out: bytearray | memoryview, at: int, value: Any, path: str) -> None:
        """Put a value at a byte offset; one aligned number is one store, which the kernel never sees by half.

        Raises:
            ConfigError: it does not fit.
        """
        if self.kind == "float":
            return self._write_float(out, at, value, path)
        number = self.check(value, path)
        if self._bits is not None:
            return self._bits.put(out, at, number)
        if self.codec is not None:
            if number > self.high:  # a character beyond ASCII in a signed char
                number -= 256
            return self.codec.pack_into(out, at, number)
        out[at : at + self.size] = number.to_bytes(self.size, self.endian, signed=number < 0)
        return None

    def _write_float(self, out: bytearray | memoryview, at: int, value: Any, path: str) -> None:
        if self.codec is None or isinstance(value, bool | str | bytes):
            raise misfit(value, self.spelled, path)
        try:
            self.codec.pack_into(out, at, value)
        except (OverflowError, struct.error) as why:
            raise misfit(value, self.spelled, path) from why


def bounds(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest integer of so many bits."""
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


class Bits:
    """A bitfield: so many bits from a bit offset on, counted from the least significant one (big endian: the most).

    Writing reads its neighbours and writes them back: not atomic.
    """

    __slots__ = ("_bits", "_first", "_last", "_mask", "_number", "_shift")

    def __init__(self, number: Number, start: int, bits: int, size: int) -> None:
        self._number = number
        self._bits = bits
        self._first, self._last = start // 8, min((start + bits + 7) // 8, size)
        inner = start - 8 * self._first
        self._shift = inner if number.endian == "little" else 8 * (self._last - self._first) - inner - bits
        self._shift = max(self._shift, 0)
        self._mask = (1 << bits) - 1

    def read(self, data: bytes | bytearray | memoryview, at: int) -> int | bool:
        """The number in the struct that starts at `at`."""
        word = int.from_bytes(data[at + self._first : at + self._last], self._number.endian)
        found = word >> self._shift & self._mask
        if self._number.kind == "bool":
            return bool(found)
        return found - (1 << self._bits) if self._number.signed and found >> self._bits - 1 else found

    def write(self, out: bytearray | memoryview, at: int, value: Any, path: str) -> None:
        """Put a value there.

        Raises:
            ConfigError: it does not fit.
        """
        self.put(out, at, self._number.check(value, path, self._bits))

    def put(self, out: bytearray | memoryview, at: int, number: int) -> None:
        """Put a number there that fits."""
        first, last = at + self._first, at + self._last
        word = int.from_bytes(out[first:last], self._number.endian)
        word = word & ~(self._mask << self._shift) | (number & self._mask) << self._shift
        out[first:last] = word.to_bytes(last - first, self._number.endian)
