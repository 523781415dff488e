"""Attach and detach: the two things that change the machine, each either done or taken back.

`attach` is `prepare` and `commit` in one; what wants to look in between calls the two.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from xdpctl.attach import ownership, runstate
from xdpctl.attach.model import Attachment, ProgramRef, wall_clock
from xdpctl.attach.prepare import Prepared, prepare
from xdpctl.attach.strategy import Loaded
from xdpctl.attach.transaction import transaction
from xdpctl.bpf import pins
from xdpctl.errors import AttachError, errno_text
from xdpctl.netlink import netns as namespaces

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.attach.migrate import Migration, Progress
    from xdpctl.attach.prepare import Step
    from xdpctl.attach.request import AttachRequest
    from xdpctl.attach.strategy import Change
    from xdpctl.attach.transaction import Transaction
    from xdpctl.obj.flow import Counted


def attach(request: AttachRequest) -> list[Attachment]:
    """Attach one program to one or more interfaces; the object is loaded once. All of it, or nothing.

    Raises:
        XdpctlError: as `prepare` and `commit`; nothing is changed then.
        KeyboardInterrupt: Ctrl-C; nothing is changed.
    """
    with prepare(request) as prepared:
        return commit(prepared)


def commit(prepared: Prepared, *, progress: Progress | None = None) -> list[Attachment]:
    """Load the object and attach it; when one interface fails, the others are put back to what they were.

    Maps that get a successor (`Prepared.migration`) are moved with the programs; see docs/migrate.md.

    Args:
        prepared: of `prepare`.
        progress: told (map, entries done, entries in all) while a map is copied.

    Raises:
        VerifierError, MapError, ObjectError, UnsupportedError, PrivilegeError: it could not be loaded.
        AttachError: an interface refused.
        KeyboardInterrupt: Ctrl-C.
    """
    with namespaces.enter(prepared.netns), transaction() as changes:
        loaded = _load(prepared, changes)
        moving = _move_maps(prepared, loaded, changes, progress)
        made: list[tuple[Step, Change]] = []
        for step in prepared.steps:
            changes.check()
            made.append((step, _do(step, loaded, changes, done=len(made))))
        _record_clsact(prepared, loaded, made)
        if moving is not None:
            moving.finish()
    replaced = [step.old.program.id for step in prepared.steps if step.old is not None]
    if replaced:
        from xdpctl.attach import cleanup

        with namespaces.enter(prepared.netns):
            # maps of the old programs have passed to the new one's record: they go when it is detached
            cleanup.after_leaving(replaced, keep_maps=True)
    return [_attachment(step, change, loaded) for step, change in made]


def _load(prepared: Prepared, changes: Transaction) -> Loaded:
    wanted = [one.pin_path for one in prepared.object.maps.values() if one.pin_path is not None]
    fresh = [path for path in wanted if not path.exists()]
    if fresh:
        pins.make_parents(fresh[0])
        changes.add("pinned maps", lambda: _unpin(fresh))
    prepared.object.load()
    info = prepared.program.info()
    loaded = Loaded(prepared.program.fd, info.id, prepared.program.name, info.tag, info.load_time_ns)
    changes.add("run-time state", lambda: runstate.forget([loaded.id]))
    _record(prepared, loaded)
    for one in prepared.object.maps.values():
        path = ownership.tail_call_pin(loaded.id, one.name)
        if one.type == "prog_array":
            one.pin(path)
            changes.add(f"pin {path}", functools.partial(pins.unpin, path))
    return loaded


def _move_maps(
    prepared: Prepared, loaded: Loaded, changes: Transaction, progress: Progress | None
) -> Migration | None:
    """Fill the successors of pinned maps, as far as they can be before the program is replaced."""
    plan = prepared.migration
    if plan is None:
        return None
    from xdpctl.attach.migrate import migrate

    copied = any(one.choice == "copy" for one in plan.moved)
    moving = migrate(
        plan,
        prepared.object,
        changes,
        counted=_counted(prepared) if copied else None,
        progress=progress or (lambda *_: None),
    )
    request = prepared.request
    moving.swap(
        loaded,
        {step.old.program.id for step in prepared.steps if step.old is not None},
        request={
            "object": str(request.object),
            "interfaces": list(request.interfaces),
            "mode": request.mode,
            "hook": request.hook,
            "via": request.via,
            "program": prepared.program.name,
        },
        netns_inode=prepared.netns.inode,
        hook=prepared.hook,
    )
    return moving


def _counted(prepared: Prepared) -> dict[str, frozenset[Counted]]:
    """Which numbers the new programs add to; nothing where the object can't be followed."""
    from xdpctl.errors import ObjectError
    from xdpctl.obj import counters, reader

    try:
        return counters.counted(reader.read(prepared.request.object))
    except ObjectError:
        return {}


