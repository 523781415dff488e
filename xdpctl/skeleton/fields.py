"""What a key or value is made of, field by field: BTF types flattened for comparing two versions of them.

Mirrors what clang writes for a map's ``__type(key, ...)`` and ``__type(value, ...)`` (``struct btf_type``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.btf.names import spell
from xdpctl.btf.types import Array, Composite, Enum, Float, Int, Modifier, Pointer
from xdpctl.errors import ObjectError

if TYPE_CHECKING:
    from xdpctl.btf.parse import Btf

MAX_FIELDS = 1 << 14
MAX_NESTING = 32
INTEGERS = ("int", "uint", "enum", "bool", "pointer")
SCALARS = (*INTEGERS, "float")
OPAQUE = frozenset(
    f"bpf_{name}"
    for name in "spin_lock res_spin_lock timer wq task_work list_head list_node rb_root rb_node refcount".split()
)
"""Structs that are the kernel's own inside a value (enum btf_field_type): user space reads zeros and writes nothing."""


class Field(NamedTuple):
    """One member of a struct, or a whole key or value."""

    name: str
    """Empty for a whole key or value, and for an anonymous union."""
    offset: int
    """Bits from the start of the struct around it."""
    bits: int
    """Of all its elements."""
    type: str
    """As C spells it."""
    kind: str
    """int, uint, enum, bool, pointer, float, struct, union, opaque: of one element, where it is an array."""
    dims: tuple[int, ...] = ()
    """Elements in each dimension of an array."""
    members: tuple[Field, ...] = ()
    """Of a struct or union; those of an anonymous struct stand among those of the struct around it."""

    @property
    def elements(self) -> int:
        """How many; 1 for what is no array."""
        count = 1
        for one in self.dims:
            count *= one
        return count

    @property
    def element_bits(self) -> int:
        """Bits of one element."""
        return self.bits // self.elements if self.elements else 0

    @property
    def label(self) -> str:
        """Its name, or for an anonymous union (or struct in one) those of its members."""
        if self.name or not self.members:
            return self.name
        return f"({' | '.join(one.label for one in self.members)})"

    def place(self, base: int = 0) -> str:
        """Where it lies, ``8``, or ``8:3`` (byte and bit) for a bitfield; `base` in bits."""
        byte, bit = divmod(base + self.offset, 8)
        return f"{byte}:{bit}" if bit or self.bits % 8 else str(byte)


def field_of(btf: Btf, type_id: int) -> Field:
    """A whole key or value of a type.

    Raises:
        ObjectError: the type has no size, contradicts itself, or has more than `MAX_FIELDS` fields.
    """
    return _field(btf, "", type_id, 0, 0, 0, [MAX_FIELDS])


def _field(btf: Btf, name: str, type_id: int, offset: int, bits: int, depth: int, budget: list[int]) -> Field:
    budget[0] -= 1
    if depth > MAX_NESTING or budget[0] < 0:
        raise ObjectError(f"{spell(btf, type_id)} has too many fields to compare")
    spelled = spell(btf, type_id)
    dims: list[int] = []
    element = type_id
    found = btf.resolve(element)
    while isinstance(found, Array):
        if len(dims) >= MAX_NESTING:
            raise ObjectError(f"{spelled} has more than {MAX_NESTING} dimensions")
        dims.append(found.length)
        element = found.element
        found = btf.resolve(element)
    size = 8 * btf.size_of(element)
    members: tuple[Field, ...] = ()
    if isinstance(found, Composite):
        kind = "opaque" if found.name in OPAQUE else "union" if found.is_union else "struct"
        if kind != "opaque":
            members = tuple(_members(btf, found, 0, depth + 1, budget))
    elif isinstance(found, Int):
        kind = "bool" if found.is_bool else "int" if found.signed else "uint"
        if found.bits != size:
            bits = bits or found.bits  # a bitfield of an old compiler
            offset += found.bit_offset
    elif isinstance(found, Enum):
        kind = "enum"
    elif isinstance(found, Float):
        kind = "float"
    elif isinstance(found, Pointer):
        kind = "opaque" if _is_kptr(btf, found) else "pointer"
    else:
        raise ObjectError(f"{spelled} has no value")
    total = bits or size
    for one in dims:
        total *= one
    if total > 8 << 32:
        raise ObjectError(f"{spelled} has {total // 8} bytes")
    return Field(name, offset, total, spelled, kind, tuple(dims), members)


def _members(btf: Btf, composite: Composite, base: int, depth: int, budget: list[int]) -> list[Field]:
    found: list[Field] = []
    for one in composite.members:
        inner = btf.resolve(one.type) if not one.name else None
        if not one.name and (one.bits or inner is None):
            continue  # padding
        if isinstance(inner, Composite) and not inner.is_union and not composite.is_union:
            if depth > MAX_NESTING:
                raise ObjectError(f"{spell(btf, composite.id)} is nested too deep")
            found += _members(btf, inner, base + one.bit_offset, depth + 1, budget)
            continue
        found.append(_field(btf, one.name, one.type, base + one.bit_offset, one.bits, depth, budget))
    for made in found:
        if made.offset + made.bits > base + 8 * composite.size:
            raise ObjectError(f"member {made.label} lies outside of {spell(btf, composite.id)}")
    return found


def _is_kptr(btf: Btf, pointer: Pointer) -> bool:
    """A pointer that the kernel counts references by (``__kptr``): nothing that user space may copy."""
    target = btf.type(pointer.target)
    return isinstance(target, Modifier) and target.kind == "type_tag" and target.name.startswith("kptr")


def has_opaque(field: Field) -> bool:
    """Whether something of it is the kernel's own."""
    return field.kind == "opaque" or any(map(has_opaque, field.members))


def same_layout(one: Field, other: Field) -> bool:
    """Whether the bytes of both mean the same: names, places, widths and kinds of number (not how types are called)."""
    return (
        (one.bits, one.dims) == (other.bits, other.dims)
        and same_kind(one, other)
        and len(one.members) == len(other.members)
        and all(
            left.name == right.name and left.offset == right.offset and same_layout(left, right)
            for left, right in zip(one.members, other.members, strict=True)
        )
    )


def same_kind(one: Field, other: Field) -> bool:
    """Whether an element is the same kind of thing: an enum is whatever integer the other is, a byte of text a byte."""
    if one.kind == other.kind:
        return True
    if "enum" in (one.kind, other.kind):
        return {one.kind, other.kind} <= {"enum", "int", "uint"}
    is_bytes = one.dims and other.dims and one.element_bits == other.element_bits == 8
    return bool(is_bytes) and {one.kind, other.kind} <= {"int", "uint"}
