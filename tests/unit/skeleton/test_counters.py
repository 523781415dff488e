"""Which numbers of a value are counters, and into which words a value is taken apart for a merge."""

from __future__ import annotations

import os
import subprocess

import pytest

from xdpctl.attach.migrate_merge import Word, words
from xdpctl.obj import reader
from xdpctl.obj.counters import counted
from xdpctl.skeleton.schema import Side, of_file

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct rec { __u64 packets; __u32 bytes; __u32 state; __u64 last; __u64 hist[4]; __u64 deep; __u8 mac[6]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, struct rec); }
    flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
    total SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
    set SEC(".maps");
static __attribute__((noinline)) int below(struct rec *r, struct xdp_md *c)
{ if (r) r->deep += c->data_end - c->data; return 0; }
SEC("xdp") int count(struct xdp_md *c)
{
    __u32 key = c->rx_queue_index;
    struct rec *r = bpf_map_lookup_elem(&flows, &key);
    __u64 *t = bpf_map_lookup_elem(&total, &key), *s = bpf_map_lookup_elem(&set, &key);
    if (t) ++*t;
    if (s) *s = bpf_ktime_get_ns();
    if (!r) return XDP_PASS;
    __sync_fetch_and_add(&r->packets, 1);
    r->bytes += c->data_end - c->data;
    r->state = 3;
    r->last = bpf_ktime_get_ns();
    r->hist[bpf_get_prandom_u32() & 3]++;
    return below(r, c);
}
"""


@pytest.fixture(scope="module")
def obj(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counters")
    (folder / "x.bpf.c").write_text(SOURCE)
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    argv = [
        "clang",
        "-g",
        "-O2",
        "-target",
        "bpf",
        "-I",
        include,
        "-c",
        folder / "x.bpf.c",
        "-o",
        folder / "x.o",
    ]
    subprocess.run(argv, check=True, timeout=60)
    return reader.read(folder / "x.o")


def test_what_a_program_adds_to_is_told_from_what_it_sets(obj):
    found = counted(obj)
    assert {(one.offset, one.size, one.indexed) for one in found["flows"]} == {
        (0, 8, False),
        (8, 4, False),
        (24, 8, True),
        (56, 8, False),
    }
    assert {one.offset for one in found["total"]} == {0}
    assert "set" not in found


def test_a_value_is_taken_apart_into_numbers_and_counters(obj):
    value = of_file(obj, obj.map("flows")).value
    assert words(value, counted(obj)["flows"]) == (
        Word(0, 8, True),
        Word(8, 4, True),
        Word(12, 4, False),
        Word(16, 8, False),
        *(Word(24 + 8 * at, 8, True) for at in range(4)),
        Word(56, 8, True),
        Word(64, 4, False),
        Word(68, 2, False),
    )


def test_without_btf_a_value_is_taken_apart_around_its_counters(obj):
    marks = [one for one in counted(obj)["flows"] if not one.indexed]
    assert words(Side(20), marks) == (
        Word(0, 8, True),
        Word(8, 4, True),
        Word(12, 4, False),
        Word(16, 4, False),
    )
