"""What attachments leave behind, and how it goes: run-time state, and maps pinned by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.attach import ownership, runstate
from xdpctl.bpf import pins, query
from xdpctl.errors import NotFoundError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Iterable

PATIENCE_SECONDS = 1.0
"""A program outlives its link until a kernel worker has freed that (bpf_link_put_deferred), later on a busy machine."""


def _alive(record: runstate.Record) -> bool:
    try:
        fd = query.open_id("program", record.id)
    except NotFoundError:
        return False
    except XdpctlError:
        return True  # not for us to know
    try:
        return query.program_info(fd).load_time_ns == record.load_time_ns
    finally:
        os.close(fd)


def _linked() -> set[int]:
    """Programs that a link still holds on a device."""
    try:
        return {one.program_id for one in query.links() if one.ifindex is not None}
    except XdpctlError:
        return set()


def after_leaving(
    program_ids: Iterable[int], *, still_used: Iterable[int] = (), keep_maps: bool = False
) -> list[Path]:
    """Drop the state of programs of ours that are gone, and unpin the maps that only they used.

    Args:
        program_ids: programs that have just lost an attachment; they may need a moment to go.
        still_used: those known to have another attachment.
        keep_maps: leave the maps pinned.

    Returns:
        pins of maps that were removed.
    """
    records = runstate.read()
    leaving = {one for one in program_ids if one in records}
    waited_for = leaving - set(still_used) - (_linked() if leaving else set())
    deadline = time.monotonic() + PATIENCE_SECONDS
    gone = {number for number, record in records.items() if not _alive(record)}
    while waited_for - gone and time.monotonic() < deadline:
        time.sleep(0.002)
        gone |= {number for number in waited_for - gone if not _alive(records[number])}
    removed: list[Path] = []
    if not keep_maps:
        shared = {
            path for number, record in records.items() if number not in gone for path in record.map_pins
        }
        unused = {path for number in gone for path in records[number].map_pins} - shared
        folder = ownership.maps_folder()
        removed = [path for path in map(Path, sorted(unused)) if path.parent == folder and pins.unpin(path)]
    if gone:
        runstate.forget(gone)
    return removed
