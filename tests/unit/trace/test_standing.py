"""Which queues are called stuck: packets at two looks, nothing sent between them, nobody who stopped it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpctl.trace.devices import Device
from xdpctl.trace.qdisc import LiveQdisc
from xdpctl.trace.standing import Length, judge

DEVICE = Device(7, 3, "eth0")
LIVE = LiveQdisc(3, 0, "pfifo_fast", 0, 0x100, 0, 0, 0, 1000, 1)
LENGTH = Length(LIVE, 5, 100, timed=False)


def verdicts(before, now, *, seconds=1.0, sent=0):
    found = judge({(DEVICE, 0): before}, {(DEVICE, 0): now}, seconds, {(7, 3, 0): sent})
    return [(one.verdict, one.packets, one.lockless) for one in found]


def test_packets_that_nothing_moves_and_nobody_holds_are_stuck():
    assert verdicts(LENGTH, LENGTH) == [("stuck", 5, True)]


@pytest.mark.parametrize("bit", [1, 2, 4])
def test_a_queue_that_driver_or_stack_has_stopped_is_not(bit):
    assert verdicts(LENGTH, replace(LENGTH, live=replace(LIVE, queue_state=bit))) == [("stopped", 5, True)]


def test_a_qdisc_with_a_clock_may_hold_packets_back():
    assert verdicts(LENGTH, replace(LENGTH, timed=True)) == [("timed", 5, True)]


def test_a_queue_that_moves_is_no_news_however_long_it_is():
    assert verdicts(LENGTH, replace(LENGTH, sent=101)) == []
    assert verdicts(LENGTH, LENGTH, sent=1) == []  # what the tracer saw leave counts as well


def test_one_look_or_two_too_close_decide_nothing():
    assert judge({}, {(DEVICE, 0): LENGTH}, 1.0, {}) == []
    assert verdicts(LENGTH, LENGTH, seconds=0.01) == []


def test_another_qdisc_starts_anew():
    assert verdicts(LENGTH, replace(LENGTH, live=replace(LIVE, kind="pfifo"))) == []
