"""What two samples say of the time between: differences, exact; and None where nobody knows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ticks import HERE, busy, counted, device, edge, facts, sample

from xdpctl.trace.tick import LinkFacts, counters, routes, tick
from xdpctl.trace.tick_json import document


@pytest.fixture(scope="module")
def found():
    return tick(busy(10.0, 1), busy(12.0, 5))


def by_name(found, name):
    return next(one for one in found.interfaces if one.facts.name == name)


def test_counts_are_of_the_time_between(found):
    assert (found.seconds, found.counted_seconds) == (2, 2)
    assert by_name(found, "eth0").counts[:3] == (400, 0, 40_000)
    assert by_name(found, "veth0").counts.dropped == 4
    assert by_name(found, "veth0").packets == 28


def test_verdicts_leave_aborted_frames_out_of_the_drops_where_the_driver_counts_them_together(found):
    assert by_name(found, "eth0").verdicts == {
        "pass": 400 - 16 - 4 - 360, "drop": 16 - 4, "tx": 4, "redirect": 360, "aborted": 4,
    }  # fmt: skip


def test_verdicts_are_unknown_in_generic_mode_and_absent_without_a_program(found):
    assert by_name(found, "tap0").verdicts == {
        "pass": None, "drop": None, "tx": None, "redirect": None, "aborted": 0,
    }  # fmt: skip
    assert by_name(found, "veth0").verdicts is None


def test_without_the_tracer_aborted_frames_are_unknown():
    before, after = (replace(one, redirects=None) for one in (busy(1.0, 1), busy(2.0, 2)))
    found = tick(before, after)
    assert found.routes is None
    assert by_name(found, "eth0").verdicts["aborted"] is None
    assert by_name(found, "eth0").verdicts["drop"] == 4


def test_a_program_has_a_cost_only_if_it_ran(found):
    assert {one.name: (one.runs, one.cost_ns) for one in found.programs} == {
        "redirect": (400, 200), "idle": (0, None), "unseen": (0, None),
    }  # fmt: skip


def test_edges_that_differ_in_the_errno_alone_are_one_route(found):
    first, *others = found.routes
    assert (first.way, first.sent, first.lost, dict(first.errnos)) == ("redirect", 360, 40, {"ENXIO": 40})
    assert first.error_rate == pytest.approx(0.1)
    assert [(one.way, one.sent, one.lost) for one in others] == [("exception", 0, 4), ("cpumap-in", 4, 0)]


def test_frames_that_were_counted_at_the_call_are_not_counted_twice():
    assert routes([edge(event="xdp_redirect", sent=5)]) == ()


def test_a_pool_tells_what_went_in_and_out_and_how_long_it_waits(found):
    first, closing = found.pools
    assert (first.interface, first.closing_seconds) == ("eth0", None)
    assert first.statistics == {"alloc_slow": 8, "recycle_ring": 36, "recycle_ring_full": 4}
    assert (closing.interface, closing.closing_seconds, closing.statistics) == (None, 102, None)


def test_a_link_that_is_new_tells_nothing_yet():
    link: dict[tuple[int, int], LinkFacts] = {(HERE, 9): facts("new", 9)}
    found = tick(sample(1), sample(2, links=link, counters={(HERE, 9): counted(50)}))
    assert by_name(found, "new").counts == counters(counted())


def test_a_counter_that_fell_is_no_negative_rate():
    link = {(HERE, 2): facts()}
    before = sample(1, links=link, counters={(HERE, 2): counted(500, 5)})
    after = sample(2, links=link, counters={(HERE, 2): counted(3, 9)})
    assert by_name(tick(before, after), "eth0").counts[:2] == (0, 4)


def test_a_tracers_lost_events_are_told(found):
    assert found.lost == 4


def test_the_document_is_json_with_everything_in_it(found):
    told = json.loads(json.dumps(document(found)))
    assert {key: len(value) for key, value in told.items() if isinstance(value, list)} == {
        "interfaces": 3, "programs": 3, "redirects": 3, "drops": 1, "rings": 1, "pools": 2, "notes": 0,
    }  # fmt: skip
    nothing = document(
        tick(sample(1), replace(sample(2), programs=None, redirects=None, drops=None, pools=None))
    )
    assert [nothing[key] for key in ("programs", "redirects", "drops", "rings", "pools")] == [None] * 5


def test_a_device_elsewhere_bears_its_namespaces_name(found):
    assert device("veth1", 5, 200).label(found.labels) == "pod/veth1"
