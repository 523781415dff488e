"""XDP programs and links straight through bpf(2), assembled by hand: nothing of what is judged takes part.

No clang, no libbpf, no BTF: what loads here loads on 5.10 as well, and each act gets a fresh program with its
target in its instructions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

_LIBC = ctypes.CDLL(None, use_errno=True)
_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _INFO_BY_FD, _LINK_CREATE = 0, 2, 5, 15, 28

PROG_TYPE_XDP = 6
ATTACH_TYPES = {"xdp": 37, "xdp/devmap": 33, "xdp/cpumap": 35}
MAP_TYPES = {"devmap": 14, "devmap_hash": 25}
HAS_FRAGS, DEV_BOUND_ONLY = 1 << 5, 1 << 6
FLAGS_IF_NOEXIST, FLAGS_REPLACE = 1 << 0, 1 << 4
MODE_FLAGS = {"generic": 1 << 1, "native": 1 << 2, "offload": 1 << 3}

_REDIRECT, _REDIRECT_MAP = 23, 51
_DW_IMM, _MOV_IMM, _CALL, _EXIT = 0x18, 0xB7, 0x85, 0x95
_PSEUDO_MAP_FD = 1


class Refused(Exception):  # noqa: N818 - a fact about the kernel, not a failure of the oracle
    """The kernel answered with an errno."""

    def __init__(self, number: int, extack: str | None = None, stage: str = "attach") -> None:
        super().__init__(f"{stage}: {os.strerror(number)}" + (f" ({extack})" if extack else ""))
        self.number = number
        self.extack = extack
        self.stage = stage


def checked(result: int) -> int:
    """A system call's result, or `OSError`."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _bpf(command: int, attr: bytes) -> int:
    memory = ctypes.create_string_buffer(attr, 128)
    return checked(_LIBC.syscall(_BPF, command, memory, len(memory)))


def _insn(code: int, dst: int = 0, src: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, 0, imm)


def returning(action: int) -> bytes:
    """A program that returns one XDP action."""
    return _insn(_MOV_IMM, imm=action) + _insn(_EXIT)


ABORTED, DROP, PASS, TX = (returning(action) for action in range(4))


def redirect(ifindex: int) -> bytes:
    """``return bpf_redirect(ifindex, 0)``."""
    return _insn(_MOV_IMM, 1, imm=ifindex) + _insn(_MOV_IMM, 2) + _insn(_CALL, imm=_REDIRECT) + _insn(_EXIT)


def redirect_map(map_fd: int, key: int) -> bytes:
    """``return bpf_redirect_map(&map, key, 0)``: flags 0, so a missing entry returns XDP_ABORTED."""
    return (
        _insn(_DW_IMM, 1, _PSEUDO_MAP_FD, map_fd)
        + _insn(0)
        + _insn(_MOV_IMM, 2, imm=key)
        + _insn(_MOV_IMM, 3)
        + _insn(_CALL, imm=_REDIRECT_MAP)
        + _insn(_EXIT)
    )


@dataclass
class Program:
    """A loaded XDP program; closed with its descriptor."""

    fd: int
    id: int

    def close(self) -> None:
        os.close(self.fd)


def load(
    code: bytes,
    *,
    frags: bool = False,
    attach_type: str = "xdp",
    ifindex: int = 0,
    offloaded: bool = False,
) -> Program:
    """Load a program, `ifindex` binding it to a device.

    Raises:
        Refused: with stage ``load``.
    """
    text, license_, log = (ctypes.create_string_buffer(one) for one in (code, b"GPL", bytes(4096)))
    flags = (HAS_FRAGS if frags else 0) | (DEV_BOUND_ONLY if ifindex and not offloaded else 0)
    attr = struct.pack(
        "<IIQQIIQII16sII",
        PROG_TYPE_XDP,
        len(code) // 8,
        ctypes.addressof(text),
        ctypes.addressof(license_),
        1,
        len(log),
        ctypes.addressof(log),
        0,
        flags,
        b"oracle",
        ifindex,
        ATTACH_TYPES[attach_type],
    )
    try:
        fd = _bpf(_PROG_LOAD, attr)
    except OSError as error:
        raise Refused(error.errno or errno.EIO, log.value.decode() or None, "load") from error
    info = ctypes.create_string_buffer(64)
    _bpf(_INFO_BY_FD, struct.pack("<IIQ", fd, len(info), ctypes.addressof(info)))
    return Program(fd, struct.unpack_from("<I", info.raw, 4)[0])


def create_devmap(kind: str, *, with_programs: bool = False) -> int:
    """A devmap or devmap_hash of eight slots, values with a program where asked; returns its descriptor."""
    value_size = 8 if with_programs else 4
    return _bpf(_MAP_CREATE, struct.pack("<IIIII", MAP_TYPES[kind], 4, value_size, 8, 0))


def set_slot(map_fd: int, key: int, ifindex: int, program_fd: int | None = None) -> None:
    """Put a device into a devmap (in the current network namespace).

    Raises:
        Refused: with stage ``devmap``: the kernel looks the ifindex up and checks the entry's program.
    """
    packed = struct.pack("<I", ifindex) + (struct.pack("<i", program_fd) if program_fd is not None else b"")
    where, what = ctypes.create_string_buffer(struct.pack("<I", key)), ctypes.create_string_buffer(packed)
    try:
        _bpf(
            _MAP_UPDATE, struct.pack("<IIQQQ", map_fd, 0, ctypes.addressof(where), ctypes.addressof(what), 0)
        )
    except OSError as error:
        raise Refused(error.errno or errno.EIO, None, "devmap") from error


def create_link(program_fd: int, ifindex: int, flags: int) -> int:
    """``BPF_LINK_CREATE`` on an interface of the current network namespace; returns the link's descriptor.

    Raises:
        Refused: with stage ``attach``; the kernel keeps the extack to itself here.
    """
    try:
        return _bpf(_LINK_CREATE, struct.pack("<IIII", program_fd, ifindex, ATTACH_TYPES["xdp"], flags))
    except OSError as error:
        raise Refused(error.errno or errno.EIO) from error
