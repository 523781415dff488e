"""The four ways of a pool's shutdown, from the tracer's bytes to what `pool watch` and `pool leaks` say of them."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from xdpctl.cli.pool import event_line, leak_lines
from xdpctl.doctor.page_pools import merged
from xdpctl.doctor.pool_look import Look, event_pool, leaks
from xdpctl.host.model import Caller, Kernel, Namespace, Snapshot
from xdpctl.trace.pool_records import decode_event

SECOND = 10**9
SNAPSHOT = Snapshot(
    "2026-01-01T00:00:00+00:00",
    Kernel("6.18.0", (6, 18, 0), "x86_64", 4096, True),
    Caller(0, ()),
    2,
    2,
    (Namespace(4026531840, None, current=True),),
)
CALLED_OFF = 100
"""Second of the first attempt to shut the pool down."""


def attempt(number, hold, release):
    """What the tracer's ring holds of the kernel's attempt `number`, one a second."""
    at, inflight = CALLED_OFF + number - 1, (hold - release + 2**31) % 2**32 - 2**31
    pool = struct.pack(
        "=6Q12I2i16s32s16s",
        0xFFFF888000001000, 90 * SECOND, CALLED_OFF * SECOND, at * SECOND, 0, 0,
        hold, release, number, number - (inflight == 0), 3, 7, 2, 4026531840, 0, 2**32 - 1, 0, 256,
        -1, -1, b"eth0", b"0000:03:00.0", b"driver",
    )  # fmt: skip
    return decode_event(struct.pack("=QIi", at * SECOND, 3, inflight) + pool)


def watched(event):
    told = {"at": event.at, "kind": event.kind, "inflight": event.inflight}
    return event_line({**told, "pool": event_pool(SNAPSHOT, event).to_json()}).split(": ", 1)[1]


def leaking(event, now):
    """Lines of `pool leaks` while the pool is as in the event."""
    pools = merged(SNAPSHOT, [event.pool], now=now)
    return [line for one in leaks(Look(SNAPSHOT, tuple(pools))) for line in leak_lines(one)]


@pytest.mark.parametrize("start", [0, 2**32 - 10], ids=["plain", "counts that wrap around"])
def test_normal(start):
    event = attempt(1, (start + 64) % 2**32, (start + 64) % 2**32)
    end = (start + 64) % 2**32
    assert watched(event) == f"freed at attempt 1, hold {end} = release {end}"


@pytest.mark.parametrize("start", [0, 2**32 - 10], ids=["plain", "counts that wrap around"])
def test_in_flight_for_a_while(start):
    hold = (start + 64) % 2**32
    first, second, last = (attempt(n + 1, hold, (hold - out) % 2**32) for n, out in enumerate((20, 3, 0)))
    assert watched(first) == "shutdown attempt 1: 20 in flight"
    assert watched(second) == "shutdown attempt 2: 3 in flight"
    assert watched(last) == f"freed at attempt 3, hold {hold} = release {hold}"
    (head, held) = leaking(first, CALLED_OFF + 5)
    assert "20 pages out (80 KiB), destroyed" in head
    assert head.endswith("5 s ago, closing")
    assert held == "  held by: unknown"


def test_never_returning():
    event = attempt(90, 64, 44)
    assert watched(event) == "shutdown attempt 90: 20 in flight"
    (head, _) = leaking(event, CALLED_OFF + 90)
    assert head.endswith("90 s ago, stalled"), "from a minute on, as the kernel's own warning"


def test_negative():
    event = attempt(1, 64, 67)
    assert watched(event) == "-3 in flight: more came back than went out; it is never freed"
    (head, _) = leaking(event, CALLED_OFF + 1)
    assert "3 more pages came back than went out, destroyed" in head
    assert head.endswith("negative")
    assert not leaking(replace(event, pool=replace(event.pool, release=64)), CALLED_OFF + 1)
