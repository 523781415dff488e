"""What bytes a text means for a BTF type: the VALUE of ``--set NAME=VALUE``.

VALUE is read by the variable's type:

| type | VALUE |
|---|---|
| integers | decimal, 0x hex, 0b, 0o; an interface's name (its ifindex) for 4 and 8 byte ones |
| __be16, __be32, __be64 | the same number, stored in network byte order |
| 4 bytes: __be32, __u32, struct in_addr, __u8[4] | also an IPv4 address, network byte order |
| 16 bytes: struct in6_addr, __u8[16], __u32[4], __u64[2] | an IPv6 address, network byte order |
| 6 bytes: __u8[6] | a MAC address |
| bool | true, false, yes, no, on, off, 1, 0 |
| enum | an enumerator's name, or its number |
| char[N] | text of at most N-1 bytes |
| other arrays | elements, separated by commas |
| struct, union | JSON: {"port": 80, "addr": "10.0.0.1"}; or by member: NAME.member=VALUE, NAME[2]=VALUE |
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.btf.names import spell
from xdpctl.btf.types import Array, Composite, Enum, Float, Int, Member, Modifier
from xdpctl.btf.values import encode as encode_value
from xdpctl.btf.values import members
from xdpctl.errors import ConfigError, NotFoundError, ObjectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.btf.parse import Btf

MAX_NESTING = 16
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}")
_BOOLEANS = {"true": 1, "yes": 1, "on": 1, "1": 1, "false": 0, "no": 0, "off": 0, "0": 0}
_NETWORK_ORDER = ("__be16", "__be32", "__be64")


class Place(NamedTuple):
    """A type at a byte offset of a section."""

    btf: Btf
    name: str
    type: int
    offset: int
    ifindex: Callable[[str], int]
    initial: bytes = b""
    """What the object holds there; empty where that is zero or not known."""


def find_member(btf: Btf, of: object, type_id: int, name: str, where: str) -> Member:
    """The member of a struct or union, its offset from the outermost one's start.

    Raises:
        NotFoundError: it has no such member; near names in the hint.
        ConfigError: the type has no members.
    """
    if not isinstance(of, Composite):
        raise ConfigError(f"{where} has no members: it is {spell(btf, type_id)}")
    known = members(btf, of)
    if name not in known:
        raise NotFoundError("member", name, known=known, where=spell(btf, type_id))
    return known[name]


def _misfit(place: Place, text: str, why: str = "", hint: str | None = None) -> ConfigError:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return ConfigError(
        f"{shown!r} does not fit {place.name} ({spell(place.btf, place.type)}){why}", hint=hint
    )


def encode_text(place: Place, text: str, depth: int) -> tuple[bytes, Any]:
    """(bytes, value) of a text for a type.

    Raises:
        ConfigError: it does not fit.
        NotFoundError: no such enumerator, member or interface.
        ObjectError: BTF contradicts itself.
    """
    if depth > MAX_NESTING:
        raise ConfigError(f"the value for {place.name} is nested deeper than {MAX_NESTING} levels")
    btf = place.btf
    of = btf.resolve(place.type)
    size = btf.size_of(place.type)
    if isinstance(of, Int) and of.is_bool:
        if text.strip().lower() not in _BOOLEANS:
            raise _misfit(place, text, ": true or false")
        value = _BOOLEANS[text.strip().lower()]
        return encode_value(btf, place.type, value), bool(value)
    if isinstance(of, Array) and _is_text(btf, of):
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) >= max(size, 1):
            raise _misfit(place, text, f": {len(raw)} bytes and the closing NUL")
        if b"\0" in raw:
            raise _misfit(place, text, ": it holds a NUL")
        return raw.ljust(size, b"\0"), text
    address = _address(place, of, size, text.strip())
    if address is not None:
        return address, text.strip()
    if isinstance(of, Int | Enum):
        return _number(place, of, size, text.strip())
    if isinstance(of, Float):
        try:
            return encode_value(btf, place.type, float(text)), float(text)
        except ValueError:
            raise _misfit(place, text, ": not a number") from None
    if isinstance(of, Array):
        return _array(place, of, text.strip(), depth), text
    if isinstance(of, Composite):
        return _composite(place, of, text.strip(), depth), text
    raise ConfigError(f"{place.name} can't be set: it is {spell(btf, place.type)}")


def _is_text(btf: Btf, of: Array) -> bool:
    element = btf.resolve(of.element)
    return isinstance(element, Int) and element.size == 1 and (element.is_char or element.name == "char")


def _address(place: Place, of: object, size: int, text: str) -> bytes | None:
    """IPv4, IPv6 and MAC addresses in network byte order, where the type is one that may hold them."""
    if isinstance(of, Enum | Float) or (isinstance(of, Int) and of.signed):
        return None
    if isinstance(of, Composite) and not (
        of.is_union or len(of.members) == 1 or re.search("addr|mac", of.name, re.IGNORECASE)
    ):
        return None
    if isinstance(of, Array) and not isinstance(place.btf.resolve(of.element), Int):
        return None
    if size == 6 and _MAC.fullmatch(text):
        return bytes.fromhex(re.sub("[:-]", "", text))
    if "." not in text and ":" not in text:
        return None
    import ipaddress  # 2 ms that only addresses are worth

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    if len(address.packed) != size:
        raise _misfit(
            place, text, f": an IPv{address.version} address has {len(address.packed)} bytes, this has {size}"
        )
    return address.packed


def _number(place: Place, of: Int | Enum, size: int, text: str) -> tuple[bytes, Any]:
    btf = place.btf
    if isinstance(of, Enum) and text in dict(of.values):
        return encode_value(btf, place.type, text), text
    value = _parse_int(text)
    if value is None:
        value = _other_number(place, of, size, text)
    bits = of.bits if isinstance(of, Int) else 8 * of.size
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if of.signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise _misfit(place, text, f": {low} to {high}")
    order = ">" if in_network_order(btf, place.type) else btf.order
    return value.to_bytes(size, "big" if order == ">" else "little", signed=value < 0), value


def _parse_int(text: str) -> int | None:
    if not re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)", text) or len(text) > 200:
        return None
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return None  # 010: eight or ten? C and people disagree
    return int(text, 0)


def _other_number(place: Place, of: Int | Enum, size: int, text: str) -> int:
    """What is not written as a number: one character, or the name of an interface."""
    if isinstance(of, Enum):
        names = [name for name, _ in of.values]
        raise NotFoundError("enumerator", text[:40], known=names, where=spell(place.btf, place.type))
    if size == 1 and (of.is_char or of.name == "char") and len(text) == 1 and ord(text) < 128:
        return ord(text)
    if re.fullmatch(r"0[0-9]+", text):
        raise _misfit(
            place, text, ": a number with a leading zero", hint="write 0o17 for octal, 17 for decimal"
        )
    if size in (4, 8) and 0 < len(text) <= 15 and not re.search(r"[/\s:]", text) and text[0] not in "+-":
        try:
            return place.ifindex(text)
        except NotFoundError as error:
            raise ConfigError(
                f"{text!r} does not fit {place.name} ({spell(place.btf, place.type)}):"
                " neither a number nor an interface",
                hint=error.hint,
            ) from error
    raise _misfit(place, text, ": not a number")


def in_network_order(btf: Btf, type_id: int) -> bool:
    """Whether a type is ``__be16``, ``__be32`` or ``__be64`` below its qualifiers and typedefs."""
    for _ in range(32):
        found = btf.type(type_id)
        if not isinstance(found, Modifier):
            return False
        if found.kind == "typedef" and found.name in _NETWORK_ORDER:
            return True
        type_id = found.target
    return False


def _array(place: Place, of: Array, text: str, depth: int) -> bytes:
    element_size = place.btf.size_of(of.element)
    if re.fullmatch(r"hex:([0-9a-fA-F]{2})+", text):
        raw = bytes.fromhex(text[4:])
        if len(raw) != element_size * of.length:
            raise _misfit(place, text, f": {len(raw)} bytes, it has {element_size * of.length}")
        return raw
    if text.startswith("["):
        return _from_json(place, _json(place, text), depth)
    items = text.split(",") if text else []
    return _elements(place, of, items, depth)


def _elements(place: Place, of: Array, items: list[Any], depth: int) -> bytes:
    size = place.btf.size_of(of.element)
    if len(items) > of.length:
        raise _misfit(place, f"{len(items)} elements", f": it has {of.length}")
    out = bytearray(size * of.length)
    for index, item in enumerate(items):
        inner = Place(place.btf, f"{place.name}[{index}]", of.element, 0, place.ifindex)
        raw = _from_json(inner, item, depth + 1)
        out[index * size : index * size + len(raw)] = raw
    return bytes(out)


def _composite(place: Place, of: Composite, text: str, depth: int) -> bytes:
    if not text.startswith("{"):
        names = list(members(place.btf, of))[:6]
        raise _misfit(
            place,
            text,
            ": it has members",
            hint=f"--set {place.name}.{names[0]}=VALUE" if names else None,
        )
    return _from_json(place, _json(place, text), depth)


def _json(place: Place, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as why:
        raise ConfigError(f"the value for {place.name} is not valid JSON: {why}") from why


def _from_json(place: Place, value: Any, depth: int) -> bytes:
    """A JSON value; its strings and numbers are read as VALUE is."""
    if depth > MAX_NESTING:
        raise ConfigError(f"the value for {place.name} is nested deeper than {MAX_NESTING} levels")
    of = place.btf.resolve(place.type)
    if isinstance(value, dict) and isinstance(of, Composite):
        # members that are not mentioned keep what the object has
        out = bytearray(place.initial if len(place.initial) == of.size else of.size)
        for name, item in value.items():
            member = find_member(place.btf, of, place.type, name, place.name)
            if member.bits:
                if not isinstance(item, int):
                    raise _misfit(place, json.dumps(item), f": {name} is a bitfield, give a number")
                out = bytearray(encode_value(place.btf, place.type, {name: item}, into=bytes(out)))
                continue
            start = member.bit_offset // 8
            kept = bytes(out[start : start + place.btf.size_of(member.type)])
            inner = Place(place.btf, f"{place.name}.{name}", member.type, 0, place.ifindex, kept)
            raw = _from_json(inner, item, depth + 1)
            if start + len(raw) > len(out):
                raise ObjectError(f"member {name} lies outside of its struct")
            out[start : start + len(raw)] = raw
        return bytes(out)
    if isinstance(value, list) and isinstance(of, Array):
        return _elements(place, of, value, depth)
    if isinstance(value, bool):
        value = str(value).lower() if isinstance(of, Int) and of.is_bool else int(value)
    if isinstance(value, dict | list) or value is None:
        raise _misfit(place, json.dumps(value))
    return encode_text(place, str(value), depth + 1)[0]
