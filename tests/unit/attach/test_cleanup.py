"""What a program leaves goes when the program has gone, however long the kernel takes within reason."""

from __future__ import annotations

import pytest

from xdpctl.attach import cleanup, ownership, runstate


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def leaving(monkeypatch):
    """``leaving(seconds)``: detach program 7, which is there for so long; what was unpinned, forgotten, and when."""
    pin = ownership.maps_folder() / "flows"
    record = runstate.Record(7, 1, "count", "ab", "x.o", "link", 0.0, (str(pin),))
    forgotten = []
    monkeypatch.setattr(runstate, "read", lambda: {7: record})
    monkeypatch.setattr(runstate, "forget", forgotten.extend)
    monkeypatch.setattr(cleanup.pins, "unpin", lambda _: True)
    monkeypatch.setattr(cleanup, "attached", set)

    def run(seconds, **more):
        clock = Clock()
        monkeypatch.setattr(cleanup, "time", clock)
        monkeypatch.setattr(cleanup, "_alive", lambda _: clock.now < 100 + seconds)
        return cleanup.after_leaving([7], **more), forgotten, clock.now - 100, pin

    return run


@pytest.mark.parametrize("seconds", [0, 0.02, 3])
def test_a_program_that_takes_its_time_to_go_is_waited_for(leaving, seconds):
    """A grace period and a kernel worker come before it is gone, which on a busy machine took more than a second."""
    removed, forgotten, waited, pin = leaving(seconds)
    assert (removed, forgotten) == ([pin], [7])
    assert seconds <= waited <= seconds + 0.06


def test_maps_that_pass_to_a_successor_stay(leaving):
    removed, forgotten, _, _ = leaving(0.02, keep_maps=True)
    assert (removed, forgotten) == ([], [7])


def test_a_program_that_somebody_else_holds_keeps_its_maps(leaving):
    removed, forgotten, waited, _ = leaving(3600)
    assert (removed, forgotten) == ([], [])
    assert waited < cleanup.PATIENCE_SECONDS + 0.1
