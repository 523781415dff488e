"""What kinds of BTF types there are, and their fields: ``struct btf_type`` of include/uapi/linux/btf.h.

Ids are kept as numbers (`Btf.type` turns them into types), so that a type is a small value of its own and a
cyclic graph is no problem.
"""

from __future__ import annotations

from typing import NamedTuple

VOID = 0
"""Type id of void, which has no record."""
STATIC, GLOBAL, EXTERN = range(3)
"""Linkage of functions (BTF_FUNC_*) and variables (BTF_VAR_*)."""


class Int(NamedTuple):
    """BTF_KIND_INT."""

    id: int
    name: str
    size: int
    """Bytes."""
    signed: bool
    is_char: bool
    is_bool: bool
    bits: int
    """Significant bits; less than ``8 * size`` in bitfields of old compilers only."""
    bit_offset: int


class Float(NamedTuple):
    """BTF_KIND_FLOAT (5.13)."""

    id: int
    name: str
    size: int


class Pointer(NamedTuple):
    """BTF_KIND_PTR."""

    id: int
    target: int


class Array(NamedTuple):
    """BTF_KIND_ARRAY."""

    id: int
    element: int
    index_type: int
    length: int
    """Elements; 0 for a flexible array."""


class Member(NamedTuple):
    """``struct btf_member``."""

    name: str
    """Empty for an anonymous struct or union, and for padding bitfields."""
    type: int
    bit_offset: int
    bits: int
    """Width of a bitfield, 0 for anything else."""


class Composite(NamedTuple):
    """BTF_KIND_STRUCT or BTF_KIND_UNION."""

    id: int
    name: str
    size: int
    members: tuple[Member, ...]
    is_union: bool


class Enum(NamedTuple):
    """BTF_KIND_ENUM or BTF_KIND_ENUM64 (6.0)."""

    id: int
    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]
    """Enumerators in the order of the source; several may share a value."""


class Forward(NamedTuple):
    """BTF_KIND_FWD: a struct or union that was only declared."""

    id: int
    name: str
    is_union: bool


class Modifier(NamedTuple):
    """BTF_KIND_TYPEDEF, VOLATILE, CONST, RESTRICT or TYPE_TAG: the target under another name or qualifier."""

    id: int
    kind: str
    """typedef, volatile, const, restrict, type_tag."""
    name: str
    target: int


class Function(NamedTuple):
    """BTF_KIND_FUNC."""

    id: int
    name: str
    prototype: int
    linkage: int
    """STATIC, GLOBAL or EXTERN."""


class Parameter(NamedTuple):
    """``struct btf_param``; type 0 with an empty name is the ``...`` of a variadic function."""

    name: str
    type: int


class Prototype(NamedTuple):
    """BTF_KIND_FUNC_PROTO."""

    id: int
    result: int
    parameters: tuple[Parameter, ...]


class Variable(NamedTuple):
    """BTF_KIND_VAR: a global variable."""

    id: int
    name: str
    type: int
    linkage: int
    """STATIC, GLOBAL or EXTERN."""


class SectionVariable(NamedTuple):
    """``struct btf_var_secinfo``: where a variable lies in its section."""

    type: int
    """Id of the `Variable` (of a `Function` in ``.ksyms``)."""
    offset: int
    size: int


class Section(NamedTuple):
    """BTF_KIND_DATASEC."""

    id: int
    name: str
    size: int
    variables: tuple[SectionVariable, ...]


class DeclTag(NamedTuple):
    """BTF_KIND_DECL_TAG (5.16): an attribute of a declaration."""

    id: int
    name: str
    target: int
    component: int
    """Index of the member or parameter; -1 for the declaration itself."""


Type = (
    Int
    | Float
    | Pointer
    | Array
    | Composite
    | Enum
    | Forward
    | Modifier
    | Function
    | Prototype
    | Variable
    | Section
    | DeclTag
)
