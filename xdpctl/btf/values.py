"""What the bytes of a value mean: decode and encode by BTF type, in the byte order of the object.

| C | Python |
|---|---|
| integers, pointers, enums | int |
| bool | bool |
| float, double | float |
| char[N] holding text | str; else a list of int |
| other arrays | list |
| struct, union | dict by member; members of anonymous structs and unions stand in it directly |
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from xdpctl.btf.names import spell
from xdpctl.btf.types import Array, Composite, Enum, Float, Int, Member, Pointer, Variable
from xdpctl.errors import ConfigError, ObjectError

if TYPE_CHECKING:
    from typing import Literal

    from xdpctl.btf.parse import Btf

MAX_NESTING = 32
MAX_ITEMS = 1 << 20
"""Array elements and members in one value; a value with more is refused, since only lying BTF has one."""

_FLOATS = {2: "e", 4: "f", 8: "d"}


def _endian(btf: Btf) -> Literal["little", "big"]:
    return "little" if btf.order == "<" else "big"


class _Budget:
    """Counts items, so that nested zero-sized arrays end."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS

    def take(self, items: int) -> None:
        self.left -= items
        if self.left < 0:
            raise ObjectError(f"a value of more than {MAX_ITEMS} items")


def decode(btf: Btf, type_id: int, data: bytes | bytearray | memoryview, offset: int = 0) -> Any:
    """The value of a type at a byte offset; see the module's table.

    Raises:
        ObjectError: the data ends before the value does, or the type has no value (void, functions, cycles).
    """
    return _decode(btf, type_id, memoryview(data), offset, 0, _Budget())


def _decode(btf: Btf, type_id: int, data: memoryview, offset: int, depth: int, budget: _Budget) -> Any:
    found = btf.resolve(type_id)
    if depth > MAX_NESTING:
        raise ObjectError(f"BTF type {type_id} is nested deeper than {MAX_NESTING} levels")
    if isinstance(found, Variable):
        return _decode(btf, found.type, data, offset, depth + 1, budget)
    if isinstance(found, Array):
        return _decode_array(btf, found, data, offset, depth, budget)
    if isinstance(found, Composite):
        _slice(data, offset, found.size, found.name or "a struct")
        value: dict[str, Any] = {}
        budget.take(len(found.members))
        for member in found.members:
            _decode_member(btf, member, data, offset, depth, budget, value)
        return value
    if isinstance(found, Pointer):
        return int.from_bytes(_slice(data, offset, 8, "a pointer"), _endian(btf))
    if isinstance(found, Int):
        raw = _slice(data, offset, found.size, found.name)
        if found.bits != 8 * found.size or found.bit_offset:
            return _bits(btf, found, raw, found.bit_offset, found.bits)
        number = int.from_bytes(raw, _endian(btf), signed=found.signed)
        return bool(number) if found.is_bool else number
    if isinstance(found, Enum):
        return int.from_bytes(_slice(data, offset, found.size, found.name), _endian(btf), signed=found.signed)
    if isinstance(found, Float):
        raw = _slice(data, offset, found.size, found.name)
        code = _FLOATS.get(found.size)
        return struct.unpack(btf.order + code, raw)[0] if code else raw.hex()
    raise ObjectError(f"{spell(btf, type_id)} has no value")


def _slice(data: memoryview, offset: int, size: int, what: str) -> bytes:
    if offset < 0 or offset + size > len(data):
        raise ObjectError(
            f"{what} of {size} bytes at offset {offset} goes beyond the {len(data)} bytes there are"
        )
    return bytes(data[offset : offset + size])


def _decode_array(btf: Btf, array: Array, data: memoryview, offset: int, depth: int, budget: _Budget) -> Any:
    size = btf.size_of(array.element)
    raw = _slice(data, offset, size * array.length, "an array")
    element = btf.resolve(array.element)
    if _is_char(element):
        text = raw.rstrip(b"\0")
        if b"\0" not in text:
            try:
                decoded = text.decode()
            except UnicodeDecodeError:
                decoded = "\0"
            if (
                decoded.isprintable()
                or not decoded.strip("\t\n\r").strip()
                or all(one.isprintable() or one in "\t\n\r" for one in decoded)
            ):
                return decoded
    if isinstance(element, Int) and size == 1 and not element.is_bool and element.bits == 8:
        budget.take(array.length)
        return [one - 256 if element.signed and one > 127 else one for one in raw]
    budget.take(array.length)
    return [
        _decode(btf, array.element, data, offset + index * size, depth + 1, budget)
        for index in range(array.length)
    ]


