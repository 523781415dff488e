"""A map moved under traffic: no frame unfiltered, no entry lost, and what both programs counted added up."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time

import numpy as np
import pytest
from attachments import BPFFS, HEADER, attach, detach, nothing_left
from kernels import EMULATED

from xdpctl.attach.migrate_copy import Copy
from xdpctl.attach.request import MigrateChoice
from xdpctl.bpf import batch
from xdpctl.bpf.elements import possible_cpus
from xdpctl.bpf.map import open_map
from xdpctl.netlink import netns as namespaces

pytestmark = pytest.mark.kernel

FLOWS, TOTAL = BPFFS / "maps" / "flows", BPFFS / "maps" / "total"
COPY = (MigrateChoice("copy"),)
OLD = "struct rec { __u64 packets; __u32 mark; __u32 last; };"
GROWN = "struct rec { __u32 last; __u32 mark; __u64 packets; __u64 bytes; };"
SOURCE = """
RECORD
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, ENTRIES); __type(key, __u32); __type(value, struct rec);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } flows SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, ROOM); __type(key, __u32);
         __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } total SEC(".maps");
SEC("xdp") int count(struct xdp_md *c)
{
    void *data = (void *)(long)c->data, *end = (void *)(long)c->data_end;
    struct rec fresh = {}, *known;
    __u32 key, zero = 0;
    if (data + 22 > end || *(__u16 *)(data + 12) != 0xb588)
        return XDP_PASS;
    key = *(__u32 *)(data + 14);
    __u64 *all = bpf_map_lookup_elem(&total, &zero);
    if (all)
        *all += 1;
    known = bpf_map_lookup_elem(&flows, &key);
    if (!known) { /* somebody else may make it at the same time */
        bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST);
        known = bpf_map_lookup_elem(&flows, &key);
    }
    if (!known)
        return XDP_ABORTED;
    __sync_fetch_and_add(&known->packets, 1);
    known->last = *(__u32 *)(data + 18);
    return XDP_DROP;
}
"""


def source(record, entries, room):
    return HEADER + SOURCE.replace("RECORD", record).replace("ENTRIES", str(entries)).replace(
        "ROOM", str(room)
    )


class Sender(threading.Thread):
    """Sends frames that each name an entry: of those that are there, and now and then one that is not."""

    def __init__(self, interface, netns, known, fresh_every=64):
        super().__init__(daemon=True)
        self.known, self.fresh_every = known, fresh_every
        self.sent = self.fresh = 0
        self.stopping = threading.Event()
        with namespaces.enter(netns):
            self.port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.port.bind((interface, 0))

    def run(self):
        head = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5"
        tail = bytes(42)
        while not self.stopping.is_set():
            for _ in range(64):
                new = self.sent % self.fresh_every == 0
                key = self.known + self.fresh if new else self.sent * 7919 % self.known
                try:
                    self.port.send(head + struct.pack("=II", key, self.sent & 0xFFFFFFFF) + tail)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    continue  # the peer's ring is full: this frame was not sent
                self.sent += 1
                self.fresh += new
        self.port.close()

    def at_least(self, frames):
        wanted = self.sent + frames
        deadline = time.monotonic() + 20
        while self.sent < wanted and time.monotonic() < deadline:
            self.stopping.wait(0.001)
        assert self.sent >= wanted

    def stop(self):
        self.stopping.set()
        self.join(20)
        assert not self.is_alive()
        return self.sent


def fill(count):
    """Entries 0 to count - 1, each with a packet more than its key, and a mark."""
    keys = np.arange(count, dtype=np.uint32)
    rows = np.zeros(count, dtype=[("packets", "=u8"), ("mark", "=u4"), ("last", "=u4")])
    rows["packets"], rows["mark"] = keys + 1, keys ^ 0xABCD
    with open_map(FLOWS) as flows:
        for _ in batch.write(flows, keys.tobytes(), rows.tobytes()):
            pass


def read(path, layout):
    with open_map(path) as found:
        parts = list(batch.read(found))
    keys = np.frombuffer(b"".join(one.keys for one in parts), np.uint32)
    return keys, np.frombuffer(b"".join(one.values for one in parts), layout)


NEW_LAYOUT = [("last", "=u4"), ("mark", "=u4"), ("packets", "=u8"), ("bytes", "=u8")]


@pytest.mark.parametrize(
    "entries", [5_000, 30_000] if EMULATED else [20_000, 1_000_000], ids=["some", "many"]
)
def test_a_grown_value_keeps_every_entry_and_count_under_traffic(world, compile_c, entries):
    inside, outside = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=outside)
    room = entries + (60_000 if EMULATED else 300_000)
    attach(compile_c(source(OLD, room, 1)), "va", netns=inside)
    fill(entries)
    sender = Sender("vb", outside, entries)
    sender.start()
    sender.at_least(2000)
    began = time.monotonic()
    attach(compile_c(source(GROWN, room, 2)), "va", netns=inside, replace=True, migrate=COPY)
    print(f"{entries} entries moved in {time.monotonic() - began:.2f} s, {sender.sent} frames by then")
    sender.at_least(2000)
    sent = sender.stop()
    world.run("sleep", "0.05")  # frames that are still in the veth's ring
    keys, rows = read(FLOWS, NEW_LAYOUT)
    order = np.argsort(keys)
    keys, rows = keys[order], rows[order]
    assert len(keys) == entries + sender.fresh, "every entry is there, those that traffic made too"
    assert np.array_equal(keys, np.arange(len(keys), dtype=np.uint32))
    assert np.array_equal(rows["mark"][:entries], keys[:entries] ^ 0xABCD)
    counted = rows["packets"].astype(np.int64)
    counted[:entries] -= np.arange(1, entries + 1)
    assert counted.min() >= 0
    assert counted.sum() == sent, "each frame is counted once, by the old program or the new one"
    _, totals = read(TOTAL, f"({possible_cpus()},)=u8")
    assert totals[0].sum() == sent
    detach("va", netns=inside)
    assert nothing_left()


def test_what_both_programs_wrote_is_merged(world, compile_c, monkeypatch):
    """The last pass meets a value that the old program changed after it was copied, and the new one since."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    attach(compile_c(source(OLD, 64, 1)), "va", netns=inside)
    fill(4)
    last = Copy.last

    def meanwhile(self):
        if self.name == "flows":
            # packets is what the programs add to; last is only ever set
            put = self._old.update
            put(key(0), struct.pack("=QII", 11, 0xABCD, 5))  # both change it
            put(key(1), struct.pack("=QII", 22, 0xABCC, 6))  # only the old one
            put(key(8), struct.pack("=QII", 3, 0, 7))  # made by both
            put(key(9), struct.pack("=QII", 4, 1, 8))  # made by the old one
            self._old.delete(key(2))
            self._old.delete(key(3))
            new = self._new.update
            new(key(0), struct.pack("=IIQQ", 9, 0xABCD, 101, 50))
            new(key(3), struct.pack("=IIQQ", 1, 2, 3, 4))
            new(key(8), struct.pack("=IIQQ", 9, 0, 100, 50))
        return last(self)

    monkeypatch.setattr(Copy, "last", meanwhile)
    attach(compile_c(source(GROWN, 64, 1)), "va", netns=inside, replace=True, migrate=COPY)
    with open_map(FLOWS) as flows:
        found = {struct.unpack("=I", one)[0]: struct.unpack("=IIQQ", value) for one, value in flows.items()}
    assert found == {
        0: (9, 0xABCD, 111, 50),  # ten counted by the old, a hundred by the new one; its `last` is the later
        1: (6, 0xABCC, 22, 0),
        3: (1, 2, 3, 4),  # the new program has changed it: not deleted
        8: (9, 0, 103, 50),
        9: (8, 1, 4, 0),
    }
    detach("va", netns=inside)
    assert nothing_left()


def key(number):
    return struct.pack("=I", number)
