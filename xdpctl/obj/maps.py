"""What maps an object defines: BTF-defined ones in ``.maps`` and legacy ``struct bpf_map_def`` in ``maps``.

Mirrors libbpf's parse_btf_map_def and bpf_object__collect_map_relos; what libbpf would refuse in a definition
comes back as a `Problem` beside the map, as far as it can be read.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xdpctl.btf.names import spell
from xdpctl.btf.parse import DATASEC
from xdpctl.btf.types import GLOBAL, Array, Composite, Pointer, Prototype, Section, Variable
from xdpctl.errors import ObjectError
from xdpctl.obj.elf import STT_FUNC, STT_SECTION
from xdpctl.obj.kinds import map_type
from xdpctl.obj.model import ObjMap, Problem

if TYPE_CHECKING:
    from xdpctl.btf.parse import Btf
    from xdpctl.obj.elf import Elf, ElfSection

PIN_BY_NAME = 1
MAX_SLOTS = 4096
"""Values given in the definition of one map that are looked at."""
MAX_MAPS = 4096
_MAP_IN_MAP = ("array_of_maps", "hash_of_maps")
_INTEGERS = (
    "type",
    "max_entries",
    "map_flags",
    "numa_node",
    "key_size",
    "value_size",
    "pinning",
    "map_extra",
)


@dataclass(eq=False, repr=False)
class MapTable:
    """The maps of an object, and where each is defined."""

    maps: list[ObjMap] = field(default_factory=list)
    places: dict[tuple[int, int], str] = field(default_factory=dict)
    """(section index, byte offset) -> name."""
    flaws: list[Problem] = field(default_factory=list)

    def at(self, section: int, offset: int) -> str | None:
        """Name of the map defined at a place."""
        return self.places.get((section, offset))


@dataclass(eq=False, repr=False)
class _Definition:
    """``struct btf_map_def`` while it is being read."""

    name: str
    numbers: dict[str, int] = field(default_factory=dict)
    key_type: int = 0
    value_type: int = 0
    has_values: bool = False
    inner: _Definition | None = None
    flaw: str = ""


def read(elf: Elf, btf: Btf | None) -> MapTable:
    """The maps of both kinds in the order of their definition.

    Raises:
        ObjectError: BTF contradicts itself.
    """
    table = MapTable()
    for section in elf.sections:
        if section.name == "maps" or section.name.startswith("maps/"):
            _read_legacy(elf, section, table)
    body = elf.section(".maps")
    if body is None or not body.data:
        return table
    if btf is None:
        _flaw(table, "", "its maps are defined by BTF, and it has none", "compile with clang -g")
        return table
    found = btf.find(".maps", DATASEC)
    if not isinstance(found, Section):
        _flaw(table, "", "BTF does not describe its section .maps", "compile with clang -g")
        return table
    _read_btf(elf, body, btf, found, table)
    return table


def _flaw(table: MapTable, where: str, message: str, hint: str | None = None) -> None:
    table.flaws.append(Problem("map-definition", "fail", where, message, hint))


def _read_btf(elf: Elf, section: ElfSection, btf: Btf, found: Section, table: MapTable) -> None:
    offsets = {
        symbol.name: symbol.value
        for symbol in elf.symbols_of(section)
        if symbol.type not in (STT_SECTION, STT_FUNC)
    }
    extents: list[tuple[int, int, int, str]] = []
    if len(found.variables) > MAX_MAPS:
        raise ObjectError(f"it defines {len(found.variables)} maps, more than {MAX_MAPS}")
    for one in found.variables:
        variable = btf.type(one.type)
        if not isinstance(variable, Variable) or not variable.name:
            raise ObjectError("BTF of section .maps names something that is not a variable")
        definition = _Definition(variable.name)
        offset = offsets.get(variable.name, one.offset)
        structure = btf.resolve(variable.type)
        if not isinstance(structure, Composite) or structure.is_union:
            _flaw(table, variable.name, f"map {variable.name} is not defined by a struct")
            continue
        if variable.linkage != GLOBAL:
            _flaw(table, variable.name, f"map {variable.name} is static", "declare it without `static`")
        _parse(btf, structure, definition, is_inner=False)
        made = _finish(btf, definition)
        if definition.flaw:
            _flaw(table, variable.name, f"map {variable.name}: {definition.flaw}")
        table.maps.append(made)
        table.places[section.number, offset] = variable.name
        values = next((item.bit_offset // 8 for item in structure.members if item.name == "values"), 0)
        extents.append((offset, offset + max(one.size, structure.size, 1), offset + values, variable.name))
    _place_values(elf, section, table, extents)


def _parse(btf: Btf, structure: Composite, into: _Definition, *, is_inner: bool) -> None:
    """One field after the other, as parse_btf_map_def does; the first flaw is kept."""
    for position, member in enumerate(structure.members):
        of = btf.resolve(member.type)
        name = member.name
        if name in _INTEGERS:
            array = btf.type(of.target) if isinstance(of, Pointer) else None
            if not isinstance(array, Array):
                into.flaw = into.flaw or f"its field {name} is not written with __uint({name}, ...)"
                continue
            conflict = into.numbers.get(name, array.length)
            if name in ("key_size", "value_size") and conflict and conflict != array.length:
                into.flaw = into.flaw or f"two {name.replace('_', ' ')}s, {conflict} and {array.length}"
            into.numbers[name] = array.length
        elif name in ("key", "value"):
            if not isinstance(of, Pointer):
                into.flaw = into.flaw or f"its field {name} is not written with __type({name}, ...)"
                continue
            try:
                size = btf.size_of(of.target)
            except ObjectError:
                into.flaw = into.flaw or f"its {name} has no size: {spell(btf, of.target)}"
                continue
            known = into.numbers.get(f"{name}_size", size)
            if known and known != size:
                into.flaw = into.flaw or f"two {name} sizes, {known} and {size}"
            into.numbers[f"{name}_size"] = size
            if name == "key":
                into.key_type = of.target
            else:
                into.value_type = of.target
        elif name == "values":
            into.has_values = True
            flaw = _parse_values(btf, member.type, into, is_inner=is_inner)
            if not flaw and position != len(structure.members) - 1:
                flaw = "its field values is not the last"
            into.flaw = into.flaw or flaw
        else:
            into.flaw = into.flaw or f"libbpf does not know its field {name or '(without a name)'}"
    if not into.numbers.get("type"):
        into.flaw = into.flaw or "its type is not given"
    pinning = into.numbers.get("pinning", 0)
    if pinning not in (0, PIN_BY_NAME):
        into.flaw = into.flaw or f"its pinning is {pinning}"
    if pinning and is_inner:
        into.flaw = into.flaw or "an inner map can't be pinned"


def _parse_values(btf: Btf, type_id: int, into: _Definition, *, is_inner: bool) -> str:
    kind = map_type(into.numbers.get("type", 0))
    if is_inner:
        return "maps in maps in maps"
    if kind not in (*_MAP_IN_MAP, "prog_array"):
        return f"its field values is for maps of maps and prog_array, not for {kind}"
    if into.numbers.get("value_size", 4) not in (0, 4):
        return f"two value sizes, {into.numbers['value_size']} and 4"
    into.numbers["value_size"] = 4
    array = btf.type(type_id)
    pointer = btf.resolve(array.element) if isinstance(array, Array) else None
    if not isinstance(array, Array) or array.length or not isinstance(pointer, Pointer):
        return "its field values is not written with __array(values, ...)"
    target = btf.resolve(pointer.target)
    if kind == "prog_array":
        return "" if isinstance(target, Prototype) else "its field values does not hold functions"
    if not isinstance(target, Composite) or target.is_union:
        return "its field values does not hold maps"
    into.inner = _Definition(f"{into.name}.inner")
    _parse(btf, target, into.inner, is_inner=True)
    return into.inner.flaw


def _finish(btf: Btf, one: _Definition) -> ObjMap:
    numbers = one.numbers
    inner = _finish(btf, one.inner) if one.inner is not None else None
    return ObjMap(
        name=one.name,
        type=map_type(numbers.get("type", 0)),
        key_size=numbers.get("key_size", 0),
        value_size=numbers.get("value_size", 0),
        max_entries=numbers.get("max_entries", 0),
        flags=numbers.get("map_flags", 0),
        definition="btf",
        pin=one.name if numbers.get("pinning") == PIN_BY_NAME else None,
        key_type=spell(btf, one.key_type) if one.key_type else None,
        value_type=spell(btf, one.value_type) if one.value_type else None,
        inner=inner.type if inner is not None else None,
        key_type_id=one.key_type,
        value_type_id=one.value_type,
        numa_node=numbers.get("numa_node"),
        map_extra=numbers.get("map_extra", 0),
        inner_map=inner,
    )


def _place_values(
    elf: Elf, section: ElfSection, table: MapTable, extents: list[tuple[int, int, int, str]]
) -> None:
    """Relocations in .maps fill the slots of prog_array and maps of maps."""
    slots: dict[str, dict[int, str]] = {}
    extents.sort()
    starts = [start for start, _, _, _ in extents]
    for offset, (symbol, _) in elf.relocations.get(section.number, {}).items():
        at = bisect_right(starts, offset) - 1
        if at < 0 or offset >= extents[at][1]:
            continue
        _, _, values, name = extents[at]
        slot = (offset - values) // 8
        if 0 <= slot < MAX_SLOTS:
            slots.setdefault(name, {})[slot] = elf.symbols[symbol].name
    table.maps = [
        replace(one, values=tuple(slots[one.name].get(slot, "") for slot in range(max(slots[one.name]) + 1)))
        if one.name in slots
        else one
        for one in table.maps
    ]


def _read_legacy(elf: Elf, section: ElfSection, table: MapTable) -> None:
    """``struct bpf_map_def``: type, key_size, value_size, max_entries, map_flags; iproute2 and others append."""
    symbols = sorted(
        (one.value, one.name)
        for one in elf.symbols_of(section)
        if one.type not in (STT_SECTION, STT_FUNC) and one.name
    )
    for position, (offset, name) in enumerate(symbols):
        end = symbols[position + 1][0] if position + 1 < len(symbols) else len(section.data)
        raw = section.data[offset:end][:20].ljust(20, b"\0")
        kind, key, value, entries, flags = struct.unpack(elf.order + "5I", raw)
        table.maps.append(ObjMap(name, map_type(kind), key, value, entries, flags, "legacy"))
        table.places[section.number, offset] = name


def internal(name: str, size: int, *, frozen: bool) -> ObjMap:
    """The array of one entry that libbpf makes of a data section; BPF_F_MMAPABLE, and BPF_F_RDONLY_PROG if frozen."""
    return ObjMap(name, "array", 4, size, 1, 0x400 | (0x80 if frozen else 0), "internal")
