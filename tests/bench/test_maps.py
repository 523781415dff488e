"""A million entries of a hash from a file, and back to JSON: against bpftool, and against C that has them in memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from bench import ROOT, SHORT, compare, run

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
COUNT = 1_000_000
ROUNDS = 2 if SHORT else 5
PIN = "/sys/fs/bpf/maps/flows"

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1100000);
         __type(key, __u32); __type(value, __u64); } flows SEC(".maps");
SEC("xdp") int look(struct xdp_md *ctx) { __u32 k = 0; bpf_map_lookup_elem(&flows, &k); return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""

IN_MEMORY = """
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
/* Batch calls of PIECE elements each, all of them in memory; prints the seconds of the update and of the look-up. */
enum { COUNT = %(count)d, PIECE = 65536 };
static unsigned keys[COUNT]; static unsigned long long values[COUNT];
static long call(int what, union bpf_attr *a) { return syscall(SYS_bpf, what, a, sizeof(*a)); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
int main(int argc, char **argv)
{
    FILE *in = fopen(argv[2], "rb");
    union bpf_attr a;
    double start;
    unsigned long long cursor[2] = {0};
    int fd, at, got = 0;

    if (fread(keys, sizeof(keys), 1, in) != 1 || fread(values, sizeof(values), 1, in) != 1) return 1;
    memset(&a, 0, sizeof(a)); a.pathname = (unsigned long)argv[1];
    if ((fd = call(BPF_OBJ_GET, &a)) < 0) return 2;
    start = now();
    for (at = 0; at < COUNT; at += PIECE) {
        memset(&a, 0, sizeof(a));
        a.batch.map_fd = fd; a.batch.keys = (unsigned long)(keys + at); a.batch.values = (unsigned long)(values + at);
        a.batch.count = COUNT - at < PIECE ? COUNT - at : PIECE;
        if (call(BPF_MAP_UPDATE_BATCH, &a)) return 3;
    }
    printf("%%f ", now() - start);
    start = now();
    for (at = 0;; at = 1) {
        long done;
        memset(&a, 0, sizeof(a));
        a.batch.map_fd = fd; a.batch.in_batch = at ? (unsigned long)&cursor[0] : 0;
        a.batch.out_batch = (unsigned long)&cursor[1];
        a.batch.keys = (unsigned long)keys; a.batch.values = (unsigned long)values; a.batch.count = PIECE;
        done = call(BPF_MAP_LOOKUP_BATCH, &a);
        got += a.batch.count; cursor[0] = cursor[1];
        if (done) break;
    }
    printf("%%f %%d\\n", now() - start, got);
    return got == COUNT ? 0 : 4;
}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The map, pinned, and a million entries as CSV, as a batch file of bpftool and as C arrays."""
    folder = tmp_path_factory.mktemp("maps")
    source = folder / "flows.bpf.c"
    source.write_text(SOURCE)
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    run("clang", "-g", "-O2", "-target", "bpf", "-I", include, "-c", str(source), "-o", str(folder / "f.o"))
    run("bpftool", "prog", "load", str(folder / "f.o"), "/sys/fs/bpf/look", "pinmaps", "/sys/fs/bpf/maps")
    number = json.loads(run("bpftool", "-j", "map", "show", "pinned", PIN))["id"]
    rng = random.Random(1)  # noqa: S311 - the same entries in every round
    keys = rng.sample(range(2**32), COUNT)
    values = [rng.randrange(10**9) for _ in keys]
    (folder / "flows.csv").write_text("key,value\n" + "".join(map("{},{}\n".format, keys, values)))
    with (folder / "batch").open("w") as batch:
        for key, value in zip(keys, values, strict=True):
            batch.write(
                f"map update id {number} key hex {key.to_bytes(4, 'little').hex(' ')}"
                f" value hex {value.to_bytes(8, 'little').hex(' ')}\n"
            )
    raw = b"".join(key.to_bytes(4, "little") for key in keys) + b"".join(
        value.to_bytes(8, "little") for value in values
    )
    (folder / "raw").write_bytes(raw)
    (folder / "memory.c").write_text(IN_MEMORY % {"count": COUNT})
    run("cc", "-O2", "-o", str(folder / "memory"), str(folder / "memory.c"))
    yield folder
    run("rm", "-r", "/sys/fs/bpf/look", "/sys/fs/bpf/maps")


def seconds(command: str) -> float:
    start = time.perf_counter()
    subprocess.run(["sh", "-c", command], check=True, timeout=300)
    return time.perf_counter() - start


def in_memory(files: Path) -> tuple[float, float]:
    update, lookup, _ = run(str(files / "memory"), PIN, str(files / "raw")).split()
    return float(update), float(lookup)


def test_a_million_entries_are_loaded_three_times_as_fast_as_by_bpftool(files):
    def load() -> float:
        return seconds(f"{XDPCTL} map load {PIN} {files}/flows.csv > /dev/null")

    peer = f"bpftool batch file {files}/batch > /dev/null"
    compare(
        "map load, a million entries",
        load,
        "bpftool batch file",
        lambda: seconds(peer),
        limit=1 / 3,
        rounds=ROUNDS,
    )
    compare(
        "map load, a million entries",
        load,
        "C, BPF_MAP_UPDATE_BATCH from memory",
        lambda: in_memory(files)[0],
        limit=4,
        rounds=ROUNDS,
        note="the whole command, interpreter and parsing included, against the calls alone",
    )


def test_a_million_entries_are_dumped_three_times_as_fast_as_by_bpftool(files):
    run(XDPCTL, "map", "load", PIN, str(files / "flows.csv"))

    def dump() -> float:
        return seconds(f"{XDPCTL} map dump --json {PIN} > {files}/ours.json")

    peer = f"bpftool -j map dump pinned {PIN} > {files}/theirs.json"
    compare("map dump --json, a million entries", dump, "bpftool -j map dump", lambda: seconds(peer), limit=1 / 3,
            rounds=ROUNDS)  # fmt: skip
    ours = {one["key"]: one["value"] for one in json.loads((files / "ours.json").read_text())["entries"]}
    theirs = {
        one["formatted"]["key"]: one["formatted"]["value"]
        for one in json.loads((files / "theirs.json").read_text())
    }
    assert ours == theirs
    assert len(ours) == COUNT


def test_load_and_dump_stay_within_four_times_of_c_from_memory(files):
    def both() -> float:
        return seconds(
            f"{XDPCTL} map load {PIN} {files}/flows.csv > /dev/null && {XDPCTL} map dump --json {PIN} > /dev/null"
        )

    compare(
        "map load and map dump --json together",
        both,
        "C, update and look-up in batches, from and to memory",
        lambda: sum(in_memory(files)),
        limit=4,
        rounds=ROUNDS,
    )
