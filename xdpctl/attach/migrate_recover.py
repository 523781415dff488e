"""After a kill in the middle of moving maps: the upgrade is finished if the new program runs, else undone.

Nobody else is left who knows: the kernel says which program runs, and the journal what was meant to happen.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.attach import cleanup, migrate, migrate_journal, migrate_pins
from xdpctl.bpf import query
from xdpctl.bpf.map import open_map
from xdpctl.errors import MapError, NotFoundError, XdpctlError
from xdpctl.netlink import netns as namespaces

if TYPE_CHECKING:
    from xdpctl.attach.migrate_journal import Facts, Journal, MovedMap


def recover() -> list[str]:
    """Finish or undo what a killed upgrade left; what was done, in words. Costs one look where there is nothing.

    Raises:
        XdpctlError: it could neither be finished nor undone.
    """
    if not migrate_journal.left_over():
        return []
    try:
        journal = migrate_journal.Journal()
    except MapError:
        return []  # no leftover: somebody is at it
    try:
        facts = journal.read()
        if facts is None:
            journal.forget()
            return []
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(XdpctlError):  # the namespace is gone, and its interfaces with it
                stack.enter_context(namespaces.enter(_namespace(facts.netns_inode)))
            told = _finish(journal, facts) if _runs(facts) else _undo(facts)
        journal.forget()
    finally:
        journal.close()
    return [told]


def _namespace(inode: int) -> namespaces.NetnsRef | None:
    """The namespace with this inode; None: the present one.

    Raises:
        NotFoundError: it is gone.
    """
    if namespaces.current().inode == inode:
        return None
    for one in namespaces.discover(include_processes=True):
        if one.inode == inode:
            return one
    raise NotFoundError("network namespace", f"inode {inode}")


def _runs(facts: Facts) -> bool:
    """Whether the new program is attached somewhere."""
    try:
        fd = query.open_id("program", facts.program_id)
    except NotFoundError:
        return False
    try:
        if query.program_info(fd).load_time_ns != facts.load_time_ns:
            return False
    finally:
        os.close(fd)
    return facts.program_id in cleanup.attached()


def _undo(facts: Facts) -> str:
    migrate_pins.give_back(facts)
    cleanup.after_leaving([facts.program_id], keep_maps=True)
    return f"an upgrade that was killed is undone: the old {_names(facts)} and the old program are in force"


def _finish(journal: Journal, facts: Facts) -> str:
    begun = facts.merging
    if facts.phase == migrate_journal.SWAPPING:
        _replace_the_rest(facts)
        migrate_pins.wait_for_programs()
    copied = [one for one in facts.maps if one.choice == "copy"]
    for number, one in enumerate(copied):
        if Path(one.new_pin).exists() and Path(one.old_pin).exists():
            facts = facts._replace(merging=max(begun, number + 1))
            journal.write(facts)
            _last_pass(journal, number, one, again=number < begun)
    for one in facts.maps:
        migrate_pins.take_over(one)
    migrate_pins.clear(facts)
    cleanup.after_leaving(facts.old_programs, keep_maps=True)
    return f"an upgrade that was killed is finished: the new program and the new {_names(facts)} are in force"


def _names(facts: Facts) -> str:
    return f"map{'s' * (len(facts.maps) > 1)} {', '.join(one.name for one in facts.maps)}"


def _last_pass(journal: Journal, number: int, one: MovedMap, *, again: bool) -> None:
    """Bring what the old map got since it was copied; `again`: some of that may be there, so nothing is added up."""
    from xdpctl.obj.flow import Counted
    from xdpctl.skeleton import schema

    with open_map(Path(one.old_pin)) as old, open_map(Path(one.new_pin)) as new:
        found = schema.difference(schema.of_live(old.info(), one.name), schema.of_live(new.info(), one.name))
        counted = [] if again else [Counted(one.name, *mark) for mark in one.counted]
        made = migrate.copy_of(one.name, old, new, found, counted=counted)
        made.adopt(journal.folder, number)
        made.last()


def _replace_the_rest(facts: Facts) -> None:
    """Interfaces where the old program still runs get the new one too."""
    if not facts.request:
        return
    from xdpctl.attach.prepare import steps_of
    from xdpctl.attach.request import AttachRequest
    from xdpctl.attach.strategy import Loaded
    from xdpctl.attach.transaction import transaction

    asked = {**facts.request, "object": Path(facts.request["object"])}
    asked["interfaces"] = tuple(asked["interfaces"])
    request = AttachRequest(**asked, netns=None, replace=True)
    fd = query.open_id("program", facts.program_id)
    try:
        info = query.program_info(fd)
        loaded = Loaded(fd, info.id, info.name, info.tag, info.load_time_ns)
        with transaction() as changes:
            for step in steps_of(request, facts.hook, info.name):
                if step.old is not None and step.old.program.id in facts.old_programs:
                    step.strategy.replace(loaded, step.target, step.old, changes)
            changes.settle()
    finally:
        os.close(fd)
