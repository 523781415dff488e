"""Hand-made instructions are those that bpftool and the kernel know (linux/bpf.h)."""

from __future__ import annotations

from xdpctl.bpf import asm


def test_instructions_have_the_bytes_that_a_compiler_gives_them():
    assert asm.mov_imm(asm.R0, 2) == bytes.fromhex("b700000002000000")
    assert asm.leave() == bytes.fromhex("9500000000000000")
    assert asm.mov(asm.R6, asm.R1) == bytes.fromhex("bf16000000000000")
    assert asm.load(asm.R2, asm.R1, 4, asm.LDX_W) == bytes.fromhex("6112040000000000")
    assert asm.store_imm(asm.R10, -4, 7) == bytes.fromhex("620afcff07000000")
    assert asm.add_imm(asm.R2, -4) == bytes.fromhex("07020000fcffffff")
    assert asm.jump_eq_imm(asm.R0, 0, 3) == bytes.fromhex("1500030000000000")
    assert asm.call(1) == bytes.fromhex("8500000001000000")


def test_64_bit_constants_take_two_instructions():
    assert asm.load_imm64(asm.R1, 0x1122334455667788) == bytes.fromhex("18010000887766550000000044332211")
    assert asm.load_imm64(asm.R1, 2**64 - 1) == bytes.fromhex("18010000ffffffff00000000ffffffff")
    assert asm.load_map(asm.R1, 5) == bytes.fromhex("18110000050000000000000000000000")
