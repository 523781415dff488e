"""What global variables an object has, with their C types and initial values.

A data section (.data, .rodata, .bss and those with a suffix) is described by a BTF_KIND_DATASEC; clang leaves its
offsets to the symbol table, as libbpf's btf_fixup_datasec knows.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.btf.names import spell
from xdpctl.btf.parse import DATASEC
from xdpctl.btf.types import STATIC, Array, Composite, Enum, Float, Function, Int, Pointer, Section, Variable
from xdpctl.btf.values import decode, members
from xdpctl.errors import ObjectError
from xdpctl.obj.code import is_data
from xdpctl.obj.elf import SHN_UNDEF, SHT_NOBITS, STB_GLOBAL, STB_LOCAL, STB_WEAK, STT_NOTYPE, STT_OBJECT
from xdpctl.obj.model import ObjExtern, ObjGlobal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.btf.parse import Btf
    from xdpctl.obj.elf import Elf, ElfSection

MAX_SHOWN = 4096
"""Bytes of a value that are decoded; a larger one (a table in .bss) is given as its size."""


def kind_of(btf: Btf, type_id: int) -> str:
    """int, uint, bool, char, enum, float, array, struct, union, pointer, or unknown."""
    found = btf.resolve(type_id)
    if isinstance(found, Int):
        if found.is_bool:
            return "bool"
        if found.is_char or found.name == "char":
            return "char"
        return "int" if found.signed else "uint"
    if isinstance(found, Composite):
        return "union" if found.is_union else "struct"
    for of, name in ((Enum, "enum"), (Float, "float"), (Array, "array"), (Pointer, "pointer")):
        if isinstance(found, of):
            return name
    return "unknown"


def value_of(btf: Btf, type_id: int, data: bytes) -> Any:
    """The value to show: an enumerator by its name, large data by its size."""
    if len(data) > MAX_SHOWN:
        return f"{len(data)} bytes" if any(data) else f"{len(data)} bytes of zero"
    try:
        value = decode(btf, type_id, data)
    except ObjectError:
        return data.hex()
    found = btf.resolve(type_id)
    if isinstance(found, Enum):
        return next((name for name, number in found.values if number == value), value)
    return value


def data_of(section: ElfSection, offset: int, size: int) -> bytes:
    """The initial bytes of a variable; zero in .bss."""
    if section.type == SHT_NOBITS:
        return bytes(size) if size <= MAX_SHOWN else b""
    return section.data[offset : offset + size]


class Variables(NamedTuple):
    """The variables of an object."""

    globals: tuple[ObjGlobal, ...]
    """By section and offset; those of .kconfig among them."""
    kconfig: tuple[str, ...]
    ksyms: tuple[str, ...]
    """Kernel variables and functions (kfuncs) that the object names."""


def read(elf: Elf, btf: Btf | None) -> Variables:
    """Every global variable.

    Raises:
        ObjectError: one lies outside of its section.
    """
    found: list[ObjGlobal] = []
    externs: dict[str, list[str]] = {".kconfig": [], ".ksyms": []}
    described: set[str] = set()
    if btf is not None:
        for section in btf.of_kind(DATASEC):
            if not isinstance(section, Section):
                continue
            if section.name in externs:
                named = [btf.type(one.type) for one in section.variables]
                externs[section.name] += [one.name for one in named if isinstance(one, Variable | Function)]
                if section.name == ".kconfig":
                    found += [_extern(btf, one) for one in named if isinstance(one, Variable)]
            elif is_data(section.name):
                body = elf.section(section.name)
                if body is not None and section.name not in described:
                    described.add(section.name)
                    found += _described(elf, body, btf, section)
    for body in elf.sections:
        if is_data(body.name) and body.name not in described:
            found += _undescribed(elf, body)
    return Variables(tuple(found), tuple(externs[".kconfig"]), tuple(externs[".ksyms"]))


def _described(elf: Elf, body: ElfSection, btf: Btf, section: Section) -> list[ObjGlobal]:
    symbols: dict[tuple[str, bool], list[int]] = {}
    for symbol in elf.symbols_of(body):
        symbols.setdefault((symbol.name, symbol.binding == STB_LOCAL), []).append(symbol.value)
    made = []
    for one in section.variables:
        variable = btf.type(one.type)
        if not isinstance(variable, Variable):
            raise ObjectError(f"BTF of section {section.name} names something that is not a variable")
        static = variable.linkage == STATIC
        places = symbols.get((variable.name, static), [])
        # bpftool gen object has filled in size and offsets; clang has not
        offset = one.offset if section.size or len(places) != 1 else places[0]
        size = one.size or btf.size_of(variable.type)
        if offset + size > body.size:
            raise ObjectError(f"variable {variable.name} lies outside of its section {section.name}")
        data = data_of(body, offset, size)
        made.append(
            ObjGlobal(
                name=variable.name,
                section=section.name,
                type=spell(btf, variable.type),
                offset=offset,
                size=size,
                value=value_of(btf, variable.type, data) if data or not size else f"{size} bytes of zero",
                kind=kind_of(btf, variable.type),
                writable=not section.name.startswith(".rodata"),
                type_id=variable.type,
                static=static,
                initial=data if any(data) else b"",
            )
        )
    return sorted(made, key=lambda one: one.offset)


def _undescribed(elf: Elf, body: ElfSection) -> list[ObjGlobal]:
    return [
        ObjGlobal(
            name=symbol.name,
            section=body.name,
            type="",
            offset=symbol.value,
            size=symbol.size,
            value=data_of(body, symbol.value, min(symbol.size, MAX_SHOWN)).hex(),
            kind="unknown",
            writable=not body.name.startswith(".rodata"),
            static=symbol.binding == STB_LOCAL,
        )
        for symbol in sorted(elf.symbols_of(body), key=lambda one: one.value)
        if symbol.type == STT_OBJECT and symbol.value + symbol.size <= body.size
    ]


def _extern(btf: Btf, variable: Variable) -> ObjGlobal:
    """A .kconfig variable: libbpf fills it from the kernel's configuration at load."""
    try:
        size = btf.size_of(variable.type)
    except ObjectError:
        size = 0
    kind = kind_of(btf, variable.type)
    return ObjGlobal(
        variable.name, ".kconfig", spell(btf, variable.type), 0, size, None, kind, False, variable.type
    )


