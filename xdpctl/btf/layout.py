"""How values of a BTF type lie in memory: sizes, members and elements, with compiled readers and writers.

A layout is made once for a type and kept with its `Btf`. Making one checks what lying BTF gets wrong (members
outside of their struct, structs within themselves), so that reading and writing need no checks but one of the length.

| C | Python |
|---|---|
| integers up to 128 bits, pointers, enums | int |
| bool | bool |
| float, double | float |
| char[N] holding text | str; else a list of int |
| other arrays | list |
| struct, union | dict by member; members of anonymous structs and unions stand in it directly |
| a data section (.bss) | dict by variable |
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.btf.names import spell
from xdpctl.btf.numbers import Bits, Number, misfit
from xdpctl.btf.types import Array, Composite, Enum, Float, Int, Member, Pointer, Section, Variable
from xdpctl.errors import ConfigError, ObjectError, near

if TYPE_CHECKING:
    import struct
    from collections.abc import Callable, Mapping

    from xdpctl.btf.parse import Btf

    Readable = bytes | bytearray | memoryview
    Writable = bytearray | memoryview

MAX_NESTING = 32
MAX_ITEMS = 1 << 20
"""Array elements and members in one value; a value with more is refused, since only lying BTF has one."""


class Field(NamedTuple):
    """A member of a struct or union; those of anonymous ones stand among those of the struct around."""

    name: str
    layout: Layout
    bit_offset: int
    """From the start of the outermost struct; of a bitfield its first bit (big endian: the most significant)."""
    bits: int
    """Width of a bitfield, 0 for anything else."""

    @property
    def offset(self) -> int:
        """Bytes from the start of the struct to the first byte that holds some of it."""
        return self.bit_offset // 8


class Layout:
    """How a value of one type lies in memory.

    Attributes:
        btf: the types it is of.
        type_id: as it was asked for, typedefs and qualifiers included.
        kind: int, uint, bool, char, enum, float, pointer, array, struct, union or section.
        size: bytes.
        items: numbers in a value, as a measure of the work to read it.
        depth: levels of structs and arrays, itself included.
        fields: of a struct or union by name, in the order of the source; else empty.
        element: of an array; else None.
        length: elements of an array; else 0.
        enumerators: of an enum (name, value); else empty.
    """

    __slots__ = ("_view", "btf", "depth", "items", "kind", "size", "type_id")

    fields: Mapping[str, Field] = MappingProxyType({})
    element: Layout | None = None
    length: int = 0
    enumerators: tuple[tuple[str, int], ...] = ()
    read: Callable[[Any, int], Any]
    """``read(data, offset)``: as `decode`, unchecked."""

    def __init__(self, btf: Btf, type_id: int, kind: str, size: int) -> None:
        self.btf = btf
        self.type_id = type_id
        self.kind = kind
        self.size = size
        self.items = 1
        self.depth = 1
        self._view: Any = None

    def __repr__(self) -> str:
        return f"<Layout of {self.spelled}, {self.size} bytes>"

    @property
    def spelled(self) -> str:
        """The type as C writes it."""
        return spell(self.btf, self.type_id)

    @property
    def order(self) -> str:
        """Byte order, ``<`` or ``>`` as in `struct`."""
        return self.btf.order

    def decode(self, data: Readable, offset: int = 0) -> Any:
        """The value at a byte offset; see the module's table.

        Raises:
            ObjectError: the data end before the value does, or it has more than `MAX_ITEMS` items.
        """
        if offset < 0 or offset + self.size > len(data):
            raise ObjectError(
                f"{self.spelled} of {self.size} bytes at offset {offset} goes beyond"
                f" the {len(data)} bytes there are"
            )
        self._check_items()
        return self.read(data, offset)

    def encode(self, value: Any, *, into: bytes | None = None) -> bytes:
        """The bytes of a value, `size` of them: the reverse of `decode`.

        What the value does not mention (members of a struct, the tail of an array or text) comes from `into`, or
        is zero. Enumerators may be given by name, ``char`` and byte arrays as str or bytes.

        Raises:
            ConfigError: the value does not fit the type; the message names the member.
        """
        if self.size > 64 * MAX_ITEMS:
            raise ObjectError(f"{self.spelled} has {self.size} bytes")
        buffer = bytearray(into if into is not None else self.size)
        if len(buffer) != self.size:
            raise ConfigError(f"{self.spelled} has {self.size} bytes, not {len(buffer)}")
        self.write(buffer, 0, value, "")
        return bytes(buffer)

    def _check_items(self) -> None:
        if self.items > MAX_ITEMS:
            raise ObjectError(f"{self.spelled} is a value of more than {MAX_ITEMS} items")

    def view(self, data: Any, offset: int = 0) -> Any:
        """The value where it lies: structs with attributes, arrays with indices; anything else is read.

        Args:
            data: bytes (the view is read-only then), a writable buffer, or a `views.Memory`.
            offset: byte offset in it.

        Raises:
            ObjectError: the data end before the value does.
        """
        from xdpctl.btf.views import view

        return view(self, data, offset)

    def dtype(self) -> Any:
        """The ``numpy.dtype`` of the same bytes, or None: numpy is missing or has no such type.

        ``char[N]`` becomes ``S``, a bitfield or a 128-bit integer has no dtype; a union's members overlap.
        """
        from xdpctl.btf.dtypes import dtype

        return dtype(self)

    def write(self, out: Writable, at: int, value: Any, path: str) -> None:
        """Put a value at a byte offset; `path` names it in errors.

        Raises:
            ConfigError: it does not fit.
        """
        raise NotImplementedError


class Scalar(Layout):
    """An integer, enum, pointer, bool or float.

    Attributes:
        number: reads and checks it.
    """

    __slots__ = ("enumerators", "number", "read")

    def __init__(self, btf: Btf, type_id: int, of: Int | Enum | Float | Pointer) -> None:
        number = Number(btf, type_id, of)
        super().__init__(btf, type_id, number.kind, number.size)
        self.number = number
        self.read = number.read  # one call less for each value
        self.enumerators = of.values if isinstance(of, Enum) else ()

    def write(self, out: Writable, at: int, value: Any, path: str) -> None:
        """As `Layout.write`."""
        self.number.write(out, at, value, path)


class ArrayLayout(Layout):
    """An array; ``int a[2][3]`` is an array of two arrays."""

    __slots__ = ("_codec", "element", "is_text", "length")

    element: Layout

    def __init__(self, btf: Btf, type_id: int, element: Layout, length: int) -> None:
        super().__init__(btf, type_id, "array", element.size * length)
        self.element = element
        self.length = length
        self.items = length * max(1, element.items)
        self.depth = element.depth + 1
        self.is_text = element.kind == "char"
        self._codec: struct.Struct | None = None
        if isinstance(element, Scalar) and self.items <= MAX_ITEMS:
            self._codec = element.number.many(length)

    def read(self, data: Readable, at: int) -> Any:
        """As `Layout.read`."""
        if self.is_text:
            raw = bytes(data[at : at + self.length]).rstrip(b"\0")
            text = _text(raw)
            if text is not None:
                return text
        if self._codec is not None:
            return list(self._codec.unpack_from(data, at))
        read, size = self.element.read, self.element.size
        return [read(data, at + index * size) for index in range(self.length)]

    def write(self, out: Writable, at: int, value: Any, path: str) -> None:
        """As `Layout.write`."""
        size = self.element.size
        if isinstance(value, str | bytes | bytearray) and size == 1:
            if isinstance(value, str) and not self.is_text:
                raise misfit(value, self.spelled, path)
            raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
            if len(raw) > self.length:
                raise misfit(value, self.spelled, path, f" ({len(raw)} bytes)")
            # text replaces the whole array: a shorter string must not end in the tail of the former one
            out[at : at + self.length] = raw.ljust(self.length, b"\0")
            return
        if isinstance(value, str | bytes | dict) or not hasattr(value, "__len__") or not _is_row(value):
            raise misfit(value, self.spelled, path)
        if len(value) > self.length:
            raise misfit(value, self.spelled, path, f" ({len(value)} elements)")
        if self._codec is not None and len(value) == self.length and self.element.kind in {"int", "uint"}:
            import struct

            try:
                out[at : at + self.size] = self._codec.pack(*value)
            except (struct.error, TypeError):
                pass  # which of them, is told below
            else:
                return
        for index, one in enumerate(value):
            self.element.write(out, at + index * size, one, f"{path}[{index}]")


def _is_row(value: Any) -> bool:
    from collections.abc import Sequence

    return isinstance(value, Sequence) or type(value).__name__ == "ndarray"


def _text(raw: bytes) -> str | None:
    """The text of a char array, or None where it is none."""
    if b"\0" in raw:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or all(one.isprintable() or one in "\t\n\r" for one in text) else None


class StructLayout(Layout):
    """A struct or union, or a data section: its variables are the fields."""

    __slots__ = ("_bits", "_flat", "_names", "_readers", "_writers", "fields", "name")

    def __init__(
        self, btf: Btf, type_id: int, of: Composite | Section, fields: dict[str, Field], kind: str
    ) -> None:
        super().__init__(btf, type_id, kind, of.size)
        self.name = of.name
        """Its tag; empty for an anonymous one."""
        self.fields = MappingProxyType(fields)
        self.items = 1 + sum(one.layout.items for one in fields.values())
        self.depth = 1 + max((one.layout.depth for one in fields.values()), default=0)
        self._names = tuple(fields)
        self._readers: list[tuple[str, Any, int]] = []
        self._writers: dict[str, tuple[Any, int]] = {}
        self._bits: dict[str, Bits] = {}
        numbers: list[tuple[int, Number]] | None = []
        for one in fields.values():
            if one.bits:
                bits = self._bits[one.name] = Bits(self._number(one), one.bit_offset, one.bits, of.size)
                self._readers.append((one.name, bits.read, 0))
                self._writers[one.name] = (bits.write, 0)
                numbers = None
                continue
            self._readers.append((one.name, one.layout.read, one.offset))
            self._writers[one.name] = (one.layout.write, one.offset)
            if isinstance(one.layout, Scalar) and numbers is not None:
                numbers.append((one.offset, one.layout.number))
            else:
                numbers = None
        self._flat = Number.row(btf.order, numbers, of.size) if numbers else None

    def _number(self, field: Field) -> Number:
        if not isinstance(field.layout, Scalar) or field.layout.kind == "float":
            raise ObjectError(f"bitfield {field.name} is not an integer")
        return field.layout.number

    def bitfield(self, name: str) -> Bits:
        """How the bitfield of this name is read and written, from the start of the struct."""
        return self._bits[name]

    def read(self, data: Readable, at: int) -> Any:
        """As `Layout.read`."""
        if self._flat is not None:
            return dict(zip(self._names, self._flat.unpack_from(data, at)))  # noqa: B905 - as many as names
        return {name: read(data, at + offset) for name, read, offset in self._readers}

    def write(self, out: Writable, at: int, value: Any, path: str) -> None:
        """As `Layout.write`; a struct's bytes or a view of one are taken too."""
        if not isinstance(value, dict):
            raw = _raw(value)
            if raw is None or len(raw) != self.size:
                raise misfit(value, self.spelled, path)
            out[at : at + self.size] = raw
            return
        for name, one in value.items():
            found = self._writers.get(name)
            if found is None:
                raise self.no_member(str(name))
            write, offset = found
            write(out, at + offset, one, f"{path}.{name}")

    def no_member(self, name: str) -> ConfigError:
        """The error for a member that is not there, with near ones in its hint."""
        close = near(name, self.fields)
        return ConfigError(
            f"{self.spelled} has no member {name}",
            hint=f"did you mean {', '.join(close)}?"
            if close
            else f"it has {', '.join(list(self.fields)[:12])}"
            if self.fields
            else None,
        )


