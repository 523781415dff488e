"""What a map is made of, and how it differs from another version of itself, field by field: asked before an upgrade.

The schema of a map that an object defines comes from its BTF, that of a map in the kernel from the BTF the map was
made with (``struct bpf_map_info``: btf_id, btf_key_type_id, btf_value_type_id, Linux 4.18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.skeleton.changes import FieldChange, field_changes, renamed
from xdpctl.skeleton.fields import Field, field_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.bpf.map import Map
    from xdpctl.bpf.object import Object
    from xdpctl.bpf.query import MapInfo
    from xdpctl.btf.parse import Btf
    from xdpctl.obj.model import ObjFile, ObjMap

COPIED = ("hash", "lru_hash", "lpm_trie", "array", "percpu_hash", "lru_percpu_hash", "percpu_array")
"""Types whose elements are copied field by field."""
REFERRING = ("devmap", "devmap_hash", "cpumap", "array_of_maps", "hash_of_maps")
"""Types whose values refer to devices, CPUs, programs and maps: copied as the same references."""
FAMILIES = (("hash", "lru_hash"), ("percpu_hash", "lru_percpu_hash"), ("devmap", "devmap_hash"))
"""Types that an upgrade may change into each other."""
RDONLY_PROG = 0x80
"""BPF_F_RDONLY_PROG: the kernel sets it on every devmap."""


class Side(NamedTuple):
    """The key or the value of a map."""

    size: int
    """Bytes."""
    field: Field | None = None
    """What it is made of; None: no BTF says so."""

    @property
    def type(self) -> str | None:
        """As C spells it."""
        return self.field.type if self.field is not None else None

    def describe(self) -> str:
        """``16 bytes (struct flow)``."""
        return f"{self.size} byte{'s' * (self.size != 1)}" + (f" ({self.type})" if self.type else "")


class MapSchema(NamedTuple):
    """What the kernel and libbpf ask of a map to be the same (``struct bpf_map_def``), and what its bytes mean."""

    name: str
    type: str
    """hash, percpu_array, ..."""
    key: Side
    value: Side
    """Of one CPU where it is per-CPU."""
    max_entries: int
    flags: int
    """BPF_F_..., without what the kernel adds by itself."""

    @property
    def per_cpu(self) -> bool:
        """A value is an array over the possible CPUs."""
        return "percpu" in self.type and self.type != "percpu_cgroup_storage"


class Difference(NamedTuple):
    """How a map of a new object differs from one that is there."""

    old: MapSchema
    new: MapSchema
    fields: tuple[FieldChange, ...]
    """Of key and value; empty where no BTF tells."""

    @property
    def numbers(self) -> tuple[tuple[str, Any, Any], ...]:
        """What libbpf compares: (what, old, new) of type, key size, value size, max_entries, flags that differ."""
        pairs = (
            ("type", self.old.type, self.new.type),
            ("key size", self.old.key.size, self.new.key.size),
            ("value size", self.old.value.size, self.new.value.size),
            ("max_entries", self.old.max_entries, self.new.max_entries),
            ("flags", self.old.flags, self.new.flags),
        )
        return tuple(one for one in pairs if one[1] != one[2])

    @property
    def same(self) -> bool:
        """Nothing differs that matters: the new object uses the map as it is."""
        return not self.numbers and not self.fields

    def why_not_reuse(self) -> str | None:
        """Why the new program can't work on the old map as it is; None: it can."""
        for what, old, new in self.numbers:
            if what not in ("max_entries", "flags"):
                return f"its {what} changes from {old} to {new}"
        return next((f"{one.where}: {one.in_place}" for one in self.fields if one.in_place), None)

    def why_not_copy(self) -> str | None:
        """Why its entries can't be carried over by field name; None: they can (as far as their values fit)."""
        old, new = self.old.type, self.new.type
        if old != new and not any(old in family and new in family for family in FAMILIES):
            return f"a {old} can't become a {new}"
        if old not in (*COPIED, *REFERRING):
            return f"the entries of a {old} can't be read and written one by one"
        if old in REFERRING:
            if self.old.key.size != self.new.key.size:
                return f"its key size changes from {self.old.key.size} to {self.new.key.size}"
            return None
        for what, before, after in (
            ("key", self.old.key, self.new.key),
            ("value", self.old.value, self.new.value),
        ):
            if before.size != after.size and (before.field is None or after.field is None):
                which = "the pinned map's" if before.field is None else "the new map's"
                return f"its {what} grows or shrinks, and no BTF says what {which} is made of"
        return next((f"{one.where}: {one.copy}" for one in self.fields if not one.can_copy), None)

    def summary(self) -> str:
        """One line: ``value grows from 16 to 32 bytes (2 fields added), max_entries 1024 becomes 2048``."""
        parts = []
        for what, old, new in sorted(self.numbers, key=lambda one: "size" in one[0]):
            if what in ("key size", "value size"):
                verb = "grows" if new > old else "shrinks"
                parts.append(f"{what.partition(' ')[0]} {verb} from {old} to {new} bytes")
            elif what == "flags":
                parts.append(f"flags {old:#x} become {new:#x}")
            else:
                parts.append(f"{what} {old} becomes {new}")
        counts: dict[str, int] = {}
        for one in self.fields:
            for how in one.how:
                counts[how] = counts.get(how, 0) + 1
        if counts:
            told = ", ".join(f"{count} field{'s' * (count != 1)} {how}" for how, count in counts.items())
            parts.append(f"({told})" if parts and "bytes" in parts[-1] else told)
        return ", ".join(parts).replace(", (", " (") or "nothing differs"

    def lines(self) -> list[str]:
        """The difference for people: what libbpf compares, then each field that changed and what copying does to it."""
        found = []
        for what, old, new in self.numbers:
            if what in ("type", "max_entries", "flags"):
                shown = [f"{one:#x}" if what == "flags" else str(one) for one in (old, new)]
                found.append(f"{what}: {shown[0]} -> {shown[1]}")
        for part, before, after in (
            ("key", self.old.key, self.new.key),
            ("value", self.old.value, self.new.value),
        ):
            changed = [one for one in self.fields if one.part == part]
            if changed or before.size != after.size:
                found.append(f"{part}: {before.describe()} -> {after.describe()}")
                found += _table(changed)
        return found

    def to_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            "map": self.new.name,
            "summary": self.summary(),
            "differs": [
                {"what": what.replace(" ", "_"), "old": old, "new": new} for what, old, new in self.numbers
            ],
            "fields": [one.to_json() for one in self.fields],
            "why_not_reuse": self.why_not_reuse(),
            "why_not_copy": self.why_not_copy(),
        }


