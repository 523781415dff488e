"""Which CO-RE relocations a kernel's BTF can satisfy: mirrors libbpf's relo_core.c, without patching anything.

A field, enumerator or size that the kernel lacks makes libbpf poison the instruction, and the verifier refuses the
program if it reaches it; ``bpf_core_field_exists`` and its like become a constant instead, behind which the
verifier does not look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.btf.types import Array, Composite, Enum, Float, Forward, Int, Modifier, Pointer, Prototype
from xdpctl.errors import ObjectError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdpctl.btf.ext import CoreRelocation
    from xdpctl.btf.parse import Btf
    from xdpctl.btf.types import Type

_MAX_DEPTH = 16
"""Anonymous structs within each other, and steps of an access."""
_EXISTS = ("field_exists", "enumval_exists", "type_exists", "type_matches")


class CoreAnswer(NamedTuple):
    """What a relocation comes to."""

    found: bool
    what: str
    """What it looks for: ``struct inet_sock.freebind``."""
    constant: int | None
    """0 or 1 for a question whether something exists; None: a number that depends on layouts."""
    poisoned: bool
    """libbpf makes the instruction invalid."""


def essential(name: str) -> str:
    """A name without its flavor: ``task_struct___old`` -> ``task_struct``."""
    base, flavor, _ = name.partition("___")
    return base if flavor and base else name


def named(relocations: Iterable[CoreRelocation], btf: Btf) -> set[str]:
    """Names of the types that relocations start from, to be looked up in the kernel's BTF at once."""
    found = set()
    for one in relocations:
        of = _type(btf, one.type)
        if of is not None:
            found.add(essential(getattr(of, "name", "")))
    return found - {""}


def resolve(btf: Btf, one: CoreRelocation, kernel: Btf, candidates: dict[str, list[Type]]) -> CoreAnswer:
    """Whether any candidate of the kernel satisfies a relocation.

    Args:
        btf: the object's types.
        one: the relocation.
        kernel: the kernel's types.
        candidates: name -> the kernel's types of that name (`Btf.find_many`).

    Raises:
        ObjectError: the relocation contradicts the object's BTF.
    """
    local = _type(btf, one.type)
    name = getattr(local, "name", "")
    path = [int(step) for step in one.access.split(":") if step.isdigit()]
    steps, what = _steps(btf, one, path)
    if one.kind == "type_id_local":
        return CoreAnswer(True, what, None, False)
    wanted = [of for of in candidates.get(essential(name), []) if _same_kind(local, of)]
    found = any(_matches(btf, local, one, steps, kernel, of) for of in wanted)
    constant = (
        int(found) if one.kind in _EXISTS else 0 if one.kind.startswith("type_") and not found else None
    )
    poisoned = not found and one.kind.startswith(("field_", "enumval_")) and one.kind not in _EXISTS
    return CoreAnswer(found, what, constant, poisoned)


def _type(btf: Btf, type_id: int) -> Type | None:
    """The type itself: typedefs stay, qualifiers go."""
    for _ in range(32):
        found = btf.type(type_id)
        if not isinstance(found, Modifier) or found.kind == "typedef":
            return found
        type_id = found.target
    raise ObjectError(f"BTF type {type_id} is nested too deep")


def _same_kind(local: Type | None, other: Type | None) -> bool:
    return type(local) is type(other) and getattr(local, "is_union", None) == getattr(other, "is_union", None)


class _Step(NamedTuple):
    """One step of an access: a member by name, or an array index."""

    name: str
    type: int
    """The member's type, in the object."""
    position: int