def _raw(value: Any) -> bytes | None:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    from xdpctl.btf.views import View

    return bytes(value) if isinstance(value, View) else None


def layout(btf: Btf, type_id: int) -> Layout:
    """The layout of a type; made once for each.

    Raises:
        ObjectError: the type has no value (void, a function, a forward declaration), or its BTF lies: a member
            outside of its struct, a struct within itself, a bitfield that is no integer.
    """
    return _layout(btf, type_id, 0)


def _layout(btf: Btf, type_id: int, depth: int) -> Layout:
    known = btf.layouts.get(type_id)
    if known is None:
        known = btf.layouts[type_id] = _make(btf, type_id, depth)
    if depth + known.depth > MAX_NESTING + 1:
        raise _too_deep(type_id)
    return known


def _too_deep(type_id: int) -> ObjectError:
    return ObjectError(f"BTF type {type_id} is nested deeper than {MAX_NESTING} levels")


def _make(btf: Btf, type_id: int, depth: int) -> Layout:
    if depth > MAX_NESTING:
        raise _too_deep(type_id)
    found = btf.resolve(type_id)
    if isinstance(found, Variable):
        return _layout(btf, found.type, depth + 1)
    if isinstance(found, Int | Enum | Float | Pointer):
        return Scalar(btf, type_id, found)
    if isinstance(found, Array):
        return ArrayLayout(btf, type_id, _layout(btf, found.element, depth + 1), found.length)
    if isinstance(found, Composite):
        fields: dict[str, Field] = {}
        for member in members(btf, found).values():
            of = btf.resolve(member.type)
            bits, start = member.bits, member.bit_offset
            if isinstance(of, Int) and not bits and of.bits != 8 * of.size:
                bits, start = of.bits, start + of.bit_offset
            inner = _layout(btf, member.type, depth + 1)
            if start + (bits or 8 * inner.size) > 8 * found.size or (not bits and start % 8):
                raise ObjectError(f"member {member.name} lies outside of {spell(btf, type_id)}")
            fields[member.name] = Field(member.name, inner, start, bits)
        return StructLayout(btf, type_id, found, fields, "union" if found.is_union else "struct")
    if isinstance(found, Section):
        return StructLayout(btf, type_id, found, _variables(btf, found, depth), "section")
    raise ObjectError(f"{spell(btf, type_id)} has no value")


