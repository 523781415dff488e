"""What bytes ``--set NAME=VALUE`` puts into an object's global variables, checked against its BTF before load.

VALUE is read by the variable's type, see `obj.texts`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.btf.names import spell
from xdpctl.btf.types import Array, Modifier
from xdpctl.btf.values import decode as decode_value
from xdpctl.errors import ConfigError, NotFoundError, ObjectError
from xdpctl.obj.texts import Place, encode_text, find_member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xdpctl.btf.parse import Btf
    from xdpctl.obj.model import ObjFile, ObjGlobal

MAX_TEXT = 1 << 16
"""Characters in a VALUE."""
MAX_ELEMENTS = 4096
"""Elements of an array that `values` looks at."""

_PATH = re.compile(r"\.([A-Za-z_]\w*)|\[(\d{1,9})\]")


class Setting(NamedTuple):
    """Bytes for one place in a data section."""

    name: str
    """As the user named it, member and index included."""
    section: str
    """.data, .rodata, ...: the map to write to (``bpf_object__find_map_by_name`` takes this name)."""
    offset: int
    """Byte offset in the section."""
    data: bytes
    value: Any
    """What was stored: an int, text, or the VALUE for composite types."""
    note: str | None = None
    """A doubt for the user: the compiler may have folded the constant."""


def parse(obj: ObjFile, text: str, *, ifindex: Callable[[str], int] | None = None) -> Setting:
    """One ``NAME=VALUE``.

    Args:
        obj: the object, as `obj.reader.read` gave it.
        text: ``NAME=VALUE``, ``NAME.member=VALUE`` or ``NAME[2]=VALUE``.
        ifindex: name of an interface -> its ifindex, in the namespace that is meant; by default the current one.

    Raises:
        NotFoundError: the object has no such variable, member or interface.
        ConfigError: no ``=``, the value does not fit, or the variable can't be set.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {text[:60]}: not of the form NAME=VALUE", hint="--set target_ifindex=eth1")
    return encode(obj, name.strip(), value, ifindex=ifindex)


def parse_all(
    obj: ObjFile, texts: Iterable[str], *, ifindex: Callable[[str], int] | None = None
) -> list[Setting]:
    """Several, in their order; a later one overwrites what an earlier one set.

    Raises:
        NotFoundError, ConfigError: as `parse`.
    """
    return [parse(obj, text, ifindex=ifindex) for text in texts]


