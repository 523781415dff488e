"""C memory holds what it was given, and a lazy buffer costs nothing."""

from __future__ import annotations

import ctypes
import resource

import pytest

from xdpctl.libbpf import memory


def test_a_buffer_begins_with_its_bytes_and_is_zero_after():
    assert memory.buffer(6, b"ab\0c").raw == b"ab\0c\0\0"
    assert memory.buffer(2, b"abcdef").raw == b"ab"
    assert len(memory.buffer(0)) == 1


def test_memory_is_read_and_written_by_address():
    held = memory.buffer(8)
    memory.write(memory.address(held) + 2, b"xyz")
    assert memory.read(memory.address(held), 8) == b"\0\0xyz\0\0\0"


@pytest.mark.parametrize("kind", [memory.U32, memory.Size, memory.Pointer])
def test_outputs_pass_by_address_where_a_function_takes_a_pointer(kind):
    memset = ctypes.CDLL(None).memset
    memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    number = kind(5)
    assert number.value == 5
    memset(number, 1, 4)
    assert number.value == 0x01010101


def test_a_lazy_buffer_takes_no_memory_before_it_is_written():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = [memory.LazyBuffer(64 * 2**20) for _ in range(8)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * 1024  # KiB
    memory.write(held[0].address, b"verdict\0rest")
    assert held[0].text() == "verdict"
    held[0].clear()
    assert held[0].text() == ""
