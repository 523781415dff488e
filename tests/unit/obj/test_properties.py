"""Arbitrary and mutated bytes: whatever is read, only our errors come out, and soon."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdpctl.btf import ext as btf_ext
from xdpctl.btf.names import spell
from xdpctl.btf.parse import parse as parse_btf
from xdpctl.btf.values import decode, encode
from xdpctl.errors import ConfigError, NotFoundError, ObjectError
from xdpctl.obj import elf, reader
from xdpctl.obj.globals import parse, values
from xdpctl.obj.jsonform import dump
from xdpctl.obj.kernel import KernelFacts
from xdpctl.obj.verdict import verdict

SOURCE = """
struct cfg { __u16 port; struct in6_addr v6; char name[8]; __u32 list[3]; struct { __u8 a:3, b:5; }; };
enum mode { OFF, ON };
volatile const __u32 out = 7;
volatile struct cfg cfg = { .port = 1, .name = "abc" };
volatile enum mode mode;
volatile const _Bool flag;
volatile double real;
void *pointer;
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, int); __type(value, long); };
struct inner one SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __uint(key_size, 4);
  __array(values, struct inner); } outer SEC(".maps") = { .values = { &one } };
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 8); __type(key, int); __type(value, int);
  __uint(pinning, 1); } ports SEC(".maps");
struct task_struct { int pid; } __attribute__((preserve_access_index));
extern int CONFIG_HZ __kconfig;
static __attribute__((noinline)) int leaf(int x) { return bpf_redirect(x, 0); }
SEC("xdp") int prog(struct xdp_md *c) {
  int k = 0;
  for (int i = 0; i < 50; i++) if (bpf_get_prandom_u32() == i) return bpf_redirect_map(&ports, i, flag);
  if (bpf_map_lookup_elem(&outer, &k)) return leaf(out);
  return cfg.port + mode + CONFIG_HZ + (long)pointer + !!*(volatile long *)&real ? leaf(5) : XDP_TX;
}
SEC("raw_tp/x") int tracing(struct task_struct **c) { return (*c)->pid; }
"""
FACTS = KernelFacts("6.18.0", (1, 1), "little", 2, 256, btf=True, privileged=False)
PROPERTY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
LONGEST = 20.0
"""Seconds for one object of 20 KB, on a machine that is busy with other things as well."""


@pytest.fixture(scope="module")
def good(compiled):
    return compiled(SOURCE).read_bytes()


@pytest.fixture(scope="module")
def obj(compiled):
    return reader.read(compiled(SOURCE))


INTERESTING = st.sampled_from(
    [0, 1, 2, 3, 4, 8, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF]
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            ["anywhere", "headers", ".BTF", ".BTF.ext", ".symtab", ".text", "xdp", ".relxdp", ".maps"]
        ),
        st.integers(0, 1 << 16),
        st.one_of(INTERESTING, st.integers(0, 0xFFFFFFFF)),
    ),
    min_size=1,
    max_size=8,
)


def places(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the parts of an object lie: name -> (offset, size)."""
    found = {"anywhere": (0, len(data)), "headers": (int.from_bytes(data[40:48], "little"), 64 * data[60])}
    for one in elf.parse(data, "x").sections:
        at = data.find(one.data) if len(one.data) > 16 else -1
        if at > 0:
            found[one.name] = (at, len(one.data))
    return found


def mutate(data: bytes, edits, cut: int | None) -> bytes:
    where = places(data)
    out = bytearray(data)
    for part, position, word in edits:
        offset, size = where.get(part, where["anywhere"])
        at = offset + position % max(size - 4, 1)
        out[at : at + 4] = word.to_bytes(4, "little")
    return bytes(out if cut is None else out[: cut % len(out)])


def read_everything(data: bytes) -> None:
    """All that `xdpctl inspect` does with a file, except to ask the kernel."""
    began = time.monotonic()
    try:
        obj = reader.parse(data, Path("mutated.o"))
    except ObjectError as error:
        assert "mutated.o" in error.message
    else:
        problems = verdict(obj, FACTS)
        json.dumps(dump(obj, FACTS, problems, alone=problems, pin_root=Path("/nowhere")))
        for one in obj.globals[:8]:
            values(obj, one.name)
            values(obj, f"{one.name}[*]")
    assert time.monotonic() - began < LONGEST


@PROPERTY
@given(edits=EDITS, cut=st.one_of(st.none(), st.none(), st.none(), st.integers(0, 1 << 16)))
def test_a_mutated_object_is_read_or_refused(good, edits, cut):
    read_everything(mutate(good, edits, cut))


