"""Which map does a name mean: a pin, an id, ``interface/map`` of a program attached there, or a name used once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf import pins, query
from xdpctl.errors import ConfigError, NotFoundError, PrivilegeError, XdpctlError

if TYPE_CHECKING:
    from xdpctl.bpf.query import MapInfo
    from xdpctl.skeleton.typed_map import TypedMap

KERNEL_NAME = 15
"""Characters of a name that the kernel keeps (BPF_OBJ_NAME_LEN - 1)."""


def find_map(name: str, *, netns: str | None = None) -> TypedMap:
    """Open the map that a user means; close it.

    Args:
        name: an id; a path; a path or name below xdpctl's pins; ``eth0/stats``, a map of a program on eth0; or the
            name of a map, if one map alone has it.
        netns: namespace of the interface.

    Raises:
        NotFoundError: there is none; near names in the hint.
        ConfigError: several are meant, or the pin is something else.
        PrivilegeError: a capability is missing.
    """
    from xdpctl.skeleton.typed_map import open_typed

    if name.isdecimal():
        return open_typed(int(name[:12]))
    path = _pin(name)
    if path is not None:
        return open_typed(path)
    if name.startswith(("/", "./", "../")):
        return open_typed(Path(name))  # says why not
    interface, slash, map_name = name.partition("/")
    if slash:
        return open_typed(_of_interface(interface, map_name, netns))
    return open_typed(_by_name(name))


def _pin(name: str) -> Path | None:
    """Where a name is pinned: as a path, or below xdpctl's pins."""
    if not name or "\0" in name:
        return None
    places = [Path(name)] if "/" in name else []
    if ".." not in name.split("/"):
        places += [pins.root() / name, pins.root() / "maps" / name]
    for one in places:
        try:
            if one.is_file():
                return one
        except OSError:
            continue
    if "/" in name:
        return None
    found = [one for one in pins.walk() if one.name == name]
    if len(found) > 1:
        raise ConfigError(
            f"{name} is pinned {len(found)} times", hint=f"one of {', '.join(map(str, found[:5]))}"
        )
    return found[0] if found else None


def _of_interface(interface: str, name: str, netns: str | None) -> int:
    from xdpctl.attach.status import status

    attached = status((interface,), netns=netns).attachments
    if not attached:
        raise NotFoundError("map", f"{interface}/{name}", hint=f"no program is attached to {interface}")
    found: dict[int, MapInfo] = {}
    programs = {one.program.id for one in attached}
    ids = {number for one in query.programs() if one.id in programs for number in one.map_ids}
    for one in query.maps():
        if one.id in ids:
            found[one.id] = one
    fits = [one.id for one in found.values() if _named(one, name)]
    if len(fits) > 1:
        raise ConfigError(f"{len(fits)} maps of {interface} are called {name}", hint=_ids(fits))
    if not fits:
        names = [one.name for one in found.values()]
        raise NotFoundError("map", name, known=names, where=f"the programs on {interface}")
    return fits[0]


def _named(one: MapInfo, name: str) -> bool:
    # libbpf puts the object's name before .bss and its kin: redirect.bss
    return one.name == name[:KERNEL_NAME] or (name.startswith(".") and one.name.endswith(name))


def _by_name(name: str) -> int:
    try:
        every = list(query.maps())
    except PrivilegeError as why:
        raise NotFoundError(
            "map", name, where=f"below {pins.root()}", hint=f"by name: {why.message}"
        ) from why
    fits = [one.id for one in every if _named(one, name)]
    if len(fits) > 1:
        raise ConfigError(f"{len(fits)} maps are called {name}", hint=_ids(fits))
    if not fits:
        raise NotFoundError("map", name, known=known_names(every), hint=None)
    return fits[0]


def _ids(ids: list[int]) -> str:
    return f"name one by its id: {', '.join(map(str, ids[:8]))}"


def known_names(every: list[MapInfo] | None = None) -> list[str]:
    """Names that `find_map` understands: of maps and of pins."""
    names = {path.name for path in pins.walk(pins.root() / "maps")}
    with contextlib.suppress(XdpctlError):
        names |= {one.name for one in (every if every is not None else query.maps()) if one.name}
    return sorted(names)
