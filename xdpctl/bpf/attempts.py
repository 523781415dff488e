"""How each of `features` is tried: on a throwaway program or map, so that nothing is left behind.

Each raises the CallError that says no. Where the same errno has other meanings, the attempt is made so that a kernel
with the feature fails later, and differently.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING

from xdpctl.bpf import asm, load
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.log import capture
from xdpctl.libbpf.opts import BtfLoadOpts, MapBatchOpts, ProgLoadOpts, TestRunOpts

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_DEVICE = 2**31 - 1
"""An ifindex that no device has."""


@contextlib.contextmanager
def _held(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def xdp_link() -> None:
    """BPF_LINK_DETACH, which came with XDP links, of a descriptor that is none: EBADF where the command is there.

    An attach to no device would be EINVAL with and without XDP links (bpf_xdp_link_attach in net/core/dev.c).
    """
    try:
        lib().bpf_link_detach(-1)
    except CallError as why:
        if why.code != errno.EBADF:
            raise


def link(attach_type: int) -> None:
    """A link of a sched_cls program to a device that is none: ENODEV where the attach type is known, else EINVAL."""
    with _held(load.program(uapi.PROG_TYPE_SCHED_CLS, asm.RETURN_0)) as program:
        try:
            os.close(lib().bpf_link_create(program, NO_DEVICE, attach_type, None))
        except CallError as why:
            if why.code != errno.ENODEV:
                raise


def frags() -> None:
    """An XDP program with BPF_F_XDP_HAS_FRAGS."""
    flags = uapi.BPF_F_XDP_HAS_FRAGS
    os.close(load.program(uapi.PROG_TYPE_XDP, asm.RETURN_0, attach_type=uapi.XDP, flags=flags))


def btf() -> None:
    """/sys/kernel/btf/vmlinux."""
    path = "/sys/kernel/btf/vmlinux"
    try:
        os.stat(path)  # noqa: PTH116 - nothing else here needs pathlib
    except OSError as why:
        raise CallError(f"stat of {path}", why.errno or errno.ENOENT) from why


def netdev_genl() -> None:
    """The generic netlink family ``netdev``."""
    from xdpctl.netlink import genl

    try:
        with genl.genl_socket(None) as sock:
            genl.family_id(sock, "netdev")
    except UnsupportedError as why:
        raise CallError("look-up of the netlink family netdev", why.errno or errno.ENOENT) from why


def live_frames() -> None:
    """One run in live-frame mode of a program that drops, so that nothing leaves.

    Kernels before 5.15 ignore flags, and give back the verdict; in live-frame mode there is none.
    """
    drop = asm.mov_imm(asm.R0, 1) + asm.leave()
    frame = memory.buffer(64)
    opts = TestRunOpts(
        data_in=memory.address(frame), data_size_in=64, repeat=1, flags=uapi.BPF_F_TEST_XDP_LIVE_FRAMES
    )
    with _held(load.program(uapi.PROG_TYPE_XDP, drop, attach_type=uapi.XDP)) as program:
        lib().bpf_prog_test_run_opts(program, opts)
    if opts.retval:
        raise CallError("bpf_prog_test_run_opts, which took no notice of the flag", errno.EINVAL)


def test_run_context() -> None:
    """One run of an XDP program with a struct xdp_md of its own."""
    frame, context = memory.buffer(64), memory.buffer(24, struct.pack("=6I", 0, 64, 0, 0, 0, 0))
    opts = TestRunOpts(
        data_in=memory.address(frame),
        data_size_in=64,
        ctx_in=memory.address(context),
        ctx_size_in=24,
        repeat=1,
    )
    with _held(load.program(uapi.PROG_TYPE_XDP, asm.RETURN_0, attach_type=uapi.XDP)) as program:
        lib().bpf_prog_test_run_opts(program, opts)


def _traced(attach_type: int, function: str) -> None:
    with capture():
        btf_id = lib().libbpf_find_vmlinux_btf_id(function.encode(), attach_type)
    kind = uapi.PROG_TYPE_TRACING
    with _held(load.program(kind, asm.RETURN_0, attach_type=attach_type, attach_btf_id=btf_id)) as program:
        os.close(lib().bpf_raw_tracepoint_open(None, program))


def fentry() -> None:
    """A program at the entry of bpf_fentry_test1(), which the kernel has for that (net/bpf/test_run.c), attached."""
    _traced(uapi.TRACE_FENTRY, "bpf_fentry_test1")


def tp_btf() -> None:
    """A program on the tracepoint xdp_exception with its arguments' types, attached."""
    _traced(uapi.TRACE_RAW_TP, "xdp_exception")


