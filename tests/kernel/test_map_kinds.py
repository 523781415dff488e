"""Every kind of map, by a skeleton as a program's user takes it, and by ``xdpctl map`` as an operator types it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import socket
import struct

import pytest
from kernels import RELEASE

from xdpctl import Skeleton
from xdpctl.bpf import load, pins
from xdpctl.bpf.map import LoadedMap
from xdpctl.errors import MapError
from xdpctl.libbpf import uapi

pytestmark = pytest.mark.kernel

BLOOM = RELEASE >= (5, 16)
AF_XDP, SOL_XDP = 44, 283

SOURCE = """
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
struct stat { __u64 hits; __u32 bytes; };
struct prefix { __u32 length; struct in_addr address; };
struct event { __u32 number; __u16 port; __u16 pad; };
#define MAP(NAME, TYPE, N, K, V) struct { __uint(type, BPF_MAP_TYPE_##TYPE); __uint(max_entries, N); \\
    __type(key, K); __type(value, V); } NAME SEC(".maps")
MAP(hash, HASH, 8, __u32, struct stat);
MAP(array, ARRAY, 4, __u32, struct stat);
MAP(each, PERCPU_HASH, 8, __u32, struct stat);
MAP(each_slot, PERCPU_ARRAY, 4, __u32, struct stat);
MAP(recent, LRU_HASH, 64, __u32, struct stat);
MAP(recent_each, LRU_PERCPU_HASH, 64, __u32, struct stat);
MAP(ports, DEVMAP, 4, __u32, struct bpf_devmap_val);
MAP(far_ports, DEVMAP_HASH, 4, __u32, __u32);
MAP(cpus, CPUMAP, 1, __u32, __u32);
MAP(sockets, XSKMAP, 4, __u32, __u32);
MAP(jumps, PROG_ARRAY, 4, __u32, __u32);
MAP(events, PERF_EVENT_ARRAY, 0, __u32, __u32);
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8); __uint(map_flags, BPF_F_NO_PREALLOC);
         __type(key, struct prefix); __type(value, struct stat); } blocklist SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __type(value, __u32); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 4); __type(value, __u32); } stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u32); }
    first SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } tables SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } named_tables SEC(".maps");
struct event *unused_event __attribute__((unused));
SEC("xdp") int send(struct xdp_md *ctx)
{
    struct event sent = { .number = 9, .port = 80 };
    __u32 next;
    bpf_map_peek_elem(&queue, &next); /* the kernel keeps no types of maps without keys: those of this program tell */
    bpf_map_peek_elem(&stack, &next);
    bpf_ringbuf_output(&ring, &sent, sizeof(sent), 0);
    bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &sent, sizeof(sent));
    return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""