def _is_char(element: object) -> bool:
    return isinstance(element, Int) and element.size == 1 and (element.is_char or element.name == "char")


def _decode_member(
    btf: Btf,
    member: Member,
    data: memoryview,
    offset: int,
    depth: int,
    budget: _Budget,
    into: dict[str, Any],
) -> None:
    of = btf.resolve(member.type)
    if member.bits:
        if not member.name:
            return
        if not isinstance(of, Int | Enum):
            raise ObjectError(f"bitfield {member.name} is not an integer")
        first, last = member.bit_offset // 8, (member.bit_offset + member.bits + 7) // 8
        raw = _slice(data, offset + first, last - first, member.name)
        into[member.name] = _bits(btf, of, raw, member.bit_offset - 8 * first, member.bits)
        return
    if isinstance(of, Int) and of.bits != 8 * of.size:
        first = member.bit_offset // 8
        raw = _slice(data, offset + first, of.size, member.name)
        into[member.name] = _bits(btf, of, raw, member.bit_offset % 8 + of.bit_offset, of.bits)
        return
    value = _decode(btf, member.type, data, offset + member.bit_offset // 8, depth + 1, budget)
    if member.name:
        into[member.name] = value
    elif isinstance(value, dict):
        into.update(value)


def _bits(btf: Btf, of: Int | Enum, raw: bytes, bit_offset: int, bits: int) -> int | bool:
    """`bits` bits at a bit offset, counted from the least significant bit (big endian: from the most)."""
    number = int.from_bytes(raw, _endian(btf))
    shift = bit_offset if btf.order == "<" else 8 * len(raw) - bit_offset - bits
    number = number >> max(shift, 0) & (1 << bits) - 1
    if isinstance(of, Int) and of.is_bool:
        return bool(number)
    return number - (1 << bits) if of.signed and number >> bits - 1 else number


def encode(btf: Btf, type_id: int, value: Any, *, into: bytes | None = None) -> bytes:
    """The bytes of a value, ``size_of`` its type long: the reverse of `decode`.

    What the value does not mention (members of a struct, the tail of an array or text) comes from `into`, or is
    zero. Enumerators may be given by name, ``char`` and byte arrays as str or bytes.

    Raises:
        ConfigError: the value does not fit the type.
        ObjectError: the type has no value.
    """
    size = btf.size_of(type_id)
    if size > 64 * MAX_ITEMS:
        raise ObjectError(f"{spell(btf, type_id)} has {size} bytes")
    buffer = bytearray(into if into is not None else size)
    if len(buffer) != size:
        raise ConfigError(f"{spell(btf, type_id)} has {size} bytes, not {len(buffer)}")
    _encode(btf, type_id, value, buffer, 0, "", 0)
    return bytes(buffer)


def _encode(btf: Btf, type_id: int, value: Any, out: bytearray, offset: int, path: str, depth: int) -> None:
    found = btf.resolve(type_id)
    if depth > MAX_NESTING:
        raise ObjectError(f"BTF type {type_id} is nested deeper than {MAX_NESTING} levels")
    if isinstance(found, Variable):
        _encode(btf, found.type, value, out, offset, path, depth + 1)
    elif isinstance(found, Array):
        _encode_array(btf, found, value, out, offset, path, depth)
    elif isinstance(found, Composite):
        _encode_composite(btf, found, value, out, offset, path, depth)
    elif isinstance(found, Float):
        code = _FLOATS.get(found.size)
        if code is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise _misfit(value, spell(btf, type_id), path)
        try:
            struct.pack_into(btf.order + code, out, offset, value)
        except (OverflowError, struct.error) as why:
            raise _misfit(value, spell(btf, type_id), path) from why
    elif isinstance(found, Pointer):
        out[offset : offset + 8] = _integer(value, 64, False, "a pointer", path).to_bytes(8, _endian(btf))
    elif isinstance(found, Int | Enum):
        number = _number(btf, found, value, found.bits if isinstance(found, Int) else 8 * found.size, path)
        raw = number.to_bytes(found.size, _endian(btf), signed=number < 0)
        out[offset : offset + found.size] = raw
    else:
        raise ObjectError(f"{spell(btf, type_id)} has no value")


def _misfit(value: Any, spelled: str, path: str, why: str = "") -> ConfigError:
    shown = repr(value)
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return ConfigError(f"{shown} does not fit {path.lstrip('.') + ': ' if path else ''}{spelled}{why}")


def _integer(value: Any, bits: int, signed: bool, spelled: str, path: str) -> int:
    if not isinstance(value, int):
        raise _misfit(value, spelled, path)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise _misfit(value, spelled, path, f" ({low} to {high})")
    return int(value)


def _number(btf: Btf, of: Int | Enum, value: Any, bits: int, path: str) -> int:
    spelled = spell(btf, of.id)
    if isinstance(of, Enum):
        if isinstance(value, str):
            named = dict(of.values)
            if value not in named:
                raise _misfit(value, spelled, path, f" (one of {', '.join(list(named)[:8])})")
            value = named[value]
        return _integer(value, bits, of.signed, spelled, path)
    if of.is_bool:
        if value not in (0, 1):
            raise _misfit(value, spelled, path)
        return int(value)
    if _is_char(of) and isinstance(value, str) and len(value) == 1:
        value = ord(value)
        return _integer(value, bits, False, spelled, path)
    return _integer(value, bits, of.signed, spelled, path)


def _encode_array(
    btf: Btf, array: Array, value: Any, out: bytearray, offset: int, path: str, depth: int
) -> None:
    size = btf.size_of(array.element)
    spelled = spell(btf, array.id)
    element = btf.resolve(array.element)
    if isinstance(value, str | bytes | bytearray) and size == 1:
        if isinstance(value, str) and not _is_char(element):
            raise _misfit(value, spelled, path)
        raw = value.encode() if isinstance(value, str) else bytes(value)
        if len(raw) > array.length:
            raise _misfit(value, spelled, path, f" ({len(raw)} bytes)")
        # text replaces the whole array: a shorter string must not end in the tail of the former one
        out[offset : offset + array.length] = raw.ljust(array.length, b"\0")
        return
    if not isinstance(value, list | tuple) or len(value) > array.length:
        raise _misfit(value, spelled, path)
    for index, one in enumerate(value):
        _encode(btf, array.element, one, out, offset + index * size, f"{path}[{index}]", depth + 1)


def members(btf: Btf, composite: Composite, *, base: int = 0, depth: int = 0) -> dict[str, Member]:
    """Name -> member with the bit offset from the outermost struct; anonymous structs and unions are looked into.

    Raises:
        ObjectError: nested too deep.
    """
    if depth > MAX_NESTING:
        raise ObjectError(f"BTF type {composite.id} is nested deeper than {MAX_NESTING} levels")
    found: dict[str, Member] = {}
    for one in composite.members:
        offset = base + one.bit_offset
        if one.name:
            found[one.name] = Member(one.name, one.type, offset, one.bits)
        elif not one.bits:
            inner = btf.resolve(one.type)
            if isinstance(inner, Composite):
                found.update(members(btf, inner, base=offset, depth=depth + 1))
    return found


def _encode_composite(
    btf: Btf, composite: Composite, value: Any, out: bytearray, offset: int, path: str, depth: int
) -> None:
    spelled = spell(btf, composite.id)
    if not isinstance(value, dict):
        raise _misfit(value, spelled, path)
    known = members(btf, composite)
    for name, one in value.items():
        member = known.get(name)
        if member is None:
            raise ConfigError(
                f"{spelled} has no member {name}",
                hint=f"it has {', '.join(list(known)[:12])}" if known else None,
            )
        where = f"{path}.{name}"
        of = btf.resolve(member.type)
        bits = member.bits or (of.bits if isinstance(of, Int) and of.bits != 8 * of.size else 0)
        if not bits:
            _encode(btf, member.type, one, out, offset + member.bit_offset // 8, where, depth + 1)
            continue
        if not isinstance(of, Int | Enum):
            raise ObjectError(f"bitfield {name} is not an integer")
        number = _number(btf, of, one, bits, where) & (1 << bits) - 1
        start = member.bit_offset + (of.bit_offset if isinstance(of, Int) and not member.bits else 0)
        first, last = offset + start // 8, offset + (start + bits + 7) // 8
        if last > len(out):
            raise ObjectError(f"bitfield {name} lies outside of {spelled}")
        word = int.from_bytes(out[first:last], _endian(btf))
        shift = start % 8 if btf.order == "<" else 8 * (last - first) - start % 8 - bits
        word = word & ~((1 << bits) - 1 << shift) | number << shift
        out[first:last] = word.to_bytes(last - first, _endian(btf))
