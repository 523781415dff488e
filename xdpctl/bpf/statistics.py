"""Run counts and run times of programs, counted for a while (BPF_ENABLE_STATS, Linux 5.8)."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from xdpctl.bpf.failure import refused
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN_TIME = 0
"""BPF_STATS_RUN_TIME of enum bpf_stats_type."""


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Have the kernel count every program's runs and their time while the block runs; it costs each run some 20 ns.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        UnsupportedError: before Linux 5.8, where only the sysctl turns it on.
    """
    try:
        fd = lib().bpf_enable_stats(_RUN_TIME)
    except CallError as why:
        if why.code == errno.EINVAL:
            raise UnsupportedError(
                "counting runs for a while", needs="Linux 5.8", has="an older one"
            ) from why
        raise refused("count the runs of programs", why, "CAP_SYS_ADMIN") from why
    try:
        yield
    finally:
        os.close(fd)
