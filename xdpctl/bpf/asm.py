"""BPF instructions by hand, for programs of a few lines that no object file should be needed for (linux/bpf.h)."""

from __future__ import annotations

import struct

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

LDX_DW, LDX_W, STX_DW, ST_W, ST_DW = 0x79, 0x61, 0x7B, 0x62, 0x7A
PSEUDO_MAP_FD = 1


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One instruction (struct bpf_insn)."""
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def mov(dst: int, src: int) -> bytes:
    """``dst = src``, registers."""
    return insn(0xBF, dst, src)


def mov_imm(dst: int, value: int) -> bytes:
    """``dst = value``, sign extended from 32 bits."""
    return insn(0xB7, dst, imm=value)


def load_imm64(dst: int, value: int, src: int = 0) -> bytes:
    """``dst = value ll``; two instructions."""
    value &= 2**64 - 1
    low, high = struct.unpack("=ii", struct.pack("=Q", value)) if src == 0 else (value, 0)
    return insn(0x18, dst, src, imm=low) + insn(0, imm=high)


def load_map(dst: int, fd: int) -> bytes:
    """``dst = map``, by file descriptor."""
    return load_imm64(dst, fd, PSEUDO_MAP_FD)


def load(dst: int, src: int, off: int, code: int = LDX_DW) -> bytes:
    """``dst = *(u64 *)(src + off)``."""
    return insn(code, dst, src, off)


def store_imm(dst: int, off: int, value: int, code: int = ST_W) -> bytes:
    """``*(u32 *)(dst + off) = value``."""
    return insn(code, dst, off=off, imm=value)


def add_imm(dst: int, value: int) -> bytes:
    """``dst += value``."""
    return insn(0x07, dst, imm=value)


def jump_eq_imm(dst: int, value: int, off: int) -> bytes:
    """``if dst == value goto +off``."""
    return insn(0x15, dst, off=off, imm=value)


def jump_ne_imm(dst: int, value: int, off: int) -> bytes:
    """``if dst != value goto +off``."""
    return insn(0x55, dst, off=off, imm=value)


def call(helper: int) -> bytes:
    """Call of a BPF helper by number."""
    return insn(0x85, imm=helper)


def leave() -> bytes:
    """``exit``."""
    return insn(0x95)


RETURN_0 = mov_imm(R0, 0) + leave()
"""The smallest program; for XDP 0 is XDP_ABORTED, so a throwaway one never passes by accident."""
