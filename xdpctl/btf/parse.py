"""What types a ``.BTF`` blob describes: a lazy reader of the format in Documentation/bpf/btf.rst.

One pass finds where each record starts (so that the kernel's 130,000 types cost tens of milliseconds); a
record is decoded when it is asked for. Nothing in the blob is trusted: every offset, id and length is checked,
and the only exception is `ObjectError`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from xdpctl.btf.types import (
    VOID,
    Array,
    Composite,
    DeclTag,
    Enum,
    Float,
    Forward,
    Function,
    Int,
    Member,
    Modifier,
    Parameter,
    Pointer,
    Prototype,
    Section,
    SectionVariable,
    Type,
    Variable,
)
from xdpctl.errors import ObjectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.btf.layout import Layout

MAGIC = 0xEB9F
MAX_DEPTH = 32
"""Typedefs, qualifiers and array dimensions in a row (libbpf's MAX_RESOLVE_DEPTH)."""
MAX_STRING = 4096

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
KINDS = {
    INT: "int",
    PTR: "ptr",
    ARRAY: "array",
    STRUCT: "struct",
    UNION: "union",
    ENUM: "enum",
    FWD: "fwd",
    TYPEDEF: "typedef",
    VOLATILE: "volatile",
    CONST: "const",
    RESTRICT: "restrict",
    FUNC: "func",
    FUNC_PROTO: "func_proto",
    VAR: "var",
    DATASEC: "datasec",
    FLOAT: "float",
    DECL_TAG: "decl_tag",
    TYPE_TAG: "type_tag",
    ENUM64: "enum64",
}
"""BTF_KIND_* -> name."""

_FIXED = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
"""Bytes after the 12 of ``struct btf_type``."""
_PER_ITEM = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}
"""Bytes an item of vlen."""
_STEP = tuple((12 + _FIXED.get(kind, 0), _PER_ITEM.get(kind, 0)) for kind in range(32))
"""kind -> (bytes of the record without items, bytes an item)."""


