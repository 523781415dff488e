"""How a BTF type is written in C: `struct in6_addr`, `__u8 mac[6]`, `int (*fn)(void *)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.btf.parse import MAX_DEPTH
from xdpctl.btf.types import (
    VOID,
    Array,
    Composite,
    Enum,
    Forward,
    Function,
    Modifier,
    Pointer,
    Prototype,
    Section,
    Variable,
)
from xdpctl.errors import ObjectError

if TYPE_CHECKING:
    from xdpctl.btf.parse import Btf

MAX_LENGTH = 512
"""Characters; a hostile prototype may name itself, so a spelling is cut there."""


def spell(btf: Btf, type_id: int) -> str:
    """The type as in a cast: ``__u32``, ``const char *``, ``struct event[4]``, ``int (*)(void *)``.

    Raises:
        ObjectError: an id that does not exist, or a cycle without a name in it.
    """
    return declare(btf, type_id, "")


def declare(btf: Btf, type_id: int, name: str) -> str:
    """The declaration of a variable or member, without its semicolon: ``__u8 mac[6]``.

    Raises:
        ObjectError: an id that does not exist, or a cycle without a name in it.
    """
    text = _declare(btf, type_id, name, 0)
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 3] + "..."


def _declare(btf: Btf, type_id: int, inner: str, depth: int) -> str:
    """Wrap declarators around `inner` from the inside out, as C's grammar has them, down to a named type."""
    qualifiers: list[str] = []
    for _ in range(MAX_DEPTH):
        if len(inner) > MAX_LENGTH:
            return inner
        found = btf.type(type_id)
        if isinstance(found, Modifier) and found.kind != "typedef":
            if found.kind != "type_tag":
                qualifiers.append(found.kind)
            type_id = found.target
        elif isinstance(found, Pointer):
            pointer = " ".join(["*", *qualifiers]) if qualifiers else "*"
            qualifiers = []
            inner = f"{pointer} {inner}" if inner and pointer != "*" else pointer + inner
            if isinstance(_below_qualifiers(btf, found.target), Array | Prototype):
                inner = f"({inner})"
            type_id = found.target
        elif isinstance(found, Array):
            inner = f"{inner}[{found.length or ''}]"
            type_id = found.element
        elif isinstance(found, Prototype):
            inner = f"{inner}({_parameters(btf, found, depth + 1)})"
            type_id = found.result
        else:
            base = " ".join([*qualifiers, _base(btf, type_id, depth)])
            return f"{base}{'' if not inner or inner[0] == '[' else ' '}{inner}"
    raise ObjectError(f"BTF type {type_id} goes deeper than {MAX_DEPTH} levels")


def _below_qualifiers(btf: Btf, type_id: int) -> object:
    for _ in range(MAX_DEPTH):
        found = btf.type(type_id)
        if not isinstance(found, Modifier) or found.kind == "typedef":
            return found
        type_id = found.target
    return None


def _parameters(btf: Btf, prototype: Prototype, depth: int) -> str:
    if depth > 4:
        return "..."
    if not prototype.parameters:
        return "void"
    return ", ".join(
        "..." if one.type == VOID and not one.name else _declare(btf, one.type, one.name, depth)
        for one in prototype.parameters[:16]
    )


def _base(btf: Btf, type_id: int, depth: int) -> str:
    found = btf.type(type_id)
    if found is None:
        return "void"
    if isinstance(found, Composite):
        return f"{'union' if found.is_union else 'struct'} {found.name or '{...}'}"
    if isinstance(found, Enum):
        return f"enum {found.name or '{...}'}"
    if isinstance(found, Forward):
        return f"{'union' if found.is_union else 'struct'} {found.name}"
    if isinstance(found, Variable):
        return _declare(btf, found.type, found.name, depth + 1) if depth < 4 else found.name
    if isinstance(found, Function):
        return _declare(btf, found.prototype, found.name, depth + 1) if depth < 4 else found.name
    if isinstance(found, Section):
        return found.name
    return getattr(found, "name", "") or "void"