@PROPERTY
@given(data=st.binary(max_size=600), head=st.booleans())
def test_arbitrary_bytes_are_refused(good, data, head):
    read_everything(good[:64] + data if head else data)


@PROPERTY
@given(data=st.binary(max_size=400), header=st.booleans())
def test_arbitrary_btf_is_read_or_refused(data, header):
    if header:
        data = (
            b"\x9f\xeb\1\0\x18\0\0\0\0\0\0\0"
            + (len(data) // 2).to_bytes(4, "little") * 2
            + b"\x10\0\0\0"
            + data
        )
    try:
        btf = parse_btf(data)
    except ObjectError:
        return
    look_at_every_type(btf)


def look_at_every_type(btf) -> None:
    for type_id in range(min(btf.end + 1, 300)):
        for ask in (
            btf.type,
            btf.resolve,
            btf.size_of,
            lambda one: spell(btf, one),
            lambda one: decode(btf, one, bytes(64)),
        ):
            try:
                ask(type_id)
            except ObjectError:
                pass
        try:
            encode(btf, type_id, decode(btf, type_id, bytes(64)))
        except (ObjectError, ConfigError):
            pass


@PROPERTY
@given(edits=st.lists(st.tuples(st.integers(24, 1 << 14), INTERESTING), min_size=1, max_size=6))
def test_mutated_btf_is_read_or_refused(obj, good, edits):
    blobs = {one.name: one.data for one in elf.parse(good, "x").sections}
    data = bytearray(blobs[".BTF"])
    for position, word in edits:
        at = 24 + position % (len(data) - 28)
        data[at : at + 4] = word.to_bytes(4, "little")
    try:
        btf = parse_btf(bytes(data))
        look_at_every_type(btf)
        btf_ext.parse(blobs[".BTF.ext"], btf)
    except ObjectError:
        pass


@PROPERTY
@given(data=st.binary(max_size=300))
def test_arbitrary_btf_ext_is_read_or_refused(obj, data):
    try:
        btf_ext.parse(b"\x9f\xeb\1\0\x18\0\0\0" + data, obj.btf)
    except ObjectError:
        pass


NAMES = st.one_of(
    st.sampled_from(
        ["out", "cfg", "cfg.v6", "cfg.list[1]", "cfg.name", "mode", "flag", "real", "pointer", "CONFIG_HZ"]
    ),
    st.text(max_size=20),
    st.from_regex(r"(cfg|out|mode)(\.[a-z0-9]{1,4}|\[[0-9]{1,12}\]){0,4}", fullmatch=True),
)
VALUES = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.ip_addresses().map(str),
    st.from_regex(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", fullmatch=True),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from(["port", "v6", "name", "list", "a", "x"]), inner, max_size=4),
        ),
        max_leaves=8,
    ).map(json.dumps),
)


def no_interface(name: str) -> int:
    raise NotFoundError("interface", name)


@settings(PROPERTY, max_examples=400)
@given(name=NAMES, value=VALUES)
def test_any_setting_fits_its_variable_or_is_refused(obj, name, value):
    try:
        found = parse(obj, f"{name}={value}", ifindex=no_interface)
    except ConfigError as error:
        assert error.message
        return
    variable = obj.global_(found.name.split(".")[0].split("[")[0])
    assert found.section == variable.section
    assert variable.offset <= found.offset
    assert found.offset + len(found.data) <= variable.offset + variable.size


@settings(PROPERTY, max_examples=200)
@given(value=st.integers(-(1 << 40), 1 << 40))
def test_integers_that_fit_are_stored_and_others_refused(obj, value):
    try:
        found = parse(obj, f"out={value}", ifindex=no_interface)
    except ConfigError:
        assert not 0 <= value < 1 << 32
    else:
        assert found.data == value.to_bytes(4, "little")
        assert values(obj, "out", [found]) == [value]


@PROPERTY
@given(
    value=st.fixed_dictionaries(
        {
            "port": st.integers(0, 0xFFFF),
            "list": st.lists(st.integers(0, 0xFFFFFFFF), min_size=3, max_size=3),
            "name": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=7),
            "a": st.integers(0, 7),
            "b": st.integers(0, 31),
        }
    )
)
def test_what_is_encoded_is_what_is_decoded(obj, value):
    type_id = obj.global_("cfg").type_id
    decoded = decode(obj.btf, type_id, encode(obj.btf, type_id, value))
    assert {key: decoded[key] for key in value} == value
