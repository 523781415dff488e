"""Each kind of map as a Python mapping on this kernel: written, read, listed, emptied, and what it refuses."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest
from kernels import EMULATED

from xdpctl.bpf import asm, batch, elements, features, load, pins
from xdpctl.bpf.btf_id import by_id
from xdpctl.bpf.map import LoadedMap
from xdpctl.bpf.object import Object
from xdpctl.errors import ConfigError, MapError, NotFoundError
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError
from xdpctl.skeleton.percpu import PerCpu
from xdpctl.skeleton.slots import Slot
from xdpctl.skeleton.typed_map import MissingKeyError, TypedMap, open_typed

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>
enum state { IDLE, BUSY = 7 };
struct key { __be32 saddr; __be16 port; __u8 proto; __u8 pad; };
struct stat { __u64 hits; __u64 bytes; enum state state; __u8 mac[6]; char note[10]; };
struct prefix { __u32 length; struct in_addr address; };
struct prefix6 { __u32 length; struct in6_addr address; };
struct event { __u32 number; __u16 port; __u16 pad; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 30000);
         __type(key, struct key); __type(value, struct stat); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 64);
         __type(key, __u32); __type(value, __u64); } recent SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH); __uint(max_entries, 64);
         __type(key, __u32); __type(value, __u64); } recent_each SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 16);
         __type(key, __u16); __type(value, struct stat); } hashed_each SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u32); } slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2);
         __type(key, __u32); __type(value, struct stat); } stats SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 2000); __uint(map_flags, BPF_F_NO_PREALLOC);
         __type(key, struct prefix); __type(value, __u32); } blocked SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 100); __uint(map_flags, BPF_F_NO_PREALLOC);
         __type(key, struct prefix6); __type(value, __u32); } blocked6 SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 2); __type(value, __u32); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 3); __type(value, __u32); } stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4);
         __type(key, __u32); __type(value, struct bpf_devmap_val); } ports SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP_HASH); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u32); } far_ports SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 1);
         __type(key, __u32); __uint(value_size, 4); } cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u32); } sockets SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u32); } jumps SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __type(key, __u32); __type(value, __u32); } events SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u32); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } tables SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } named_tables SEC(".maps");
struct event *unused_event __attribute__((unused));
SEC("xdp") int send(struct xdp_md *ctx)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
    __u32 zero = 0;
    struct stat *s = bpf_map_lookup_elem(&stats, &zero);
    struct event sent = { .number = 9, .port = 80 };

    if (s) { s->hits++; s->bytes += 64; }
    if (e) { e->number = 5; e->port = 443; e->pad = 0; bpf_ringbuf_submit(e, 0); }
    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &sent, sizeof(sent));
    bpf_tail_call(ctx, &jumps, 3);
    return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def loaded(compile_c):
    with Object.open(compile_c(SOURCE, "kinds")) as opened:
        opened.load()
        yield opened


def of_object(loaded, name):
    """A map with the types of its object: the kernel keeps none of maps without keys."""
    of = loaded.maps[name]
    return TypedMap(of, by_id(loaded.maps["flows"].info().btf_id), of.btf_key_type_id, of.btf_value_type_id)


@pytest.fixture
def maps(loaded):
    """``maps("flows")``: a map of the kernel, with the types that the kernel keeps for it; emptied."""
    opened = []

    def by_name(name):
        made = open_typed(loaded.maps[name].info().id)
        opened.append(made)
        if {"update", "pop"} & made.shape.kind.can and made.type not in {"xskmap", "perf_event_array"}:
            made.clear()
        return made

    yield by_name
    for one in opened:
        one.close()


def test_a_struct_comes_as_attributes_and_goes_as_text_dict_or_bytes(maps):
    flows = maps("flows")
    flows["10.0.0.1", "80", 6, 0] = "hits=3 state=BUSY mac=02:00:00:00:00:01 note=hello"
    key = next(iter(flows))
    assert (key._fields, key.proto) == (("saddr", "port", "proto", "pad"), 6)
    assert socket.inet_ntoa(struct.pack("=I", key.saddr)) == "10.0.0.1"
    assert key.port == socket.htons(80)
    found = flows[key]
    assert (found.hits, found.bytes, found.state, found.note) == (3, 0, 7, "hello")
    flows[key] = {"hits": 4, "note": "again"}
    assert (flows[key].hits, flows[key].state, flows[key].note) == (4, 0, "again")
    flows[key] = flows[key]
    assert flows[key].hits == 4
    assert dict(flows.items())[key].note == "again"
    with pytest.raises(ConfigError, match="no member hit"):
        flows[key] = {"hit": 1}
    with pytest.raises(ConfigError, match="hits"):
        flows[key] = {"hits": -1}


def test_a_key_that_is_not_there_is_a_key_error_in_words(maps):
    flows = maps("flows")
    with pytest.raises(KeyError) as caught:
        flows["10.0.0.1", "80", 6, 0]
    assert str(caught.value) == "map flows has no key saddr=10.0.0.1 port=80 proto=6 pad=0"
    with pytest.raises(MissingKeyError):
        del flows["10.0.0.1", "80", 6, 0]
    assert flows.get("saddr=10.0.0.1") is None
    assert ("10.0.0.1", "80", 6, 0) not in flows


def test_many_are_written_read_and_deleted_in_batches(maps):
    flows = maps("flows")
    count = 5000 if EMULATED else 20000
    keys = [{"saddr": number, "proto": 17} for number in range(count)]
    assert flows.update_many((key, {"hits": key["saddr"]}) for key in keys) == count
    assert len(flows) == count
    assert sum(value.hits for value in flows.values()) == sum(range(count))
    assert flows.lookup_many([keys[5], {"saddr": 1, "proto": 1}])[0].hits == 5
    assert flows.lookup_many([{"saddr": 1, "proto": 1}]) == [None]
    assert flows.delete_many([*keys[:100], {"saddr": 1, "proto": 1}, *keys[100:200]]) == 200
    assert len(flows) == count - 200
    assert flows.clear() == count - 200
    assert len(flows) == 0


@pytest.mark.parametrize("batches", [True, False], ids=["in batches", "one by one"])
def test_a_full_map_tells_how_far_it_came(maps, batches):
    slots = maps("slots")
    if not batches:
        slots.elements.one_by_one.add("update")
    with pytest.raises(batch.PartlyDoneError) as caught:
        slots.update_many((number, number) for number in range(9))
    assert caught.value.done == 4
    assert "key 4: E2BIG: the key lies beyond its 4 slots" in str(caught.value)
    assert list(slots.values()) == [0, 1, 2, 3]


def test_a_hash_that_is_full_says_so():
    with made("hash", 4, 4, 2) as small:
        with pytest.raises(batch.PartlyDoneError, match=r"it is full \(2 entries\)") as caught:
            small.update_many((struct.pack("=I", number), bytes(4)) for number in range(3))
        assert (caught.value.done, len(small)) == (2, 2)
        with pytest.raises(MapError, match="EEXIST: it is there already"):
            small.set("00000000", bytes(4), flags=uapi.BPF_NOEXIST)
        with pytest.raises(MapError, match="ENOENT: it is not there"):
            small.set("ffffffff", bytes(4), flags=uapi.BPF_EXIST)


def made(kind, key_size, value_size, room, flags=0):
    """A map without types."""
    number = uapi.MAP_TYPES.index(kind)
    return TypedMap(LoadedMap(load.map_(number, key_size, value_size, room, flags=flags)), None, 0, 0)


def test_bytes_are_taken_and_given_where_there_are_no_types():
    with made("hash", 3, 2, 4) as raw:
        raw[b"abc"] = b"12"
        raw["64 65 66"] = "0x33 0x34"
        assert dict(raw.items()) == {b"abc": b"12", b"def": b"34"}
        with pytest.raises(ConfigError, match="has 3 bytes, 2 are given"):
            raw["6465"] = b"12"
        with pytest.raises(ConfigError, match="bytes in hex"):
            raw["7"]


def test_per_cpu_values_are_a_list_with_a_sum(maps, loaded):
    stats, cpus = maps("stats"), elements.possible_cpus()
    loaded.programs["send"].test_run(bytes(64), repeat=3)
    assert isinstance(stats[0], PerCpu)
    assert len(stats[0]) == cpus
    assert (stats[0].sum().hits, stats[1].sum()["hits"]) == (3, 0)
    stats[1] = PerCpu({"hits": cpu} for cpu in range(cpus))
    assert [one.hits for one in stats[1]] == list(range(cpus))
    stats[1] = "hits=2"
    assert stats[1].sum().hits == 2 * cpus
    with pytest.raises(ConfigError, match="possible CPUs"):
        stats[1] = PerCpu([{}] * (cpus + 1))
    hashed = maps("hashed_each")
    hashed[7] = {"bytes": 5}
    assert {key: value.sum().bytes for key, value in hashed.items()} == {7: 5 * cpus}
    assert stats.clear() == 2
    assert stats[1].sum().hits == 0


@pytest.mark.parametrize("name", ["recent", "recent_each"])
def test_an_lru_hash_makes_room_by_itself(maps, name):
    recent = maps(name)
    recent.update_many((number, 1) for number in range(1000))
    assert 0 < len(recent) <= 64 + 128 * elements.possible_cpus()
    assert recent.shape.kind.evicts
    assert recent.clear() > 0


def test_prefixes_are_written_as_text_and_match_the_longest(maps):
    blocked, blocked6 = maps("blocked"), maps("blocked6")
    blocked["10.0.0.0/8"] = 8
    blocked["10.1.0.0/16"] = 16
    blocked6["2001:db8::/32"] = 32
    assert (blocked["10.1.2.3"], blocked["10.2.0.1"]) == (16, 8)
    assert "11.0.0.1" not in blocked
    assert sorted(blocked) == ["10.0.0.0/8", "10.1.0.0/16"]
    assert dict(blocked6.items()) == {"2001:db8::/32": 32}
    with pytest.raises(ConfigError, match=r"behind the first 8: 10.0.0.0/8\?"):
        blocked["10.0.0.1/8"] = 1
    with pytest.raises(ConfigError, match="the length goes from 0 to 32"):
        blocked["10.0.0.1/33"] = 1
    with pytest.raises(ConfigError, match="the map holds IPv4 prefixes"):
        blocked["::1"] = 1
    del blocked["10.0.0.0/8"]
    assert list(blocked) == ["10.1.0.0/16"]
    assert blocked.clear() == 1


def test_a_queue_and_a_stack_give_back_in_their_order(loaded):
    queue, stack = (of_object(loaded, name) for name in ("queue", "stack"))
    for number in (1, 2):
        queue.push(number)
        stack.push(number)
    with pytest.raises(MapError, match=r"push of map queue: E2BIG: it is full \(2 elements\)"):
        queue.push(3)
    queue.push(3, replace=True)
    assert (queue.peek(), queue.pop(), queue.pop(), queue.pop(), queue.peek()) == (2, 2, 3, None, None)
    assert (stack.peek(), stack.pop(), stack.pop(), stack.pop()) == (2, 2, 1, None)
    stack.push(5)
    assert stack.clear() == 1
    with pytest.raises(MapError, match="can't list elements of a map of type queue"):
        list(queue)


def test_a_bloom_filter_knows_what_was_added():
    try:
        bloom = made("bloom_filter", 0, 4, 100)
    except CallError as why:
        assert why.code == 22, "only a kernel before 5.16, which has no bloom filters, says EINVAL"
        return
    with bloom:
        bloom.add(b"abcd")
        assert b"abcd" in bloom
        assert not all(struct.pack("=I", number) in bloom for number in range(50))
        with pytest.raises(MapError, match="can't be emptied"):
            bloom.clear()


def test_a_devmap_takes_interface_names_and_programs(maps, world):
    world.veth("tm0", "tm1")
    ports, far = maps("ports"), maps("far_ports")
    index = socket.if_nametoindex("tm0")
    try:
        ports[1] = "tm0"
        assert isinstance(ports[1], Slot)
        assert (ports[1], ports[1].program) == (index, None)
        assert dict(ports.items()) == {1: index}
        far[7000] = index
        assert dict(far.items()) == {7000: index}
        with pytest.raises(NotFoundError, match="no such interface: tm9"):
            ports[0] = "tm9"
        with pytest.raises(MapError, match="no such interface in this network namespace"):
            ports[0] = 2**30
        with pytest.raises(ConfigError, match="no program fits"):
            far[1] = ("tm0", 5)
        if features.probe("devmap_program"):
            fd = load.program(uapi.PROG_TYPE_XDP, asm.RETURN_0, attach_type=uapi.XDP_DEVMAP)
            holder = type("P", (), {"fd": fd})()
            ports[2] = ("tm1", holder)
            assert ports[2].program is not None
            ports[3] = ports[2]
            assert ports[3].program == ports[2].program
            os.close(fd)
        assert ports.clear() == len(ports) + (3 if features.probe("devmap_program") else 1)
    finally:
        ports.clear()
        far.clear()
        world.ip("link del tm0")


def test_a_cpumap_takes_queue_sizes(maps):
    cpus = maps("cpus")
    cpus[0] = 192
    assert (cpus[0], dict(cpus.items())) == (192, {0: 192})
    with pytest.raises(ConfigError, match="a queue size"):
        cpus[0] = "eth0"
    assert cpus.clear() == 1


def test_an_xskmap_says_what_user_space_can_not(maps):
    sockets = maps("sockets")
    with pytest.raises(MapError, match="can't look up elements of a map of type xskmap"):
        sockets[0]
    with pytest.raises(ConfigError, match="a socket of a running process"):
        sockets[0] = "eth0"
    assert list(sockets.keys()) == [0, 1, 2, 3]
    with socket.socket() as wrong, pytest.raises(MapError, match="update of map sockets, key 0"):
        sockets[0] = wrong


def test_a_program_array_takes_programs_and_tells_their_ids(maps, loaded):
    jumps, program = maps("jumps"), loaded.programs["send"]
    jumps[1] = program
    assert jumps[1] == program.info().id
    jumps[2] = program.info().id
    path = pins.root() / "programs" / "send"
    program.pin(path)
    jumps[3] = str(path)
    assert dict(jumps.items()) == dict.fromkeys((1, 2, 3), program.info().id)
    del jumps[3]
    assert 3 not in jumps
    with pytest.raises(ConfigError, match="its id, or the path of its pin"):
        jumps[0] = "send"
    with pytest.raises(NotFoundError):
        jumps[0] = 2**31
    assert jumps.clear() == 2


@pytest.mark.parametrize("name", ["tables", "named_tables"])
def test_maps_in_maps_are_written_by_descriptor_and_read_by_id(maps, name):
    outer = maps(name)
    with made("hash", 4, 4, 8) as inner:
        inner[b"abcd"] = b"1234"
        outer[1] = inner
        assert outer[1] == inner.info().id
        assert dict(outer.items()) == {1: inner.info().id}
        with outer.inner(1) as same:
            assert same[b"abcd"] == b"1234"
        outer[0] = inner.info().id
        assert outer[0] == outer[1]
    assert outer.clear() == 2


def test_records_come_as_bytes_or_as_a_struct(loaded):
    with open_typed(loaded.maps["ring"].info().id) as ring:
        ring.poll()
        assert ring.poll() == []
        loaded.programs["send"].test_run(bytes(64))
        (record,) = ring.poll(1)
        assert struct.unpack("=IHH", record) == (5, 443, 0)
    ring = of_object(loaded, "ring")
    loaded.programs["send"].test_run(bytes(64))
    (event,) = ring.poll(1, record="event")
    assert (event.number, event.port) == (5, 443)
    with pytest.raises(NotFoundError, match="no such struct: evnt"):
        ring.poll(record="evnt")
    ring.close()
    with pytest.raises(MapError, match="holds no records"):
        TypedMap(loaded.maps["slots"], None, 0, 0).poll()


def test_a_perf_event_array_is_read_on_all_cpus(loaded):
    with open_typed(loaded.maps["events"].info().id) as events:
        events.poll()
        loaded.programs["send"].test_run(bytes(64))
        (record,) = events.poll(1)
        assert struct.unpack_from("=IH", record) == (9, 80)


def test_a_perf_event_array_tells_how_many_records_were_lost(loaded):
    before = os.sched_getaffinity(0)
    with open_typed(loaded.maps["events"].info().id) as events:
        events.poll()
        try:
            os.sched_setaffinity(0, {min(before)})  # each CPU has its own room
            loaded.programs["send"].test_run(bytes(64), repeat=20_000)
            held = len(events.poll())
            assert events.lost == 0, "it is told behind the next record"
            loaded.programs["send"].test_run(bytes(64))
        finally:
            os.sched_setaffinity(0, before)
        assert len(events.poll(1)) == 1
        assert events.lost == 20_000 - held > 0


@pytest.mark.parametrize("batches", [True, False], ids=["in batches", "one by one"])
@pytest.mark.parametrize("name", ["flows", "blocked"])
def test_listing_survives_concurrent_deletes(maps, name, batches):
    of = maps(name)
    count = 1500
    keys = (
        [f"10.{number >> 8}.{number & 255}.0/24" for number in range(count)]
        if name == "blocked"
        else [{"saddr": number, "proto": 6} for number in range(count)]
    )
    of.update_many((key, "1" if name == "blocked" else {"hits": 1}) for key in keys)
    stay = set(keys[::2]) if name == "blocked" else {key["saddr"] for key in keys[::2]}
    if not batches:
        of.elements.one_by_one.add("lookup")
    halves = open_typed(of.info().id)
    stop = threading.Event()

    def churn():
        with halves:
            while not stop.is_set():
                halves.delete_many(keys[1::2])
                halves.update_many((key, "2" if name == "blocked" else {"hits": 2}) for key in keys[1::2])

    other = threading.Thread(target=churn)
    other.start()
    try:
        for _ in range(3):
            found = [key if name == "blocked" else key.saddr for key in of]
            assert len(found) == len(set(found)), "a key came twice"
            assert stay <= set(found), "a key that was there all the time was missed"
    finally:
        stop.set()
        other.join(timeout=20)
    assert not other.is_alive()


def test_room_is_set_before_load_only(compile_c):
    with Object.open(compile_c(SOURCE, "kinds")) as opened:
        of = TypedMap(opened.maps["flows"], None, 0, 0)
        assert (of.max_entries, of.key_size, of.value_size) == (30000, 8, 40)
        of.max_entries = 5
        assert opened.maps["flows"].max_entries == 5
        with pytest.raises(ConfigError, match="not loaded"):
            of["00" * 8]
        opened.load()
        with pytest.raises(ConfigError, match="max_entries can't change"):
            of.max_entries = 6
        assert len(of) == 0
