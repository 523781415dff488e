"""A filesystem mounted nowhere: sysfs as the calling thread's network namespace has it (fsopen(2), fsmount(2), 5.2).

/sys shows the links of the namespace in which it was mounted, whatever namespace a thread has moved to.
"""

from __future__ import annotations

import ctypes
import os

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
"""The same on every architecture."""
FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1


def sysfs() -> int:
    """An open directory that is the root of a new sysfs; close it when done.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN, or in a container that may not mount; ENOSYS before 5.2.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(number: int, *arguments: object) -> int:
        result = int(libc.syscall(ctypes.c_long(number), *arguments))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "sysfs")
        return result

    context = call(FSOPEN, ctypes.c_char_p(b"sysfs"), ctypes.c_uint(_CLOEXEC))
    try:
        call(FSCONFIG, ctypes.c_int(context), ctypes.c_uint(FSCONFIG_CMD_CREATE), None, None, ctypes.c_int(0))
        return call(FSMOUNT, ctypes.c_int(context), ctypes.c_uint(_CLOEXEC), ctypes.c_uint(0))
    finally:
        os.close(context)
