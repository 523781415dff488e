"""BTF that refers to nowhere is found, since libbpf before 1.3 would crash on it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.bpf import attempts, btf_check
from xdpctl.errors import ObjectError

INT, PTR, ARRAY, STRUCT, TYPEDEF, FUNC, FUNC_PROTO, VAR, DATASEC = 1, 2, 3, 4, 8, 12, 13, 14, 15


def btf(*types, strings=b"\0name\0"):
    """Raw BTF of (kind, count, size_or_type, words after it...); every name is "name"."""
    data = b"".join(
        struct.pack(f"={3 + len(rest)}I", 1, kind << 24 | count, target, *rest)
        for kind, count, target, *rest in types
    )
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(data), len(data), len(strings)) + data + strings


NUMBER = (INT, 0, 4, 32)
GOOD = {
    "int": (NUMBER,),
    "void pointer": ((PTR, 0, 0),),
    "forward reference": ((PTR, 0, 2), NUMBER),
    "array": (NUMBER, (ARRAY, 0, 0, 1, 1, 10)),
    "struct": (NUMBER, (STRUCT, 2, 8, 1, 1, 0, 1, 1, 32)),
    "function": (NUMBER, (FUNC_PROTO, 1, 1, 1, 1), (FUNC, 1, 2)),
    "section": (NUMBER, (VAR, 0, 1, 1), (DATASEC, 1, 4, 2, 0, 4)),
}
BAD = {
    "pointer": ((PTR, 0, 9),),
    "array element": (NUMBER, (ARRAY, 0, 0, 3, 1, 10)),
    "array index": (NUMBER, (ARRAY, 0, 0, 1, 3, 10)),
    "member type": (NUMBER, (STRUCT, 2, 8, 1, 1, 0, 1, 77, 32)),
    "member name": (NUMBER, (STRUCT, 1, 8, 100, 1, 0)),
    "parameter": (NUMBER, (FUNC_PROTO, 1, 1, 1, 5)),
    "result": (NUMBER, (FUNC_PROTO, 0, 6)),
    "function of no prototype": (NUMBER, (FUNC, 0, 1)),
    "variable": ((VAR, 0, 4, 1),),
    "section entry": (NUMBER, (DATASEC, 1, 4, 3, 0, 4)),
}


@pytest.mark.parametrize("case", GOOD)
def test_references_to_what_is_there_are_fine(case):
    assert btf_check.damaged(btf(*GOOD[case])) is None


@pytest.mark.parametrize("case", BAD)
def test_a_reference_to_nowhere_is_found(case):
    assert btf_check.damaged(btf(*BAD[case]))


def test_a_name_outside_of_the_strings_is_found():
    assert btf_check.damaged(btf(NUMBER, strings=b"\0")) == "type 1 with a name outside of the strings"


def test_the_btf_of_our_own_probe_is_sound():
    assert btf_check.damaged(attempts._BTF) is None


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: btf(NUMBER)[:24] + tail))
def test_no_bytes_make_it_raise(data):
    btf_check.damaged(data)


@given(st.binary(max_size=400))
def test_no_file_makes_it_raise_anything_but_our_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.o"
    path.write_bytes(b"\x7fELF" + data)
    btf_check.check(path, path.read_bytes())


def elf(content):
    """An ELF file with that content as its .BTF section, and no more than that needs."""
    names = b"\0.BTF\0.shstrtab\0"
    start = 64 + len(content) + len(names)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "=HHIQQQIHHHHHH", 1, 247, 1, 0, 0, start, 0, 64, 0, 0, 64, 3, 2
    )
    sections = [(0, 0, 0, 0), (1, 1, 64, len(content)), (6, 3, 64 + len(content), len(names))]
    table = b"".join(
        struct.pack("=IIQQQQIIQQ", name, kind, 0, 0, at, size, 0, 0, 1, 0)
        for name, kind, at, size in sections
    )
    return header + content + names + table


def test_a_damaged_file_is_told_with_the_reference(tmp_path):
    (tmp_path / "good.o").write_bytes(elf(btf(*GOOD["struct"])))
    btf_check.check(tmp_path / "good.o", (tmp_path / "good.o").read_bytes())
    (tmp_path / "bad.o").write_bytes(elf(btf(*BAD["pointer"])))
    with pytest.raises(
        ObjectError, match=r"bad\.o is damaged: its BTF has type 1 that refers to type 9; there are 1"
    ):
        btf_check.check(tmp_path / "bad.o", (tmp_path / "bad.o").read_bytes())
