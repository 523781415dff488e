"""What a program's source declares a map to hold, where the kernel was not told: ``__type(key, ...)`` in ``.maps``.

The kernel takes no BTF for maps without keys, devmaps, cpumaps, xskmaps and maps of maps: libbpf makes them without
(bpf_object__create_map). The declaration stays in the BTF of the programs that use the map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.btf.parse import DATASEC
from xdpctl.btf.types import Composite, Pointer, Section, Variable
from xdpctl.errors import XdpctlError

if TYPE_CHECKING:
    from xdpctl.btf.parse import Btf

KERNEL_NAME = 15
"""Characters of a name that the kernel keeps."""


def declared(btf: Btf, name: str) -> tuple[int, int]:
    """BTF types of the key and value of a map by its name (or the 15 characters of it that the kernel keeps).

    Returns:
        two type ids, 0 for what is not declared.
    """
    try:
        section = btf.find(".maps", DATASEC)
        variables = section.variables if isinstance(section, Section) else ()
        found = [btf.type(one.type) for one in variables]
        fits = [
            one
            for one in found
            if isinstance(one, Variable) and (one.name == name or one.name[:KERNEL_NAME] == name)
        ]
        if len(fits) != 1:
            return 0, 0
        of = btf.resolve(fits[0].type)
        members = {one.name: one.type for one in of.members} if isinstance(of, Composite) else {}
        pointers = [btf.resolve(members.get(which, 0)) for which in ("key", "value")]
    except XdpctlError:
        return 0, 0
    key, value = (one.target if isinstance(one, Pointer) else 0 for one in pointers)
    return key, value


def by_users(map_id: int, name: str) -> tuple[Btf, int, int] | None:
    """The declaration in a program that uses a map of the kernel, or None where none has one."""
    from xdpctl.bpf import query
    from xdpctl.bpf.btf_id import by_id

    seen: set[int] = set()
    try:
        for one in query.programs():
            if map_id not in one.map_ids or not one.btf_id or one.btf_id in seen:
                continue
            seen.add(one.btf_id)
            btf = by_id(one.btf_id)
            key, value = declared(btf, name)
            if key or value:
                return btf, key, value
    except XdpctlError:
        return None
    return None
