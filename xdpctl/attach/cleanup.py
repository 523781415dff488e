"""What attachments leave behind, and how it goes: run-time state, and maps pinned by name."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.attach import ownership, runstate
from xdpctl.bpf import pins, query
from xdpctl.errors import NotFoundError, XdpctlError
from xdpctl.netlink import rtnl, tc

if TYPE_CHECKING:
    from collections.abc import Iterable

PATIENCE_SECONDS = 5.0
"""A program outlives its link until a grace period has passed and a kernel worker has freed that (bpf_free_inode,
bpf_link_put_deferred): some 10 ms, on a machine without a free CPU more than a second. Only a program that somebody
else holds, attached nowhere, takes all of it."""


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


def attached() -> set[int]:
    """Programs that a link holds on a device anywhere, or that are attached in this namespace without one."""
    found: set[int] = set()
    with contextlib.suppress(XdpctlError):
        found |= {one.program_id for one in query.links() if one.ifindex is not None}
    with contextlib.suppress(XdpctlError):
        for link in rtnl.links():
            found |= {one for one in (link.xdp.native, link.xdp.generic, link.xdp.offload) if one is not None}
    with contextlib.suppress(XdpctlError):
        for ifindex in {one.ifindex for one in tc.qdiscs() if tc.has_clsact(one)}:
            for direction in ("ingress", "egress"):
                found |= {one.prog_id for one in tc.bpf_filters(ifindex, direction)}
    return found


def pinned() -> set[int]:
    """Programs that a deployment has pinned: they stay when nothing runs them any more."""
    found: set[int] = set()
    for path in pins.walk(pins.root() / "deployments"):
        with contextlib.suppress(XdpctlError):
            fd = pins.open_pin(path, "program")
            try:
                found.add(query.program_info(fd).id)
            finally:
                os.close(fd)
    return found


def after_leaving(program_ids: Iterable[int], *, keep_maps: bool = False) -> list[Path]:
    """Drop the state of programs of ours that are gone, and unpin the maps that only they used.

    Args:
        program_ids: programs that have just lost an attachment in this namespace; they may need a moment to go.
        keep_maps: leave maps pinned by name.

    Returns:
        pins of maps by name that were removed.
    """
    records = runstate.read()
    leaving = {one for one in program_ids if one in records}
    waited_for = leaving - attached() - pinned() if leaving else leaving
    for number in waited_for:  # first: such an array may hold the very program
        for path in map(Path, records[number].map_pins):
            if path.parent == ownership.tail_calls_folder():
                pins.unpin(path)
    deadline = time.monotonic() + PATIENCE_SECONDS
    gone = {number for number, record in records.items() if not _alive(record)}
    pause = 0.002
    while waited_for - gone and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(1.2 * pause, 0.05)
        gone |= {number for number in waited_for - gone if not _alive(records[number])}
    removed = [] if keep_maps else _unpin_unused(records, gone)
    if gone:
        runstate.forget(gone)
    return removed


def _unpin_unused(records: dict[int, runstate.Record], gone: set[int]) -> list[Path]:
    """Remove pins by name that only programs which are gone used."""
    shared = {path for number, record in records.items() if number not in gone for path in record.map_pins}
    unused = {path for number in gone for path in records[number].map_pins} - shared
    folder = ownership.maps_folder()
    return [path for path in map(Path, sorted(unused)) if path.parent == folder and pins.unpin(path)]
