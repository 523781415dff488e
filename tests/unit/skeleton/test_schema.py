"""What a map's schema says, how two versions differ, and what copying by field name makes of values."""

from __future__ import annotations

import os
import struct
import subprocess

import numpy as np
import pytest

from xdpctl.obj import reader
from xdpctl.skeleton import schema
from xdpctl.skeleton.convert import MisfitError, converter

PAIRS = {
    "same": ("struct { __u64 a; __u32 b; }", "struct { unsigned long long a; unsigned int b; }"),
    "grown": ("struct { __u64 a; __u32 b; }", "struct { __u64 a; __u32 b; __u32 c; __u64 d; }"),
    "in_padding": ("struct { __u32 a; __u64 b; }", "struct { __u32 a; __u16 flags; __u64 b; }"),
    "moved": ("struct { __u64 a; __u64 b; }", "struct { __u64 b; __u64 a; }"),
    "wider": ("struct { __u32 a; __s32 b; }", "struct { __u64 a; __s64 b; }"),
    "narrower": ("struct { __u64 a; __s64 b; }", "struct { __u32 a; __s16 b; }"),
    "renamed": ("struct { __u64 bytes; __u64 n; }", "struct { __u64 octets; __u64 n; }"),
    "shrunk": ("struct { __u64 a; __u64 b; __u8 c[8]; }", "struct { __u64 a; }"),
    "sign": ("struct { __u32 a; }", "struct { __s32 a; }"),
    "fraction": ("struct { __u32 a; }", "struct { float a; }"),
    "address": ("struct { __u8 a[16]; __u32 t; }", "struct { struct in6_addr a; __u32 t; }"),
    "nested": (
        "struct { struct { __u32 x; __u32 y; } p; __u32 n; }",
        "struct { __u32 n; struct { __u32 x; __u32 z; __u32 y; } p; }",
    ),
    "slots": ("struct { struct { __u32 a; } s[4]; }", "struct { struct { __u32 a; __u32 b; } s[6]; }"),
    "fewer": ("struct { __u32 s[4]; }", "struct { __u32 s[2]; }"),
    "bits": (
        "struct { __u32 a : 3; __u32 b : 7; __s32 c : 5; }",
        "struct { __u32 x; __u32 b : 9; __s32 c : 4; __u32 a : 2; }",
    ),
    "union": (
        "struct { union { __u32 v4; __u8 v6[16]; }; __u8 f; }",
        "struct { __u8 f; union { __u32 v4; __u8 v6[16]; }; }",
    ),
    "union_grown": ("struct { union { __u32 v4; }; }", "struct { union { __u32 v4; __u8 v6[16]; }; }"),
    "union_changed": ("struct { union { __u32 v4; __u16 p; }; }", "struct { union { __u64 v4; __u16 p; }; }"),
    "enumerated": ("struct { enum { A0, B0 } e; }", "struct { __u32 e; }"),
    "text": ("struct { char n[8]; }", "struct { __u8 n[12]; }"),
    "flag": ("struct { __u8 on; }", "struct { _Bool on; }"),
    "matrix": ("struct { __u8 m[2][3]; }", "struct { __u8 m[2][4]; }"),
    "locked": ("struct { struct bpf_spin_lock l; __u32 n; }", "struct { struct bpf_spin_lock l; __u32 n; __u32 m; }"),
    "number": ("__u32", "__u64"),
    "to_struct": ("__u64", "struct { __u64 a; }"),
    "typedef": ("__u64", "unsigned long long"),
}  # fmt: skip


def one_map(name, value, extra=""):
    return f"""struct {{ __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
        typeof({value}) (*value); {extra} }} {name} SEC(".maps");"""


