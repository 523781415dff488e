"""A descriptor that becomes readable when something changes in folders (inotify(7)); Python has no call for it."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

IN_MODIFY, IN_MOVED, IN_CREATE, IN_DELETE = 0x2, 0xC0, 0x100, 0x200
IN_DELETE_SELF = 0x400


def watch(folders: Iterable[Path]) -> int:
    """A non-blocking descriptor; folders that can't be watched are left out. The caller closes it.

    Raises:
        OSError: the system allows no more of them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for one in folders:
        libc.inotify_add_watch(fd, os.fsencode(one), IN_MOVED | IN_CREATE | IN_DELETE | IN_DELETE_SELF)
    return fd
