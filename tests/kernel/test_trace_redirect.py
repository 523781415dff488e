"""`trace redirect` counts exactly what was sent: the founding story's table, frame by frame."""

from __future__ import annotations

import subprocess
import sys

import pytest
from live import running, until

from xdpctl.bpf import features
from xdpctl.bpf.link import link_xdp
from xdpctl.bpf.object import Object
from xdpctl.bpf.program import program_by_id
from xdpctl.errors import NotFoundError
from xdpctl.libbpf.uapi import XDP_MODE_FLAGS
from xdpctl.netlink import netns
from xdpctl.netlink.interfaces import ifindex
from xdpctl.trace.devices import chosen
from xdpctl.trace.frames import Port, ethernet
from xdpctl.trace.redirect import RedirectTrace

pytestmark = pytest.mark.kernel

FRAMES = 50
FRAME = ethernet(b"xdpctl-trace", destination="02:00:00:00:00:77")
"""To nobody: tx-swap leaves broadcasts to the stack."""


class Path:
    """source s1 (far) - s0 (here, runs the program) ... t0 (here) - t1 (behind)."""

    def __init__(self, world) -> None:
        self.here, self.far, self.behind = world.namespace(), world.namespace(), world.namespace()
        world.veth("s0", "s1", netns_a=self.here, netns_b=self.far)
        world.veth("t0", "t1", netns_a=self.here, netns_b=self.behind)
        self.world = world
        with netns.enter(self.far):
            self.port = Port("s1")

    def send(self) -> None:
        for _ in range(FRAMES):
            self.port.send(FRAME)

    def told(self, trace, count):
        """The edges that are about us, once they hold `count` frames."""
        with netns.enter(self.here):
            ours = chosen(["s0", "t0"])

        def edges():
            return trace.read().about(ours).edges

        until(lambda: sum(one.sent + one.dropped for one in edges()) >= count)
        return [
            (
                one.event,
                one.source.name,
                one.target.name if one.target else None,
                one.errno,
                one.sent,
                one.dropped,
            )
            for one in edges()
            if one.source  # else of another namespace, whose interface has a number of ours
        ]


@pytest.fixture(scope="module")
def path(world_of_module):
    made = Path(world_of_module)
    yield made
    made.port.close()


def judged_before_the_driver():
    """From Linux 6.3 on the core asks the target's xdp-features, and what was the driver's ENXIO is its EOPNOTSUPP."""
    return features.probe("netdev_genl")


def test_a_redirect_to_a_veth_whose_peer_is_bare_is_lost_frame_by_frame(path):
    with running("redirect", "s0", netns_name=path.here, target="t0"), RedirectTrace() as trace:
        path.send()
        told = path.told(trace, FRAMES)
    if judged_before_the_driver():
        assert told == [("xdp_redirect_err", "s0", "t0", "EOPNOTSUPP", 0, FRAMES)]
    else:
        assert told == [("xdp_devmap_xmit", "s0", "t0", "ENXIO", 0, FRAMES)]


def test_with_a_program_on_the_peer_every_frame_is_sent(path):
    with (
        running("pass", "t1", netns_name=path.behind),
        running("redirect", "s0", netns_name=path.here, target="t0") as program,
        RedirectTrace() as trace,
    ):
        path.send()
        assert path.told(trace, FRAMES) == [("xdp_devmap_xmit", "s0", "t0", None, FRAMES, 0)]
        (edge,) = (one for one in trace.read().edges if one.source and one.source.name == "s0")
        (redirecting,) = program.programs.values()
        assert (edge.program_id, edge.program) == (redirecting.info().id, redirecting.name)


def test_xdp_tx_without_napi_at_the_peer_is_lost_in_bulks(path):
    with running("tx-swap", "s0", netns_name=path.here), RedirectTrace() as trace:
        path.send()
        assert path.told(trace, FRAMES) == [("xdp_bulk_tx", "s0", "s0", "ENXIO", 0, FRAMES)]


def test_generic_mode_delivers_without_a_word(path):
    with netns.enter(path.behind), Port("t1") as arrivals, RedirectTrace() as trace:
        with running("redirect", "s0", netns_name=path.here, generic=True, target="t0"):
            path.send()
            assert arrivals.count(b"xdpctl-trace", expect=FRAMES, seconds=10) == FRAMES
        assert path.told(trace, 0) == []


def test_every_frame_is_counted_where_that_was_asked_for(path):
    with (
        running("pass", "t1", netns_name=path.behind),
        running("redirect", "s0", netns_name=path.here, target="t0"),
        RedirectTrace(per_frame=True) as trace,
    ):
        path.send()
        told = path.told(trace, 2 * FRAMES)
    assert sorted(told) == [
        ("xdp_devmap_xmit", "s0", "t0", None, FRAMES, 0),
        ("xdp_redirect", "s0", "t0", None, FRAMES, 0),
    ]


def test_an_empty_slot_shows_as_an_exception_with_its_verdict(path):
    with running("redirect_map", "s0", netns_name=path.here), RedirectTrace() as trace:
        path.send()
        assert path.told(trace, FRAMES) == [("xdp_exception", "s0", None, None, 0, FRAMES)]
        assert {one.verdict for one in trace.read().edges if one.source and one.source.name == "s0"} == {
            "ABORTED"
        }


def test_two_tracers_at_once_count_the_same(path):
    with (
        running("redirect", "s0", netns_name=path.here, target="t0"),
        RedirectTrace() as one,
        RedirectTrace() as other,
    ):
        path.send()
        assert path.told(one, FRAMES) == path.told(other, FRAMES) != []


MANY = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
unsigned int turn;
SEC("xdp") int many(struct xdp_md *ctx) { return bpf_redirect(1000000 + turn++ % 90, 0); }
char _license[] SEC("license") = "GPL";
"""


def test_more_edges_at_once_than_a_cpu_has_slots_are_all_counted(path, compile_c):
    with netns.enter(path.here), Object.open(compile_c(MANY, "many")) as opened:
        opened.load()
        link = link_xdp(opened.programs["many"].fd, ifindex("s0"), XDP_MODE_FLAGS["native"])
        with link, RedirectTrace() as trace:
            for _ in range(9):
                path.send()
            told = path.told(trace, 9 * FRAMES)
            assert len(told) == 90
            assert {one[-1] for one in told} == {9 * FRAMES // 90}
            assert trace.read().lost == 0


def test_what_was_counted_since_an_earlier_report_is_the_difference(path):
    with running("redirect", "s0", netns_name=path.here, target="t0"), RedirectTrace() as trace:
        path.send()
        path.told(trace, FRAMES)
        before = trace.read()

        def dropped_since() -> int:
            edges = trace.read().minus(before).edges  # others may redirect on this machine meanwhile
            return sum(one.dropped for one in edges if one.source and one.source.name == "s0")

        assert dropped_since() == 0
        path.send()
        path.told(trace, 2 * FRAMES)
        assert dropped_since() == FRAMES


KILLED = """
import time
from xdpctl.trace.redirect import RedirectTrace
trace = RedirectTrace()
print(trace._tracer.object.programs["bulk_tx"].info().id, flush=True)
time.sleep(60)
"""


def test_a_killed_tracer_leaves_nothing_attached(path):
    child = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    program = int(child.stdout.readline())
    assert loaded(program)
    child.kill()
    child.wait()
    child.stdout.close()
    assert until(lambda: not loaded(program))


def loaded(program):
    try:
        program_by_id(program).close()
    except NotFoundError:
        return False
    return True