def freplace() -> None:
    """A program whose one function has BTF, and a second one that is to replace that function."""
    with (
        _held(lib().bpf_btf_load(_BTF, len(_BTF), BtfLoadOpts())) as types,
        _held(_with_btf(uapi.PROG_TYPE_XDP, types)) as target,
    ):
        os.close(_with_btf(uapi.PROG_TYPE_EXT, types, target))


def sleepable() -> None:
    """A syscall program, which must be sleepable."""
    os.close(load.program(uapi.PROG_TYPE_SYSCALL, asm.RETURN_0, flags=uapi.BPF_F_SLEEPABLE))


def batch_maps() -> None:
    """BPF_MAP_UPDATE_BATCH of the one element of an array."""
    value, count = memory.buffer(8), memory.U32(1)
    with _held(load.array(8)) as array:
        lib().bpf_map_update_batch(array, bytes(4), value, count, MapBatchOpts())


def ringbuf() -> None:
    """A ring buffer of one page."""
    os.close(load.map_(uapi.MAP_TYPES.index("ringbuf"), 0, 0, os.sysconf("SC_PAGE_SIZE")))


def map_value_8(kind: str) -> None:
    """A devmap or cpumap whose value has room for a program beside the target."""
    os.close(load.map_(uapi.MAP_TYPES.index(kind), 4, 8, 1))


def xskmap() -> None:
    """An xskmap of one entry."""
    os.close(load.map_(uapi.MAP_TYPES.index("xskmap"), 4, 4, 1))


def link_extack() -> None:
    """A program on the tracepoint xdp:bpf_xdp_link_attach_failed."""
    with _held(load.program(uapi.PROG_TYPE_RAW_TRACEPOINT, asm.RETURN_0)) as program:
        os.close(lib().bpf_raw_tracepoint_open(b"bpf_xdp_link_attach_failed", program))


def memcg_accounting() -> None:
    """A call of bpf_ktime_get_coarse_ns, of the same release (as probe_memcg_account in libbpf's features.c does)."""
    coarse_ns = 160
    os.close(load.program(uapi.PROG_TYPE_XDP, asm.call(coarse_ns) + asm.RETURN_0))


def _with_btf(kind: int, btf_fd: int, target_fd: int = 0) -> int:
    function = struct.pack("=II", 0, _FUNCTION)  # struct bpf_func_info: insn_off, type_id
    info = memory.buffer(len(function), function)
    opts = ProgLoadOpts(
        prog_btf_fd=btf_fd,
        func_info=memory.address(info),
        func_info_cnt=1,
        func_info_rec_size=len(function),
        attach_prog_fd=target_fd,
        attach_btf_id=_FUNCTION if target_fd else 0,
    )
    return int(lib().bpf_prog_load(kind, b"xdpctl_probe", b"GPL", asm.RETURN_0, len(asm.RETURN_0) // 8, opts))


def _one_function() -> bytes:
    """``struct xdp_md { int data; }; int f(struct xdp_md *ctx)`` as raw BTF (linux/btf.h); f is type 5."""
    strings = b"\0int\0xdp_md\0data\0ctx\0f\0"

    def type_(name: bytes, kind: int, length: int, size_or_type: int, *rest: int) -> bytes:
        offset = strings.index(b"\0" + name + b"\0") + 1 if name else 0
        return struct.pack(f"={3 + len(rest)}I", offset, kind << 24 | length, size_or_type, *rest)

    def name(text: bytes) -> int:
        return strings.index(b"\0" + text + b"\0") + 1

    integer, pointer, structure, function, prototype = 1, 2, 4, 12, 13  # BTF_KIND_*
    types = (
        type_(b"int", integer, 0, 4, 1 << 24 | 32)  # signed, 32 bits
        + type_(b"xdp_md", structure, 1, 4, name(b"data"), 1, 0)
        + type_(b"", pointer, 0, 2)
        + type_(b"", prototype, 1, 1, name(b"ctx"), 3)
        + type_(b"f", function, 1, 4)  # global
    )
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings


_BTF = _one_function()
_FUNCTION = 5