def _steps(btf: Btf, one: CoreRelocation, path: list[int]) -> tuple[list[_Step], str]:
    """The access string as named steps, and how it reads."""
    from xdpctl.btf.names import spell

    what = spell(btf, one.type)
    if one.kind.startswith("type_"):
        return [], what
    if not path:
        raise ObjectError(f"CO-RE relocation of {what} has the access string {one.access!r}")
    of = btf.resolve(one.type)
    if one.kind.startswith("enumval_"):
        if not isinstance(of, Enum) or path[0] >= len(of.values):
            raise ObjectError(f"CO-RE relocation of {what} names enumerator {one.access}")
        name = of.values[path[0]][0]
        return [_Step(name, 0, path[0])], f"{what}::{name}"
    steps: list[_Step] = []
    type_id = one.type
    for index in path[1 : _MAX_DEPTH + 1]:
        of = btf.resolve(type_id)
        if isinstance(of, Composite):
            if index >= len(of.members):
                raise ObjectError(f"CO-RE relocation of {what} goes to member {index} of {len(of.members)}")
            member = of.members[index]
            type_id = member.type
            if member.name:
                steps.append(_Step(member.name, member.type, index))
                what += f".{member.name}"
        elif isinstance(of, Array):
            type_id = of.element
            steps.append(_Step("", of.element, index))
            what += f"[{index}]"
        else:
            raise ObjectError(f"CO-RE relocation of {what} goes into something that has no members")
    return steps, what


def _matches(
    btf: Btf, local: Type | None, one: CoreRelocation, steps: list[_Step], kernel: Btf, other: Type
) -> bool:
    if one.kind.startswith("type_"):
        return local is not None and _types_compatible(btf, one.type, kernel, other.id, 0)
    if one.kind.startswith("enumval_"):
        found = kernel.resolve(other.id)
        wanted = essential(steps[0].name)
        return isinstance(found, Enum) and any(essential(name) == wanted for name, _ in found.values)
    type_id: int | None = other.id
    for step in steps:
        if type_id is None:
            return False
        of = kernel.resolve(type_id)
        if step.name:
            type_id = _member(btf, step, kernel, of, 0)
        elif isinstance(of, Array) and (step.position < of.length or of.length == 0):
            type_id = of.element
        else:
            return False
    return type_id is not None


def _member(btf: Btf, step: _Step, kernel: Btf, of: Type | None, depth: int) -> int | None:
    """Type of the member of this name, anonymous structs and unions looked into; None: none that is compatible."""
    if not isinstance(of, Composite) or depth > _MAX_DEPTH:
        return None
    for member in of.members:
        if not member.name:
            inner = _member(btf, step, kernel, kernel.resolve(member.type), depth + 1)
            if inner is not None:
                return inner
        elif member.name == step.name:
            return member.type if _fields_compatible(btf, step.type, kernel, member.type) else None
    return None


def _fields_compatible(btf: Btf, local_id: int, kernel: Btf, other_id: int) -> bool:
    for _ in range(_MAX_DEPTH):
        local, other = btf.resolve(local_id), kernel.resolve(other_id)
        if isinstance(local, Composite) and isinstance(other, Composite):
            return True
        if not _kinds_compatible(local, other):
            return False
        if isinstance(local, Forward | Enum) and isinstance(other, Forward | Enum):
            return not local.name or not other.name or essential(local.name) == essential(other.name)
        if isinstance(local, Int) and isinstance(other, Int):
            return local.bit_offset == 0 and other.bit_offset == 0
        if isinstance(local, Array) and isinstance(other, Array):
            local_id, other_id = local.element, other.element
            continue
        return isinstance(local, Pointer | Float)
    return False


def _kinds_compatible(local: Type | None, other: Type | None) -> bool:
    return local is not None and _same_kind(local, other)


def _types_compatible(btf: Btf, local_id: int, kernel: Btf, other_id: int, depth: int) -> bool:
    for _ in range(_MAX_DEPTH):
        local, other = btf.resolve(local_id), kernel.resolve(other_id)
        if local is None and other is None:
            return True  # both void
        if not _kinds_compatible(local, other):
            return False
        if isinstance(local, Int) and isinstance(other, Int):
            return local.bit_offset == 0 and other.bit_offset == 0
        if isinstance(local, Pointer) and isinstance(other, Pointer):
            local_id, other_id = local.target, other.target
        elif isinstance(local, Array) and isinstance(other, Array):
            local_id, other_id = local.element, other.element
        elif isinstance(local, Prototype) and isinstance(other, Prototype):
            if len(local.parameters) != len(other.parameters) or depth > 4:
                return False
            pairs = zip(local.parameters, other.parameters, strict=True)
            if not all(_types_compatible(btf, one.type, kernel, two.type, depth + 1) for one, two in pairs):
                return False
            local_id, other_id = local.result, other.result
        else:
            return True
    return False
