"""A file that can't be a BPF object is told in our words, before libbpf sees it."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.bpf.file import read_file
from xdpctl.bpf.object import Object
from xdpctl.errors import NotFoundError, ObjectError, XdpctlError


def elf(machine=247, kind=1, bits=2, order=1):
    """An ELF header and nothing after it."""
    sign = ">" if order == 2 else "<"
    return (
        b"\x7fELF" + bytes([bits, order, 1]) + bytes(9) + struct.pack(sign + "HHI", kind, machine, 1)
    ).ljust(64, b"\0")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.o", b"", "not an ELF file (empty)"),
        ("text.o", b"hello, world\n" * 10, "not an ELF file"),
        ("x.bpf.c", b"int main;" * 10, "not an ELF file, but C source"),
        ("short.o", elf()[:40], "truncated ELF file: 40 bytes"),
        ("x86.o", elf(machine=62), "for machine x86-64, not for BPF"),
        ("arm.o", elf(machine=183), "for machine AArch64"),
        ("odd.o", elf(machine=9999), "for machine 9999"),
        ("program", elf(kind=2), "not a relocatable object"),
        ("big.o", elf(order=2 if sys.byteorder == "little" else 1), "-endian, this machine is not"),
    ],
)
def test_a_wrong_file_is_told_by_what_it_is(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ObjectError) as caught:
        read_file(tmp_path / name)
    assert says in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_c_source_hints_at_the_build(tmp_path):
    (tmp_path / "x.bpf.c").write_text("int x;")
    with pytest.raises(ObjectError) as caught:
        read_file(tmp_path / "x.bpf.c")
    assert caught.value.hint == f"xdpctl build {tmp_path / 'x.bpf.c'}"


def test_a_missing_file_suggests_objects_beside_it(tmp_path):
    (tmp_path / "count.bpf.o").write_bytes(elf())
    with pytest.raises(NotFoundError) as caught:
        read_file(tmp_path / "cuont.bpf.o")
    assert "count.bpf.o" in caught.value.hint


def test_a_folder_is_told(tmp_path):
    with pytest.raises(ObjectError, match="is a directory"):
        read_file(tmp_path)


def test_an_elf_header_alone_is_refused_by_libbpf_in_one_line(tmp_path):
    (tmp_path / "hollow.o").write_bytes(elf())
    with pytest.raises(ObjectError) as caught:
        Object.open(tmp_path / "hollow.o")
    assert "libbpf can read" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_no_bytes_after_a_good_header_raise_anything_but_our_errors(tmp_path_factory, tail):
    path = tmp_path_factory.getbasetemp() / "mutated.o"
    path.write_bytes(elf()[:40] + tail)
    with contextlib.suppress(XdpctlError):
        Object.open(path).close()


GOOD = Path(__file__).resolve().parents[3] / "build" / "bpf" / "pass.bpf.o"


def test_a_file_is_looked_through_again_when_it_changed(tmp_path):
    path = tmp_path / "pass.bpf.o"
    path.write_bytes(GOOD.read_bytes())
    for _ in range(3):
        with Object.open(path) as opened:
            assert [*opened.programs] == ["xdp_pass"]
    path.write_bytes(b"\0" * GOOD.stat().st_size)
    with pytest.raises(ObjectError, match="not an ELF file"):
        Object.open(path)


def test_what_can_be_read_once_is_enough():
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(GOOD.read_bytes())
    with os.fdopen(reader, "rb"), Object.open(f"/dev/fd/{reader}") as opened:
        assert [*opened.programs] == ["xdp_pass"]