def _unpin(paths: list[Path]) -> None:
    for path in paths:
        pins.unpin(path)


def _record(prepared: Prepared, loaded: Loaded, clsact: tuple[tuple[int, int], ...] = ()) -> str | None:
    wanted = {str(one.pin_path) for one in prepared.object.maps.values() if one.pin_path is not None}
    if prepared.migration is not None:
        ours = ownership.maps_folder()
        wanted |= {str(one.pin) for one in prepared.migration.moved if one.pin.parent == ours}
    replaced = {step.old.program.id for step in prepared.steps if step.old is not None}
    if replaced:
        folder = str(ownership.maps_folder())
        earlier = {path for one in runstate.read().values() if one.id in replaced for path in one.map_pins}
        wanted |= {path for path in earlier if path.startswith(folder)}
    arrays = [one.name for one in prepared.object.maps.values() if one.type == "prog_array"]
    wanted |= {str(ownership.tail_call_pin(loaded.id, name)) for name in arrays}
    return runstate.write(
        runstate.Record(
            id=loaded.id,
            load_time_ns=loaded.load_time_ns,
            name=loaded.name,
            tag=loaded.tag,
            object=str(prepared.request.object),
            via=prepared.steps[0].strategy.via,
            attached_at=time.time(),
            map_pins=tuple(sorted(wanted)),
            clsact=clsact,
        )
    )


def _record_clsact(prepared: Prepared, loaded: Loaded, made: list[tuple[Step, Change]]) -> None:
    """Remember on which devices clsact is ours to remove: made just now, or for the program that was replaced."""
    if all(change.via != "clsact" for _, change in made):
        return
    earlier = {mark for record in runstate.read().values() for mark in record.clsact}
    marks = []
    for step, change in made:
        place = (step.target.netns_inode, step.target.ifindex)
        if change.made_clsact or (step.old is not None and place in earlier):
            marks.append(place)
    if marks:
        _record(prepared, loaded, tuple(marks))


def _do(step: Step, loaded: Loaded, changes: Transaction, *, done: int) -> Change:
    try:
        if step.old is not None:
            return step.strategy.replace(loaded, step.target, step.old, changes)
        return step.strategy.attach(loaded, step.target, changes)
    except AttachError as error:
        from xdpctl.attach import hints

        if error.errno is not None and error.interface is not None:
            error.message = _refusal(error, step, loaded)
        error.program, error.interface = loaded.name, step.target.interface
        error.hint = error.hint or hints.hint(error, step.target, step.old)
        if done:
            others = "the interface before it is" if done == 1 else f"the {done} interfaces before it are"
            error.message += f"; {others} as before"
        raise


def _refusal(error: AttachError, step: Step, loaded: Loaded) -> str:
    """The kernel's refusal with whole names: it knows 15 characters of the program's, and no namespace."""
    target = step.target
    where = f"{target.where} in {error.mode} mode" if error.mode else f"{target.hook} of {target.where}"
    what = f"attach {loaded.name} to {where}"
    if step.old is not None:
        what = f"put {loaded.name} in the place of {step.old.describe()} on {where}"
    reason = [f"{error.extack}"] if error.extack else []
    return ": ".join([f"can't {what}", *reason, errno_text(error.errno or 0)])


def _attachment(step: Step, change: Change, loaded: Loaded) -> Attachment:
    target = step.target
    replaced = step.old is not None
    return Attachment(
        interface=target.interface,
        ifindex=target.ifindex,
        netns=target.netns,
        netns_inode=target.netns_inode,
        hook=target.hook,
        mode=change.mode,
        via=change.via,
        program=ProgramRef(loaded.id, loaded.name, loaded.tag),
        link_id=change.link_id,
        pin=change.pin,
        owner="xdpctl",
        since=step.old.since if replaced and step.old is not None and step.old.ours else time.time(),
        loaded_at=wall_clock(loaded.load_time_ns),
        priority=change.priority,
        handle=change.handle,
        note=change.note,
    )


__all__ = ["attach", "commit", "prepare"]
