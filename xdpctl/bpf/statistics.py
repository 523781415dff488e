"""Run counts and run times of programs, counted for a while (BPF_ENABLE_STATS, Linux 5.8)."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from xdpctl.bpf import query
from xdpctl.bpf.failure import refused
from xdpctl.errors import NotFoundError, UnsupportedError
from xdpctl.libbpf import info, memory
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.bpf.query import ProgramInfo

_RUN_TIME = 0
"""BPF_STATS_RUN_TIME of enum bpf_stats_type."""


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Have the kernel count every program's runs and their time while the block runs; it costs each run 20 to 70 ns.

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


def ids(kind: str) -> list[int]:
    """Ids of every program, map or link that is loaded.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        UnsupportedError: links, before Linux 5.8.
    """
    step = getattr(lib(), f"bpf_{'prog' if kind == 'program' else kind}_get_next_id")
    found: list[int] = []
    after = memory.U32(0)
    while True:
        try:
            step(after.value, after)
        except CallError as why:
            if why.code == errno.ENOENT:
                return found
            if why.code == errno.EINVAL:
                raise UnsupportedError(f"listing {kind}s", needs="Linux 5.8", has="an older one") from why
            raise refused(f"list BPF {kind}s", why, "CAP_SYS_ADMIN") from why
        found.append(after.value)


class Runs:
    """Reads how often programs ran, and asks for the rest of what the kernel says of them once.

    Attributes:
        known: program by its id, as it was when it was first seen.
    """

    def __init__(self) -> None:
        self.known: dict[int, ProgramInfo] = {}

    def read(self) -> dict[int, tuple[int, int]]:
        """Runs and nanoseconds in them, counted so far, of every loaded program by its id (Linux 5.1; before: none).

        Raises:
            PrivilegeError: CAP_SYS_ADMIN is missing.
        """
        found: dict[int, tuple[int, int]] = {}
        for number in ids("program"):
            try:
                fd = query.open_id("program", number)
            except NotFoundError:
                continue  # gone since
            try:
                if number not in self.known:
                    self.known[number] = query.program_info(fd)
                # the kernel reads the struct too: counts of arrays that it should fill
                asked = info.ask(fd, info.ProgInfo()).info
                found[number] = (asked.run_cnt, asked.run_time_ns)
            finally:
                os.close(fd)
        self.known = {number: one for number, one in self.known.items() if number in found}
        return found
