"""What attachments leave behind, and how it goes: run-time state, maps pinned by name, stale pins."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.attach import ownership, runstate
from xdpctl.bpf import pins, query
from xdpctl.errors import NotFoundError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATIENCE_SECONDS = 0.1
"""A program outlives its link until a kernel worker has freed that (bpf_link_put_deferred)."""


def _alive(program_id: int, load_time_ns: int) -> bool:
    try:
        fd = query.open_id("program", program_id)
    except NotFoundError:
        return False
    except XdpctlError:
        return True  # not for us to know
    try:
        return query.program_info(fd).load_time_ns == load_time_ns
    finally:
        os.close(fd)


def forget_gone(just_left: Iterable[int] = ()) -> None:
    """Drop the run-time state of programs that no longer exist.

    Args:
        just_left: programs that have lost an attachment just now, and may need a moment to go.
    """
    records = runstate.read()
    waiting = {one for one in just_left if one in records}
    deadline = time.monotonic() + PATIENCE_SECONDS
    gone = {number for number, one in records.items() if not _alive(number, one.load_time_ns)}
    while waiting - gone and time.monotonic() < deadline:
        time.sleep(0.002)
        gone |= {number for number in waiting - gone if not _alive(number, records[number].load_time_ns)}
    if gone:
        runstate.forget(gone)


def unpin_unused_maps(left: Iterable[int]) -> list[Path]:
    """Unpin maps pinned by name for programs that are gone, unless another program of ours shares them.

    Args:
        left: programs that have just lost an attachment, before `forget_gone`.

    Returns:
        the pins that were removed.
    """
    records = runstate.read()
    candidates = {path for one in left if one in records for path in records[one].map_pins}
    if not candidates:
        return []
    _wait_gone({one: records[one].load_time_ns for one in left if one in records})
    kept = {
        path for number, one in records.items() if _alive(number, one.load_time_ns) for path in one.map_pins
    }
    folder = ownership.maps_folder()
    removed = [Path(path) for path in sorted(candidates - kept) if Path(path).parent == folder]
    return [path for path in removed if pins.unpin(path)]


def _wait_gone(programs: dict[int, int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and any(_alive(number, stamp) for number, stamp in programs.items()):
        time.sleep(0.002)


def stale_pins() -> Iterator[ownership.PinnedLink]:
    """Pins of ours whose device is gone."""
    return (one for one in ownership.pinned_links() if one.ifindex is None)
