"""What an upgrade that moves maps was about to do, written down before: whoever comes next finishes or undoes it.

One at a time on a machine: the folder ``migration`` of the run-time state is locked (flock(2)) by who is at it, and
the lock ends with the process. A journal without that lock was left by a process that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.attach import runstate
from xdpctl.errors import ConfigError, MapError

if TYPE_CHECKING:
    from pathlib import Path

SWAPPING, RENAMING = "swapping", "renaming"
"""Before the first program is replaced; when the new maps have everything and take over the pins."""
LONGEST = 1 << 24
"""Bytes of a journal that we are willing to read."""


class MovedMap(NamedTuple):
    """A map with a successor, as the journal knows it."""

    name: str
    pin: str
    choice: str
    """copy or recreate."""
    old_id: int
    new_id: int
    old_pin: str
    """Where the old map is pinned until everything is done."""
    new_pin: str
    counted: tuple[tuple[int, int, bool], ...] = ()
    """Numbers that the new program adds to: offset, size, indexed."""


class Facts(NamedTuple):
    """One upgrade."""

    phase: str
    program_id: int
    load_time_ns: int
    old_programs: tuple[int, ...]
    maps: tuple[MovedMap, ...]
    request: dict[str, Any]
    """What `attach` was asked, as far as it takes to finish it."""
    netns_inode: int
    hook: str
    merging: int = 0
    """Copied maps whose last pass has begun: what it added up must not be added a second time."""


def folder() -> Path:
    """Where the journal lies."""
    return runstate.folder() / "migration"


def _journal() -> Path:
    return folder() / "journal.json"


class Journal:
    """The right to move maps, and what is written down about it.

    Raises:
        MapError: another process is at it.
        ConfigError: nothing can be written down.
    """

    def __init__(self) -> None:
        where = folder()
        while True:
            try:
                where.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as why:
                raise ConfigError(
                    f"{where}: {why.strerror}: an upgrade that moves maps is written down there first",
                    hint=f"{runstate.ENVIRONMENT}=DIRECTORY names another place",
                ) from why
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as why:
                os.close(self._lock)
                raise MapError(
                    "another xdpctl is moving maps at the moment",
                    errno=why.errno,
                    hint="try again when it is done",
                ) from why
            with contextlib.suppress(OSError):
                if os.fstat(self._lock).st_ino == where.stat().st_ino:
                    return
            os.close(self._lock)  # removed meanwhile by who was at it before us

    @property
    def folder(self) -> Path:
        """For what belongs to the journal."""
        return folder()

    def write(self, facts: Facts) -> None:
        """Write it down, in place of what was there.

        Raises:
            ConfigError: it can't be written.
        """
        fresh = _journal().with_suffix(".new")
        try:
            with fresh.open("w", encoding="utf-8", errors="surrogateescape") as file:
                json.dump({**facts._asdict(), "maps": [one._asdict() for one in facts.maps]}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(_journal())
        except OSError as why:
            raise ConfigError(f"{fresh}: {why.strerror}") from why

    def read(self) -> Facts | None:
        """What is written down; None: nothing, or nothing that can be read."""
        try:
            with _journal().open(encoding="utf-8", errors="surrogateescape") as file:
                content: dict[str, Any] = json.loads(file.read(LONGEST))
            maps = tuple(
                MovedMap(**{**one, "counted": tuple(map(tuple, one["counted"]))}) for one in content["maps"]
            )
            return Facts(**{**content, "maps": maps, "old_programs": tuple(content["old_programs"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self) -> None:
        """Nothing is left to be done; safe to repeat."""
        with contextlib.suppress(OSError):
            _journal().unlink()
        shutil.rmtree(folder(), ignore_errors=True)

    def close(self) -> None:
        """Let others move maps."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def left_over() -> bool:
    """Whether there is a journal: of somebody who is at it, or of somebody who was killed."""
    return _journal().exists()
