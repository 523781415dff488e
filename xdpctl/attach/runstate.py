"""Which programs did xdpctl load? One small file a program under /run/xdpctl, which ends with the boot as programs do.

Links are known as ours by their pins; netlink and clsact attachments leave no such mark in the kernel, so their owner
is told by the program: its id and load time, which no other program of this boot shares.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

ENVIRONMENT = "XDPCTL_RUN"
LONGEST = 1 << 20
"""Bytes of a record that we are willing to read."""


class Record(NamedTuple):
    """A program that xdpctl loaded."""

    id: int
    load_time_ns: int
    """CLOCK_BOOTTIME, as bpf_prog_info tells it."""
    name: str
    """The whole C function name."""
    tag: str
    object: str
    via: str
    """link, netlink, tcx, clsact, netkit: how it was attached first."""
    attached_at: float
    """Seconds of the epoch."""
    map_pins: tuple[str, ...] = ()
    """Maps that the object asked to be pinned by name."""
    clsact: tuple[tuple[int, int], ...] = ()
    """(netns inode, ifindex) of devices that were given their clsact qdisc for it."""
    pin: str = ""
    """Where a deployment has pinned it."""


def folder() -> Path:
    """Where run-time state lies: XDPCTL_RUN or /run/xdpctl."""
    return Path(os.environ.get(ENVIRONMENT) or "/run/xdpctl")


def recover() -> list[str]:
    """Finish or undo an upgrade that was killed while it moved maps; what was done, in words. Else costs one look.

    Raises:
        XdpctlError: it could neither be finished nor undone.
    """
    if not os.path.exists(folder() / "migration" / "journal.json"):  # noqa: PTH110 - false where we may not look
        return []
    from xdpctl.attach import migrate_recover

    return migrate_recover.recover()


def _path(program_id: int) -> Path:
    return folder() / "programs" / f"{program_id}.json"


def write(record: Record) -> str | None:
    """Keep a record; None, or in words why it could not be kept (ownership by netlink and clsact is lost then)."""
    path = _path(record.id)
    fresh = path.with_suffix(f".{os.getpid()}")
    content = record._asdict()
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh.write_text(json.dumps(content), encoding="utf-8", errors="surrogateescape")
        fresh.replace(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def read() -> dict[int, Record]:
    """Every record by program id; damaged ones are no records."""
    found: dict[int, Record] = {}
    try:
        entries = list(os.scandir(folder() / "programs"))
    except OSError:
        return found
    for entry in entries:
        if entry.name.endswith(".json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = _parse(entry.path)
                found[record.id] = record
    return found


def _parse(path: str) -> Record:
    with Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
        content: dict[str, Any] = json.loads(file.read(LONGEST))
    return Record(
        id=int(content["id"]),
        load_time_ns=int(content["load_time_ns"]),
        name=str(content["name"]),
        tag=str(content["tag"]),
        object=str(content["object"]),
        via=str(content["via"]),
        attached_at=float(content["attached_at"]),
        map_pins=tuple(map(str, content["map_pins"])),
        clsact=tuple((int(inode), int(ifindex)) for inode, ifindex in content["clsact"]),
        pin=str(content.get("pin", "")),
    )


def forget(program_ids: Iterable[int]) -> None:
    """Drop the records of programs that are gone; their clsact marks pass to another record, if one is left."""
    gone = set(program_ids)
    records = read()
    marks = {mark for one in gone & records.keys() for mark in records[one].clsact}
    heir = next(
        (record for number, record in records.items() if number not in gone and record.via == "clsact"), None
    )
    if heir is not None and marks:
        write(heir._replace(clsact=tuple(sorted({*heir.clsact, *marks}))))
    for one in gone:
        with contextlib.suppress(OSError):
            _path(one).unlink()
    for empty in (folder() / "programs",):
        with contextlib.suppress(OSError):
            empty.rmdir()


def made_clsact(netns_inode: int, ifindex: int) -> bool:
    """Whether xdpctl gave this device its clsact qdisc."""
    return any((netns_inode, ifindex) in record.clsact for record in read().values())


def unmark_clsact(netns_inode: int, ifindex: int) -> None:
    """The clsact qdisc that xdpctl made for this device is gone."""
    for record in read().values():
        kept = tuple(mark for mark in record.clsact if mark != (netns_inode, ifindex))
        if kept != record.clsact:
            write(record._replace(clsact=kept))
