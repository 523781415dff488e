"""One deployment command at a time changes the machine: a lock (flock(2)) that tells who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from xdpctl.attach import runstate
from xdpctl.attach.model import iso
from xdpctl.errors import ConfigError, PrivilegeError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_SECONDS = 0.02
MOMENT_SECONDS = 0.2


class LockedError(XdpctlError):
    """Another command is changing the machine."""

    exit_code = 75  # sysexits.h's EX_TEMPFAIL


@contextlib.contextmanager
def locked(command: str | None = None, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the machine's lock.

    Args:
        command: what to tell others who holds it; None: this process's command line.
        wait: seconds to wait for another to end.

    Raises:
        LockedError: another holds it: pid, command, since when.
        PrivilegeError, ConfigError: its file can't be made.
    """
    path = runstate.folder() / "lock"
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # never removed: two could hold two files of one name
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError as error:
        raise PrivilegeError(f"lock {path}", capability="root") from error
    except OSError as error:
        raise ConfigError(f"can't lock {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                who = _holder(fd)
                # just taken, or just let go: who it is comes in a moment
                patience = 0.0 if who is not None else MOMENT_SECONDS
                if time.monotonic() >= until + patience:
                    who = who or "another command"
                    raise LockedError(
                        f"{who} is changing this machine", hint="--wait SECONDS waits until it has ended"
                    ) from None
            time.sleep(STEP_SECONDS if time.monotonic() < until else 0.001)
        told = {
            "pid": os.getpid(),
            "command": command or " ".join(["xdpctl", *sys.argv[1:]]),
            "since": time.time(),
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(told).encode("utf-8", "surrogateescape"), 0)
        try:
            yield
        finally:
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def holder() -> str | None:
    """Who is changing the machine, in words; None: nobody. The lock is looked at, and not taken."""
    try:
        fd = os.open(runstate.folder() / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # never taken, or none of ours to look at
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(fd) or "another command"
    finally:
        os.close(fd)
    return None


def taken() -> int:
    """Changes whenever somebody takes the lock or lets it go."""
    try:
        return (runstate.folder() / "lock").stat().st_mtime_ns
    except OSError:
        return 0


def _holder(fd: int) -> str | None:
    """Who holds the lock, in words; None where it is not told (yet)."""
    try:
        told = json.loads(os.pread(fd, 1 << 16, 0))
        return f"`{told['command']}` (pid {told['pid']}, since {iso(told['since'])})"
    except (ValueError, KeyError, TypeError, OSError):
        return None
