"""What tracing page pools costs a frame: live frames by the kernel's own duration, untraced, traced by us, by bpftrace.

Live frames pass into the stack, are sent on to a veth by TC, and redirected there by native XDP: the veth takes a
reference and frees the skb, so the page leaves its pool at each frame (`leaving`). Where the stack drops them,
their pages are recycled (`recycling`). Rounds take turns, one CPU, medians; an untraced round stands beside each.
"""

from __future__ import annotations

import contextlib
import socket
import struct

import bpftrace
import pytest
from bench import MEASURED, SHORT, Measured
from frame_path import added, frame_path, medians, ratio, turns

from xdpctl.bpf import net
from xdpctl.libbpf import uapi
from xdpctl.trace.frames import udp4
from xdpctl.trace.pools import PoolTracer

ROUNDS = 5 if SHORT else 9
LEAVING, RECYCLING = 60_000, 500_000
"""Frames of a round, in the short form too: what one takes varies more than what is measured."""

SOURCE = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int away(struct xdp_md *ctx) { return bpf_redirect(0x7ffffff0, 0); }
const volatile int target;
SEC("tc") int on(struct __sk_buff *skb) { return bpf_redirect(target, 0); }
char _license[] SEC("license") = "GPL";
"""
SCRIPT = """
tracepoint:page_pool:page_pool_state_hold { @hold[args->pool] = count(); }
tracepoint:page_pool:page_pool_state_release { @release[args->pool] = count(); }
tracepoint:page_pool:page_pool_release { @inflight[args->pool] = args->inflight; }
tracepoint:xdp:mem_connect { @connected[args->mem_id] = count(); }
tracepoint:xdp:mem_disconnect { @disconnected[args->mem_id] = count(); }
"""
PEER = bpftrace.command()  # asked before the benches' own namespace, which has no way out


@pytest.fixture
def path(tmp_path):
    """Objects loaded and a path on which each frame's page leaves its pool; this process on one CPU."""
    with frame_path(tmp_path, SOURCE) as opened:
        rodata = next(one for name, one in opened.maps.items() if name.endswith(".rodata"))
        rodata.patch_initial_value(0, struct.pack("=i", socket.if_nametoindex("cc")))
        opened.load()
        net.xdp_attach(socket.if_nametoindex("cd"), opened.programs["away"].fd, uapi.XDP_FLAGS_DRV_MODE)
        ingress = socket.if_nametoindex("cb")
        net.tc_hook_create(ingress)
        net.tc_attach(ingress, "ingress", opened.programs["on"].fd)
        yield opened, ingress


@contextlib.contextmanager
def ours():
    with PoolTracer():
        yield


def theirs():
    """bpftrace with the same probes."""
    return bpftrace.running(PEER, SCRIPT)


def nanoseconds(opened, ingress: int, name: str, frames: int) -> float:
    """A frame's time, as the kernel measured it."""
    frame = udp4(bytes(64))
    return float(
        opened.programs[name].test_run(frame, repeat=frames, ifindex=ingress, live_frames=True).duration_ns
    )


def test_the_tracer_adds_at_most_a_third_of_what_bpftrace_adds(path):
    if PEER is None:
        pytest.skip("bpftrace, the peer, is neither installed nor to be fetched")
    took = turns(ROUNDS, {"ours": ours, "bpftrace": theirs}, lambda _: nanoseconds(*path, "pass", LEAVING))
    mine, peer, ns = added(took, "ours"), added(took, "bpftrace"), medians(took)
    note = (
        f"a frame whose page leaves its pool takes {ns['untraced']:.0f} ns ({ns['control']:.0f} in the control);"
        f" the tracer adds {mine:.0f} ns, bpftrace {peer:.0f}"
    )
    MEASURED.append(
        Measured(
            "pool watch's tracer, added to a frame", "bpftrace, same probes",
            mine / 1e9, peer / 1e9, mine / peer, 1 / 3, ROUNDS, note,
        )
    )  # fmt: skip
    print(note)
    assert mine <= peer / 3, note


def test_the_tracer_costs_next_to_nothing_where_pages_recycle(path):
    opened, _ = path
    elsewhere = socket.if_nametoindex("ca")  # nothing takes a frame there: the stack drops it
    took = turns(ROUNDS, {"ours": ours}, lambda _: nanoseconds(opened, elsewhere, "pass", RECYCLING))
    times, ns = ratio(took, "ours"), medians(took)
    note = f"{ns['untraced']:.1f} ns a frame, {ns['control']:.1f} in the control, {ns['ours']:.1f} traced"
    MEASURED.append(
        Measured(
            "live frames that recycle, page pools traced", "untraced",
            ns["ours"] / 1e9, ns["untraced"] / 1e9, times, 1.05, ROUNDS, note,
        )
    )  # fmt: skip
    print(note)
    assert times <= 1.05, note
