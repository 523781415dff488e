"""Where the plain redirects of loaded programs lead, from instructions as the kernel shows them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.bpf import asm
from xdpctl.host import plain_redirects
from xdpctl.host.plain_redirects import UNTOLD

PLAIN, BY_MAP = struct.pack("=i", 10290016), struct.pack("=i", -77)
HELPERS = {PLAIN: 23, BY_MAP: 51}
"""How calls of bpf_redirect and bpf_redirect_map look on a kernel made up here."""


def kernel_call(distance):
    return asm.insn(0x85, imm=struct.unpack("=i", distance)[0])


def ifindexes(code):
    return [one.ifindex for one in plain_redirects.targets(code, HELPERS)]


def test_a_constant_is_the_target():
    code = asm.mov_imm(asm.R1, 7) + asm.mov_imm(asm.R2, 0) + kernel_call(PLAIN) + asm.leave()
    assert ifindexes(code) == [7]


def test_either_branch_is_a_target():
    code = (
        asm.load(asm.R2, asm.R1, 0)
        + asm.mov_imm(asm.R1, 7)
        + asm.jump_eq_imm(asm.R2, 0, 1)
        + asm.mov_imm(asm.R1, 9)
        + kernel_call(PLAIN)
        + asm.leave()
    )
    assert sorted(ifindexes(code)) == [7, 9]


def test_a_function_is_followed_by_the_offset_of_its_call():
    # jit_subprogs(): the distance is in the offset, the immediate counts functions
    callee = asm.mov_imm(asm.R2, 0) + kernel_call(PLAIN) + asm.leave()
    code = asm.mov_imm(asm.R1, 5) + asm.insn(0x85, src=1, off=1, imm=1) + asm.leave() + callee
    assert ifindexes(code) == [5]


def test_what_another_function_of_the_kernel_returns_is_untold():
    lookup = struct.pack("=i", 4711)
    code = kernel_call(lookup) + asm.mov(asm.R1, asm.R0) + kernel_call(PLAIN) + asm.leave()
    assert plain_redirects.targets(code, HELPERS) == (UNTOLD,)


def test_a_distance_that_looks_like_a_helpers_number_is_none():
    code = asm.mov_imm(asm.R1, 7) + asm.insn(0x85, imm=23) + asm.leave()
    assert ifindexes(code) == []


def test_each_helper_of_tc_has_its_target_where_it_takes_it():
    peer, clone = struct.pack("=i", 5), struct.pack("=i", 6)
    code = (
        asm.mov(asm.R6, asm.R1)
        + asm.mov_imm(asm.R2, 9)
        + kernel_call(clone)
        + asm.mov_imm(asm.R1, 7)
        + asm.mov_imm(asm.R2, 0)
        + kernel_call(peer)
        + asm.leave()
    )
    found = plain_redirects.targets(code, {peer: 155, clone: 13})
    assert {(one.helper, one.ifindex) for one in found} == {
        ("bpf_clone_redirect", 9),
        ("bpf_redirect_peer", 7),
    }


def test_when_the_budget_is_used_up_nothing_is_told():
    code = asm.mov_imm(asm.R1, 7) + asm.mov_imm(asm.R2, 0) + kernel_call(PLAIN) + asm.leave()
    steps = plain_redirects.budget()
    assert plain_redirects.targets(code, HELPERS, steps)[0].ifindex == 7
    assert steps.left < plain_redirects.MOST_STEPS
    steps.left = 2
    assert plain_redirects.targets(code, HELPERS, steps) == (UNTOLD,)


def test_a_redirect_by_map_is_no_plain_one():
    code = asm.load_imm64(asm.R1, 12, asm.PSEUDO_MAP_FD) + kernel_call(BY_MAP) + asm.leave()
    assert ifindexes(code) == []


@pytest.mark.parametrize("size", range(0, 64, 8))
def test_a_program_that_is_cut_off_tells_nothing_and_raises_nothing(size):
    code = asm.load_imm64(asm.R1, 0, 2) + asm.load(asm.R1, asm.R1, 0) + kernel_call(PLAIN) + asm.leave()
    plain_redirects.targets(code[:size], HELPERS)


@given(st.lists(st.binary(min_size=8, max_size=8), max_size=12))
def test_any_bytes_end_in_an_answer(parts):
    plain_redirects.targets(b"".join(parts), HELPERS)