def encode(obj: ObjFile, name: str, text: str, *, ifindex: Callable[[str], int] | None = None) -> Setting:
    """The bytes of a value for the variable (or member) called `name`.

    Raises:
        NotFoundError, ConfigError: as `parse`.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"the value for {name[:60]} has {len(text)} characters")
    base = re.split(r"[.\[]", name, maxsplit=1)[0]
    found = _find(obj, base)
    if found.section == ".kconfig":
        raise ConfigError(
            f"{base} can't be set: it is extern, libbpf fills it from the kernel's configuration",
            hint=f"`zgrep {base} /proc/config.gz` shows what this kernel has"
            if base.startswith("CONFIG_")
            else None,
        )
    if obj.btf is None or not found.type_id:
        raise ConfigError(
            f"{base} can't be set: {obj.path} does not tell its type", hint="compile with clang -g"
        )
    note = None
    if found.section.startswith(".rodata") and not _is_volatile(obj.btf, found.type_id):
        note = f"{base} is const but not volatile: the compiler may have used its initial value already"
    try:
        place = _walk(obj.btf, found, name, base, ifindex or _ifindex_here)
        data, value = encode_text(place, text, 0)
    except ObjectError as error:
        raise ConfigError(f"{name} can't be set: {error.message}") from error
    if place.offset + len(data) > found.offset + found.size:
        raise ConfigError(f"{name} can't be set: it lies outside of {base}")
    return Setting(name, found.section, place.offset, data, value, note)


def values(obj: ObjFile, path: str, settings: Iterable[Setting] = ()) -> list[int]:
    """The integers that a global holds when the program starts, after `settings`; empty where it can't be told.

    Args:
        obj: the object.
        path: as `RedirectCall.variable` has it: ``out``, ``cfg.ifi``, ``targets[2]``; ``targets[*]`` gives every
            element.
        settings: what is to be written before load, in this order.
    """
    found = [one for one in obj.globals if one.name == re.split(r"[.\[]", path, maxsplit=1)[0]]
    if len(found) != 1 or obj.btf is None or not found[0].type_id:
        return []
    whole = found[0]
    memory = bytearray(whole.initial or bytes(min(whole.size, MAX_TEXT)))
    for one in settings:
        start = one.offset - whole.offset
        if one.section == whole.section and start >= 0 and start + len(one.data) <= len(memory):
            memory[start : start + len(one.data)] = one.data
    before, star, after = path.partition("[*]")
    try:
        paths = [path]
        if star:
            array = obj.btf.resolve(_walk(obj.btf, whole, before, whole.name, _ifindex_here).type)
            length = array.length if isinstance(array, Array) else 0
            paths = [f"{before}[{index}]{after}" for index in range(min(length, MAX_ELEMENTS))]
        places = [_walk(obj.btf, whole, one, whole.name, _ifindex_here) for one in paths]
        decoded = [decode_value(obj.btf, one.type, memory, one.offset - whole.offset) for one in places]
    except (ConfigError, ObjectError):
        return []
    return [int(one) for one in decoded if isinstance(one, int)]


def _ifindex_here(name: str) -> int:
    from xdpctl.netlink.interfaces import ifindex

    return ifindex(name)


def _find(obj: ObjFile, name: str) -> ObjGlobal:
    found = [one for one in obj.globals if one.name == name]
    if not found:
        hint = None
        if obj.map(name) is not None:
            hint = f"{name} is a map; --map {name}=... reuses a pinned one or sets its size"
        elif not obj.globals:
            hint = "it has no global variables; they are declared outside of functions, as `volatile const __u32 x;`"
        known = [one.name for one in obj.globals if one.section != ".kconfig"]
        raise NotFoundError("global variable", name, known=known, where=str(obj.path), hint=hint)
    if len(found) > 1:
        places = ", ".join(sorted({one.section for one in found}))
        raise ConfigError(f"{obj.path} has {len(found)} variables called {name} (static ones, in {places})")
    return found[0]


def _is_volatile(btf: Btf, type_id: int) -> bool:
    for _ in range(32):
        found = btf.type(type_id)
        if isinstance(found, Array):
            type_id = found.element
        elif isinstance(found, Modifier):
            if found.kind == "volatile":
                return True
            type_id = found.target
        else:
            return False
    return False


def _walk(btf: Btf, found: ObjGlobal, name: str, base: str, ifindex: Callable[[str], int]) -> Place:
    """Follow ``.member`` and ``[index]`` from the variable on."""
    type_id, offset, position = found.type_id, found.offset, len(base)
    while position < len(name):
        step = _PATH.match(name, position)
        if step is None:
            raise ConfigError(f"{name} is no path of members: write NAME.member or NAME[2]")
        of = btf.resolve(type_id)
        if step[1]:
            member = find_member(btf, of, type_id, step[1], name[:position])
            if member.bits:
                raise ConfigError(
                    f"{name[: step.end()]} is a bitfield; set the whole struct: {base}='{{...}}'"
                )
            type_id, offset = member.type, offset + member.bit_offset // 8
        else:
            if not isinstance(of, Array):
                raise ConfigError(f"{name[:position]} is no array but {spell(btf, type_id)}")
            index = int(step[2])
            if index >= of.length:
                raise ConfigError(
                    f"{name[:position]} has {of.length} elements, the last is [{of.length - 1}]"
                )
            type_id, offset = of.element, offset + index * btf.size_of(of.element)
        position = step.end()
    start = offset - found.offset
    initial = found.initial[start : start + btf.size_of(type_id)]
    return Place(btf, name, type_id, offset, ifindex, initial)
