"""Labs left standing for looking around: which namespaces are ours, by recorded name, inode and mark; their removal.

The record lies in /run/xdpctl (XDPCTL_RUN), so it ends with the namespaces at a reboot. A name is written down
before its namespace is made, its inode after: nothing that somebody else made under such a name is ever removed. Older
kernels (5.10) may give a new namespace the inode of one just deleted, so each of ours also has a mark inside, which
nobody else's has: the alias of its lo.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.attach import ownership, runstate
from xdpctl.bpf import pins
from xdpctl.errors import ConfigError, PrivilegeError
from xdpctl.lab import sandbox

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PREFIX = "lab-"


@dataclass
class Kept:
    """What one lab left."""

    lab: str
    namespaces: dict[str, int | None] = field(default_factory=dict)
    """Inode of each by its full name; None: being made."""
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    """The alias of lo in each; "": it was kept by a version that made none."""


class Machine:
    """The machine itself as a place to run commands."""

    def run(
        self, command: str, *, inside: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """See `xdpctl.lab.sandbox.run`."""
        return sandbox.run(command, inside=inside, check=check)

    def silence(self, name: str) -> None:
        """See `xdpctl.lab.sandbox.silence`."""
        sandbox.silence(name)


def _folder() -> Path:
    return runstate.folder() / "labs"


def read() -> list[Kept]:
    """What is recorded as kept; an unreadable record is as good as none."""
    found = []
    for path in sorted(_folder().glob("*.json")) if _folder().is_dir() else ():
        try:
            known: dict[str, Any] = json.loads(path.read_text())
            spaces = {str(name): inode for name, inode in known["namespaces"].items()}
            found.append(Kept(str(known["lab"]), spaces, str(known.get("mark", ""))))
        except (OSError, ValueError, KeyError, AttributeError):
            continue
    return found


def write(kept: Kept) -> None:
    """Record what one lab left, or is about to."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        partial = _folder() / f".{kept.lab}.{os.getpid()}"
        known = {"lab": kept.lab, "namespaces": kept.namespaces, "mark": kept.mark}
        partial.write_text(json.dumps(known))
        partial.replace(_folder() / f"{kept.lab}.json")
    except PermissionError as error:
        raise PrivilegeError(f"writing below {_folder()}", capability="root", errno=error.errno) from error


def inode(name: str) -> int | None:
    """Inode of a named namespace, None where there is none."""
    try:
        return Path("/run/netns", name).stat().st_ino
    except OSError:
        return None


def before_making(kept: Kept, name: str) -> None:
    """Record that a namespace is about to be made.

    Raises:
        ConfigError: one of that name exists: it is not ours.
    """
    if inode(name) is not None:
        raise ConfigError(
            f"network namespace {name} exists already",
            hint="xdpctl lab clean removes what labs have kept; ip netns del removes one of your own",
        )
    settle(kept)
    kept.namespaces[name] = None
    write(kept)


def settle(kept: Kept) -> None:
    """Mark what has been made, and write down the inodes."""
    for name, known in kept.namespaces.items():
        if known is None and (now := inode(name)) is not None:
            sandbox.run(f"ip -n {name} link set lo alias {kept.mark}")
            kept.namespaces[name] = now
    write(kept)


def _is_ours(kept: Kept, name: str, now: int) -> bool:
    """Whether the namespace of that name is the one that was made; one whose making was interrupted is."""
    known = kept.namespaces[name]
    if known is None:
        return True
    if now != known:
        return False
    return not kept.mark or kept.mark in sandbox.run(f"ip -n {name} link show lo").stdout.split()


def remove(kept: Kept) -> Iterator[tuple[str, str | None]]:
    """Remove what a lab left: (namespace, None) or (namespace, why it was left alone) for each."""
    foreign: set[int] = set()
    for name in kept.namespaces:
        now = inode(name)
        if now is None:
            continue
        if not _is_ours(kept, name, now):
            foreign.add(now)
            yield name, "it was made anew by somebody else"
            continue
        # pinned links outlive their devices: let go of them while the devices are there
        sandbox.run(f"xdpctl detach --netns {name} --all *", check=False)
        sandbox.run(f"ip netns del {name}")
        yield name, None
    for number in set(filter(None, kept.namespaces.values())) - foreign:
        for path in list(
            pins.walk(ownership.links_folder() / str(number))
        ):  # of devices that were gone before
            pins.unpin(path)
    (_folder() / f"{kept.lab}.json").unlink(missing_ok=True)
