"""What is being done, written down before it is done: changes and their inverses, so that kill -9 leaves no riddle.

One file, ``/run/xdpctl/journal``: a line of JSON each for the whole plan, for every change before it is made and after,
and for the commit. Every line is on its medium (fsync) before the next thing happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import field
from typing import TYPE_CHECKING, Any

from xdpctl.attach import runstate
from xdpctl.deploy import state
from xdpctl.deploy.change import Change
from xdpctl.errors import ConfigError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

    from xdpctl.deploy.state import Stored

DIE_AT = "XDPCTL_DIE_AT"
"""For tests: ``before:N`` and ``after:N`` kill this process (SIGKILL) around the N-th change, from 0; also ``begin``,
``commit`` and ``end``."""


def path() -> Path:
    """Where the journal lies while something is being done."""
    return runstate.folder() / "journal"


@dataclass(slots=True)
class Journal:
    """A plan on its way."""

    deployment: str
    command: str
    pid: int
    since: float
    changes: tuple[Change, ...]
    commit: Stored
    begun: set[int] = field(default_factory=set)
    """Changes that were at least tried, and not taken back."""
    done: set[int] = field(default_factory=set)
    """Changes that were made, and not taken back."""
    committed: bool = False
    undoing: bool = False
    file: int | None = None

    @classmethod
    def begin(cls, commit: Stored, changes: Sequence[Change], command: str, since: float) -> Self:
        """Write the plan down.

        Raises:
            ConfigError: it can't be written, or another one is there.
        """
        made = cls(commit.name, command, os.getpid(), since, tuple(changes), commit)
        head = {
            "journal": 1,
            "deployment": made.deployment,
            "command": command,
            "pid": made.pid,
            "since": since,
            "changes": [one.to_json() for one in changes],
            "inverses": [one.inverse().to_json() for one in changes],
            "commit": state.to_json(commit),
        }
        where = path()
        fresh = where.with_name("journal.new")
        try:
            where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            made.file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            made.write(head)
            fresh.rename(where)
            _sync_folder(where.parent)
        except OSError as error:
            raise ConfigError(f"can't write {where}: {(error.strerror or str(error)).lower()}") from error
        die("begin")
        return made

    def write(self, line: dict[str, Any]) -> None:
        """One line, on its medium when this returns.

        Raises:
            ConfigError: it can't be written (a full disk).
        """
        self._append(json.dumps(line))

    def _append(self, line: str) -> None:
        if self.file is None:
            self.file = os.open(path(), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[os.write(self.file, data) :]
            os.fdatasync(self.file)
        except OSError as error:
            raise ConfigError(f"can't write {path()}: {(error.strerror or str(error)).lower()}") from error

    def starting(self, number: int) -> None:
        """A change is about to be made."""
        self._append(f'{{"begin": {number}}}')
        self.begun.add(number)

    def made(self, number: int) -> None:
        """A change was made."""
        self._append(f'{{"done": {number}}}')
        self.done.add(number)

    def undone(self, number: int) -> None:
        """A change was taken back."""
        self.write({"undone": number})
        self.begun.discard(number)
        self.done.discard(number)

    def commits(self) -> None:
        """All is done and written down as the deployment's state: from here on there is nothing to take back."""
        self.write({"committed": True})
        self.committed = True

    def end(self) -> None:
        """Nothing is left to do: the journal goes."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            path().unlink()

    def close(self) -> None:
        """Leave it as it is."""
        if self.file is not None:
            os.close(self.file)
            self.file = None

    @property
    def told(self) -> str:
        """``apply of edge, interrupted after 3 of 12 changes``."""
        made = f"{len(self.done)} of {len(self.changes)} changes are made"
        return f"`{self.command}` (deployment {self.deployment}) was interrupted: {made}"


def read() -> Journal | None:
    """The journal that somebody left; None: nothing is half done.

    Raises:
        ConfigError: it can't be read, or is damaged.
    """
    try:
        data = path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"can't read {path()}: {(error.strerror or str(error)).lower()}") from error
    lines = data.split("\n")
    try:
        head = json.loads(lines[0])
        found = Journal(
            head["deployment"],
            head["command"],
            head["pid"],
            head["since"],
            tuple(Change.from_json(one) for one in head["changes"]),
            state.from_json(head["commit"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path()} is damaged: {error}", hint=f"look at `xdpctl status`, then rm {path()}"
        ) from error
    for line in lines[1:]:
        try:
            event = json.loads(line)
        except ValueError:
            break  # the last one, cut off: what it would say has not happened
        if "begin" in event:
            found.begun.add(event["begin"])
        elif "done" in event:
            found.done.add(event["done"])
        elif "undone" in event:
            found.begun.discard(event["undone"])
            found.done.discard(event["undone"])
        elif "committed" in event:
            found.committed = True
        elif "undoing" in event:
            found.undoing = True
    return found


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def die(where: str) -> None:
    """End this process by SIGKILL where a test asks for it; see `DIE_AT`."""
    if os.environ.get(DIE_AT) == where:
        os.kill(os.getpid(), signal.SIGKILL)
