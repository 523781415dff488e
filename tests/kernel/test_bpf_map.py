"""Maps hold what is put into them, per CPU too, and are shared by pin, id and descriptor."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from xdpctl.bpf import elements, load, pins, query
from xdpctl.bpf.map import open_map
from xdpctl.bpf.object import Object
from xdpctl.errors import ConfigError, MapError, NotFoundError
from xdpctl.libbpf import uapi

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 20000);
         __type(key, __u32); __type(value, __u64); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3);
         __type(key, __u32); __type(value, __u64); } slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2);
         __type(key, __u32); __uint(value_size, 12); } each SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 50);
         __type(key, __u16); __type(value, __u32); } hashed SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 10); __uint(map_flags, BPF_F_NO_PREALLOC);
         __uint(key_size, 8); __uint(value_size, 4); } routes SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 10); __uint(value_size, 4); } queue SEC(".maps");
SEC("xdp") int count(struct xdp_md *ctx)
{ __u32 k = 1; __u32 *v = bpf_map_lookup_elem(&each, &k); if (v) { v[0]++; v[2] += 2; } return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


def u32(value):
    return struct.pack("=I", value)


def u64(value):
    return struct.pack("=Q", value)


@pytest.fixture
def loaded(compile_c):
    with Object.open(compile_c(SOURCE, "maps")) as opened:
        opened.load()
        yield opened


def test_an_element_is_written_read_and_removed(loaded):
    table = loaded.maps["table"]
    assert table.lookup(u32(1)) is None
    table.update(u32(1), u64(10))
    assert table.lookup(u32(1)) == u64(10)
    with pytest.raises(MapError) as caught:
        table.update(u32(1), u64(11), uapi.BPF_NOEXIST)
    assert caught.value.errno == 17
    assert table.delete(u32(1)) is True
    assert table.delete(u32(1)) is False


def test_a_full_map_says_so(loaded):
    slots = loaded.maps["slots"]
    with pytest.raises(
        MapError, match="update of map slots, key 0x03000000: E2BIG: the key lies beyond its 3 slots"
    ):
        slots.update(u32(3), u64(0))


@pytest.mark.parametrize("fill", [0, 1, 5000])
def test_all_elements_are_listed_once(loaded, fill):
    table = loaded.maps["table"]
    for key in range(fill):
        table.update(u32(key), u64(key * key))
    expected = {u32(key): u64(key * key) for key in range(fill)}
    found = list(table.items())
    assert len(found) == fill
    assert dict(found) == expected
    assert set(table.keys()) == set(expected)


def test_elements_are_listed_one_by_one_where_there_are_no_batches(loaded):
    slots = loaded.maps["slots"]
    slots.update(u32(2), u64(9))
    in_batches = list(slots.items())
    slots.elements.one_by_one.add("lookup")
    assert list(slots.items()) == in_batches == [(u32(0), u64(0)), (u32(1), u64(0)), (u32(2), u64(9))]


def test_a_value_of_each_possible_cpu_is_read_and_written(loaded):
    each, cpus = loaded.maps["each"], elements.possible_cpus()
    assert each.elements.value_bytes == 16 * cpus  # 12 bytes are rounded up to 8s
    loaded.programs["count"].test_run(bytes(64), repeat=5)
    value = each.lookup(u32(1))
    columns = [struct.unpack_from("=3I", value, 16 * cpu) for cpu in range(cpus)]
    assert [sum(column) for column in zip(*columns, strict=True)] == [5, 0, 10]
    each.update(u32(0), b"".join(struct.pack("=3I4x", cpu, 0, 7) for cpu in range(cpus)))
    assert dict(each.items())[u32(0)][-16:-4] == struct.pack("=3I", cpus - 1, 0, 7)


def test_possible_cpus_are_those_of_sysfs():
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition("-")[2]
    assert elements.possible_cpus() == int(last) + 1


def test_a_per_cpu_hash_with_short_keys_is_listed(loaded):
    hashed, cpus = loaded.maps["hashed"], elements.possible_cpus()
    for key in range(40):
        hashed.update(struct.pack("=H", key), b"".join(struct.pack("=I4x", key + cpu) for cpu in range(cpus)))
    found = dict(hashed.items())
    assert len(found) == 40
    assert struct.unpack_from("=I", found[struct.pack("=H", 9)], 8 * (cpus - 1)) == (9 + cpus - 1,)


def test_longest_prefixes_match(loaded):
    routes = loaded.maps["routes"]
    routes.update(struct.pack("=I4B", 8, 10, 0, 0, 0), u32(8))
    routes.update(struct.pack("=I4B", 24, 10, 1, 2, 0), u32(24))
    assert routes.lookup(struct.pack("=I4B", 32, 10, 1, 2, 3)) == u32(24)
    assert routes.lookup(struct.pack("=I4B", 32, 10, 9, 2, 3)) == u32(8)
    assert len(list(routes.items())) == 2


def test_a_map_without_keys_is_not_listed_but_says_why(loaded):
    with pytest.raises(MapError, match="walk of map queue"):
        list(loaded.maps["queue"].keys())


@pytest.mark.parametrize(("key", "value"), [(b"123", u64(1)), (u32(1), b"1234"), (b"", u64(1))])
def test_bytes_of_the_wrong_number_are_refused(loaded, key, value):
    with pytest.raises(MapError, match=r"has \d bytes, not"):
        loaded.maps["table"].update(key, value)


def test_a_map_is_opened_by_pin_and_by_id(loaded):
    table = loaded.maps["table"]
    path = pins.root() / "maps" / "table"
    table.pin(path)
    with open_map(path) as by_pin, open_map(table.info().id) as by_id:
        by_pin.update(u32(5), u64(50))
        assert by_id.lookup(u32(5)) == table.lookup(u32(5)) == u64(50)
        assert by_pin.info() == by_id.info() == table.info()
        assert (by_id.name, by_id.key_bytes, by_id.value_bytes) == ("table", 4, 8)


def test_a_map_that_is_not_there_or_is_something_else_is_told(loaded):
    path = pins.root() / "programs" / "p"
    loaded.programs["count"].pin(path)
    with pytest.raises(ConfigError, match="not a pinned map, but a program"):
        open_map(path)
    with pytest.raises(NotFoundError, match="no such map"):
        open_map(path.with_name("nothing"))
    with pytest.raises(NotFoundError, match="no such map: id 4294967295"):
        open_map(2**32 - 1)


def test_a_map_of_another_object_is_reused(loaded, compile_c):
    loaded.maps["table"].update(u32(7), u64(70))
    with Object.open(compile_c(SOURCE, "maps2")) as other:
        other.maps["table"].reuse(loaded.maps["table"].fd)
        other.load()
        assert other.maps["table"].lookup(u32(7)) == u64(70)
        assert other.maps["table"].info().id == loaded.maps["table"].info().id


def test_a_map_of_another_shape_is_not_reused_and_the_difference_is_told(loaded, compile_c):
    with Object.open(compile_c(SOURCE, "maps3")) as other, pytest.raises(MapError) as caught:
        other.maps["table"].reuse(loaded.maps["slots"].fd)
    assert "map table is hash" in str(caught.value)
    assert "map slots" in str(caught.value)
    assert "is array" in str(caught.value)


def test_room_is_set_before_load(compile_c):
    with Object.open(compile_c(SOURCE, "maps4")) as opened:
        opened.maps["table"].set_max_entries(2)
        with pytest.raises(ConfigError, match="don't fit"):
            opened.maps["table"].set_max_entries(2**32)
        opened.load()
        assert opened.maps["table"].info().max_entries == opened.maps["table"].max_entries == 2


def test_a_map_without_content_has_no_initial_value(compile_c):
    with Object.open(compile_c(SOURCE, "maps5")) as opened:
        with pytest.raises(MapError, match="no initial value"):
            opened.maps["table"].initial_value()
        assert not opened.maps["table"].internal


def test_a_map_made_by_hand_is_seen_by_queries():
    fd = load.map_(uapi.MAP_TYPE_HASH, 4, 8, 16, name="by_hand")
    try:
        found = query.map_info(fd)
        assert (found.name, found.type, found.key_size, found.value_size, found.max_entries) == (
            "by_hand",
            "hash",
            4,
            8,
            16,
        )
        assert found in list(query.maps())
    finally:
        os.close(fd)
