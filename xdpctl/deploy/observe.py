"""What a plan is compared with: a Snapshot, the pins of a deployment and of links, and what was applied before."""

from __future__ import annotations

import contextlib
from dataclasses import field, replace
from typing import TYPE_CHECKING

from xdpctl.attach import ownership
from xdpctl.bpf import pins
from xdpctl.deploy import state, unpinned
from xdpctl.errors import XdpctlError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from xdpctl.bpf.map import LoadedMap
    from xdpctl.deploy.state import Stored
    from xdpctl.host.model import Snapshot

RARE = ("device.coalesce", "device.pause", "device.napi")
"""Settings that a Snapshot holds only on request."""


@dataclass(frozen=True, slots=True)
class LinkPin:
    """A link that xdpctl has pinned."""

    path: str
    program_id: int
    link_id: int
    netns: int
    ifindex: int | None
    """None: its device is gone."""
    interface: str
    hook: str


@dataclass(frozen=True, slots=True)
class MapPin:
    """A map that a deployment has pinned."""

    id: int
    type: str
    key_size: int
    value_size: int
    elements: Mapping[str, str] | None = None
    """Hexadecimal key -> value, where a deployment says what it holds; else None."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The machine, as far as one deployment concerns it."""

    snapshot: Snapshot
    here: int
    """Inode of the caller's network namespace."""
    programs: Mapping[str, int] = field(default_factory=dict)
    """The deployment's pinned programs: ``FOLDER/FUNCTION`` -> id."""
    maps: Mapping[str, MapPin] = field(default_factory=dict)
    """The deployment's pinned maps, by their path below its folder."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """Somebody else's programs that the deployment holds to be able to put them back: pin -> id."""
    links: tuple[LinkPin, ...] = ()
    """Every link that xdpctl has pinned, of whatever deployment, or none."""
    others: Mapping[int, str] = field(default_factory=dict)
    """Programs of other deployments: id -> deployment."""
    stored: Stored | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    """The deployment's programs whose pins somebody removed while they run: ``FOLDER/FUNCTION`` -> id."""
    lost_maps: Mapping[str, int] = field(default_factory=dict)
    """The same of maps that programs use: pin -> id. They are in `maps`, too."""


def observe(
    name: str, *, tc: bool = False, settings: bool = False, elements_of: Collection[str] = ()
) -> Observed:
    """Look at the machine for the deployment called `name`.

    Args:
        name: the deployment.
        tc: whether programs for TC hooks are concerned, so that it matters whether the kernel has tcx.
        settings: whether coalescing, pause or NAPI settings are asked for, which take more to read.
        elements_of: map pins whose elements are read.

    Raises:
        NetlinkError, PrivilegeError: the caller's own namespace can't be read.
    """
    from xdpctl.bpf.map import open_map
    from xdpctl.host.collect import collect
    from xdpctl.netlink import netns

    stored = state.current(name)
    settings = settings or any(one.kind in RARE for one in (stored.found if stored is not None else ()))
    snapshot = collect(netns="all", probes=("tcx",) if tc else (), settings=settings)
    wanted = {*elements_of, *(stored.entries if stored is not None else ())}
    programs, maps, kept = _pins_of(name, wanted)
    lost = unpinned.programs(name, programs, snapshot)
    lost_maps = {}
    missing = set(stored.maps) - maps.keys() if stored is not None else set()
    for pin, number in unpinned.maps(missing, {**programs, **lost}, snapshot):
        with contextlib.suppress(XdpctlError), open_map(number) as opened:
            maps[pin] = _map(opened, elements=pin in wanted)
            lost_maps[pin] = number
    others: dict[int, str] = {}
    for other in _deployments():
        if other != name:
            for number in programs_below(state.pin_folder(other)).values():
                others[number] = other
    return Observed(
        snapshot=snapshot,
        here=netns.current().inode,
        programs=programs,
        maps=maps,
        kept=kept,
        links=tuple(link_pins()),
        others=others,
        stored=stored,
        lost=lost,
        lost_maps=lost_maps,
    )


def _map(opened: LoadedMap, *, elements: bool) -> MapPin:
    info = opened.info()
    held = {key.hex(): value.hex() for key, value in opened.items()} if elements else None
    return MapPin(info.id, info.type, info.key_size, info.value_size, held)


def with_elements(observed: Observed, name: str, wanted: Collection[str]) -> Observed:
    """The same with the elements of more map pins read, where they were not."""
    from xdpctl.bpf.map import open_map

    maps = dict(observed.maps)
    for one in wanted:
        found = maps.get(one)
        if found is not None and found.elements is None:
            with open_map(observed.lost_maps.get(one) or state.pin(name, one)) as opened:
                maps[one] = replace(found, elements={key.hex(): value.hex() for key, value in opened.items()})
    return replace(observed, maps=maps)


def link_pins() -> list[LinkPin]:
    """Every link that xdpctl has pinned."""
    found = []
    for one in ownership.pinned_links():
        name = ownership.pin_name(one.path.name)
        if name is not None:
            found.append(
                LinkPin(
                    str(one.path),
                    one.program_id,
                    one.link_id,
                    one.netns_inode or 0,
                    one.ifindex,
                    one.interface,
                    name.hook,
                )
            )
    return found


def _deployments() -> list[str]:
    try:
        return sorted(one.name for one in (pins.root() / "deployments").iterdir())
    except OSError:
        return []


def programs_below(folder: Path) -> dict[str, int]:
    """``FOLDER/FUNCTION`` -> id of the programs pinned there; prog_arrays that lie beside them are none."""
    import os

    from xdpctl.bpf import query

    found = {}
    for path in pins.walk(folder / "programs"):
        try:
            fd = pins.open_pin(path, "program")
        except XdpctlError:
            continue
        try:
            found[f"{path.parent.name}/{path.name}"] = query.program_info(fd).id
        finally:
            os.close(fd)
    return found


def _pins_of(
    name: str, elements_of: Collection[str]
) -> tuple[dict[str, int], dict[str, MapPin], dict[str, int]]:
    import os

    from xdpctl.bpf import query
    from xdpctl.bpf.map import open_map

    folder = state.pin_folder(name)
    maps = {}
    for top in ("maps", "programs"):
        for path in pins.walk(folder / top):
            relative = str(path.relative_to(folder))
            try:
                with open_map(path) as opened:
                    maps[relative] = _map(opened, elements=relative in elements_of)
            except XdpctlError:
                continue  # a program, or gone meanwhile
    kept = {}
    for path in pins.walk(folder / "kept"):
        try:
            fd = pins.open_pin(path, "program")
        except XdpctlError:
            continue
        try:
            kept[path.name] = query.program_info(fd).id
        finally:
            os.close(fd)
    return programs_below(folder), maps, kept
