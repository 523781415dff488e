"""An upgrade whose pinned maps changed: each choice for each kind of map, and nothing lost when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path

import pytest
from attachments import BPFFS, HEADER, agree, attach, detach, nothing_left, pins, programs_of

from xdpctl.attach.migrate_copy import Copy
from xdpctl.attach.prepare import prepare
from xdpctl.attach.request import AttachRequest, MapSetting, MigrateChoice
from xdpctl.attach.run import commit
from xdpctl.bpf import load, query
from xdpctl.bpf.elements import possible_cpus
from xdpctl.bpf.link import Link
from xdpctl.bpf.map import open_map
from xdpctl.errors import AttachError, ConfigError, MapError, SchemaError, VerifierError
from xdpctl.libbpf import uapi
from xdpctl.netlink import netns as namespaces

pytestmark = pytest.mark.kernel

PIN = BPFFS / "maps" / "flows"
COPY, REUSE, RECREATE = ((MigrateChoice(one),) for one in ("copy", "reuse", "recreate"))
OLD = "struct rec { __u64 packets; __u32 state; };"
GROWN = "struct rec { __u64 packets; __u64 bytes; __u32 state; };"
BODY = "struct rec *r = bpf_map_lookup_elem(&flows, &key); if (r) __sync_fetch_and_add(&r->packets, 1);"


def program(
    record=OLD, kind="HASH", *, key="__u32", entries=64, flags=0, body=BODY, value="struct rec", more=""
):
    """C source of an XDP program with one pinned map."""
    return f"""{HEADER}
{record}
struct lpm {{ __u32 prefixlen; __u8 address[4]; }};
struct {{ __uint(type, BPF_MAP_TYPE_{kind}); __uint(max_entries, {entries}); __uint(map_flags, {flags});
    __type(key, {key}); __type(value, {value}); {more} __uint(pinning, LIBBPF_PIN_BY_NAME); }} flows SEC(".maps");
SEC("xdp") int count(struct xdp_md *c)
{{ {key} key = {{0}}; {body} return XDP_PASS; }}
"""


@pytest.fixture
def inside(world):
    """A namespace with a veth pair va, vb."""
    made = world.namespace()
    world.veth("va", "vb", netns_a=made, netns_b=made)
    return made


def upgrade(obj, netns, choices=COPY, **more):
    return attach(obj, "va", netns=netns, replace=True, migrate=choices, **more)


def fill(entries):
    with open_map(PIN) as flows:
        for key, value in entries.items():
            flows.update(key, value)


def content():
    with open_map(PIN) as flows:
        return dict(flows.items())


def keys_of(kind, count):
    if kind == "LPM_TRIE":
        return [struct.pack("=I4B", 32, 10, 0, 0, at) for at in range(count)]
    return [struct.pack("=I", at) for at in range(count)]


KINDS = {
    "HASH": 0,
    "LRU_HASH": 0,
    "PERCPU_HASH": 0,
    "LRU_PERCPU_HASH": 0,
    "LPM_TRIE": 1,
    "ARRAY": 0,
    "PERCPU_ARRAY": 0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_carried_over_by_field_name(compile_c, inside, kind):
    made_of = {"kind": kind, "key": "struct lpm" if kind == "LPM_TRIE" else "__u32", "flags": KINDS[kind]}
    attach(compile_c(program(**made_of)), "va", netns=inside)
    slots = possible_cpus() if "PERCPU" in kind else 1
    keys = keys_of(kind, 64 if "ARRAY" in kind else 20)
    fill(
        {
            key: b"".join(struct.pack("=QI4x", 100 * at + cpu, at) for cpu in range(slots))
            for at, key in enumerate(keys)
        }
    )
    before = programs_of(inside, "va")
    new = compile_c(program(GROWN, **made_of))
    with pytest.raises(SchemaError) as refused:
        upgrade(new, inside, ())
    assert "value grows from 16 to 24 bytes" in str(refused.value)
    assert "bytes  __u64 at 8" in refused.value.diagnostics
    assert "--migrate copy" in refused.value.hint
    assert programs_of(inside, "va") == before
    upgrade(new, inside)
    assert content() == {
        key: b"".join(struct.pack("=QQI4x", 100 * at + cpu, 0, at) for cpu in range(slots))
        for at, key in enumerate(keys)
    }
    assert [one.name for one in pins() if one.parent.name == "maps"] == ["flows"]
    agree_on_map(inside)
    detach("va", netns=inside)
    assert nothing_left()


def agree_on_map(inside):
    """The pinned map is the one that the attached program uses."""
    from xdpctl.attach.status import status
    from xdpctl.bpf.program import program_by_id

    (one,) = status(("va",), netns=inside).attachments
    with program_by_id(one.program.id) as running, open_map(PIN) as flows:
        assert running.info().map_ids == (flows.info().id,)


def ifindex_of(world, netns, name):
    return json.loads(world.run("ip", "-j", "link", "show", name, netns=netns).stdout)[0]["ifindex"]


@pytest.mark.parametrize("kind", ["DEVMAP", "DEVMAP_HASH", "CPUMAP"])
def test_references_are_carried_over(compile_c, world, inside, kind):
    body = "return bpf_redirect_map(&flows, key, 0);"
    old = compile_c(program("", kind, entries=1 if kind == "CPUMAP" else 8, value="__u32", body=body))
    new = compile_c(program("", kind, entries=2 if kind == "CPUMAP" else 16, value="__u64", body=body))
    attach(old, "va", netns=inside)
    number = 64 if kind == "CPUMAP" else ifindex_of(world, inside, "vb")
    with namespaces.enter(inside):
        fill({struct.pack("=I", 0): struct.pack("=I", number)})
    upgrade(new, inside)
    entry = content()[struct.pack("=I", 0)]
    assert struct.unpack("=II", entry) == (number, 0)
    detach("va", netns=inside)
    assert nothing_left()


MAPS_IN_MAP = (
    HEADER
    + """
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, ENTRIES); __type(key, __u32);
    __uint(pinning, LIBBPF_PIN_BY_NAME); __array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }); } flows SEC(".maps");