@pytest.fixture(scope="module")
def obj(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schema")
    lines = ["#include <linux/bpf.h>", "#include <linux/in6.h>", "#include <bpf/bpf_helpers.h>"]
    for name, (old, new) in PAIRS.items():
        lines += [one_map(f"{name}_old", old), one_map(f"{name}_new", new)]
    source = folder / "x.bpf.c"
    lines.append('SEC("xdp") int pass(struct xdp_md *c) { return XDP_PASS; }')
    source.write_text("\n".join(lines))
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    argv = [
        "clang",
        "-g",
        "-O2",
        "-Wno-everything",
        "-target",
        "bpf",
        "-I",
        include,
        "-c",
        source,
        "-o",
        folder / "x.o",
    ]
    subprocess.run(argv, check=True, timeout=60)
    return reader.read(folder / "x.o")


@pytest.fixture(scope="module")
def compare(obj):
    def run(name):
        old, new = obj.map(f"{name}_old"), obj.map(f"{name}_new")
        return schema.difference(schema.of_file(obj, old), schema.of_file(obj, new))

    return run


def copy(difference, *values: bytes) -> list[bytes]:
    made = converter("value", difference.old.value, difference.new.value).convert(
        np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
    )
    return [one.tobytes() for one in made]


def told(difference):
    return {one.path: (one.how, one.copy if one.can_copy else "no") for one in difference.fields}


@pytest.mark.parametrize(
    ("name", "fields", "reusable"),
    [
        ("same", {}, True),
        ("typedef", {}, True),
        ("enumerated", {}, True),
        ("grown", {"c": (("added",), "zero"), "d": (("added",), "zero")}, False),
        ("in_padding", {"flags": (("added",), "zero")}, True),
        ("moved", {"a": (("moved",), "kept"), "b": (("moved",), "kept")}, False),
        ("wider", {"a": (("resized",), "widened"), "b": (("moved", "resized"), "widened")}, False),
        ("narrower", {"a": (("resized",), "checked"), "b": (("moved", "resized"), "checked")}, False),
        ("renamed", {"octets": (("renamed",), "zero")}, True),
        ("shrunk", {"b": (("removed",), "dropped"), "c": (("removed",), "dropped")}, False),
        ("sign", {"a": (("retyped",), "checked")}, True),
        ("fraction", {"a": (("retyped",), "no")}, False),
        ("address", {"a": (("retyped",), "kept")}, True),
        ("nested", {"n": (("moved",), "kept"), "p": (("moved",), "kept"), "p.z": (("added",), "zero"),
                    "p.y": (("moved",), "kept")}, False),
        ("slots", {"s": (("resized",), "widened"), "s[].b": (("added",), "zero")}, False),
        ("fewer", {"s": (("resized",), "checked")}, False),
        ("union", {"f": (("moved",), "kept"), "(v4 | v6)": (("moved",), "kept")}, False),
        ("union_grown", {"(v4 | v6)": (("resized",), "widened")}, False),
        ("union_changed", {"(v4 | p)": (("retyped",), "no")}, False),
        ("text", {"n": (("resized",), "widened")}, False),
        ("flag", {"on": (("retyped",), "checked")}, True),
        ("matrix", {"m": (("retyped",), "no")}, False),
        ("locked", {"m": (("added",), "zero")}, False),
        ("number", {"": (("resized",), "widened")}, False),
        ("to_struct", {"": (("retyped",), "kept")}, True),
    ],
)  # fmt: skip
def test_each_field_that_differs_is_told_with_what_copying_does(compare, name, fields, reusable):
    found = compare(name)
    assert told(found) == fields
    assert (found.why_not_reuse() is None) == reusable
    assert (found.why_not_copy() is None) == all(copied != "no" for _, copied in fields.values())
    assert found.same == (not fields)


def test_the_difference_reads_as_a_table(compare):
    assert compare("grown").lines() == [
        "value: 16 bytes (struct {...}) -> 24 bytes (struct {...})",
        "  + c  __u32 at 12  added  copy: zero",
        "  + d  __u64 at 16  added  copy: zero",
    ]
    assert compare("grown").summary() == "value grows from 16 to 24 bytes (2 fields added)"
    assert compare("renamed").lines()[1:] == [
        "  ? octets  bytes: __u64 at 0 -> __u64 at 0  looks renamed  copy: zero"
    ]
    shape = compare("wider").to_json()
    assert shape["differs"] == [{"what": "value_size", "old": 8, "new": 16}]
    assert shape["fields"][0] == {
        "part": "value", "path": "a", "how": ["resized"], "copy": "widened", "why_not_copy": None,
        "old": {"name": "a", "type": "__u32", "offset": 0, "bits": 32},
        "new": {"name": "a", "type": "__u64", "offset": 0, "bits": 64},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "layout_old", "old", "layout_new", "new"),
    [
        ("grown", "=QI4x", (7, 8), "=QIIQ", (7, 8, 0, 0)),
        ("moved", "=QQ", (1, 2), "=QQ", (2, 1)),
        ("wider", "=Ii", (0xFFFFFFFF, -5), "=Qq", (0xFFFFFFFF, -5)),
        ("narrower", "=Qq", (0xFFFFFFFF, -0x8000), "=Ihxx", (0xFFFFFFFF, -0x8000)),
        ("renamed", "=QQ", (5, 6), "=QQ", (0, 6)),
        ("shrunk", "=QQ8s", (5, 6, b"12345678"), "=Q", (5,)),
        ("nested", "=III", (1, 2, 3), "=IIII", (3, 1, 0, 2)),
        ("slots", "=4I", (1, 2, 3, 4), "=12I", (1, 0, 2, 0, 3, 0, 4, 0, 0, 0, 0, 0)),
        ("fewer", "=4I", (1, 2, 0, 0), "=2I", (1, 2)),
        ("union", "=16sB3x", (bytes(range(16)), 9), "=B3x16s", (9, bytes(range(16)))),
        ("union_grown", "=I", (5,), "=I12x", (5,)),
        ("text", "=8s", (b"eth0",), "=12s", (b"eth0".ljust(12, b"\0"),)),
        ("flag", "=B", (1,), "=B", (1,)),
        ("number", "=I", (2**32 - 1,), "=Q", (2**32 - 1,)),
        ("locked", "=II", (0, 3), "=III", (0, 3, 0)),
    ],
)
def test_values_are_copied_by_field_name(compare, name, layout_old, old, layout_new, new):
    packed = struct.pack(layout_old, *(one.ljust(8, b"\0") if one == b"eth0" else one for one in old))
    zeros = bytes(len(packed))
    first, second = copy(compare(name), zeros, packed)
    assert first == bytes(struct.calcsize(layout_new))
    assert struct.unpack(layout_new, second) == new


