"""Which pinned maps differ from what an object wants in their place, and what becomes of each: before loading."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.bpf import pins, query
from xdpctl.bpf.map import LoadedMap, open_map
from xdpctl.errors import MapError, PrivilegeError, SchemaError
from xdpctl.skeleton import schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from xdpctl.attach.migrate_counts import Counts
    from xdpctl.attach.request import MigrateChoice
    from xdpctl.bpf.object import Object
    from xdpctl.skeleton.schema import Difference


class MapMove(NamedTuple):
    """A pinned map that differs from what the object wants, and what becomes of it."""

    name: str
    pin: Path
    choice: str
    """reuse, copy or recreate."""
    difference: Difference
    old: LoadedMap
    """Held open until the plan is closed."""


class MapReport(NamedTuple):
    """What became of a map."""

    name: str
    pin: Path
    choice: str
    difference: Difference
    counts: Counts | None = None
    """Of a copy."""

    def describe(self) -> str:
        """One line for people."""
        how = {"reuse": "reused, the object's differs", "recreate": "made anew, empty", "copy": "moved"}[
            self.choice
        ]
        counts = f": {self.counts.describe()}" if self.counts is not None else ""
        return f"map {self.name} {how} ({self.difference.summary()}){counts}"

    def to_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints."""
        return {
            **self.difference.to_json(),
            "pin": str(self.pin),
            "choice": self.choice,
            "counts": self.counts._asdict() if self.counts is not None else None,
        }


@dataclass
class Plan:
    """The pinned maps of one object that differ; close it when all is done."""

    moves: list[MapMove]
    reports: list[MapReport] = field(default_factory=list)
    """Filled by `Migration.finish`."""

    @property
    def moved(self) -> list[MapMove]:
        """Those that get a successor."""
        return [one for one in self.moves if one.choice != "reuse"]

    def close(self) -> None:
        """Let go of the old maps."""
        for one in self.moves:
            one.old.close()


def examine(
    obj: Object, *, pinned: Mapping[str, Path] | None = None, choices: Iterable[MigrateChoice] = ()
) -> Plan:
    """Compare the maps of an opened object with the pinned ones they would use, and prepare the object for its load.

    Maps that are the same, and those chosen to be reused, are told to use the pinned one; those chosen to be copied or
    made anew lose their pin path, so that loading makes new ones. What is missing is made and pinned by loading.

    Args:
        obj: opened, not loaded; what is to be set before load is set.
        pinned: map -> pin that was named for it; others use the place where LIBBPF_PIN_BY_NAME puts them.
        choices: what to do with those that differ; `fail` without.

    Raises:
        SchemaError: maps differ and nothing, or what is impossible, was chosen for them. All are named.
        NotFoundError: a named pin or map does not exist.
        PrivilegeError: a pin or its BTF may not be read.
    """
    pinned = pinned or {}
    chosen = {one.map: one.choice for one in choices}
    for name in {*pinned, *(name for name in chosen if name is not None)}:
        obj.map(name)
    types = schema.types_of(obj)
    plan = Plan([])
    refused: list[tuple[MapMove, str]] = []
    try:
        for name, one in obj.maps.items():
            pin = pinned.get(name) or one.pin_path
            if pin is None or (name not in pinned and not pin.exists()):
                continue
            old = open_map(pin)
            info = old.info()
            found = schema.difference(schema.of_live(info, name), schema.of_opened(one, types))
            choice = chosen.get(name, chosen.get(None, "fail"))
            if choice == "fail" and name in pinned and not found.fields and found.why_not_reuse() is None:
                choice = "reuse"  # who names a pin takes its size with it
            move = MapMove(name, pin, choice, found, old)
            plan.moves.append(move)
            if found.same or choice == "reuse":
                why = found.why_not_reuse()
                if why is None:
                    one.reuse(old.fd)
            elif choice == "copy":
                why = found.why_not_copy()
            else:
                why = "" if choice == "fail" else None
            if why is not None:
                refused.append((move, why))
            elif not found.same and choice != "reuse":
                pins.component(pin.name)
                one.set_pin_path(None)
    except BaseException:
        plan.close()
        raise
    if refused:
        plan.close()
        raise _refusal(obj, refused)
    for move in plan.moves:
        if move.difference.same:
            move.old.close()
    plan.moves = [move for move in plan.moves if not move.difference.same]
    return plan


def _refusal(obj: Object, refused: list[tuple[MapMove, str]]) -> SchemaError:
    lines = []
    for move, why in refused:
        lines.append(f"{move.name}, pinned at {move.pin}:")
        lines += [f"  {line}" for line in move.difference.lines()]
        if why:
            lines.append(f"  can't {move.choice}: {why}")
    first, why = refused[0]
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    if why:
        message = f"map {first.name} can't be {_PAST[first.choice]}: {why}{more}"
    else:
        summary = first.difference.summary()
        message = (
            f"map {first.name} of {obj.path.name} differs from the one pinned at {first.pin}: {summary}{more}"
        )
    ways = {"recreate": "an empty new map"}
    if all(move.difference.why_not_copy() is None for move, _ in refused):
        ways["copy"] = "entries carried over by field name"
    if all(move.difference.why_not_reuse() is None for move, _ in refused):
        ways["reuse"] = "the old map as it is"
    offered = [f"--migrate {way} ({ways[way]})" for way in ("copy", "reuse", "recreate") if way in ways]
    return SchemaError(
        message,
        diagnostics="\n".join(lines),
        differences=[{**move.difference.to_json(), "pin": str(move.pin)} for move, _ in refused],
        hint=" or ".join(offered),
    )


_PAST = {"copy": "copied", "reuse": "reused", "recreate": "recreated"}


def refuse_shared(plan: Plan, replaced: Collection[int], attached: Collection[int]) -> None:
    """Refuse to move a map that other programs go on to use: they would stay with the old one, unseen by the new.

    Args:
        plan: the maps.
        replaced: ids of the programs that leave.
        attached: ids of programs that are attached anywhere.

    Raises:
        MapError: there are such programs.
    """
    ids = {move.old.info().id: move.name for move in plan.moved}
    if not ids:
        return
    with contextlib.suppress(PrivilegeError):  # who may not list programs may still attach
        for one in query.programs():
            shared = [ids[number] for number in one.map_ids if number in ids]
            if shared and one.id in attached and one.id not in replaced:
                raise MapError(
                    f"map {shared[0]} is used by {one.name} (program {one.id}) too, which this does not replace:"
                    " it would go on with the old map",
                    hint="replace it in the same command (name all its interfaces), or detach it first",
                )
