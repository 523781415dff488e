"""What is known about the maps of the system: types in C, entries used, pins, and the programs that use them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.bpf import pins, query
from xdpctl.btf.layout import StructLayout
from xdpctl.errors import XdpctlError
from xdpctl.skeleton.editing import count
from xdpctl.skeleton.forms import TypedForm
from xdpctl.skeleton.typed_map import open_typed

if TYPE_CHECKING:
    from xdpctl.bpf.query import MapInfo, ProgramInfo
    from xdpctl.skeleton.forms import Form
    from xdpctl.skeleton.typed_map import TypedMap

CHEAP = 1 << 20
"""Bytes of a map whose entries `list` counts; `show` counts any."""

FLAGS = (
    "no-prealloc no-common-lru numa-node read-only write-only stack-build-id zero-seed read-only-for-programs"
    " write-only-for-programs clone mmapable preserve-elements inner-map link vtype-btf-obj-fd token-fd"
    " segv-on-fault no-user-conv"
).split()
"""BPF_F_... of maps, by bit (linux/bpf.h)."""


class MapFacts(NamedTuple):
    """One map."""

    info: MapInfo
    key_type: str | None
    """In C; None: there are no keys."""
    value_type: str
    key_fields: tuple[str, ...]
    """Members of a struct, as C declares them."""
    value_fields: tuple[str, ...]
    entries: int | None
    """None: not counted."""
    pins: tuple[Path, ...]
    programs: tuple[ProgramInfo, ...]
    frozen: bool | None
    memory: int | None
    """Bytes, as the kernel accounts them."""

    def to_json(self) -> dict[str, Any]:
        """As `docs/json.md` has it."""
        one = self.info
        return {
            "id": one.id,
            "type": one.type,
            "name": one.name,
            "key_type": self.key_type,
            "value_type": self.value_type,
            "key_size": one.key_size,
            "value_size": one.value_size,
            "entries": self.entries,
            "max_entries": one.max_entries,
            "flags": flags(one.flags),
            "per_cpu": one.per_cpu,
            "frozen": self.frozen,
            "memory": self.memory,
            "pins": [str(path) for path in self.pins],
            "programs": [{"id": each.id, "name": each.name} for each in self.programs],
        }


def flags(number: int) -> list[str]:
    """Flags of a map in words."""
    return [name for bit, name in enumerate(FLAGS) if number >> bit & 1] + (
        [hex(number >> len(FLAGS) << len(FLAGS))] if number >> len(FLAGS) else []
    )


def pinned() -> dict[int, list[Path]]:
    """Map id -> where it is pinned, in the whole bpffs."""
    found: dict[int, list[Path]] = {}
    for path in pins.walk(pins.mount_point()):
        try:
            fd = pins.open_pin(path)
        except XdpctlError:
            continue
        try:
            if pins.kind_of(fd) == "map":
                found.setdefault(query.map_info(fd).id, []).append(path)
        finally:
            os.close(fd)
    return found


def facts_of(
    of: TypedMap, where: dict[int, list[Path]], programs: list[ProgramInfo], *, most: int = CHEAP
) -> MapFacts:
    """Everything about one open map.

    Args:
        of: the map.
        where: as of `pinned`.
        programs: all loaded ones.
        most: bytes of a map whose entries are counted.
    """
    info, shape = of.info(), of.shape
    try:
        entries = count(of, most)
    except XdpctlError:
        entries = None
    frozen, memory = _fdinfo(of.fd)
    return MapFacts(
        info,
        shape.key.spelled if shape.key is not None else None,
        shape.value.spelled,
        _fields(shape.key),
        _fields(shape.value),
        entries,
        tuple(where.get(info.id, ())),
        tuple(one for one in programs if info.id in one.map_ids),
        frozen,
        memory,
    )


def _fdinfo(fd: int) -> tuple[bool | None, int | None]:
    """(frozen, bytes of memory) from /proc/self/fdinfo (bpf_map_show_fdinfo in kernel/bpf/syscall.c)."""
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    except OSError:
        return None, None
    found = dict(one.split(":\t", 1) for one in lines if ":\t" in one)
    frozen, memory = found.get("frozen"), found.get("memlock")
    return (None if frozen is None else frozen.strip() == "1"), (None if memory is None else int(memory))


def _fields(form: Form | None) -> tuple[str, ...]:
    from xdpctl.btf.names import declare

    typed = getattr(form, "typed", None) or form
    if not isinstance(typed, TypedForm) or not isinstance(typed.layout, StructLayout):
        return ()
    btf = typed.layout.btf
    return tuple(
        declare(btf, one.layout.type_id, name) + (f" : {one.bits}" if one.bits else "")
        for name, one in typed.layout.fields.items()
    )


def every() -> list[MapFacts]:
    """All maps of the system.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    ids = [one.id for one in query.maps()]
    programs, where = list(query.programs()), pinned()
    found = []
    for number in ids:
        try:
            with open_typed(number) as of:
                found.append(facts_of(of, where, programs))
        except XdpctlError:  # gone since
            continue
    return found
