"""Keys and values as text: each type both ways, files read as columns and line by line, and what is refused."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpctl.bpf.batch import Batch
from xdpctl.btf.layout import layout
from xdpctl.errors import ConfigError, XdpctlError
from xdpctl.obj import reader
from xdpctl.skeleton import digits, plain
from xdpctl.skeleton.composite import form
from xdpctl.skeleton.forms import shown
from xdpctl.skeleton.kinds import KINDS
from xdpctl.skeleton.loading import read
from xdpctl.skeleton.rows_read import Rows
from xdpctl.skeleton.rows_write import RowWriter
from xdpctl.skeleton.shape import Shape

SOURCE = """
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
enum state { IDLE, BUSY = 7, BROKEN = -2 };
struct inner { __s16 a; __u8 b[3]; _Bool on; char one; };
struct every {
    __u8 u8; __u16 u16; __u32 u32; __u64 u64; __s8 s8; __s32 s32; __s64 s64;
    __be16 port; __be32 addr; struct in_addr in; struct in6_addr in6; __be32 six[4];
    enum state state; __u8 mac[6]; char name[8]; struct inner inner; struct inner pair[2];
    double real; __u32 low : 3, high : 13; void *pointer;
    union { __u32 whole; __u16 halves[2]; };
};
struct plain_key { __be32 saddr; __be16 port; __u8 proto; __u8 pad; };
struct plain_value { __u64 hits; __s32 balance; __u32 port_2; struct { __u16 a; __u16 b; } pair; };
struct prefix { __u32 length; struct in_addr address; };
struct pairs { __u32 length; __u16 a, b; };
struct every every; struct plain_key plain_key; struct plain_value plain_value; struct prefix prefix;
struct pairs pairs;
__attribute__((section("xdp"), used)) int nothing(void *ctx) { return 2; }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """``forms("every")``: the form of a variable's type."""
    path = tmp_path_factory.mktemp("forms") / "f.bpf.c"
    path.write_text(SOURCE)
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    subprocess.run(
        ["clang", "-g", "-O2", "-target", "bpf", "-I", include, "-c", path, "-o", path.with_suffix(".o")],
        check=True,
        timeout=60,
    )
    obj = reader.read(path.with_suffix(".o"))
    types = {one.name: one.type_id for one in obj.globals}
    return lambda name: form(layout(obj.btf, types[name]))


def same(one, raw):
    """Bytes that mean the same: bool, padding and NaN have several spellings."""
    return one.read(raw, 0)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_shown_can_be_written_back(forms, data):
    one = forms("every")
    raw = bytearray(data.draw(st.binary(min_size=one.size, max_size=one.size)))
    for member, (inner, offset) in one.members.items():  # a bool that is neither 0 nor 1 means 1
        if member == "real":
            raw[offset : offset + 8] = struct.pack("=d", data.draw(st.floats(allow_nan=False)))
        if member in {"inner", "pair"}:
            for at in range(offset, offset + inner.size, forms("every").members["inner"][0].size):
                raw[at + 5] &= 1
    read_back = one.read(bytes(raw), 0)
    assert same(one, one.encode(read_back)) == read_back
    assert same(one, one.encode(json.loads(json.dumps(read_back)))) == read_back
    assert same(one, one.parse(one.text(bytes(raw)))) == read_back


@pytest.mark.parametrize(
    ("text", "member", "expected"),
    [
        ("u32=0x1f", "u32", 31),
        ("u8='a'", "u8", 97),
        ("port=443", "port", 443),
        ("addr=10.0.0.1", "addr", "10.0.0.1"),
        ("in6=2001:db8::1", "in6", "2001:db8::1"),
        ("six=::ffff:1.2.3.4", "six", "::ffff:1.2.3.4"),
        ("mac=02:00:00:00:00:0A", "mac", "02:00:00:00:00:0a"),
        ("state=BROKEN", "state", "BROKEN"),
        ("state=9", "state", 9),
        ("name=eth0", "name", "eth0"),
        ('name="a b"', "name", "a b"),
        ("inner.on=true", "inner", {"a": 0, "b": [0, 0, 0], "on": True, "one": 0}),
        ("inner.b[1]=7, u8=1", "inner", {"a": 0, "b": [0, 7, 0], "on": False, "one": 0}),
        ("pair=[{a=1},{a=-2}]", "pair", [{"a": n, "b": [0, 0, 0], "on": False, "one": 0} for n in (1, -2)]),
        ('{"u32": 5, "inner": {"a": 3}}', "u32", 5),
        ("low=7 high=8191", "high", 8191),
    ],
)
def test_people_write_members(forms, text, member, expected):
    one = forms("every")
    found = one.read(one.parse(text), 0)[member]
    assert found == expected or str(found) == "::ffff:102:304"


