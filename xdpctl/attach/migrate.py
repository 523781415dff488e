"""Maps that are pinned, and whose new version is another: found before loading, and moved together with the programs.

docs/migrate.md says what is guaranteed. In short: the new maps are made beside the old ones, filled, and filled again
with what changed meanwhile; then the programs are replaced by link updates; when the old program has ended, what it
still did is merged into the new maps, and only then do they take over the pins. Until then the old program, maps and
pins are in force, or are put back.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from xdpctl.attach import migrate_journal, migrate_pins
from xdpctl.attach.migrate_plan import MapMove, MapReport, Plan, examine, refuse_shared
from xdpctl.bpf import pins
from xdpctl.skeleton import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from xdpctl.attach.migrate_copy import Copy
    from xdpctl.attach.migrate_counts import Counts
    from xdpctl.attach.migrate_refs import CopyReferences
    from xdpctl.attach.strategy import Loaded
    from xdpctl.attach.transaction import Transaction
    from xdpctl.bpf.object import Object
    from xdpctl.obj.flow import Counted
    from xdpctl.skeleton.schema import Difference

    Progress = Callable[[str, int, int], None]
    """(map, entries done, entries in all)."""

PASSES = 4
"""How often the old map is read again before the programs are replaced, as long as less changes each time."""
FEW = 256
"""Changes in one pass that are not worth another."""


class Migration:
    """Maps on their way to their successors, within a transaction: `migrate` makes one."""

    def __init__(
        self,
        plan: Plan,
        obj: Object,
        changes: Transaction,
        *,
        counted: Mapping[str, Iterable[Counted]] | None = None,
        progress: Progress = lambda *_: None,
    ) -> None:
        self._plan, self._object, self._changes = plan, obj, changes
        self._journal: migrate_journal.Journal | None = None
        self._facts: migrate_journal.Facts | None = None
        self._copies: dict[str, Copy | CopyReferences] = {}
        self._counted = {name: tuple(marks) for name, marks in (counted or {}).items()}
        self._progress = progress

    def start(self) -> None:
        """Fill the new maps, and again with what changed meanwhile.

        Raises:
            MapError: a value does not fit, a new map has no room, or another upgrade moves maps right now.
            ConfigError: nothing can be written down below /run/xdpctl.
            KeyboardInterrupt: Ctrl-C.
        """
        if not self._plan.moved:
            return
        self._journal = migrate_journal.Journal()
        self._changes.add("the move of maps", self._take_back)
        for move in self._plan.moved:
            if move.choice == "copy":
                made = copy_of(
                    move.name,
                    move.old,
                    self._object.map(move.name).elements,
                    move.difference,
                    counted=self._counted.get(move.name, ()),
                    check=self._changes.check,
                    progress=self._progress,
                )
                self._copies[move.name] = made
                made.first()
        left = dict.fromkeys(self._copies.values(), 2**64)
        for _ in range(PASSES):
            changed = {one: one.again() for one in left}
            left = {one: count for one, count in changed.items() if FEW < count < left[one] // 2}
        for number, one in enumerate(self._copies.values()):
            with contextlib.suppress(OSError):  # no room: see `Copy.adopt`
                one.keep(self._journal.folder, number)

    def swap(
        self,
        loaded: Loaded,
        old_programs: Collection[int],
        *,
        request: dict[str, Any],
        netns_inode: int,
        hook: str,
    ) -> None:
        """Write down what is about to happen; after this call the programs may be replaced.

        Args:
            loaded: the new program.
            old_programs: ids of those that it replaces.
            request: what `migrate_recover` is to go on with should we be killed: fields of `AttachRequest`; empty
                where somebody else's journal does that.
            netns_inode: of the interfaces.
            hook: xdp, ingress or egress.

        Raises:
            MapError, AttachError: a map could not be pinned.
        """
        if self._journal is None:
            return
        tag = f"{os.getpid()}-{time.monotonic_ns():x}"
        maps = []
        for move in self._plan.moved:
            new = self._object.map(move.name)
            maps.append(
                migrate_journal.MovedMap(
                    name=move.name,
                    pin=str(move.pin),
                    choice=move.choice,
                    old_id=move.old.info().id,
                    new_id=new.info().id,
                    old_pin=str(move.pin.with_name(f"{move.pin.name}+old-{tag}")),
                    new_pin=str(move.pin.with_name(f"{move.pin.name}+new-{tag}")),
                    counted=tuple(
                        (one.offset, one.size, one.indexed) for one in self._counted.get(move.name, ())
                    ),
                )
            )
        self._facts = migrate_journal.Facts(
            migrate_journal.SWAPPING,
            loaded.id,
            loaded.load_time_ns,
            tuple(sorted(old_programs)),
            tuple(maps),
            request,
            netns_inode,
            hook,
        )
        self._journal.write(self._facts)
        for move, one in zip(self._plan.moved, maps, strict=True):
            pins.pin(move.old.fd, move.pin.with_name(one.old_pin.rpartition("/")[2]))
            self._object.map(move.name).pin(move.pin.with_name(one.new_pin.rpartition("/")[2]))

    def finish(self) -> list[MapReport]:
        """When every program is replaced: merge what the old ones still did, and give the pins to the new maps.

        From here on nothing is taken back any more, should it succeed; if it fails, all is.

        Raises:
            MapError: what the old program did last does not fit.
        """
        plan = self._plan
        counts: dict[str, Counts] = {}
        if self._journal is not None and self._facts is not None:
            migrate_pins.wait_for_programs()
            for number, (name, one) in enumerate(self._copies.items(), 1):
                self._facts = self._facts._replace(merging=number)
                self._journal.write(self._facts)
                counts[name] = one.last()
            self._facts = self._facts._replace(phase=migrate_journal.RENAMING)
            self._journal.write(self._facts)
            for one_map in self._facts.maps:
                migrate_pins.take_over(one_map)
            self._changes.settle()
            migrate_pins.clear(self._facts)
            self._journal.forget()
            self._journal.close()
        plan.reports += [
            MapReport(move.name, move.pin, move.choice, move.difference, counts.get(move.name))
            for move in plan.moves
        ]
        return plan.reports

    def _take_back(self) -> None:
        """The old maps keep, or get back, their pins; called when the old programs are in force again."""
        assert self._journal is not None  # noqa: S101 - registered when there was one
        try:
            if self._facts is not None:
                migrate_pins.give_back(self._facts)
            self._journal.forget()
        finally:
            self._journal.close()


def migrate(
    plan: Plan,
    obj: Object,
    changes: Transaction,
    *,
    counted: Mapping[str, Iterable[Counted]] | None = None,
    progress: Progress = lambda *_: None,
) -> Migration:
    """Begin to move the maps of a plan: the new ones are filled when this returns.

    How a caller that replaces programs uses it (`attach.run.commit`; a deployment does the same for all its hooks)::

        plan = migrate.examine(obj, choices=(MigrateChoice("copy"),))     # before load; on_schema_change
        migrate.refuse_shared(plan, replaced_ids, cleanup.attached())
        with transaction() as changes:
            obj.load()
            moving = migrate.migrate(plan, obj, changes, counted=counters.counted(reader.read(path)))
            moving.swap(loaded, replaced_ids, request={}, netns_inode=..., hook="xdp")
            ...                                        # replace every program, each with changes.add(...)
            reports = moving.finish()
        plan.close()

    Whatever raises in the block, or Ctrl-C, takes everything back: the programs by the caller's undoing, the maps by
    this. After kill -9 `migrate_recover.recover` does, or finishes: call it before anything is looked at.

    Args:
        plan: of `examine`.
        obj: loaded.
        changes: what takes back on failure.
        counted: map -> numbers that the new program adds to (`obj.counters.counted`): what both programs added is
            then added up. Without it the new program's number stays.
        progress: told how far a copy is.

    Raises:
        MapError: a value does not fit, a new map has no room, or another upgrade moves maps right now.
        ConfigError: nothing can be written down below /run/xdpctl.
        KeyboardInterrupt: Ctrl-C.
    """
    made = Migration(plan, obj, changes, counted=counted, progress=progress)
    made.start()
    return made


def copy_of(name: str, old: Any, new: Any, difference: Difference, **more: Any) -> Copy | CopyReferences:
    """What carries the entries of one map over; arguments as of `migrate_copy.Copy`."""
    if difference.old.type in schema.REFERRING:
        from xdpctl.attach.migrate_refs import CopyReferences

        return CopyReferences(name, old, new, difference, check=more.get("check", lambda: None))
    from xdpctl.attach.migrate_copy import Copy

    return Copy(name, old, new, difference, **more)


__all__ = ["MapMove", "MapReport", "Migration", "Plan", "copy_of", "examine", "migrate", "refuse_shared"]