def _variables(btf: Btf, section: Section, depth: int) -> dict[str, Field]:
    """The variables of a section by name; static ones that share a name are left out."""
    if section.variables and not section.size:
        raise ObjectError(f"{section.name} has no addresses yet: libbpf fills them in as it opens an object")
    found: dict[str, Field] = {}
    seen: set[str] = set()
    for one in section.variables:
        variable = btf.type(one.type)
        if not isinstance(variable, Variable):
            raise ObjectError(f"BTF of section {section.name} names something that is not a variable")
        inner = _layout(btf, variable.type, depth + 1)
        if one.offset + inner.size > section.size:
            raise ObjectError(f"variable {variable.name} lies outside of its section {section.name}")
        if variable.name in seen:
            found.pop(variable.name, None)
        else:
            found[variable.name] = Field(variable.name, inner, 8 * one.offset, 0)
        seen.add(variable.name)
    return dict(sorted(found.items(), key=lambda one: one[1].bit_offset))


def members(btf: Btf, composite: Composite, *, base: int = 0, depth: int = 0) -> dict[str, Member]:
    """Name -> member with the bit offset from the outermost struct; anonymous structs and unions are looked into.

    Raises:
        ObjectError: nested too deep.
    """
    if depth > MAX_NESTING:
        raise _too_deep(composite.id)
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
