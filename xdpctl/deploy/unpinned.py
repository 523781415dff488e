"""Whose pins did somebody remove? What runs, or is used by what runs, is still there, and can be pinned again.

The kernel keeps a program while a hook holds it, and a map while a program does (kernel/bpf/syscall.c); which of them
was a deployment's is told by the records of what was loaded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.attach import runstate
from xdpctl.deploy import state
from xdpctl.deploy.change import Change
from xdpctl.errors import XdpctlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xdpctl.deploy.observe import Observed
    from xdpctl.deploy.resolve import Instance
    from xdpctl.host.model import Snapshot

OLD = "-old"
"""Ends the folder of programs that can't lie beside the rest of their load, which is gone: they run until updated."""


def programs(name: str, pinned: Mapping[str, int], snapshot: Snapshot) -> dict[str, int]:
    """``FOLDER/FUNCTION`` -> id of the deployment's programs that are loaded, and not pinned any more."""
    folder = state.pin_folder(name) / "programs"
    found = {}
    running = _running(snapshot) if not snapshot.programs else set()
    for record in runstate.read().values():
        path = Path(record.pin)
        key = f"{path.parent.name}/{path.name}"
        if not record.pin or path.parent.parent != folder or key in pinned:
            continue
        known = snapshot.programs.get(record.id)
        if record.id in running or (known is not None and known.loaded_at == record.load_time_ns / 1e9):
            found[key] = record.id
    return found


def _running(snapshot: Snapshot) -> set[int | None]:
    """Ids of programs on hooks: all that is known of programs without CAP_SYS_ADMIN."""
    return {
        number
        for link in snapshot.links()
        for number in (
            link.xdp.native,
            link.xdp.generic,
            link.xdp.offload,
            *(one.program_id for one in link.tc),
        )
    }


def maps(wanted: set[str], held: Mapping[str, int], snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    """(pin, id) of maps that programs of the deployment use, and that are not pinned any more.

    Args:
        wanted: pins that are not there.
        held: the deployment's programs, pinned or not.
        snapshot: knows which maps they use; by who may not ask, none is found.
    """
    from xdpctl.bpf.map import open_map

    for pin in sorted(wanted):
        parts = pin.split("/")
        owner, label = _program(parts[1]), parts[-1].partition("@")[0]
        used = {
            each
            for key, number in held.items()
            if number in snapshot.programs and (_program(key) == owner or parts[:2] == ["maps", "shared"])
            for each in snapshot.programs[number].map_ids
        }
        for number in sorted(used):
            try:
                with open_map(number) as opened:
                    name = opened.info().name
            except XdpctlError:
                continue
            if name == label[: len(name)] and len(name) in (len(label), NAME_LENGTH):
                yield pin, number
                break


NAME_LENGTH = 15
"""Characters of a map's name that the kernel keeps (BPF_OBJ_NAME_LEN)."""


def _program(key: str) -> str:
    return key.partition("/")[0].partition("@")[0].partition(",")[0]


def taken_back(observed: Observed, instances: Mapping[str, Instance]) -> tuple[Observed, list[Change]]:
    """The machine with what was unpinned pinned again, and the changes that do it.

    Where others of the same load are gone altogether, what is left of it becomes an older version of its program, which
    an update replaces.
    """
    if not observed.lost and not observed.lost_maps:
        return observed, []
    name = observed.stored.name if observed.stored is not None else ""
    known = {**observed.programs, **observed.lost}
    folders: dict[str, dict[str, int]] = {}
    for key, number in observed.lost.items():
        folder, _, function = key.partition("/")
        instance = instances.get(folder)
        if instance is not None and any(f"{folder}/{one}" not in known for one, _ in instance.functions):
            folder += OLD
        folders.setdefault(folder, {})[function] = number
    made = [_change(name, folder, functions, {}) for folder, functions in sorted(folders.items())]
    if observed.lost_maps:
        made.append(_change(name, "", {}, observed.lost_maps))
    programs = {f"{folder}/{one}": number for folder, some in folders.items() for one, number in some.items()}
    return replace(observed, programs={**observed.programs, **programs}), made


def _change(name: str, folder: str, functions: Mapping[str, int], held: Mapping[str, int]) -> Change:
    told: dict[str, Any] = {
        "deployment": name,
        "folder": folder,
        "functions": dict(functions),
        "maps": dict(held),
    }
    target = _program(folder) if folder else ", ".join(sorted(one.rpartition("/")[2] for one in held))
    return Change(
        "program.pin", None, target, None, {}, told, "somebody removed its pin; the kernel has it still"
    )
