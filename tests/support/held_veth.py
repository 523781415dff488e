"""A veth whose receiving end is held up by its own program, so that its ring and the sender's qdisc fill exactly."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from xdpctl.bpf.link import link_xdp
from xdpctl.bpf.object import Object
from xdpctl.libbpf.uapi import XDP_MODE_FLAGS
from xdpctl.netlink import netns
from xdpctl.netlink.interfaces import ifindex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct gate { volatile __u64 entered, released; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate);
} gates SEC(".maps");
struct wait { struct gate *gate; __u64 end; };
static long waiting(__u32 turn, struct wait *wait)
{
	return wait->gate->released || bpf_ktime_get_ns() >= wait->end;
}
SEC("xdp") int hold(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct wait wait = { bpf_map_lookup_elem(&gates, &zero), bpf_ktime_get_ns() + 8000000000ULL };
	if (!wait.gate)
		return XDP_DROP;
	wait.gate->entered = 1;
	for (int part = 0; part < 64 && !waiting(0, &wait); part++)
		bpf_loop(1 << 23, waiting, &wait, 0);
	if (!wait.gate->released)
		wait.gate->released = 2; /* in time nobody has let it go: the next frame need not wait */
	return XDP_DROP;
}
char _license[] SEC("license") = "GPL";
"""
SEND_ONE = """
import os, socket, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((sys.argv[1], 0))
sender.send(bytes.fromhex(sys.argv[3]))
"""


@contextlib.contextmanager
def held(space: str, sender: str, receiver: str, compiled: Path, frame: bytes) -> Iterator[socket.socket]:
    """Both ends are in `space`; while the block runs the receiver's NAPI hangs in its first frame, on another CPU.

    For 8 s at most, so that the machine goes on whatever happens here. Nothing in the block may wait for RCU, which
    waits for that CPU: closing a packet socket does, so one to send from is yielded.
    """
    before = sorted(os.sched_getaffinity(0))
    there, *here = before
    with netns.enter(space), Object.open(compiled) as opened:
        opened.load()
        with (
            opened.map("gates").mapped() as gate,
            link_xdp(opened.programs["hold"].fd, ifindex(receiver), XDP_MODE_FLAGS["native"]),
        ):
            os.sched_setaffinity(0, set(here))
            opened_socket = packet_socket(sender)
            child = subprocess.Popen([sys.executable, "-c", SEND_ONE, sender, str(there), frame.hex()])
            try:
                end = time.monotonic() + 20
                while not gate[0]:
                    assert time.monotonic() < end, "no frame reached the program"
                yield opened_socket
                assert not gate[8], "the program did not wait for so long"
            finally:
                gate[8:16] = struct.pack("=Q", 1)
                child.wait(30)
                opened_socket.close()
                os.sched_setaffinity(0, set(before))


def packet_socket(interface: str) -> socket.socket:
    """One to send from, whose frames may wait in number."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    made.bind((interface, 0))
    made.setsockopt(socket.SOL_SOCKET, 32, 64 << 20)  # SO_SNDBUFFORCE: what waits stays charged to it
    return made


def flood(sender: socket.socket, frame: bytes, count: int) -> int:
    """Send, whatever becomes of it; how many frames were refused (ENOBUFS)."""
    refused = 0
    for _ in range(count):
        try:
            sender.send(frame)
        except OSError:
            refused += 1
    return refused