def _table(changed: list[FieldChange]) -> Iterator[str]:
    rows = [one.row() for one in changed]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(4)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def difference(old: MapSchema, new: MapSchema) -> Difference:
    """Compare a map that is there with what a new object wants in its place."""
    fields: list[FieldChange] = []
    if old.type not in REFERRING:
        for part, before, after in (("key", old.key, new.key), ("value", old.value, new.value)):
            if before.field is not None and after.field is not None:
                fields += renamed(list(field_changes(part, before.field, after.field)))
    return Difference(old, new, tuple(fields))


def _side(size: int, btf: Btf | None, type_id: int) -> Side:
    if btf is None or not type_id:
        return Side(size)
    found = field_of(btf, type_id)
    return Side(size, found if found.bits == 8 * size else None)


def of_file(obj: ObjFile, one: ObjMap) -> MapSchema:
    """The schema of a map that an object file defines, without loading it.

    Raises:
        ObjectError: its BTF contradicts itself.
    """
    key = _side(one.key_size, obj.btf, one.key_type_id)
    value = _side(one.value_size, obj.btf, one.value_type_id)
    return MapSchema(one.name, one.type, key, value, one.max_entries, one.flags)


def of_opened(one: Map, btf: Btf | None) -> MapSchema:
    """The schema of a map of an opened object, with what was set before load; `btf` is the object's.

    Raises:
        ObjectError: its BTF contradicts itself.
    """
    from xdpctl.bpf.elements import possible_cpus

    entries = one.max_entries
    if one.type == "perf_event_array" and not entries:
        entries = possible_cpus()
    elif one.type == "ringbuf":
        entries = _whole_pages(entries)
    key = _side(one.key_size, btf, one.btf_key_type_id)
    value = _side(one.value_size, btf, one.btf_value_type_id)
    return MapSchema(one.name, one.type, key, value, entries, _own_flags(one.type, one.flags))


def types_of(obj: Object) -> Btf | None:
    """The types of an opened object; None: it has no BTF.

    Raises:
        ObjectError: they contradict themselves.
    """
    from xdpctl.btf.parse import parse
    from xdpctl.libbpf import memory
    from xdpctl.libbpf.library import lib

    address = obj.btf_address
    if address is None:
        return None
    size = memory.U32(0)
    where = lib().btf__raw_data(address, size)
    return parse(memory.read(where, size.value))


def of_live(info: MapInfo, name: str | None = None) -> MapSchema:
    """The schema of a map in the kernel.

    Args:
        info: what the kernel says of it.
        name: in full; the kernel knows 15 characters.

    Raises:
        ObjectError: its BTF contradicts itself.
        PrivilegeError: CAP_SYS_ADMIN is missing, which opens BTF by id.
    """
    from xdpctl.bpf import btf_id

    types = btf_id.of_map(info)
    btf, key, value = types if types is not None else (None, 0, 0)
    return MapSchema(
        name or info.name,
        info.type,
        _side(info.key_size, btf, key),
        _side(info.value_size, btf, value),
        info.max_entries,
        _own_flags(info.type, info.flags),
    )


def _own_flags(kind: str, flags: int) -> int:
    return flags & ~RDONLY_PROG if kind in ("devmap", "devmap_hash") else flags


def _whole_pages(size: int) -> int:
    """As libbpf's adjust_ringbuf_sz: a power of two, of whole pages."""
    from mmap import PAGESIZE

    pages = max(1, -(-size // PAGESIZE))
    return PAGESIZE << (pages - 1).bit_length()
