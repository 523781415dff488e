"""kill -9 at every step of an upgrade that moves maps: what runs has every entry, and the next run ends the rest."""

from __future__ import annotations

import os
import signal
import struct
import sys
import traceback
from importlib import import_module
from pathlib import Path

import pytest
from attachments import BPFFS, HEADER, agree, attach, detach, nothing_left, pins, xdp

from xdpctl.attach import runstate
from xdpctl.attach.migrate_copy import Copy
from xdpctl.attach.request import MigrateChoice
from xdpctl.attach.status import status
from xdpctl.bpf.map import open_map
from xdpctl.bpf.program import program_by_id

pytestmark = pytest.mark.kernel

FLOWS, NAMES = BPFFS / "maps" / "flows", BPFFS / "maps" / "names"
COPY = (MigrateChoice("copy"),)
SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u32); __type(value, RECORD);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, ROOM); __type(key, __u32); __type(value, __u64);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } names SEC(".maps");
SEC("xdp") int count(struct xdp_md *c)
{ __u32 k = 0; __u64 *a = bpf_map_lookup_elem(&names, &k);
  struct rec *r = bpf_map_lookup_elem(&flows, &k);
  if (r) __sync_fetch_and_add(&r->b, 1);
  return a && r ? XDP_PASS : XDP_DROP; }
"""
OLD = (
    HEADER + "struct rec { __u32 a; __u32 b; };" + SOURCE.replace("RECORD", "struct rec").replace("ROOM", "4")
)
NEW = (
    HEADER
    + "struct rec { __u64 b; __u32 a; __u32 c; };"
    + SOURCE.replace("RECORD", "struct rec").replace("ROOM", "8")
)
OLD_SIZE = 8
FUNCTIONS = {
    "first": "xdpctl.attach.migrate_copy:Copy.first",
    "again": "xdpctl.attach.migrate_copy:Copy.again",
    "keep": "xdpctl.attach.migrate_copy:Copy.keep",
    "journal": "xdpctl.attach.migrate_journal:Journal.write",
    "pin": "xdpctl.bpf.pins:pin",
    "update": "xdpctl.bpf.link:Link.update",
    "last": "xdpctl.attach.migrate_copy:Copy.last",
    "rename": "xdpctl.attach.migrate_pins:take_over",
    "clear": "xdpctl.attach.migrate_pins:clear",
    "forget": "xdpctl.attach.migrate_journal:Journal.forget",
}
STEPS = [
    ("first", 1), ("first", 2), ("again", 2), ("keep", 1), ("keep", 2), ("journal", 1),
    ("pin", 1), ("pin", 2), ("pin", 3), ("pin", 4), ("update", 1), ("update", 2), ("last", 1), ("last", 2),
    ("journal", 2), ("journal", 3), ("journal", 4), ("rename", 1), ("rename", 2), ("clear", 1), ("forget", 1),
]  # fmt: skip
SWAPPED = STEPS.index(("update", 1))


def killed_in(work, function, call):
    """Do `work` in a child that is killed after that call of a function; True: it was, False: it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            module, _, path = FUNCTIONS[function].partition(":")
            owner = import_module(module)
            *outer, name = path.split(".")
            for one in outer:
                owner = getattr(owner, one)
            original, calls = getattr(owner, name), []

            def deadly(*arguments, **options):
                result = original(*arguments, **options)
                calls.append(1)
                if len(calls) == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            setattr(owner, name, deadly)
            work()
        except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    _, ended = os.waitpid(child, 0)
    assert not os.WIFEXITED(ended) or os.WEXITSTATUS(ended) == 0
    return os.WIFSIGNALED(ended)


