"""bpf(2) itself, for what the present libbpf can't pass on: tcx and netkit order and query before libbpf 1.3.

Layouts are those of ``union bpf_attr`` (linux/bpf.h); the kernel takes a shorter or longer one as long as what it
does not know is zero.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_uint32, c_uint64
from typing import ClassVar

from xdpctl.errors import UnsupportedError
from xdpctl.libbpf.library import CallError
from xdpctl.libbpf.opts import Checked

BPF_PROG_QUERY = 16
BPF_LINK_CREATE = 28

NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
    "armv7l": 386,
    "i686": 357,
}
"""__NR_bpf by machine (asm/unistd.h)."""


class LinkCreateAttr(Checked):
    """``link_create`` of union bpf_attr, with the ``tcx`` and ``netkit`` member of its union."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("prog_fd", c_uint32),
        ("target_fd", c_uint32),
        ("attach_type", c_uint32),
        ("flags", c_uint32),
        ("relative", c_uint32),
        ("expected_revision", c_uint64),
    ]


class QueryAttr(Checked):
    """``query`` of union bpf_attr."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("target_fd", c_uint32),
        ("attach_type", c_uint32),
        ("query_flags", c_uint32),
        ("attach_flags", c_uint32),
        ("prog_ids", c_uint64),
        ("prog_cnt", c_uint32),
        ("_pad", c_uint32),
        ("prog_attach_flags", c_uint64),
        ("link_ids", c_uint64),
        ("link_attach_flags", c_uint64),
        ("revision", c_uint64),
    ]


def bpf(command: int, attr: Checked) -> int:
    """The system call.

    Returns:
        its result, a file descriptor where the command makes one (close-on-exec).

    Raises:
        CallError: the kernel refused.
        UnsupportedError: we don't know this machine's number of the call.
    """
    machine = os.uname().machine
    number = NUMBERS.get(machine)
    if number is None:
        raise UnsupportedError("this request", needs="libbpf 1.3", has=f"an older one on {machine}")
    result = _libc.syscall(number, command, ctypes.byref(attr), ctypes.sizeof(attr))
    if result < 0:
        raise CallError("bpf", ctypes.get_errno())
    return int(result)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
