"""What `trace redirect` costs a frame that is redirected into a veth: untraced, traced by us, by bpftrace.

Live frames (BPF_PROG_TEST_RUN) on one CPU by the kernel's own duration, redirected through a devmap; behind the veth a
native program drops them, or GRO hands them to the stack. Rounds take turns, medians, and an untraced round
stands beside each round (the control): the base drifts more than a tracer costs, so only that comparison says anything.
"""

from __future__ import annotations

import contextlib
import socket
import struct

import bpftrace
import pytest
from bench import MEASURED, SHORT, Measured, run
from frame_path import REDIRECT, added, frame_path, medians, ratio, turns

from xdpctl.bpf import net
from xdpctl.libbpf import uapi
from xdpctl.trace.frames import udp4
from xdpctl.trace.redirect import RedirectTrace

PEER = bpftrace.command()  # asked before the benches' own namespace, which has no way out
ROUNDS = 5 if SHORT else 7
RUNS, FRAMES = 4, 100_000 if SHORT else 250_000
"""Of one tracer in one round: the fastest counts, for a CPU that others share only ever adds time."""
ALWAYS_ON = 1.05
"""Most that errors and bulks may make of a redirect's time."""

BULKS = """
tracepoint:xdp:xdp_redirect_err {
  @err[args->prog_id, args->ifindex, args->to_ifindex, args->map_id, args->err] = count();
}
tracepoint:xdp:xdp_devmap_xmit {
  @sent[args->from_ifindex, args->to_ifindex, args->err] = sum(args->sent);
  @drops[args->from_ifindex, args->to_ifindex, args->err] = sum(args->drops);
}
tracepoint:xdp:xdp_bulk_tx {
  @tx[args->ifindex, args->err] = sum(args->sent);
  @txdrops[args->ifindex, args->err] = sum(args->drops);
}
tracepoint:xdp:xdp_exception { @exception[args->prog_id, args->act, args->ifindex] = count(); }
"""
EVERY_FRAME = """
tracepoint:xdp:xdp_redirect { @redirect[args->prog_id, args->ifindex, args->map_id, args->map_index] = count(); }
"""


@pytest.fixture(params=["dropped by a program behind the veth", "handed to the stack behind the veth"])
def path(request, tmp_path):
    """(what becomes of the frames, the redirecting program, ifindex they come from); this process on one CPU."""
    with frame_path(tmp_path, REDIRECT) as opened:
        opened.load()
        opened.maps["out"].update(bytes(4), struct.pack("=I", socket.if_nametoindex("cc")))
        if request.param.startswith("dropped"):
            peer = socket.if_nametoindex("cd")
            net.xdp_attach(peer, opened.programs["drop"].fd, uapi.XDP_FLAGS_DRV_MODE)
        else:
            run("ethtool", "-K", "cd", "gro", "on")
        yield request.param, opened.programs["onto"], socket.if_nametoindex("ca")


@contextlib.contextmanager
def always_on():
    with RedirectTrace():
        yield


@contextlib.contextmanager
def per_frame():
    with RedirectTrace(per_frame=True):
        yield


def nanoseconds(program, ifindex: int) -> float:
    """A frame's time, as the kernel measured it."""
    frame = udp4(bytes(64))
    return float(
        min(
            program.test_run(frame, repeat=FRAMES, ifindex=ifindex, live_frames=True).duration_ns
            for _ in range(RUNS)
        )
    )


def test_a_redirect_knows_its_tracers_cost(path):
    _, program, ifindex = path
    tracers = {"always on": always_on, "per frame": per_frame}
    if PEER is not None:
        tracers["bpftrace"] = lambda: bpftrace.running(PEER, BULKS + EVERY_FRAME)
    took = turns(ROUNDS, tracers, lambda _: nanoseconds(program, ifindex))
    ns, more = medians(took), {one: added(took, one) for one in tracers}
    note = (
        f"{ns['untraced']:.0f} ns a frame untraced ({ns['control']:.0f} in the control); adds: "
        + ", ".join(f"{name} {each:.1f} ns" for name, each in more.items())
    )
    print(path[0], note, {one: [round(each) for each in values] for one, values in took.items()})
    times = ratio(took, "always on")
    MEASURED.append(
        Measured(
            f"frame redirected into a veth, {path[0]}; `trace redirect`", "untraced",
            ns["always on"] / 1e9, ns["untraced"] / 1e9, times, ALWAYS_ON, ROUNDS, note,
        )
    )  # fmt: skip
    assert times <= ALWAYS_ON, note
    if PEER is None:
        pytest.skip("bpftrace, the peer of --per-frame, is neither installed nor to be fetched")
    share = more["per frame"] / more["bpftrace"]
    MEASURED.append(
        Measured(
            f"added to that frame by `trace redirect --per-frame`, {path[0]}", "bpftrace, same counts",
            more["per frame"] / 1e9, more["bpftrace"] / 1e9, share, 1 / 3, ROUNDS,
        )
    )  # fmt: skip
    assert share <= 1 / 3, note
