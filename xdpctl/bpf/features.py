"""What this kernel can do, found out by trying on throwaway objects, once a process (no version is compared)."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf import asm, load
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import MapBatchOpts, TestRunOpts

if TYPE_CHECKING:
    from collections.abc import Callable

NO_DEVICE = 2**31 - 1
"""An ifindex that no device has: what is refused for its sake alone is otherwise supported."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature."""

    name: str
    what: str
    """In a few words, as `xdpctl features` prints it."""
    since: str
    """Where it came, for messages only; the answer comes from `attempt`."""
    attempt: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attempt brought."""

    supported: bool | None
    """None: it could not be tried (a capability is missing, say)."""
    evidence: str
    """The errno or the call that decided."""


def _link(attach_type: int, kind: int) -> bool:
    """Attach to a device that does not exist: ENODEV tells that the kernel looked for it, EINVAL that it did not."""
    program = load.program(kind, asm.RETURN_0)
    try:
        os.close(lib().bpf_link_create(program, NO_DEVICE, attach_type, None))
    except CallError as why:
        if why.code == errno.EINVAL:
            return False
        if why.code in {errno.ENODEV, errno.ENXIO}:
            return True
        raise
    finally:
        os.close(program)
    return True


def _frags() -> bool:
    os.close(
        load.program(uapi.PROG_TYPE_XDP, asm.RETURN_0, attach_type=uapi.XDP, flags=uapi.BPF_F_XDP_HAS_FRAGS)
    )
    return True


def _btf() -> bool:
    return Path("/sys/kernel/btf/vmlinux").exists()


def _live_frames() -> bool:
    """A frame of no bytes is refused in either case, but an unknown flag before anything is looked at."""
    program = load.program(uapi.PROG_TYPE_XDP, asm.mov_imm(asm.R0, 1) + asm.leave(), attach_type=uapi.XDP)
    frame = memory.buffer(64)
    opts = TestRunOpts(
        data_in=memory.address(frame), data_size_in=64, repeat=1, flags=uapi.BPF_F_TEST_XDP_LIVE_FRAMES
    )
    try:  # XDP_DROP, so nothing leaves
        lib().bpf_prog_test_run_opts(program, opts)
    finally:
        os.close(program)
    return True


def _traced(kind: int, attach_type: int, function: str) -> bool:
    """Load a program for a kernel function and attach it: only that shows whether trampolines work here."""
    btf_id = lib().libbpf_find_vmlinux_btf_id(function.encode(), attach_type)
    program = load.program(kind, asm.RETURN_0, attach_type=attach_type, attach_btf_id=btf_id)
    try:
        os.close(lib().bpf_raw_tracepoint_open(None, program))
    finally:
        os.close(program)
    return True


def _fentry() -> bool:
    return _traced(uapi.PROG_TYPE_TRACING, uapi.TRACE_FENTRY, "bpf_fentry_test1")


def _tp_btf() -> bool:
    return _traced(uapi.PROG_TYPE_TRACING, uapi.TRACE_RAW_TP, "xdp_exception")


def _batch_maps() -> bool:
    array = load.array(8)
    try:
        values, count = memory.buffer(8), memory.U32(1)
        lib().bpf_map_update_batch(array, bytes(4), values, count, MapBatchOpts())
    finally:
        os.close(array)
    return True


def _tracepoint(name: str) -> bool:
    program = load.program(uapi.PROG_TYPE_RAW_TRACEPOINT, asm.RETURN_0)
    try:
        os.close(lib().bpf_raw_tracepoint_open(name.encode(), program))
    finally:
        os.close(program)
    return True


def _map(kind: str, key: int, value: int, entries: int, flags: int = 0) -> bool:
    os.close(load.map_(uapi.MAP_TYPES.index(kind), key, value, entries, flags=flags))
    return True


def _xdp_link() -> bool:
    """BPF_LINK_DETACH of a descriptor that is none: EBADF tells that the command is there.

    A link attach to no device is EINVAL with and without XDP links, so the command that came with them answers.
    """
    try:
        lib().bpf_link_detach(-1)
    except CallError as why:
        return why.code == errno.EBADF
    return True


def _sleepable() -> bool:
    os.close(load.program(uapi.PROG_TYPE_SYSCALL, asm.RETURN_0, flags=uapi.BPF_F_SLEEPABLE))
    return True


def _netdev_genl() -> bool:
    from xdpctl.errors import NotFoundError
    from xdpctl.netlink import genl

    try:
        with genl.genl_socket(None) as sock:
            genl.family_id(sock, "netdev")
    except (UnsupportedError, NotFoundError):
        return False
    return True


def _memcg() -> bool:
    """As libbpf finds out (probe_memcg_account in features.c): bpf_ktime_get_coarse_ns came in the same release."""
    os.close(load.program(uapi.PROG_TYPE_XDP, asm.call(160) + asm.RETURN_0))
    return True


def _freplace() -> bool:
    return False


_XDP, _TC = uapi.PROG_TYPE_XDP, uapi.PROG_TYPE_SCHED_CLS

FEATURES = {
    one.name: one
    for one in (
        Feature("xdp_link", "attach XDP by a bpf_link", "Linux 5.9", _xdp_link),
        Feature(
            "tcx", "attach TC programs by links, in order", "Linux 6.6", lambda: _link(uapi.TCX_INGRESS, _TC)
        ),
        Feature("netkit", "netkit devices", "Linux 6.7", lambda: _link(uapi.NETKIT_PRIMARY, _TC)),
        Feature("frags", "XDP on frames of several buffers", "Linux 5.18", _frags),
        Feature("btf", "the kernel's own BTF, for CO-RE", "Linux 5.4", _btf),
        Feature(
            "netdev_genl",
            "generic netlink family netdev (XDP features of a device)",
            "Linux 6.3",
            _netdev_genl,
        ),
        Feature("live_frames", "test runs that really send frames", "Linux 5.18", _live_frames),
        Feature(
            "fentry", "programs at entry and exit of kernel functions and of programs", "Linux 5.5", _fentry
        ),
        Feature("freplace", "replacing a function of a loaded program (dispatchers)", "Linux 5.6", _freplace),
        Feature("tp_btf", "tracepoints with typed arguments", "Linux 5.5", _tp_btf),
        Feature("sleepable", "programs that may sleep", "Linux 5.10 (tried: 5.14)", _sleepable),
        Feature("batch_maps", "map operations on many elements at once", "Linux 5.6", _batch_maps),
        Feature(
            "ringbuf",
            "ring buffer maps",
            "Linux 5.8",
            lambda: _map("ringbuf", 0, 0, os.sysconf("SC_PAGE_SIZE")),
        ),
        Feature(
            "devmap_program", "a program on each devmap entry", "Linux 5.8", lambda: _map("devmap", 4, 8, 1)
        ),
        Feature(
            "cpumap_program", "a program on each cpumap entry", "Linux 5.9", lambda: _map("cpumap", 4, 8, 1)
        ),
        Feature("xskmap", "AF_XDP sockets", "Linux 4.18", lambda: _map("xskmap", 4, 4, 1)),
        Feature(
            "link_extack",
            "the reason why an XDP link was refused (tracepoint xdp:bpf_xdp_link_attach_failed)",
            "Linux 6.6",
            lambda: _tracepoint("bpf_xdp_link_attach_failed"),
        ),
        Feature("memcg_accounting", "BPF memory outside of RLIMIT_MEMLOCK", "Linux 5.11", _memcg),
    )
}
"""By name."""

_DENIED = {errno.EPERM, errno.EACCES}


@cache
def answer(name: str) -> Answer:
    """Whether this kernel has a feature, and how that was found out.

    Raises:
        KeyError: no such feature.
        UnsupportedError: there is no usable libbpf.
    """
    feature = FEATURES[name]
    lib()
    try:
        supported = feature.attempt()
    except CallError as why:
        from xdpctl.bpf.failure import lacks

        missing = lacks("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON") if why.code in _DENIED else []
        evidence = f"{why.function}: {errno.errorcode.get(why.code, why.code)}"
        if missing:
            return Answer(None, f"{evidence} (without {' and '.join(missing)})")
        return Answer(False, evidence)
    return Answer(supported, "tried")


def probe(name: str) -> bool:
    """Whether this kernel is known to have a feature; False also where it could not be tried.

    Raises:
        KeyError: no such feature.
        UnsupportedError: there is no usable libbpf.
    """
    return bool(answer(name).supported)


def all() -> dict[str, Answer]:  # noqa: A001 - reads as features.all()
    """Every feature's answer."""
    return {name: answer(name) for name in FEATURES}
