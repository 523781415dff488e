"""System calls that Python lacks before 3.12, or altogether: setns(2), unshare(2), mount(2), syslog(2), membarrier."""

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
MEMBARRIER_CMD_GLOBAL = 1
MEMBARRIER_NUMBERS = {
    "x86_64": 324,
    "aarch64": 283,
    "riscv64": 283,
    "loongarch64": 283,
    "ppc64le": 365,
    "ppc64": 365,
    "s390x": 356,
    "armv7l": 389,
    "i686": 375,
}
"""__NR_membarrier by machine (asm/unistd.h)."""
SYSLOG_ACTION_READ_ALL = 3


@lru_cache(maxsize=1)
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    text, flags = ctypes.c_char_p, ctypes.c_ulong
    libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
    libc.unshare.argtypes = [ctypes.c_int]
    libc.mount.argtypes = [text, text, text, flags, text]
    libc.umount2.argtypes = [text, ctypes.c_int]
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long]
    libc.syscall.restype = ctypes.c_long
    libc.klogctl.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
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


def kernel_log(most: int) -> bytes:
    """The last `most` bytes of the kernel's log, as lines ``<4>[   12.345678] text``; nothing is consumed.

    Raises:
        OSError: as syslog(2); EPERM without CAP_SYSLOG where kernel.dmesg_restrict is 1.
    """
    room = ctypes.create_string_buffer(most)
    count = _libc().klogctl(SYSLOG_ACTION_READ_ALL, room, most)
    if count < 0:
        _check(count, "syslog")
    return room.raw[:count]


def grace_period() -> None:
    """Return when every program that was running at the time of the call has ended (membarrier(2), synchronize_rcu()).

    XDP and TC programs run within an RCU read-side section (or with softirqs off, which counts as one from 4.20).

    Raises:
        OSError: ENOSYS, or EINVAL on a kernel with nohz_full.
    """
    number = MEMBARRIER_NUMBERS.get(os.uname().machine, -1)
    _check(_libc().syscall(number, MEMBARRIER_CMD_GLOBAL, 0, 0), "membarrier")