def test_members_that_are_not_mentioned_stay(forms):
    one = forms("plain_value")
    first = one.parse("hits=3 pair.b=9")
    assert one.read(one.parse("balance=-1", into=first), 0) == {
        "hits": 3,
        "balance": -1,
        "port_2": 0,
        "pair": {"a": 0, "b": 9},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("every", "u8=256", "u8"),
        ("every", "u8=-1", "u8"),
        ("every", "low=8", "low"),
        ("every", "state=BUSI", "no such enumerator"),
        ("every", "nothing=1", "no member nothing"),
        ("every", "inner.c=1", "no member c"),
        ("every", "u8.x=1", "has no members"),
        ("every", "inner.b[3]=1", "has no element 3"),
        ("every", "name=123456789", "name"),
        ("every", "mac=02:00", "mac"),
        ("every", "addr=300.1.1.1", "addr"),
        ("every", "pair=[{a=1},{a=2},{a=3}]", "3 elements"),
        ("every", 'name="abc', "does not close"),
        ("every", "pair=[1", "does not close"),
        ("every", "5", "has 23 members, not 1"),
        ("every", "u8=1 5", "not of the form member=value"),
        ("every", '{"u8": 1', "bracket|JSON"),
        ("plain_key", "10.0.0.1,80", "has 4 members, not 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_member(forms, name, text, message):
    with pytest.raises(XdpctlError, match=message):
        forms(name).parse(text)


def test_a_trie_over_something_else_than_an_address_is_no_prefix(forms):
    assert plain.lpm_key(8, forms("prefix")).parse("10.0.0.0/8") == struct.pack("=I4B", 8, 10, 0, 0, 0)
    assert plain.lpm_key(8, forms("pairs")).read(struct.pack("=IHH", 8, 1, 2), 0) == {
        "length": 8,
        "a": 1,
        "b": 2,
    }
    assert plain.lpm_key(20, None).text(plain.lpm_key(20, None).parse("2001:db8::/32")) == "2001:db8::/32"
    odd = plain.lpm_key(8, forms("prefix"))
    raw = struct.pack("=I4B", 8, 10, 0, 0, 1)
    assert odd.read(raw, 0) == {"length": 8, "address": "10.0.0.1"}
    assert odd.encode(odd.read(raw, 0)) == raw
    assert odd.parse(odd.text(raw)) == raw


WORDS = st.sampled_from(
    ["u8", "port", "in6", "inner", "pair", "name", "low", "state", "=", ",", "{", "}", "[", "]", ":", '"', " ",
     "0x", "-1", "7", "1e9", "nan", "BUSY", "10.0.0.1", "::1", "02:00:00:00:00:01", "\ud800", "\0", "९", "9" * 5000]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=9),
    name=st.sampled_from(["every", "prefix"]),
)
def test_whatever_is_typed_is_written_or_refused(forms, words, name):
    to = plain.lpm_key(8, forms("prefix")) if name == "prefix" else forms(name)
    try:
        assert len(to.parse("".join(words), path="value")) == to.size
    except XdpctlError:
        return


# -- files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shape(forms):
    return Shape(KINDS["hash"], forms("plain_key"), forms("plain_value"))


def content(data, shape, form_=None):
    rows = Rows(data, shape, form_)
    chunks = list(rows.chunks())
    return b"".join(one.keys for one in chunks), b"".join(one.values for one in chunks), rows


def entries(count, seed=1):
    rng = random.Random(seed)  # noqa: S311 - the same texts in every run
    big = [0, 1, 9, 10, 9999, 10000, 99999999, 10**8, 10**16 - 1, 10**16, 2**63, 2**64 - 1]
    keys = b"".join(
        struct.pack("=4sHBB", rng.randbytes(4), rng.getrandbits(16), n & 255, 0) for n in range(count)
    )
    values = b"".join(
        struct.pack(
            "=QiIHHxxxx",
            rng.choice(big),
            rng.randrange(-5, 2**31),
            rng.getrandbits(32),
            rng.randrange(9),
            65535,
        )
        for _ in range(count)
    )
    return keys, values


@pytest.mark.parametrize("style", ["json", "csv"])
@pytest.mark.parametrize("columns", [True, False], ids=["as columns", "row by row"])
def test_a_file_that_was_written_reads_as_the_same(shape, style, columns, monkeypatch):
    keys, values = entries(3000)
    if not columns:
        monkeypatch.setattr(digits, "numpy", lambda: None)
    writer = RowWriter(shape, style)
    text = writer.header() + "".join(writer.rows(Batch(3000, keys, values, 8, shape.value.size)))
    found_keys, found_values, rows = content(text.encode(), shape)
    assert (rows.bad, found_keys == keys, found_values == values) == (0, True, True)


@pytest.mark.parametrize("style", ["json", "csv", "text"])
def test_columns_and_rows_write_the_same(shape, style, monkeypatch):
    keys, values = entries(200)
    batch = Batch(200, keys, values, 8, shape.value.size)
    fast = "".join(RowWriter(shape, style).rows(batch, b"<", b">\n"))
    monkeypatch.setattr(digits, "numpy", lambda: None)
    assert fast == "".join(RowWriter(shape, style).rows(batch, b"<", b">\n"))


def test_every_type_is_written_alike_by_columns_and_by_rows(forms, monkeypatch):
    rng = random.Random(3)  # noqa: S311 - the same texts in every run
    value = forms("every")
    of = Shape(KINDS["lpm_trie"], plain.lpm_key(8, forms("prefix")), value)
    keys = b"".join(struct.pack("=I", n % 33) + (rng.getrandbits(32) >> 32 - n % 33 << 32 - n % 33).to_bytes(4, "big")
                    for n in range(100))  # fmt: skip
    batch = Batch(100, keys, rng.randbytes(100 * value.size), 8, value.size)
    for style in ("json", "text", "csv"):
        fast = "".join(RowWriter(of, style).rows(batch))
        with monkeypatch.context() as patch:
            patch.setattr(digits, "numpy", lambda: None)
            slow = "".join(RowWriter(of, style).rows(batch))
        assert fast == slow


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(
        st.one_of(
            st.integers(0, 2**64 + 5).map(str),
            st.integers(-5, 5).map(str),
            st.sampled_from(["", "007", "1.5", "0x10", " 4", "5 ", "1e3", "٣", "18446744073709551616"]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_columns_read_what_rows_read_and_refuse_what_they_refuse(numbers):
    of = Shape(KINDS["hash"], plain.number(8), plain.number(8))
    data = ("key,value\n" + "".join(f"{one},{index}\n" for index, one in enumerate(numbers))).encode()
    fast = content(data, of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "numpy", lambda: None)
        slow = content(data, of)
    assert fast[:2] == slow[:2]
    assert fast[2].problems == slow[2].problems


def test_the_bad_line_of_a_long_file_is_told_and_all_others_are_read(shape):
    lines = [f"10.0.{n >> 8 & 255}.{n & 255},{n % 65536},6,{n}" for n in range(60000)]
    lines[50000] = "10.0.0.1,80,6,x"
    data = ("saddr,key.port,proto,hits\n" + "\n".join(lines) + "\n").encode()
    rows = Rows(data, shape)
    with pytest.raises(ConfigError, match=r"^flows.csv:50002: 'x' does not fit hits .*nothing was written"):
        read(rows, "flows.csv", partial=False)
    found = read(Rows(data, shape), "flows.csv", partial=True)
    assert (found.count, found.line(49999), found.line(50000)) == (59999, 50001, 50003)


def test_line_500001_of_a_file_of_numbers_is_told_too():
    of = Shape(KINDS["hash"], plain.number(4), plain.number(8))
    lines = [b"%d,%d" % (number, number) for number in range(2, 600_000)]
    lines[500_001 - 2] = b"7,-3"
    data = b"key,value\n" + b"\n".join(lines) + b"\n"
    with pytest.raises(
        ConfigError, match=r"^numbers.csv:500001: '-3' does not fit value .*nothing was written"
    ):
        read(Rows(data, of), "numbers.csv", partial=False)
    found = read(Rows(data, of), "numbers.csv", partial=True)
    assert (found.count, found.line(499_998), found.line(499_999)) == (len(lines) - 1, 500_000, 500_002)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "the file is empty"),
        ("hits\n1\n", "no column is the key"),
        ("saddr,hitz\n", "no such field: hitz"),
        ("saddr,saddr\n", "saddr is named twice"),
        ("saddr,hits\n10.0.0.1\n", "2: 1 cells, the header names 2 fields"),
        ("saddr,hits\n10.0.0.1,1,2\n", "2: 3 cells"),
        ("saddr,hits\n\n10.0.0.1,-1\n", "3: .*hits"),
        ("saddr,port_2\n10.0.0.1,4294967296\n", "2: .*4294967296"),
        ("saddr,hits\n10.0.0.256,1\n", "2: .*saddr"),
        ("saddr,hits\rt\n10.0.0.1,1\n", "line 1 is not CSV"),
        ("\x7fELF\x02\x01\0\0\r\0\n\0", "line 1 is not CSV"),
        ("saddr,hits\n10.0.0.1,1\u2028\n\n10.0.0.3,x\n", "f:4: .*hits"),
        ('saddr,hits\n"10.0.0.1",1\n"10.0.0.2",\r2\n', "3: "),
        ('saddr,hits\n"10.0.0.1","' + "1" * 200_000 + '"\n', "2: not CSV: field larger than"),
        ('{"key": {"saddr": "10.0.0.1"}}\n', "1: value is missing"),
        ('{"value": {}}\n', "1: key is missing"),
        ('{"key": {}, "value": {}, "extra": 1}\n', "1: no such field: extra"),
        ('{"key": {}, "value": {"hits": -1}}\n', "1: .*hits"),
        ('{"key": {}, "value": {"hots": 1}}\n', "1: .*no member hots"),
        ('{"key": {}, "value": {}}\n{"key": {}, "valu\n', "2: not valid JSON"),
        ('{"key": {}, "value": []}\n', "1: .*has 4 members, not 0"),
        ("[1, 2]\n", "1: not of the form"),
        ("[[[[" * 40000, "not valid JSON"),
        ('{"key": "\\u0000", "value": {}}\n', "1: "),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_in_words(shape, data, message):
    with pytest.raises(XdpctlError, match=message):
        read(Rows(data.encode(), shape), "f", partial=False)


GOOD_FILES = (
    b"saddr,key.port,hits,pair.a\n10.0.0.1,80,7,1\n10.0.0.2,443,8,2\n",
    b'key,value\n"10.0.0.1,80,6,0","hits=7,balance=-1"\n',
    b'{"key": {"saddr": "10.0.0.1", "port": 80}, "value": {"hits": 7}}\n{"key": {"port": 1}, "value": {"hits": 1e0}}\n',
    b'{\n  "map": {},\n  "entries": [\n    {"key": {"port": 1}, "value": {}},\n    {"key": {}, "value": {}}\n  ]\n}\n',
    b'[{"key": [1, 2, 3, 4], "value": {"pair": {"a": 1, "b": 2}}}]',
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from(GOOD_FILES),
    cuts=st.lists(
        st.tuples(
            st.integers(0, 150),
            st.integers(0, 12),
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from(
                    [
                        b"9" * 5000,
                        b'"',
                        b"\\ud800",
                        b"-",
                        b"null",
                        b"[",
                        b"{",
                        b"1e999",
                        b"NaN",
                        b"\r",
                        b"\0",
                        b"\xff",
                    ]
                ),
            ),
        ),
        max_size=4,
    ),
    form_=st.sampled_from([None, "csv", "jsonl", "json"]),
)
def test_whatever_a_file_holds_it_is_read_or_told(shape, which, cuts, form_):
    data = which
    for at, length, instead in cuts:
        data = data[:at] + instead + data[at + length :]
    try:
        keys, values, rows = content(data, shape, form_)
    except XdpctlError:
        return
    assert (len(keys) % rows.key_bytes, len(values) % rows.value_bytes) == (0, 0)
    assert len(keys) // rows.key_bytes == len(values) // rows.value_bytes


def test_quotes_crlf_marks_and_documents_are_understood(shape):
    expected = content(b"saddr,hits\n10.0.0.1,5\n", shape)[:2]
    entry = '{"key": {"saddr": "10.0.0.1"}, "value": {"hits": 5}}'
    for data in (
        'saddr,hits\r\n"10.0.0.1","5"\r\n',
        "saddr,hits\r\n10.0.0.1,5\r\n",
        "\ufeffsaddr,hits\n10.0.0.1,5",
        "key,value.hits\nsaddr=10.0.0.1,5".replace("\n", "\r\n"),
        entry,
        f"[{entry}]",
        f'{{"entries": [{entry}]}}',
        f'{{\n  "map": {{}},\n  "entries": [\n    {entry}\n  ]\n}}\n',
        json.dumps(json.loads(entry), indent=2),
    ):
        found_keys, found_values, rows = content(data.encode(), shape)
        assert (found_keys, found_values) == expected, (data, rows.problems)


def test_long_documents_are_read_as_columns(shape, monkeypatch):
    keys, values = entries(5000)
    writer = RowWriter(shape, "json")
    body = "".join(writer.rows(Batch(5000, keys, values, 8, shape.value.size), b",\n    ", b"")).removeprefix(
        ","
    )
    data = f'{{\n  "map": {{"id": 1}},\n  "entries": [{body}\n  ]\n}}\n'.encode()
    monkeypatch.setattr(type(shape.value), "write", None)  # row by row it would be called
    positive = content(data.replace(b'"balance": -', b'"balance": '), shape)
    assert (positive[0] == keys, positive[2].bad) == (True, 0)


def test_a_line_of_text_has_what_json_has():
    assert shown({"a": 1, "b": {"c": "x y", "d": [1, {"e": 2}]}}) == 'a=1 b.c="x y" b.d=[1,{e=2}]'