@pytest.fixture
def two(world):
    """A namespace with va and vc, whose peers are vb and vd."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    world.veth("vc", "vd", netns_a=inside, netns_b=inside)
    return inside


def key(number):
    return struct.pack("=I", number)


def flows():
    """Entry -> (a, b), of whatever version is pinned."""
    with open_map(FLOWS) as found:
        rows = {struct.unpack("=I", one)[0]: value for one, value in found.items()}
        if found.value_bytes == OLD_SIZE:
            return {one: struct.unpack("=II", value) for one, value in rows.items()}
        return {one: (a, b) for one, value in rows.items() for b, a, _ in [struct.unpack("=QII", value)]}


def running(netns):
    """The programs of va and vc."""
    return {one.program.id for one in status(("va", "vc"), netns=netns).attachments}


def maps_of(number):
    with program_by_id(number) as program:
        return set(program.info().map_ids)


def pinned_ids():
    found = set()
    for path in (FLOWS, NAMES):
        with open_map(path) as opened:
            found.add(opened.info().id)
    return found


@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"{name}-{call}" for name, call in STEPS])
def test_after_a_kill_the_next_run_undoes_or_finishes(world, compile_c, two, step):
    attach(compile_c(OLD), "va", "vc", netns=two)
    (before,) = running(two)
    entries = {number: (number, 100 + number) for number in range(20)}
    with open_map(FLOWS) as opened:
        for number, (a, b) in entries.items():
            opened.update(key(number), struct.pack("=II", a, b))
    new = compile_c(NEW)
    options = {"netns": two, "replace": True, "migrate": COPY}
    assert killed_in(lambda: attach(new, "va", "vc", **options), *STEPS[step])
    assert flows() == entries, "whatever is pinned now has every entry"
    assert len(status(("va", "vc"), netns=two).attachments) == 2, "no interface is without a program"
    if step < SWAPPED:
        assert running(two) == {before}
    with open_map(FLOWS) as opened:
        if opened.value_bytes == OLD_SIZE:  # the last that the old program did
            entries[3], entries[50] = (3, 777), (5, 6)
            opened.update(key(3), struct.pack("=II", 3, 777))
            opened.update(key(50), struct.pack("=II", 5, 6))
            opened.delete(key(4))
            del entries[4]
    told = runstate.recover()
    (now,) = running(two)
    assert (now == before) == (step < SWAPPED)
    if STEPS[step][0] != "forget" and step >= STEPS.index(("journal", 1)):
        assert told
        assert ("undone" if now == before else "finished") in told[0]
    assert flows() == entries
    assert maps_of(now) == pinned_ids(), "the pins are those of what runs"
    assert [one.name for one in pins() if one.parent.name == "maps"] == ["flows", "names"]
    assert not Path("/run/xdpctl/migration/journal.json").exists()
    agree(world, two)
    attach(new, "va", "vc", **options)
    assert flows() == entries
    detach("v*", netns=two)
    assert nothing_left()
    assert not Path("/run/xdpctl/migration").exists()


def test_what_was_added_up_before_the_kill_is_not_added_again(compile_c, two):
    attach(compile_c(OLD), "va", "vc", netns=two)
    with open_map(FLOWS) as opened:
        for number in range(2):
            opened.update(key(number), struct.pack("=II", number, 100))
    new = compile_c(NEW)

    def work():
        last = Copy.last

        def meanwhile(self):
            if self.name == "flows":
                self._old.update(
                    key(0), struct.pack("=II", 0, 105)
                )  # by the old program, after it was copied
                self._new.update(key(0), struct.pack("=QII", 103, 0, 0))  # by the new one
            return last(self)

        Copy.last = meanwhile
        attach(new, "va", "vc", netns=two, replace=True, migrate=COPY)

    assert killed_in(work, "journal", 4)  # swapping, two maps to be merged, renaming
    runstate.recover()
    assert flows() == {0: (0, 108), 1: (1, 100)}
    detach("v*", netns=two)
    assert nothing_left()


def test_without_room_for_notes_what_both_maps_hold_must_do(compile_c, two):
    attach(compile_c(OLD), "va", "vc", netns=two)
    with open_map(FLOWS) as opened:
        for number in range(2):
            opened.update(key(number), struct.pack("=II", number, 100))

    def work():
        def no_room(*_):
            raise OSError(28, "No space left on device")

        Copy.keep = no_room
        attach(compile_c(NEW), "va", "vc", netns=two, replace=True, migrate=COPY)

    assert killed_in(work, "update", 2)
    with open_map(FLOWS) as opened:
        opened.update(key(5), struct.pack("=II", 5, 6))
    runstate.recover()
    assert flows() == {0: (0, 100), 1: (1, 100), 5: (5, 6)}
    detach("v*", netns=two)
    assert nothing_left()


def test_any_next_attach_or_detach_does_it(world, compile_c, two, xdpctl):
    attach(compile_c(OLD), "va", "vc", netns=two)
    new = compile_c(NEW)
    options = {"netns": two, "replace": True, "migrate": COPY}
    assert killed_in(lambda: attach(new, "va", "vc", **options), "update", 1)
    world.veth("ve", "vg", netns_a=two, netns_b=two)
    done = xdpctl("attach", "--netns", two, "ve", compile_c(xdp("pass")), check=True)
    assert "an upgrade that was killed is finished" in done.stderr
    assert len(running(two)) == 1
    assert killed_in(lambda: attach(compile_c(OLD), "va", "vc", **options), "pin", 4)
    done = xdpctl("detach", "--netns", two, "v*", check=True)
    assert "an upgrade that was killed is undone" in done.stderr
    assert nothing_left()


def test_what_is_being_moved_by_another_is_left_alone(compile_c, two):
    from xdpctl.attach.migrate_journal import Journal
    from xdpctl.errors import MapError

    attach(compile_c(OLD), "va", netns=two)
    other = Journal()
    try:
        with pytest.raises(MapError, match="another xdpctl is moving maps"):
            attach(compile_c(NEW), "va", netns=two, replace=True, migrate=COPY)
    finally:
        other.forget()
        other.close()
    attach(compile_c(NEW), "va", netns=two, replace=True, migrate=COPY)
    detach("va", netns=two)
    assert nothing_left()


@pytest.mark.parametrize("name", ["first", "again", "last"])
def test_ctrl_c_takes_it_back_or_comes_too_late(compile_c, world, two, monkeypatch, name):
    attach(compile_c(OLD), "va", "vc", netns=two)
    with open_map(FLOWS) as opened:
        opened.update(key(1), struct.pack("=II", 2, 3))
    before, left = agree(world, two), pins()
    original = getattr(Copy, name)

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        return original(self)

    monkeypatch.setattr(Copy, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        attach(compile_c(NEW), "va", "vc", netns=two, replace=True, migrate=COPY)
    assert flows() == {1: (2, 3)}
    if name == "last":
        assert len(running(two)) == 1
        assert maps_of(running(two).pop()) == pinned_ids()
    else:
        assert (agree(world, two), pins()) == (before, left)
    detach("v*", netns=two)
    assert nothing_left()