KEYED = ("hash", "array", "each", "each_slot", "recent", "recent_each")
BLOOM_SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_BLOOM_FILTER); __uint(max_entries, 10); __type(value, __u32); } seen SEC(".maps");
"""


@contextlib.contextmanager
def xdp_socket(ifindex):
    """An AF_XDP socket, bound to queue 0 with memory of its own: Linux 7 takes no other into an xskmap (ENOBUFS)."""
    rx_ring, umem, fill, completion, copy = 2, 4, 5, 6, 2
    frames = mmap.mmap(-1, 16 * 4096)
    with socket.socket(AF_XDP, socket.SOCK_RAW) as made:
        where = ctypes.addressof(ctypes.c_char.from_buffer(frames))
        made.setsockopt(SOL_XDP, umem, struct.pack("=QQII", where, len(frames), 4096, 0))
        for ring in (fill, completion, rx_ring):
            made.setsockopt(SOL_XDP, ring, 16)
        address = struct.pack("=HHIII", AF_XDP, copy, ifindex, 0, 0)
        assert ctypes.CDLL(None).bind(made.fileno(), address, len(address)) == 0
        yield made


@pytest.fixture(scope="module")
def skel(compile_c):
    with Skeleton.open(compile_c(SOURCE, "every")) as made:
        made.load()
        yield made


@pytest.fixture
def pair(world):
    """A veth pair in the namespace of this process."""
    world.veth("mk0", "mk1")
    yield "mk0"
    world.ip("link del mk0")


def test_a_skeleton_offers_every_kind(skel, pair):
    maps = skel.maps
    for name in KEYED:
        maps[name][1] = {"hits": 2}
        found = maps[name][1]
        assert (found.sum() if "each" in name else found).hits >= 2, name
        assert 1 in maps[name]
    maps.blocklist["203.0.113.0/24"] = {"bytes": 3}
    assert maps.blocklist["203.0.113.9"].bytes == 3
    for name in ("queue", "stack"):
        for number in (1, 2):
            maps[name].push(number)
        assert [maps[name].peek(), maps[name].pop()] == [1 if name == "queue" else 2] * 2
    index = socket.if_nametoindex(pair)
    maps.ports[1] = pair
    maps.far_ports[7000] = index
    assert (maps.ports[1], maps.far_ports[7000]) == (index, index)
    maps.cpus[0] = 192
    assert maps.cpus[0] == 192
    maps.jumps[3] = skel.progs.send
    assert maps.jumps[3] == skel.progs.send.id
    for name in ("tables", "named_tables"):
        maps[name][1] = maps.first
        maps.first[5] = 6
        with maps[name].inner(1) as same:
            assert dict(same.items()) == {5: 6}
    with xdp_socket(index) as xsk:
        maps.sockets[2] = xsk
        del maps.sockets[2]
    assert (maps.ring.poll(), maps.events.poll()) == ([], [])
    skel.progs.send.test_run(bytes(64))
    for of in (maps.ring, maps.events):
        (event,) = of.poll(1, record="event")
        assert (event.number, event.port) == (9, 80)
        of.close()


def test_a_bloom_filter_is_one_of_them_where_the_kernel_has_it(compile_c):
    with Skeleton.open(compile_c(BLOOM_SOURCE, "bloom")) as skel:
        if not BLOOM:
            with pytest.raises(MapError, match="seen"):
                skel.load()
            return
        skel.load()
        skel.maps.seen.add(7)
        assert (7 in skel.maps.seen, 8 in skel.maps.seen) == (True, False)


@pytest.fixture
def run(xdpctl, skel):
    """``run("get", NAME, ...)``: a command on a map of the skeleton, what it says, or with --json its answer."""
    for name in skel.maps:
        skel.maps[name].pin(pins.root() / "maps" / name)

    def command(*argv, code=0):
        done = xdpctl("map", *argv)
        assert done.returncode == code, done.stdout + done.stderr
        return done.json() if "--json" in argv else (done.stdout or done.stderr).rstrip("\n")

    return command


@pytest.mark.parametrize("name", KEYED)
def test_values_with_types_are_written_and_read(run, name):
    assert "hits=2" in " ".join((run("set", name, "1", "hits=2"), run("get", name, "1")))
    assert {"key": 1} in [{"key": one["key"]} for one in run("dump", name, "--json")["entries"]]
    assert run("show", name, "--json")["value_type"] == "struct stat"
    run("clear", name)
    left = [one for one in run("dump", name, "--json")["entries"] if "slot" not in name and name != "array"]
    assert left == []


def test_devices_are_written_by_name_and_shown_by_name(run, pair):
    index = socket.if_nametoindex(pair)
    for name, key in (("ports", "1"), ("far_ports", "7000")):
        run("set", name, key, pair)
        assert run("get", name, key, "--json")["value"] == {
            "interface": pair,
            "ifindex": index,
            "program": None,
        }
        assert run("dump", name).split()[1] == pair
        assert "no such interface: mk7" in run("set", name, key, "mk7", code=2)
        run("set", name, "2", "3000000", code=7)
        run("delete", name, key)
        assert run("dump", name, "--json")["entries"] == []


def test_a_devmap_is_loaded_by_interface_names_too(run, pair, tmp_path):
    (tmp_path / "ports.csv").write_text(f"key,value\n0,{pair}\n3,mk1\n")
    assert run("load", "ports", tmp_path / "ports.csv", "--json")["written"] == 2
    assert [one["value"]["interface"] for one in run("dump", "ports", "--json")["entries"]] == [pair, "mk1"]
    (tmp_path / "back.jsonl").write_text(run("dump", "ports", "--jsonl") + "\n")
    run("clear", "ports")
    assert run("load", "ports", tmp_path / "back.jsonl", "--json")["written"] == 2
    (tmp_path / "ports.csv").write_text("key,value\n0,mk0\n1,mk9\n")
    assert "ports.csv:3: no such interface: mk9" in run("load", "ports", tmp_path / "ports.csv", code=2)


def test_a_cpumap_a_queue_and_a_stack(run):
    run("set", "cpus", "0", "192")
    assert run("get", "cpus", "0", "--json")["value"] == {"qsize": 192, "program": None}
    for name, following in (("queue", 5), ("stack", 6)):
        run("clear", name)
        run("set", name, "5")
        run("set", name, "6")
        assert [one["value"] for one in run("dump", name, "--json")["entries"]] == [following]
        assert run("clear", name, "--json")["cleared"] == 2


def test_programs_and_maps_are_written_by_id_or_pin(run, skel):
    path = skel.progs.send.pin("programs/send")
    run("set", "jumps", "1", str(path))
    run("set", "jumps", "2", str(skel.progs.send.id))
    assert {one["value"] for one in run("dump", "jumps", "--json")["entries"]} == {skel.progs.send.id}
    for name in ("tables", "named_tables"):
        run("set", name, "1", str(pins.root() / "maps" / "first"))
        assert run("get", name, "1", "--json")["value"] == skel.maps.first.info().id
        run("delete", name, "1")


def test_what_can_not_be_listed_says_why(run):
    assert "of type ringbuf can't be listed" in run("dump", "ring", code=7)
    assert "perf_event_array" in run("dump", "events", code=7)
    assert "xskmap" in run("dump", "sockets", code=7)
    for name in ("ring", "events", "sockets"):
        assert run("show", name, "--json")["name"] == name


def test_without_btf_keys_and_values_are_bytes_in_hex(xdpctl, tmp_path):
    with LoadedMap(load.map_(uapi.MAP_TYPES.index("hash"), 6, 3, 4, name="plain")) as plain:
        plain.pin(pins.root() / "maps" / "plain")
        xdpctl("map", "set", "plain", "0a:0b:0c:0d:0e:0f", "01 02 03", check=True)
        assert plain.lookup(bytes(range(10, 16))) == b"\1\2\3"
        shown = xdpctl("map", "dump", "plain", check=True).stdout.split()
        assert shown == ["0a0b0c0d0e0f", "010203"]
        told = xdpctl("map", "dump", "plain", "--json", check=True)
        (tmp_path / "plain.json").write_text(told.stdout)
        plain.delete(bytes(range(10, 16)))
        xdpctl("map", "load", "plain", tmp_path / "plain.json", check=True)
        assert (
            xdpctl("map", "dump", "plain", "--json", check=True).json()["entries"] == told.json()["entries"]
        )
        assert xdpctl("map", "set", "plain", "0a0b", "010203").returncode == 2
        assert json.loads(told.stdout)["map"]["name"] == "plain"
