"""Running a raw tracepoint program by hand, with arguments of one's own (bpf_prog_test_run_raw_tp, Linux 5.10)."""

from __future__ import annotations

import struct

from xdpctl.bpf.failure import refused
from xdpctl.libbpf import memory
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import TestRunOpts


def run_raw(fd: int, *arguments: int) -> int:
    """Run it once, in the calling thread, and give back what it returned.

    Args:
        fd: of the loaded program.
        arguments: 64 bit each; it may have none beyond them.

    Raises:
        KernelError: the kernel can't (before Linux 5.10), or the program reads more arguments than given.
        PrivilegeError: CAP_PERFMON is missing.
    """
    raw = struct.pack(f"={len(arguments)}Q", *arguments)
    context = memory.buffer(len(raw), raw)
    opts = TestRunOpts(ctx_in=memory.address(context), ctx_size_in=len(raw))
    try:
        lib().bpf_prog_test_run_opts(fd, opts)
    except CallError as why:
        raise refused("run of a tracing program", why, "CAP_PERFMON") from why
    return int(opts.retval)