class Btf:
    """The types of one blob; ids start at 1, or after those of the base for split BTF (kernel modules).

    Args:
        data: the whole blob, header included.
        base: the kernel's own BTF, for a module's split BTF.

    Raises:
        ObjectError: the header or a record's extent is not valid.
    """

    def __init__(self, data: bytes, *, base: Btf | None = None) -> None:
        if len(data) < 24:
            raise ObjectError(f"BTF is truncated: {len(data)} bytes, its header has 24")
        for order in "<>":
            if struct.unpack_from(order + "H", data)[0] == MAGIC:
                break
        else:
            raise ObjectError(f"not BTF: it starts with {data[:2].hex()} instead of the magic 0xeb9f")
        self.order = order
        self.base = base
        self._data = data
        header, type_off, type_len, str_off, str_len = struct.unpack_from(order + "5I", data, 4)
        if header < 24 or header + type_off + type_len > len(data) or header + str_off + str_len > len(data):
            raise ObjectError(
                f"BTF is truncated: its header promises more than the {len(data)} bytes there are"
            )
        start = header + str_off
        self._strings = data[start : start + str_len]
        self.string_base: int = base.string_end if base is not None else 0
        """Offset of this blob's first string; those below are the base's."""
        self.string_end: int = self.string_base + len(self._strings)
        self._first: int = base.end if base is not None else 1
        self._offsets = self._walk(header + type_off, type_len)
        self.end: int = self._first + len(self._offsets)
        """One more than the last id."""
        self._cache: dict[int, Type] = {}
        self._names: dict[int, list[int]] | None = None
        self.layouts: dict[int, Layout] = {}
        """Those that `layout.layout` made."""

    def _walk(self, start: int, length: int) -> list[int]:
        """Offset of each record; the one loop over all of them."""
        offsets: list[int] = []
        unpack = struct.Struct(self.order + "I").unpack_from
        data, position, stop = self._data, start, start + length
        step = _STEP
        while position < stop:
            if position + 12 > stop:
                raise ObjectError(f"BTF type {self._first + len(offsets)} is truncated")
            info = unpack(data, position + 4)[0]
            size, item = step[info >> 24 & 0x1F]
            offsets.append(position)
            position += size + item * (info & 0xFFFF)
        if position != stop:
            raise ObjectError(f"BTF type {self._first + len(offsets) - 1} is truncated")
        return offsets

    def string(self, offset: int) -> str:
        """The string at an offset, with replacement characters where it is not UTF-8.

        Raises:
            ObjectError: the offset lies outside of the string section.
        """
        if offset < self.string_base and self.base is not None:
            return self.base.string(offset)
        offset -= self.string_base
        if not 0 <= offset < len(self._strings):
            if offset == 0:
                return ""
            raise ObjectError(f"BTF string offset {offset} is outside of the string section")
        end = self._strings.find(b"\0", offset, offset + MAX_STRING)
        if end < 0:
            end = offset + MAX_STRING
        return self._strings[offset:end].decode("utf-8", "replace")

    def type(self, type_id: int) -> Type | None:
        """The type with an id; None for void (id 0).

        Raises:
            ObjectError: there is no such id, or its record is not valid.
        """
        if type_id == VOID:
            return None
        if type_id < self._first and self.base is not None:
            return self.base.type(type_id)
        known = self._cache.get(type_id)
        if known is None:
            if not self._first <= type_id < self.end:
                raise ObjectError(f"BTF names type {type_id}, there are {self.end - 1}")
            known = self._cache[type_id] = self._decode(type_id)
        return known

    def __iter__(self) -> Iterator[Type]:
        """This blob's own types in the order of their ids (not those of the base)."""
        for type_id in range(self._first, self.end):
            found = self.type(type_id)
            if found is not None:
                yield found

    def __len__(self) -> int:
        """How many types this blob has of its own."""
        return len(self._offsets)

    def of_kind(self, *kinds: int) -> Iterator[Type]:
        """The types of these BTF_KIND_* alone, without decoding the others."""
        unpack = struct.Struct(self.order + "I").unpack_from
        for index, position in enumerate(self._offsets):
            if unpack(self._data, position + 4)[0] >> 24 & 0x1F in kinds:
                found = self.type(self._first + index)
                if found is not None:
                    yield found

    def find(self, name: str, *kinds: int) -> Type | None:
        """The first type of a name and one of these BTF_KIND_* (any, without), or None; split BTF first."""
        wanted = self.string_offsets(name)
        if self.base is not None:
            wanted |= self.base.string_offsets(name)
        unpack = struct.Struct(self.order + "I").unpack_from
        for index in sorted(index for offset in wanted for index in self._named().get(offset, ())):
            if not kinds or unpack(self._data, self._offsets[index] + 4)[0] >> 24 & 0x1F in kinds:
                return self.type(self._first + index)
        return self.base.find(name, *kinds) if self.base is not None else None

    def find_many(self, names: Iterable[str]) -> dict[str, list[Type]]:
        """Every type of each of these names, flavors (``name___old``) included.

        Names that no type has are missing in the answer; the base is not looked at.
        """
        found: dict[str, list[Type]] = {}
        for name in names:
            needle = b"\0" + name.encode("utf-8", "surrogateescape")
            at = self._strings.find(needle)
            while at >= 0:
                rest = self._strings[at + len(needle) : at + len(needle) + 3]
                if rest[:1] == b"\0" or rest == b"___":
                    for index in self._named().get(self.string_base + at + 1, ()):
                        of = self.type(self._first + index)
                        if of is not None:
                            found.setdefault(name, []).append(of)
                at = self._strings.find(needle, at + 1)
        return found

    def _named(self) -> dict[int, list[int]]:
        """String offset -> indices of the types of that name; made on first use."""
        if self._names is None:
            self._names = {}
            unpack = struct.Struct(self.order + "I").unpack_from
            for index, position in enumerate(self._offsets):
                self._names.setdefault(unpack(self._data, position)[0], []).append(index)
        return self._names

    def string_offsets(self, name: str) -> set[int]:
        """Every offset at which a string of this value starts (for split BTF, which names base strings)."""
        needle = b"\0" + name.encode("utf-8", "surrogateescape") + b"\0"
        found = set()
        at = self._strings.find(needle)
        while at >= 0:
            found.add(self.string_base + at + 1)
            at = self._strings.find(needle, at + 1)
        return found

    def resolve(self, type_id: int) -> Type | None:
        """The type below typedefs, qualifiers and tags; None for void.

        Raises:
            ObjectError: a cycle, or more than `MAX_DEPTH` of them.
        """
        for _ in range(MAX_DEPTH):
            found = self.type(type_id)
            if not isinstance(found, Modifier):
                return found
            type_id = found.target
        raise ObjectError(f"BTF type {type_id} is a typedef of itself, or {MAX_DEPTH} typedefs deep")

    def size_of(self, type_id: int) -> int:
        """Bytes of a value of this type; pointers have 8.

        Raises:
            ObjectError: the type has no size (void, a function, a forward declaration, a cycle).
        """
        elements = 1
        for _ in range(MAX_DEPTH):
            found = self.resolve(type_id)
            if isinstance(found, Array):
                elements *= found.length
                type_id = found.element
            elif isinstance(found, Variable):
                type_id = found.type
            elif isinstance(found, Pointer):
                return 8 * elements
            elif isinstance(found, Int | Float | Composite | Enum | Section):
                return found.size * elements
            else:
                break
        raise ObjectError(f"BTF type {type_id} has no size")

    def _decode(self, type_id: int) -> Type:
        data, order = self._data, self.order
        position = self._offsets[type_id - self._first]
        name_off, info, size = struct.unpack_from(order + "III", data, position)
        kind, count, flag = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
        name = self.string(name_off)
        body = position + 12
        if kind == INT:
            (encoding,) = struct.unpack_from(order + "I", data, body)
            bits, bit_offset, how = encoding & 0xFF, encoding >> 16 & 0xFF, encoding >> 24 & 0xF
            if not 0 < size <= 16 or not 0 < bits <= 8 * size - bit_offset:
                raise ObjectError(f"BTF int {name!r} has {bits} bits in {size} bytes")
            return Int(type_id, name, size, bool(how & 1), bool(how & 2), bool(how & 4), bits, bit_offset)
        if kind == PTR:
            return Pointer(type_id, size)
        if kind == ARRAY:
            return Array(type_id, *struct.unpack_from(order + "III", data, body))
        if kind in (STRUCT, UNION):
            members = []
            for member_name, member_type, offset in struct.iter_unpack(
                order + "III", data[body : body + 12 * count]
            ):
                bits = offset >> 24 if flag else 0
                members.append(
                    Member(self.string(member_name), member_type, offset & 0xFFFFFF if flag else offset, bits)
                )
            return Composite(type_id, name, size, tuple(members), kind == UNION)
        if kind == ENUM:
            # the flag means signed since 6.0 (clang 15); before, nothing tells 0xffffffff from -1
            values = struct.iter_unpack(order + ("Ii" if flag else "II"), data[body : body + 8 * count])
            return Enum(type_id, name, size, flag, tuple((self.string(one), value) for one, value in values))
        if kind == ENUM64:
            items = struct.iter_unpack(order + "III", data[body : body + 12 * count])
            wide = [
                (self.string(one), (high << 32 | low) - (1 << 64 if flag and high >> 31 else 0))
                for one, low, high in items
            ]
            return Enum(type_id, name, size, flag, tuple(wide))
        if kind == FWD:
            return Forward(type_id, name, flag)
        if kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
            return Modifier(type_id, KINDS[kind], name, size)
        if kind == FUNC:
            return Function(type_id, name, size, count)
        if kind == FUNC_PROTO:
            pairs = list(struct.iter_unpack(order + "II", data[body : body + 8 * count]))
            return Prototype(type_id, size, tuple(Parameter(self.string(one), of) for one, of in pairs))
        if kind == VAR:
            return Variable(type_id, name, size, struct.unpack_from(order + "I", data, body)[0])
        if kind == DATASEC:
            triples = struct.iter_unpack(order + "III", data[body : body + 12 * count])
            return Section(type_id, name, size, tuple(SectionVariable(*one) for one in triples))
        if kind == FLOAT:
            return Float(type_id, name, size)
        if kind == DECL_TAG:
            return DeclTag(type_id, name, size, struct.unpack_from(order + "i", data, body)[0])
        raise ObjectError(f"BTF type {type_id} is of kind {kind}, which is not known here")


def parse(data: bytes, *, base: Btf | None = None) -> Btf:
    """Read a ``.BTF`` blob (of an object, or ``/sys/kernel/btf/vmlinux``).

    Raises:
        ObjectError: it is not valid BTF.
    """
    return Btf(data, base=base)