SEC("xdp") int count(struct xdp_md *c)
{ __u32 key = 0; return bpf_map_lookup_elem(&flows, &key) ? XDP_PASS : XDP_DROP; }
"""
)


def test_a_map_of_maps_keeps_its_maps(compile_c, inside):
    attach(compile_c(MAPS_IN_MAP.replace("ENTRIES", "4")), "va", netns=inside)
    with held(load.map_(uapi.MAP_TYPE_ARRAY, 4, 8, 4)) as inner:
        fill({struct.pack("=I", 7): struct.pack("=I", inner)})
        number = query.map_info(inner).id
    upgrade(compile_c(MAPS_IN_MAP.replace("ENTRIES", "8")), inside)
    assert content() == {struct.pack("=I", 7): struct.pack("=I", number)}
    detach("va", netns=inside)
    assert nothing_left()


@contextlib.contextmanager
def held(fd):
    try:
        yield fd
    finally:
        os.close(fd)


def record(packets, state):
    return struct.pack("=QI4x", packets, state)


KEY = struct.pack("=I", 0)


def test_recreate_starts_empty(compile_c, inside):
    attach(compile_c(program()), "va", netns=inside)
    fill({KEY: record(5, 1)})
    upgrade(compile_c(program(GROWN)), inside, RECREATE)
    assert content() == {}
    agree_on_map(inside)
    detach("va", netns=inside)
    assert nothing_left()


def test_reuse_keeps_the_map_where_its_bytes_mean_the_same(compile_c, inside):
    attach(compile_c(program()), "va", netns=inside)
    fill({KEY: record(5, 1)})
    renamed = compile_c(program(OLD.replace("state", "phase"), entries=128))
    with pytest.raises(SchemaError, match="max_entries 64 becomes 128, 1 field renamed"):
        upgrade(renamed, inside, ())
    with open_map(PIN) as before:
        number = before.info().id
    upgrade(renamed, inside, REUSE)
    with open_map(PIN) as after:
        assert after.info().id == number
        assert after.info().max_entries == 64
    assert content() == {KEY: record(5, 1)}
    with pytest.raises(SchemaError, match="can't be reused: its value size changes from 16 to 24"):
        upgrade(compile_c(program(GROWN)), inside, REUSE)
    moved = compile_c(program("struct rec { __u32 state; __u32 pad; __u64 packets; };"))
    with pytest.raises(SchemaError, match=r"can't be reused: value\.state: it moves from byte 8 to 0"):
        upgrade(moved, inside, REUSE)
    detach("va", netns=inside)
    assert nothing_left()


def test_the_same_map_is_used_without_a_question(compile_c, inside):
    attach(compile_c(program()), "va", netns=inside)
    fill({KEY: record(5, 1)})
    same = OLD.replace("__u64", "unsigned long long")
    attach(compile_c(program(same)), "va", netns=inside, replace=True)
    assert content() == {KEY: record(5, 1)}
    detach("va", netns=inside)
    assert nothing_left()


def test_a_named_pin_is_compared_too_and_replaced(compile_c, inside):
    attach(compile_c(program()), "va", netns=inside)
    fill({KEY: record(5, 1)})
    other = BPFFS.parent / "mine"
    with open_map(PIN) as flows:
        flows.pin(other)
    detach("va", netns=inside)
    unpinned = program(GROWN).replace("__uint(pinning, LIBBPF_PIN_BY_NAME);", "")
    named = (MapSetting("flows", pin=str(other)),)
    with pytest.raises(SchemaError, match="value grows"):
        attach(compile_c(unpinned), "va", netns=inside, maps=named)
    attach(compile_c(unpinned), "va", netns=inside, maps=named, migrate=COPY)
    with open_map(other) as flows:
        assert dict(flows.items()) == {KEY: struct.pack("=QQI4x", 5, 0, 1)}
    detach("va", netns=inside)
    assert nothing_left()


def test_one_map_may_be_chosen_by_name(compile_c, inside):
    attach(compile_c(program()), "va", netns=inside)
    fill({KEY: record(5, 1)})
    new = compile_c(program(GROWN))
    with pytest.raises(SchemaError):
        upgrade(new, inside, (MigrateChoice("copy"), MigrateChoice("fail", "flows")))
    with pytest.raises(ConfigError, match="no such map: flow"):
        upgrade(new, inside, (MigrateChoice("copy", "flow"),))
    upgrade(new, inside, (MigrateChoice("copy", "flows"),))
    assert len(content()) == 1
    detach("va", netns=inside)


NARROW = "struct rec { __u64 packets; __u16 state; };"
FAILURES = {
    "a value that does not fit": (
        program(NARROW),
        MapError,
        r"entry 0x.*: value\.state: 700\d\d does not fit __u16",
    ),
    "too few entries": (
        program(GROWN, entries=4),
        MapError,
        "holds 20 entries, and the new one has room for 4",
    ),
    "a verifier that refuses": (
        program(GROWN, body="return *(int *)(long)c->data;"),
        VerifierError,
        "outside of the (packet|allowed memory range)",
    ),
    "another type": (program(GROWN, "ARRAY"), SchemaError, "a hash can't become a array"),
    "a key that loses a field": (
        program(key="struct key { __u16 low; }").replace("struct key { __u16 low; } key", "struct key key"),
        SchemaError,
        "its type is another one",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_fails_leaves_the_old_program_map_and_pins(compile_c, world, inside, what):
    source, error, message = FAILURES[what]
    attach(compile_c(program()), "va", netns=inside)
    fill({struct.pack("=I", at): record(at, 70000 + at) for at in range(20)})
    before, there, left = agree(world, inside), content(), pins()
    with pytest.raises(error, match=message):
        upgrade(compile_c(source), inside)
    assert (agree(world, inside), content(), pins()) == (before, there, left)
    agree_on_map(inside)
    assert not list(Path("/run/xdpctl").glob("migration*"))
    detach("va", netns=inside)
    assert nothing_left()


KEYED = "struct key {{ __u32 address; __u16 port; {more} }};"


def test_keys_that_would_become_one_are_refused(compile_c, inside):
    old = KEYED.format(more="__u16 vlan;") + OLD
    attach(compile_c(program(old, key="struct key")), "va", netns=inside)
    fill({struct.pack("=IHH", 1, 2, vlan): record(vlan, 0) for vlan in range(3)})
    with pytest.raises(MapError, match="3 entries would share 1 keys"):
        upgrade(compile_c(program(KEYED.format(more="") + OLD, key="struct key")), inside)
    assert len(content()) == 3
    upgrade(compile_c(program(KEYED.format(more="__u16 vlan; __u32 zone;") + OLD, key="struct key")), inside)
    assert content() == {struct.pack("=IHHI", 1, 2, vlan, 0): record(vlan, 0) for vlan in range(3)}
    detach("va", netns=inside)


def test_a_map_that_another_program_goes_on_using_is_not_moved(compile_c, world, inside):
    world.veth("vc", "vd", netns_a=inside, netns_b=inside)
    old = compile_c(program())
    attach(old, "va", "vc", netns=inside)
    fill({KEY: record(5, 1)})
    new = compile_c(program(GROWN))
    before = agree(world, inside)
    attach(old, "vc", netns=inside, replace=True)
    with pytest.raises(MapError, match=r"used by count \(program \d+\) too"):
        upgrade(new, inside)
    attach(new, "va", "vc", netns=inside, replace=True, migrate=COPY)
    assert len(agree(world, inside)) == len(before) == 2
    assert content() == {KEY: struct.pack("=QQI4x", 5, 0, 1)}
    detach("v*", netns=inside)
    assert nothing_left()


@pytest.mark.parametrize("at", [1, 2])
def test_an_interface_that_refuses_puts_programs_and_maps_back(compile_c, world, inside, monkeypatch, at):
    world.veth("vc", "vd", netns_a=inside, netns_b=inside)
    attach(compile_c(program()), "va", "vc", netns=inside)
    fill({KEY: record(5, 1)})
    before, left = agree(world, inside), pins()
    update, calls = Link.update, []

    def refuse(self, *arguments, **options):
        calls.append(1)
        if len(calls) == at:
            raise AttachError("no", errno=22)
        update(self, *arguments, **options)

    monkeypatch.setattr(Link, "update", refuse)
    with pytest.raises(AttachError):
        attach(compile_c(program(GROWN)), "va", "vc", netns=inside, replace=True, migrate=COPY)
    assert (agree(world, inside), pins()) == (before, left)
    assert content() == {KEY: record(5, 1)}
    detach("v*", netns=inside)
    assert nothing_left()


@pytest.mark.parametrize("how", ["full", "misfit"])
def test_a_last_pass_that_fails_puts_the_old_program_back(compile_c, world, inside, monkeypatch, how):
    """What the old program did in its last moments does not fit: it is in force again, with all that it did."""
    attach(compile_c(program()), "va", netns=inside)
    fill({struct.pack("=I", at): record(1, 1) for at in range(4)})
    before, left = agree(world, inside), pins()
    last = Copy.last

    def meanwhile(self):
        self._old.update(struct.pack("=I", 9), record(1, 1 if how == "full" else 70000))
        return last(self)

    monkeypatch.setattr(Copy, "last", meanwhile)
    new = program(NARROW, entries=4 if how == "full" else 64)
    with pytest.raises(MapError, match="it is full" if how == "full" else "70000 does not fit"):
        upgrade(compile_c(new), inside)
    assert (agree(world, inside), pins()) == (before, left)
    agree_on_map(inside)
    assert len(content()) == 5
    detach("va", netns=inside)
    assert nothing_left()


@pytest.mark.parametrize("flags", [0, 2], ids=["common", "per-cpu-lists"])
def test_a_full_lru_map_keeps_nearly_all_and_says_how_many_not(compile_c, inside, flags):
    made_of = {"kind": "LRU_HASH", "entries": 4096, "flags": flags}
    attach(compile_c(program(**made_of)), "va", netns=inside)
    fill({struct.pack("=I", at): record(at, 1) for at in range(3000)})
    before = content()
    with prepare(request_for(compile_c(program(GROWN, **made_of)), inside)) as prepared:
        commit(prepared)
        (report,) = prepared.migration.reports
    after = content()
    assert after.keys() <= before.keys()
    assert len(after) == len(before) - report.counts.evicted
    assert len(after) > 0.9 * len(before)
    detach("va", netns=inside)


def request_for(obj, netns):
    return AttachRequest(object=obj, interfaces=("va",), netns=netns, replace=True, migrate=COPY)


SUMMARY = "max_entries 64 becomes 128, value grows from 16 to 24 bytes (1 field added, 1 field moved)"


def test_the_command_line_shows_the_difference_and_the_choices(compile_c, inside, xdpctl):
    attach(compile_c(program()), "va", netns=inside)
    fill({KEY: record(5, 1)})
    new = compile_c(program(GROWN, entries=128), "newer")
    words = ("attach", "--netns", inside, "--replace")
    done = xdpctl(*words, "va", new)
    assert done.returncode == 7
    assert done.stderr.splitlines() == [
        f"xdpctl: error: map flows of newer.bpf.o differs from the one pinned at {PIN}: {SUMMARY}",
        "flows, pinned at /sys/fs/bpf/xdpctl/maps/flows:",
        "  max_entries: 64 -> 128",
        "  value: 16 bytes (struct rec) -> 24 bytes (struct rec)",
        "    + bytes  __u64 at 8                 added  copy: zero",
        "    ~ state  __u32 at 8 -> __u32 at 16  moved  copy: kept",
        "hint: --migrate copy (entries carried over by field name) or --migrate recreate (an empty new map)",
    ]
    told = xdpctl(*words, "--json", "va", new).json()["error"]
    assert told["type"] == "SchemaError"
    assert [one["path"] for one in told["differences"][0]["fields"]] == ["bytes", "state"]
    assert told["differences"][0]["why_not_reuse"] == "its value size changes from 16 to 24"
    bad = xdpctl(*words, "--migrate", "flows=keep", "va", new)
    assert bad.returncode == 2
    assert "one of reuse, copy, recreate, fail" in bad.stderr
    done = xdpctl(*words, "--migrate", "copy", "--json", "va", new, check=True)
    (moved,) = done.json()["maps"]
    assert (moved["map"], moved["choice"], moved["counts"]["copied"]) == ("flows", "copy", 1)
    done = xdpctl(*words, "--migrate", "flows=copy", "va", compile_c(program()), check=True)
    assert "map flows moved (max_entries 128 becomes 64, value shrinks from 24 to 16 bytes" in done.stdout
    assert "1 entry copied" in done.stdout
    xdpctl("detach", "--netns", inside, "va", check=True)
    assert nothing_left()