def test_bitfields_are_copied_as_numbers(compare):
    a, b, c = 2, 100, -6
    old = struct.pack("=I", a | b << 3 | (c & 31) << 10)
    found = copy(compare("bits"), old)[0]
    x, word = struct.unpack("=II", found)
    assert x == 0
    assert word & 511 == b
    assert (word >> 9 & 15) - 16 == c
    assert word >> 13 & 3 == a
    with pytest.raises(MisfitError, match=r"value\.c: -9 does not fit"):
        copy(compare("bits"), struct.pack("=I", (-9 & 31) << 10))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("narrower", struct.pack("=Qq", 2**32, 0), r"value\.a: 4294967296 does not fit __u32"),
        ("narrower", struct.pack("=Qq", 0, -0x8001), r"value\.b: -32769 does not fit __s16"),
        ("sign", struct.pack("=I", 2**31), r"value\.a: 2147483648 does not fit __s32"),
        ("flag", b"\2", r"value\.on: 2 does not fit _Bool"),
        ("fewer", struct.pack("=4I", 0, 0, 1, 0), r"value\.s: the elements that the new one has no room for"),
    ],
)
def test_a_value_that_does_not_fit_is_named(compare, name, value, message):
    with pytest.raises(MisfitError, match=message) as caught:
        copy(compare(name), bytes(len(value)), value, value)
    assert caught.value.row == 1


def test_without_btf_only_sizes_are_compared():
    def plain(size, entries=8, kind="hash"):
        return schema.MapSchema("m", kind, schema.Side(4), schema.Side(size), entries, 0)

    assert schema.difference(plain(8), plain(8)).same
    grown = schema.difference(plain(8), plain(16))
    assert "no BTF" in grown.why_not_copy()
    assert grown.why_not_reuse() == "its value size changes from 8 to 16"
    larger = schema.difference(plain(8), plain(8, entries=16))
    assert larger.why_not_reuse() is larger.why_not_copy() is None
    assert larger.summary() == "max_entries 8 becomes 16"
    assert schema.difference(plain(8), plain(8, kind="lru_hash")).why_not_copy() is None
    assert "can't become" in schema.difference(plain(8), plain(8, kind="percpu_hash")).why_not_copy()
    assert (
        "one by one" in schema.difference(plain(8, kind="queue"), plain(8, 16, kind="queue")).why_not_copy()
    )
