"""Raw tracepoints: attaching a loaded program to one, and running such a program at will (kernel/trace/bpf_trace.c).

BPF_RAW_TRACEPOINT_OPEN serves SEC("raw_tp/...") by the tracepoint's name, and SEC("tp_btf/...") whose name was
given at load. Both end with the descriptor.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from xdpctl.bpf.failure import refused
from xdpctl.bpf.link import Link
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import memory
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import TestRunOpts

if TYPE_CHECKING:
    from collections.abc import Sequence

CAPABILITIES = ("CAP_BPF", "CAP_PERFMON")
MOST_ARGUMENTS = 12
"""MAX_BPF_FUNC_ARGS of a tracepoint."""


def attach(name: str | None, program_fd: int) -> Link:
    """Run a loaded program at each hit of a tracepoint, until the link is closed.

    Args:
        name: of the tracepoint, without its group (``page_pool_release``); None for a tp_btf program.
        program_fd: of the program.

    Raises:
        UnsupportedError: this kernel has no such tracepoint.
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
        KernelError: it refused otherwise.
    """
    action = f"attaching to tracepoint {name}" if name else "attaching a tp_btf program"
    try:
        return Link(lib().bpf_raw_tracepoint_open(name.encode() if name else None, program_fd))
    except CallError as why:
        if why.code == errno.ENOENT:
            raise UnsupportedError(
                action, needs=f"tracepoint {name}", has="a kernel without it", errno=why.code
            ) from why
        raise refused(action, why, *CAPABILITIES) from why


def run(program_fd: int, arguments: Sequence[int]) -> int:
    """Run a raw_tp program once with these tracepoint arguments (BPF_PROG_TEST_RUN, bpf_prog_test_run_raw_tp, 5.10).

    Args:
        program_fd: of the program.
        arguments: up to 12 of 64 bits.

    Returns:
        what it returned, unsigned 32 bits.

    Raises:
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
        KernelError: it refused otherwise (before 5.10: it can't).
    """
    room = struct.pack(f"={MOST_ARGUMENTS}Q", *arguments, *(0,) * (MOST_ARGUMENTS - len(arguments)))
    context = memory.buffer(len(room), room)
    opts = TestRunOpts(ctx_in=memory.address(context), ctx_size_in=len(room))
    try:
        lib().bpf_prog_test_run_opts(program_fd, opts)
    except CallError as why:
        raise refused("running a raw_tp program", why, *CAPABILITIES) from why
    return int(opts.retval)
