"""Namespaces and mounts, where Python's os module lacks the call before 3.12 (setns(2), unshare(2), mount(2))."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2


@lru_cache(maxsize=1)
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    text, flags = ctypes.c_char_p, ctypes.c_ulong
    libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
    libc.unshare.argtypes = [ctypes.c_int]
    libc.mount.argtypes = [text, text, text, flags, text]
    libc.umount2.argtypes = [text, ctypes.c_int]
    return libc


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def setns(fd: int, nstype: int = 0) -> None:
    """Move the calling thread into the namespace behind `fd`; `nstype` (CLONE_NEW...) checks its kind.

    Raises:
        OSError: as setns(2); EPERM without CAP_SYS_ADMIN.
    """
    _check(_libc().setns(fd, nstype), "setns")


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (CLONE_NEWNS, CLONE_NEWNET).

    Raises:
        OSError: as unshare(2).
    """
    _check(_libc().unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """Mount `source` of filesystem `kind` at `target`.

    Raises:
        OSError: as mount(2).
    """
    _check(
        _libc().mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode() if kind else None,
            flags,
            data.encode() if data else None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """Unmount `target`.

    Raises:
        OSError: as umount2(2).
    """
    _check(_libc().umount2(os.fsencode(target), flags), target)