def externs(elf: Elf, btf: Btf | None) -> tuple[ObjExtern, ...]:
    """What libbpf's bpf_object__collect_externs looks for: undefined symbols, described by BTF."""
    described: dict[str, tuple[str, str | None]] = {}
    for section in btf.of_kind(DATASEC) if btf is not None else ():
        if btf is None or not isinstance(section, Section) or section.name not in (".kconfig", ".ksyms"):
            continue
        for one in section.variables:
            named = btf.type(one.type)
            if isinstance(named, Function):
                described[named.name] = ("kfunc", None)
            elif isinstance(named, Variable):
                kind = "kconfig" if section.name == ".kconfig" else "ksym"
                is_void = btf.resolve(named.type) is None
                described[named.name] = (kind, None if is_void else spell(btf, named.type))
    return tuple(
        ObjExtern(symbol.name, kind, symbol.binding == STB_WEAK, type_)
        for symbol in elf.by_section.get(SHN_UNDEF, ())
        if symbol.binding in (STB_GLOBAL, STB_WEAK) and symbol.type == STT_NOTYPE and symbol.name
        for kind, type_ in (described.get(symbol.name, ("unknown", None)),)
    )


def path_at(
    btf: Btf | None, variables: Sequence[ObjGlobal], offset: int, size: int, *, indexed: bool
) -> str | None:
    """Path of the integer at a place of a data section, as `--set` names it; None: there is none.

    Args:
        btf: the object's types.
        variables: the globals of the section, by offset.
        offset: byte offset in the section; with `indexed`, that of the array's first element.
        size: bytes that are read there.
        indexed: an unknown index was added: ``[*]`` stands for it.
    """
    at = bisect_right(variables, offset, key=lambda one: one.offset) - 1
    found = variables[at] if at >= 0 else None
    if found is None or not found.offset <= offset < found.offset + found.size:
        return None
    offset -= found.offset
    if btf is None or not found.type_id:
        return found.name if offset == 0 and size == found.size and not indexed else None
    path, type_id = found.name, found.type_id
    for _ in range(16):
        of = btf.resolve(type_id)
        if isinstance(of, Array):
            step = btf.size_of(of.element)
            if not step:
                return None
            path += "[*]" if indexed else f"[{offset // step}]"
            indexed, offset, type_id = False, offset % step, of.element
        elif isinstance(of, Composite):
            inside = [
                one for one in members(btf, of).values() if not one.bits and 8 * offset >= one.bit_offset
            ]
            within = [one for one in inside if 8 * offset < one.bit_offset + 8 * btf.size_of(one.type)]
            if not within:
                return None
            path += f".{within[0].name}"
            offset, type_id = offset - within[0].bit_offset // 8, within[0].type
        elif isinstance(of, Int | Enum):
            # a little-endian u64 may be read by its lower half
            whole = offset == 0 and (size == of.size or (size < of.size and btf.order == "<"))
            return path if whole and not indexed else None
        else:
            return None
    return None
