"""Why the kernel refused to attach an XDP program by a link: the sentence that the system call hides.

dev_xdp_attach() explains a refusal in an extack. rtnetlink passes it on; BPF_LINK_CREATE can't, but from Linux 6.6
on it traces it (bpf_xdp_link_attach() in net/core/dev.c, tracepoint ``xdp:bpf_xdp_link_attach_failed``).
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf import asm, load
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.log import capture
from xdpctl.libbpf.opts import XdpAttachOpts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRACEPOINT = "bpf_xdp_link_attach_failed"
LONGEST = 256
"""Bytes of a sentence that we keep; the kernel's longest have about 80."""

_MAP_LOOKUP_ELEM, _PROBE_READ_KERNEL_STR, _GET_NS_CURRENT_PID_TGID = 1, 115, 120


def _listener(map_fd: int, thread: int) -> bytes:
    """A raw_tracepoint program that copies the sentence into the map if `thread` (of our pid namespace) caused it.

    ``u64 ctx[0]`` is the tracepoint's first argument, ``const char *msg``.
    """
    space = Path("/proc/self/ns/pid").stat()
    # stat(2) packs a device number otherwise than the kernel's own dev_t that the helper compares
    device = os.major(space.st_dev) << 20 | os.minor(space.st_dev)
    copy = (
        asm.mov(asm.R2, asm.R10)
        + asm.add_imm(asm.R2, -12)
        + asm.store_imm(asm.R10, -12, 0)
        + asm.load_map(asm.R1, map_fd)
        + asm.call(_MAP_LOOKUP_ELEM)
        + asm.jump_eq_imm(asm.R0, 0, 4)
        + asm.mov(asm.R1, asm.R0)
        + asm.mov_imm(asm.R2, LONGEST)
        + asm.mov(asm.R3, asm.R6)
        + asm.call(_PROBE_READ_KERNEL_STR)
    )
    return (
        asm.load(asm.R6, asm.R1, 0)
        + asm.load_imm64(asm.R1, device)
        + asm.load_imm64(asm.R2, space.st_ino)
        + asm.mov(asm.R3, asm.R10)
        + asm.add_imm(asm.R3, -8)
        + asm.mov_imm(asm.R4, 8)
        + asm.call(_GET_NS_CURRENT_PID_TGID)
        + asm.jump_ne_imm(asm.R0, 0, len(copy) // 8 + 2)
        + asm.load(asm.R1, asm.R10, -8, asm.LDX_W)  # struct bpf_pidns_info: pid (of the thread), tgid
        + asm.jump_ne_imm(asm.R1, thread, len(copy) // 8)
        + copy
        + asm.RETURN_0
    )


@contextlib.contextmanager
def reason() -> Iterator[Callable[[], str | None]]:
    """Listen, while the block runs, to why a link attach of this thread fails.

    Yields:
        a function that tells the kernel's last sentence, or None: nothing was said, the kernel is older than
        6.6, or we may not listen (CAP_BPF and CAP_PERFMON). It never raises. It may be called after the block.
    """
    with contextlib.ExitStack() as held:
        sentence: list[str | None] = [None]
        array: int | None = None
        try:
            array = load.array(LONGEST)
            held.callback(os.close, array)
            code = _listener(array, threading.get_native_id())
            program = load.program(uapi.PROG_TYPE_RAW_TRACEPOINT, code, name="xdpctl_extack")
            held.callback(os.close, program)
            held.callback(os.close, lib().bpf_raw_tracepoint_open(TRACEPOINT.encode(), program))
        except (CallError, UnsupportedError, OSError):
            array = None

        def spoken() -> str | None:
            if array is not None and sentence[0] is None:
                value = memory.buffer(LONGEST)
                with contextlib.suppress(CallError):
                    lib().bpf_map_lookup_elem(array, bytes(4), value)
                    sentence[0] = value.value.decode(errors="replace") or None
            return sentence[0]

        try:
            yield spoken
        finally:
            spoken()
            array = None


def from_log(lines: list[str]) -> str | None:
    """The extack among what libbpf said of a refused netlink request (libbpf_nla_dump_errormsg in nlattr.c)."""
    marker = "Kernel error message: "
    return next((line.partition(marker)[2] for line in reversed(lines) if marker in line), None)


def ask_rtnetlink(program_fd: int, ifindex: int, flags: int = 0) -> str | None:
    """Why the device would refuse this program, for kernels before 6.6: attach it by netlink, and undo that at once.

    THIS MAY ATTACH: where what was in the way of the link has gone meanwhile, or is in the way of links only, the
    program runs for the moment between two system calls. It never replaces anything: UPDATE_IF_NOEXIST
    refuses where a program is, and the undoing names ours as the expected one, so it can't remove another's. Call it
    only after a link attach of the same program failed, and only where `reason` had nothing to say.

    Args:
        program_fd: of the program.
        ifindex: in this thread's network namespace.
        flags: one XDP_FLAGS_*_MODE, or 0.

    Returns:
        the kernel's sentence, or None: it said none, or took the program (and gave it back).
    """
    only_new = flags | uapi.XDP_FLAGS_UPDATE_IF_NOEXIST
    with capture() as lines:
        try:
            lib().bpf_xdp_attach(ifindex, program_fd, only_new, None)
        except CallError:
            return from_log(lines)
        # Nobody can have replaced it through a link (a netlink program is in the way), and if somebody did by
        # netlink, EXPECTED_FD leaves theirs alone.
        with contextlib.suppress(CallError):
            lib().bpf_xdp_attach(ifindex, -1, flags, XdpAttachOpts(old_prog_fd=program_fd))
    return None
