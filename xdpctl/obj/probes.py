"""What this kernel lets programs do, tried with programs of a few instructions (BPF_PROG_LOAD, BPF_MAP_CREATE).

libbpf's own probes are not enough: before 1.5 libbpf_probe_bpf_helper does not know the sentence with which kernels
from 6.8 on refuse a helper, and answers yes.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING

from xdpctl.obj.helpers import HELPER_NUMBERS
from xdpctl.obj.kinds import ATTACH_TYPE_NUMBERS, MAP_TYPE_NUMBERS, PROGRAM_TYPE_NUMBERS

if TYPE_CHECKING:
    from xdpctl.obj.model import ObjProgram

UNSURE = "unsure"
"""Answer of `target` where the refusal could have another reason."""

_REFUSED = ("invalid func ", "unknown func ", "cannot use helper")
"""How check_helper_call() refuses: before 4.10, before 6.8, since."""
_SLEEPABLE, _FRAGS = 1 << 4, 1 << 5
"""BPF_F_SLEEPABLE, BPF_F_XDP_HAS_FRAGS."""
_UNPROBED = frozenset(("ext", "struct_ops", "tracing", "lsm"))
"""They need an attach target, or more."""


@cache
def allowed() -> bool:
    """Whether we may load programs at all, and have a libbpf to do it."""
    from xdpctl.bpf.failure import lacks
    from xdpctl.errors import XdpctlError

    try:
        from xdpctl.libbpf.library import lib

        lib()
    except XdpctlError:
        return False
    return not lacks("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON")


def program_type(name: str) -> bool | None:
    """Whether the kernel has a program type; None: can't be told."""
    if name in _UNPROBED or name not in PROGRAM_TYPE_NUMBERS:
        return None
    known = _libbpf_answer("libbpf_probe_bpf_prog_type", PROGRAM_TYPE_NUMBERS[name])
    return _netfilter() if known is None and name == "netfilter" else known


def map_type(name: str) -> bool | None:
    """Whether the kernel has a map type; None: can't be told."""
    if name not in MAP_TYPE_NUMBERS or name in ("struct_ops", "unspec"):
        return None
    return _libbpf_answer("libbpf_probe_bpf_map_type", MAP_TYPE_NUMBERS[name])


@cache
def _libbpf_answer(function: str, number: int) -> bool | None:
    from xdpctl.libbpf.library import CallError, lib

    try:
        return bool(getattr(lib(), function)(number, None))
    except CallError:
        return None


@cache
def _netfilter() -> bool | None:
    """Netfilter programs (Linux 6.4) by attempt: libbpf has a probe for them since 1.3."""
    import errno

    from xdpctl.bpf import load
    from xdpctl.libbpf.library import CallError

    accept = bytes.fromhex("b7000000010000009500000000000000")  # r0 = NF_ACCEPT; exit
    try:
        number = PROGRAM_TYPE_NUMBERS["netfilter"]
        fd = load.program(number, accept, attach_type=ATTACH_TYPE_NUMBERS["netfilter"])
    except CallError as why:
        return False if why.code == errno.EINVAL else None
    os.close(fd)
    return True


@cache
def frags() -> bool:
    """Whether XDP programs may be loaded for frames of several buffers (5.18)."""
    from xdpctl.bpf.features import probe

    return probe("frags")


def _load(one: ObjProgram, body: bytes, btf_id: int | None) -> tuple[int, str]:
    """(errno or 0, verifier log) of loading instructions as this kind of program."""
    from xdpctl.bpf import load
    from xdpctl.libbpf.library import CallError
    from xdpctl.libbpf.memory import buffer

    log = buffer(8192)
    flags = (_SLEEPABLE if one.sleepable else 0) | (_FRAGS if one.frags else 0)
    try:
        fd = load.program(
            PROGRAM_TYPE_NUMBERS[one.type or "unspec"],
            body,
            attach_type=ATTACH_TYPE_NUMBERS.get(one.attach_type or "", 0),
            flags=flags,
            attach_btf_id=btf_id or 0,
            log=log,
        )
    except CallError as why:
        return why.code, bytes(log).split(b"\0", 1)[0].decode("utf-8", "replace")
    os.close(fd)
    return 0, ""


def helper(one: ObjProgram, name: str, btf_id: int | None) -> bool | None:
    """Whether programs of this kind may call a helper; None: can't be told."""
    from xdpctl.bpf import asm

    number = HELPER_NUMBERS.get(name)
    if number is None:
        return False  # no kernel has it
    if one.type in _UNPROBED and btf_id is None:
        return None
    code, log = _load(one, asm.call(number) + asm.RETURN_0, btf_id)
    if code == 0:
        return True
    if any(words in log for words in _REFUSED):
        return False
    return True if log else None


def target(one: ObjProgram, btf_id: int) -> str | None:
    """Load ``return 0`` for a kernel function: None, or the name of the errno; UNSURE where it tells nothing."""
    from xdpctl.bpf import asm

    code, log = _load(one, asm.RETURN_0, btf_id)
    if code == 0:
        return None
    if code in (errno.EPERM, errno.ENOTSUP) or "is not" in log or not log:
        return errno.errorcode.get(code, str(code)) if code != errno.ENOTSUP else "EOPNOTSUPP"
    return UNSURE
