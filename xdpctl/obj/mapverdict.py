"""Would a map of an object be created here? The part of `obj.verdict` that judges maps: sizes, types, pins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.errors import ConfigError
from xdpctl.obj.kernel import NAME_MAX
from xdpctl.obj.maprules import broken
from xdpctl.obj.model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.obj.kernel import KernelFacts
    from xdpctl.obj.model import ObjMap

RDONLY_PROG = 0x80
"""BPF_F_RDONLY_PROG: the kernel sets it on every devmap."""


def map_problems(one: ObjMap, facts: KernelFacts) -> Iterator[Problem]:
    """Why a map would not be created, or not be what one would think."""
    if one.definition == "legacy":
        return
    if facts.map_types.get(one.type) is False:
        yield Problem(
            "map-type",
            "fail",
            one.name,
            f"map {one.name} is a {one.type}, which Linux {facts.release} as configured does not have",
        )
        return
    yield from _sizes(one, facts)
    if one.inner_map is not None:
        for what, why in broken(one.inner_map):
            hint = None if what != "entries" else "set its max_entries in the source"
            yield Problem("map-sizes", "fail", one.name, f"the inner maps of {one.name} have {why}", hint)
    elif one.type in ("array_of_maps", "hash_of_maps"):
        yield Problem(
            "no-inner-map",
            "fail",
            one.name,
            f"map {one.name} is a {one.type} that does not say what maps it holds",
            "give __array(values, struct { ... }), or set it before load",
        )
    yield from _pin(one, facts)


def _sizes(one: ObjMap, facts: KernelFacts) -> Iterator[Problem]:
    for what, why in broken(one):
        if what == "entries" and one.max_entries == 0:
            yield Problem(
                "max-entries-zero",
                "fail",
                one.name,
                f"map {one.name} has max_entries = 0: its size is to be given",
                f"--map {one.name}=max_entries=N",
            )
        else:
            hint = "its user space sets it before load" if what == "value" and one.value_size == 0 else None
            yield Problem("map-sizes", "fail", one.name, f"map {one.name} has {why}", hint)
    if one.type == "cpumap":
        if facts.nr_cpus is not None and one.max_entries > facts.nr_cpus:
            yield Problem(
                "cpumap-too-large",
                "fail",
                one.name,
                f"map {one.name} has {one.max_entries} entries, this kernel takes {facts.nr_cpus} (its NR_CPUS): E2BIG",
                f"--map {one.name}=max_entries={facts.possible_cpus}",
            )
        elif one.max_entries > facts.possible_cpus:
            yield Problem(
                "cpumap-beyond-cpus",
                "warn",
                one.name,
                f"map {one.name} has {one.max_entries} entries for {facts.possible_cpus} CPUs: the others can't be set",
                f"--map {one.name}=max_entries={facts.possible_cpus}",
            )


def _pin(one: ObjMap, facts: KernelFacts) -> Iterator[Problem]:
    if one.pin is None:
        return
    from xdpctl.bpf.pins import component

    try:
        component(one.pin)
    except ConfigError:
        yield Problem(
            "pin-name",
            "fail",
            one.name,
            f"map {one.name[:40]}{'...' if len(one.name) > 40 else ''} is pinned by its name, which no file can have",
            f"at most {NAME_MAX} letters, digits and underscores",
        )
    there = facts.pinned.get(one.name)
    if there is None:
        return
    mine = (one.type, one.key_size, one.value_size, one.max_entries or facts.possible_cpus, one.flags)
    flags = there.flags
    if one.type in ("devmap", "devmap_hash") and facts.libbpf is not None and facts.libbpf >= (1, 7):
        flags &= ~RDONLY_PROG
    theirs = (there.type, there.key_size, there.value_size, there.max_entries, flags)
    if mine != theirs:
        names = ("type", "key size", "value size", "max_entries", "flags")
        differ = [
            f"{name} {b} there, {a} here" for name, a, b in zip(names, mine, theirs, strict=True) if a != b
        ]
        yield Problem(
            "pin-mismatch",
            "fail",
            one.name,
            f"map {one.name} would reuse the one pinned at {there.path}, which is another: {', '.join(differ)}",
            f"rm {there.path} (its data is lost), if nothing uses it any more",
        )


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, at most four of them."""
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
