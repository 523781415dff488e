"""An upgrade under traffic: every frame that was sent is seen by the old program or the new one."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from pathlib import Path

import pytest
from attachments import HEADER, agree, attach, detach, nothing_left
from kernels import EMULATED, TCX

from xdpctl.bpf.map import open_map
from xdpctl.netlink import netns as namespaces

pytestmark = pytest.mark.kernel

UPGRADES = 4 if EMULATED else 12
FRAMES = 5000
"""At least; the sender goes on until the last upgrade is done."""

SOURCE = (
    HEADER
    + """
#include <bpf/bpf_endian.h>
/* pinned by name, so that every version counts into the same map */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64);
         __uint(pinning, LIBBPF_PIN_BY_NAME); } frames_seen SEC(".maps");
static __always_inline int seen(void *data, void *data_end, int verdict, int otherwise)
{
    __u32 key = 0;
    __u64 *count = bpf_map_lookup_elem(&frames_seen, &key);
    if (data + 14 > data_end || *(__u16 *)(data + 12) != bpf_htons(0x88b5) || !count)
        return otherwise;
    __sync_fetch_and_add(count, 1);
    return verdict;
}
SEC("xdp") int at_xdp(struct xdp_md *c)
{ return seen((void *)(long)c->data, (void *)(long)c->data_end, XDP_DROP, XDP_PASS); }
SEC("tc") int at_tc(struct __sk_buff *s)
{ return seen((void *)(long)s->data, (void *)(long)s->data_end, TC_ACT_SHOT, TC_ACT_OK); }
"""
)


class Flood(threading.Thread):
    """Sends numbered frames into an interface of a namespace until it is told to stop."""

    def __init__(self, interface: str, netns: str) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.stopping = threading.Event()
        with namespaces.enter(netns):
            self.port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.port.bind((interface, 0))

    def run(self) -> None:
        head = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x88\xb5"
        while self.sent < FRAMES or not self.stopping.is_set():
            try:
                self.port.send(head + struct.pack("!Q", self.sent) + bytes(38))
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # the peer's ring is full: this frame was not sent (veth_xmit, NET_XMIT_DROP)
            self.sent += 1
        self.port.close()

    def stop(self) -> int:
        """Frames sent in all."""
        self.stopping.set()
        self.join(30)
        assert not self.is_alive()
        return self.sent


def seen_frames() -> int:
    """What all versions counted together."""
    with open_map(Path("/sys/fs/bpf/xdpctl/maps/frames_seen")) as counter:
        return struct.unpack("=Q", counter.lookup(bytes(4)))[0]


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("at_xdp", {"via": "link", "mode": "native"}),
        ("at_xdp", {"via": "link", "mode": "generic"}),
        ("at_xdp", {"via": "netlink", "mode": "native"}),
        ("at_tc", {"via": "clsact", "hook": "ingress"}),
        *([("at_tc", {"via": "tcx", "hook": "ingress"})] if TCX else []),
    ],
    ids=["link-native", "link-generic", "netlink-native", "clsact", "tcx"][: 5 if TCX else 4],
)
def test_no_frame_passes_without_a_program(world, compile_c, program, options):
    inside, outside = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=outside)
    obj = compile_c(SOURCE)
    ids = {attach(obj, "va", netns=inside, program=program, **options)[0].program.id}
    flood = Flood("vb", outside)
    flood.start()
    for _ in range(UPGRADES):
        before = flood.sent
        ids.add(attach(obj, "va", netns=inside, program=program, replace=True, **options)[0].program.id)
        while flood.sent < before + 50 and flood.is_alive():
            flood.stopping.wait(0.001)
    sent = flood.stop()
    agree(world, inside)
    world.run("sleep", "0.05")  # frames that are still in the veth's ring
    seen = seen_frames()
    assert len(ids) == UPGRADES + 1, "each upgrade loaded a program of its own"
    assert seen == sent, f"{sent - seen} of {sent} frames met no program in {UPGRADES} upgrades"
    detach("va", netns=inside)
    assert nothing_left()


def test_the_count_would_tell_a_gap(world, compile_c):
    inside, outside = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=outside)
    obj = compile_c(SOURCE)
    attach(obj, "va", netns=inside, program="at_xdp")
    flood = Flood("vb", outside)
    flood.start()
    for _ in range(3):
        detach("va", netns=inside, keep_maps=True)
        attach(obj, "va", netns=inside, program="at_xdp")
    sent = flood.stop()
    world.run("sleep", "0.05")
    assert seen_frames() < sent
    detach("va", netns=inside)
