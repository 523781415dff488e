"""``xdpctl map`` as a user types it: names of maps, values in and out, files, and what goes wrong half-way."""

from __future__ import annotations

import json

import pytest

from xdpctl.bpf import pins
from xdpctl.bpf.object import Object

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
struct stat { __u64 hits; __u64 bytes; };
struct prefix { __u32 length; struct in_addr address; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1000);
         __type(key, __u32); __type(value, struct stat); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 3);
         __type(key, __u32); __type(value, __u64); } small SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 100); __uint(map_flags, BPF_F_NO_PREALLOC);
         __type(key, struct prefix); __type(value, struct stat); } blocklist SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2);
         __type(key, __u32); __type(value, struct stat); } stats SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3);
         __type(key, __u32); __type(value, __u32); } slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 2); __type(value, __u32); } queue SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
    first SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
         __array(values, struct inner); } tables SEC(".maps") = { .values = { &first } };
SEC("xdp") int keep_them(struct xdp_md *ctx)
{
    __u32 zero = 0;
    void *all[] = { &flows, &small, &blocklist, &stats, &slots, &tables };
    struct stat *s = bpf_map_lookup_elem(&stats, &zero);
    if (s) s->hits++;
    bpf_map_lookup_elem(&flows, &zero); bpf_map_lookup_elem(&small, &zero);
    bpf_map_lookup_elem(&slots, &zero); bpf_map_lookup_elem(&tables, &zero);
    bpf_map_peek_elem(&queue, &zero);
    return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def obj(compile_c):
    with Object.open(compile_c(SOURCE, "command")) as opened:
        opened.load()
        for name, one in opened.maps.items():
            if not one.internal:
                one.pin(pins.root() / "maps" / name)
        yield opened


@pytest.fixture
def run(xdpctl, obj):
    """``run("get", ...)``: a map command, its answer as JSON; with ``code`` what it must end with."""

    def command(*argv, code=0):
        done = xdpctl("map", *argv)
        assert done.returncode == code, done.stdout + done.stderr
        return done.json() if "--json" in argv and not code else done

    return command


def entries(run, name):
    return {str(one.get("key")): one["value"] for one in run("dump", name, "--json")["entries"]}


def test_an_entry_is_set_field_by_field_read_and_deleted(run):
    assert run("set", "blocklist", "203.0.113.0/24", "hits=0", "--json")["created"] is True
    assert run("set", "blocklist", "203.0.113.0/24", "bytes=7", "--json")["created"] is False
    assert run("set", "blocklist", "203.0.113.0/24", '{"hits": 2}', "--json")["value"] == {
        "hits": 2,
        "bytes": 7,
    }
    assert run("set", "blocklist", "203.0.113.128/25", "--json")["value"] == {"hits": 0, "bytes": 0}
    found = run("get", "blocklist", "203.0.113.9", "--json")
    assert (found["key"], found["value"]) == ("203.0.113.9/32", {"hits": 2, "bytes": 7})
    assert run("get", "blocklist", "203.0.113.9").stdout == "hits=2 bytes=7\n"
    assert run("dump", "blocklist", "--csv").stdout.splitlines()[0] == "key,value.hits,value.bytes"
    run("set", "blocklist", "203.0.113.0/24", "hits=1", "--new", code=7)
    run("set", "blocklist", "198.51.100.0/24", "hits=1", "--existing", code=7)
    assert run("delete", "blocklist", "203.0.113.0/24", "--json")["deleted"] == 1
    gone = run("delete", "blocklist", "203.0.113.0/24", code=7)
    assert "map blocklist has no key 203.0.113.0/24" in gone.stderr
    assert list(entries(run, "blocklist")) == ["203.0.113.128/25"]
    assert run("clear", "blocklist", "--json")["cleared"] == 1


def test_a_map_is_named_by_pin_id_interface_and_name(run, obj, world, xdpctl):
    number = obj.maps["flows"].info().id
    world.veth("mc0", "mc1")
    try:
        xdpctl("attach", "mc0", "builtin:count", "--force", check=True)
        listed = run("list", "--json")["maps"]
        mine = next(one for one in listed if one["id"] == number)
        assert (mine["name"], mine["key_type"], mine["value_type"]) == ("flows", "__u32", "struct stat")
        assert mine["pins"] == [str(pins.root() / "maps" / "flows")]
        assert [one["name"] for one in mine["programs"]] == ["keep_them"]
        for name in (str(number), "flows", "maps/flows", str(pins.root() / "maps" / "flows")):
            assert run("show", name, "--json")["id"] == number
        of_interface = run("show", "mc0/actions", "--json")
        assert of_interface["type"] == "percpu_array"
        near = run("show", "mc0/action", code=2)
        assert "no such map: action" in near.stderr
        assert "actions" in near.stderr
        xdpctl("detach", "mc0", check=True)
    finally:
        world.ip("link del mc0")
    assert "no such map: flovs" in run("show", "flovs", code=2).stderr
    run("show", "4294967295", code=2)
    run("show", "../../etc/passwd", code=2)


def test_values_of_each_cpu_are_set_and_summed(run):
    run("set", "stats", "1", "hits=2")
    run("set", "stats", "1", "bytes=9", "--cpu", "0")
    found = run("get", "stats", "1", "--json")
    cpus = len(found["value"])
    assert found["sum"] == {"hits": 2 * cpus, "bytes": 9}
    assert "sum of" in run("dump", "stats").stdout
    run("set", "stats", "1", "bytes=9", "--cpu", "100000", code=2)
    run("set", "flows", "1", "bytes=9", "--cpu", "0", code=2)
    assert run("dump", "stats", "--csv", code=2).stderr.count("per-CPU") == 1


def test_a_dump_is_loaded_again_from_each_format(run, tmp_path):
    (tmp_path / "f.csv").write_text("key,hits,bytes\n" + "".join(f"{n},{n * n},7\n" for n in range(500)))
    assert run("load", "flows", tmp_path / "f.csv", "--json")["written"] == 500
    before = entries(run, "flows")
    for flag in ("--json", "--jsonl", "--csv"):
        text = run("dump", "flows", flag)
        text = json.dumps(text) if flag == "--json" else text.stdout
        (tmp_path / "again").write_text(text)
        run("clear", "flows")
        assert run("load", "flows", tmp_path / "again", "--json")["written"] == 500
        assert entries(run, "flows") == before
    assert len(run("dump", "flows", "--jsonl", "--limit", "3").stdout.splitlines()) == 3


def test_a_bad_line_stops_the_load_before_anything_is_written(run, tmp_path):
    lines = [f"{n},1\n" for n in range(900)]
    lines[600] = "601,1,1\n"
    bad = tmp_path / "bad.csv"
    bad.write_text("key,hits\n" + "".join(lines))
    done = run("load", "flows", bad, code=2)
    assert f"{bad}:602: 3 cells, the header names 2 fields; nothing was written" in done.stderr
    assert entries(run, "flows") == {}
    done = run("load", "flows", bad, "--partial", "--json", code=1)
    told = json.loads(done.stdout)
    assert (told["written"], told["bad_lines"], told["problems"][0]["line"]) == (899, 1, 602)
    assert len(entries(run, "flows")) == 899
    run("load", "flows", tmp_path / "none.csv", code=2)
    run("load", "flows", tmp_path, code=2)


def test_a_map_that_gets_full_tells_how_far_it_came(run, tmp_path):
    file = tmp_path / "many.csv"
    file.write_text("key,value\n" + "".join(f"{n},{n}\n" for n in range(5)))
    assert "room for 3 entries" in run("load", "small", file, code=7).stderr
    assert entries(run, "small") == {}
    run("set", "small", "9", "9")
    file.write_text("key,value\n" + "".join(f"{n},{n}\n" for n in range(3)))
    done = run("load", "small", file, code=7)
    assert "it is full (3 entries); 2 of 3 entries were written (up to line 3 of" in done.stderr
    assert sorted(entries(run, "small")) == ["0", "1", "9"]
    told = json.loads(run("load", "small", file, "--partial", "--json", code=1).stdout)
    assert told["written"] == 2
    assert "it is full" in told["stopped"]


def test_an_atomic_load_replaces_the_content_or_leaves_it(run, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text("key,value\n1,1\n2,2\n3,3\n")
    run("load", "small", file)
    file.write_text("key,value\n3,30\n4,4\n5,5\n")
    told = run("load", "small", file, "--atomic", "--json")
    assert (told["added"], told["changed"], told["deleted"]) == (2, 1, 2)
    assert entries(run, "small") == {"3": 30, "4": 4, "5": 5}
    file.write_text("key,value\n" + "".join(f"{n},1\n" for n in range(4)))
    run("load", "small", file, "--atomic", code=7)
    assert entries(run, "small") == {"3": 30, "4": 4, "5": 5}
    file.write_text("key,value\n1,7\n")
    run("load", "slots", file, "--atomic")
    assert entries(run, "slots") == {"0": 0, "1": 7, "2": 0}
    file.write_text("key,value\n1,7\n3,1\n")
    assert "key 3: it lies beyond its 3 slots" in run("load", "slots", file, "--atomic", code=7).stderr


def test_an_atomic_load_that_the_kernel_stops_is_undone(run, obj, tmp_path, monkeypatch):
    from xdpctl.bpf import batch
    from xdpctl.errors import MapError
    from xdpctl.skeleton import loading
    from xdpctl.skeleton.rows_read import Rows
    from xdpctl.skeleton.typed_map import open_typed

    with open_typed(obj.maps["flows"].info().id) as of:
        of.update_many((n, f"hits={n}") for n in range(100))
        before = dict(of.elements.items())
        rows = Rows(b"key,hits\n" + b"".join(b"%d,5\n" % n for n in range(50, 200)), of.shape)
        content = loading.read(rows, "f", partial=False)
        calls = []

        def fails(elements, keys, values, *, flags=0):
            calls.append(1)
            if len(calls) == 2:
                raise MapError("update of map flows: ENOMEM", errno=12)
            return original(elements, keys, values, flags=flags)

        original = batch.write
        monkeypatch.setattr(batch, "write", fails)
        with pytest.raises(MapError, match="the map is as it was before"):
            loading.replace(of, content, rows, "f")
        assert dict(of.elements.items()) == before


def test_an_inner_map_is_swapped_as_a_whole(run, obj, tmp_path):
    file = tmp_path / "inner.jsonl"
    file.write_text('{"key": 1, "value": 10}\n{"key": 2, "value": 20}\n')
    first = run("get", "tables", "0", "--json")["value"]
    assert run("load", "tables", file, "--atomic", "--slot", "0", "--json")["written"] == 2
    second = run("get", "tables", "0", "--json")["value"]
    assert second != first
    assert entries(run, str(second)) == {"1": 10, "2": 20}
    assert entries(run, str(first)) == {}
    file.write_text('{"key": 1, "value": -10}\n')
    run("load", "tables", file, "--atomic", "--slot", "0", code=2)
    assert run("get", "tables", "0", "--json")["value"] == second
    run("load", "tables", file, "--atomic", "--slot", "1", code=7)
    run("load", "flows", file, "--atomic", "--slot", "1", code=2)


def test_a_queue_is_pushed_and_shows_what_comes_next(run):
    run("set", "queue", "5")
    run("set", "queue", "6")
    assert "it is full (2 elements)" in run("set", "queue", "7", code=7).stderr
    assert [one["value"] for one in run("dump", "queue", "--json")["entries"]] == [5]
    assert run("clear", "queue", "--json")["cleared"] == 2
    run("get", "queue", "1", code=7)
    run("delete", "queue", "1", code=7)


def test_changes_are_watched_with_their_rates(run, obj, xdpctl):
    import threading

    of = obj.maps["stats"]
    stop = threading.Event()

    def count():
        while not stop.is_set():
            obj.programs["keep_them"].test_run(bytes(64), repeat=50)
            stop.wait(0.01)

    other = threading.Thread(target=count)
    other.start()
    try:
        done = xdpctl("map", "watch", "stats", "--count", "2", "--interval", "0.2", "--json", check=True)
        plain = xdpctl("map", "watch", "stats", "0", "--count", "1", "--interval", "0.2", check=True).stdout
    finally:
        stop.set()
        other.join()
    ticks = [json.loads(one) for one in done.stdout.splitlines()]
    assert len(ticks) == 2
    (changed,) = ticks[0]["changed"]
    assert (changed["key"], changed["rates"]["hits"] > 0, "bytes" in changed["rates"]) == (0, True, False)
    assert "/s" in plain
    assert of.info().max_entries == 2


def test_wrong_usage_is_told(run, tmp_path):
    run("dump", "flows", "--json", "--csv", code=2)
    run("set", "flows", "1", "hits=1", "--new", "--existing", code=2)
    run("set", "slots", "1", code=2)
    run("load", "flows", "-", "--slot", "1", code=2)
    run("load", "flows", "-", "--atomic", "--partial", code=2)
    run("load", "flows", "-", "--format", "xml", code=2)
    assert "did you mean hits?" in run("set", "flows", "1", "hitz=1", code=2).stderr
    assert run("pin", "flows", "a.b", code=2).stderr.count("can't be the name of a pin") == 1
    assert run("pin", "flows", "kept", "--json")["pin"].endswith("/maps/kept")
