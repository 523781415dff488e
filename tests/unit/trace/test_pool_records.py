"""Pool records as the tracer's maps and ring hold them: counts that wrap around, and the four ways of a shutdown."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.trace.pool_records import (
    EVENT_BYTES,
    POOL_BYTES,
    Count,
    Shutdown,
    decode_event,
    decode_latest,
    decode_pool,
    decode_slots,
    distance,
)

SECOND = 10**9
U32 = st.integers(0, 2**32 - 1)


def record(hold, release, *, shutdown=0, attempt=0, attempts=0, detached=0, ident=7, device=b"eth0"):
    """A struct pool of bpf/pool_trace.bpf.c; times in ns."""
    return struct.pack(
        "=6Q12I2i16s32s16s",
        0xFFFF888000001000, 100 * SECOND, shutdown, attempt, detached, 0,
        hold, release, attempts, max(attempts - 1, 0), 3, ident, 2, 4026531840, 0, 2**32 - 1, 0, 256,
        -1, -1, device, b"0000:03:00.0", b"driver",
    )  # fmt: skip


def attempt(hold, release, inflight, **more):
    """A struct event about an attempt at 200 s."""
    return struct.pack("=QIi", 200 * SECOND, 3, inflight) + record(hold, release, attempts=1, **more)


@given(U32, st.integers(-(2**31), 2**31 - 1))
def test_the_distance_of_two_counts_survives_any_wrap_around(count, ahead):
    assert distance((count + ahead) % 2**32, count) == ahead


def test_pages_in_flight_are_right_across_the_wrap_around():
    assert decode_pool(record(5, 2**32 - 10)).inflight == 15


@pytest.mark.parametrize(
    ("data", "now", "expected", "inflight"),
    [
        pytest.param(record(64, 64), 200, Shutdown.LIVE, 0, id="normal"),
        pytest.param(
            record(64, 44, shutdown=200 * SECOND, attempts=1),
            230,
            Shutdown.CLOSING,
            20,
            id="in flight for a while",
        ),
        pytest.param(
            record(64, 44, shutdown=200 * SECOND, attempts=60),
            260,
            Shutdown.STALLED,
            20,
            id="never returning",
        ),
        pytest.param(
            record(64, 67, shutdown=200 * SECOND, attempts=1), 201, Shutdown.NEGATIVE, -3, id="negative"
        ),
    ],
)
def test_a_shutdown_goes_one_of_four_ways(data, now, expected, inflight):
    pool = decode_pool(data)
    assert (pool.shutdown(now), pool.inflight) == (expected, inflight)


def test_an_attempt_tells_when_how_many_and_whose():
    event = decode_event(attempt(64, 44, 20, shutdown=200 * SECOND))
    assert (event.at, event.kind, event.inflight) == (200.0, "attempt", 20)
    assert (event.pool.interface, event.pool.id, event.pool.mem_id, event.pool.queue) == ("eth0", 7, 3, None)
    assert (event.pool.parent, event.pool.driver, event.pool.size) == ("0000:03:00.0", "driver", 256)
    assert (POOL_BYTES, EVENT_BYTES) == (168, 184)


def test_a_detach_time_is_seconds_up_to_6_12_and_nanoseconds_later():
    assert decode_pool(record(1, 0, detached=150), now=200).detach_time == 150
    assert decode_pool(record(1, 0, detached=150 * SECOND), now=200).detach_time == 150


def test_what_a_cpu_was_never_told_counts_for_nothing():
    data = struct.pack("=III4x", 5, 3, 3) + struct.pack("=III4x", 9, 9, 0) + struct.pack("=III4x", 0, 4, 2)
    assert decode_latest(data) == ([5, None, None], [3, None, 4])


def test_the_newest_of_the_cpus_counts_is_the_pools():
    count = Count(10)
    assert count.update([12, None, 15]) == 15
    assert count.update([12, 18, 15]) == 18


def test_a_cpu_that_fell_silent_is_not_taken_for_ahead_once_the_others_are_2_31_further():
    count, now = Count(0), 0
    for _ in range(5):
        now = (now + 2**30) % 2**32
        assert count.update([now, 7]) == now


@given(st.lists(st.integers(0, 2**30), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_a_count_follows_its_cpus_over_any_wrap_around(steps, start):
    count, slots, now = Count(start), [None, None], start
    for number, step in enumerate(steps):
        now = (now + step) % 2**32
        slots[number % 2] = now
        assert count.update(list(slots)) == now


def test_slots_tell_by_pool_and_cpu_and_an_empty_one_nothing():
    def slot(address, told):
        return struct.pack("=QQIIII", address, 100 * SECOND, 0, 5, 3, told)

    assert decode_slots(slot(0x1000, 3) + slot(0, 3) + slot(0x1000, 2)) == {
        (0x1000, 100.0): {0: (5, 3), 2: (None, 3)}
    }
