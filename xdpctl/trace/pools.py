"""Page pools as they allocate, free and shut down, whether netlink lists them or not (bpf/pool_trace.bpf.c).

The tracepoints page_pool:page_pool_state_hold, page_pool_state_release, page_pool_release (5.10 in this form) and
xdp:mem_connect, mem_disconnect. All that is attached ends with the tracer, and several at once don't disturb each
other. A pool that only recycles traces nothing, so it is not seen until it does otherwise; a veth's can be looked up.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.bpf import tracepoint
from xdpctl.bpf.elements import possible_cpus
from xdpctl.bpf.object import Object
from xdpctl.errors import KernelError, UnsupportedError
from xdpctl.libbpf.library import CallError
from xdpctl.libbpf.ring import RingBuffer
from xdpctl.obj.shipped import PREFIX, resolve
from xdpctl.records import dataclass
from xdpctl.trace.pool_records import (
    Count,
    PoolEvent,
    TracedPool,
    decode_event,
    decode_latest,
    decode_pool,
    decode_slots,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

OBJECT = PREFIX + "pool_trace"
TRACEPOINTS = {
    "pool_hold": "page_pool_state_hold",
    "pool_release": "page_pool_state_release",
    "pool_attempt": "page_pool_release",
    "pool_connect": "mem_connect",
    "pool_disconnect": "mem_disconnect",
}
"""Program -> its tracepoint."""
FINDER = "find_veth_pool"
MOST_POOLS = 4096
"""Pools that are kept apart; further ones are counted as lost."""


def boottime() -> float:
    """CLOCK_BOOTTIME, seconds: the clock of every time here."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the tracer knew at one moment."""

    at: float
    """CLOCK_BOOTTIME, seconds."""
    pools: tuple[TracedPool, ...]
    """Those that were not freed yet."""
    events: tuple[PoolEvent, ...]
    """Since the last reading, oldest first."""
    lost_pools: int
    """Pools seen and not kept for want of room."""
    lost_events: int


class PoolTracer:
    """Traces page pools while it is open.

    Args:
        most: pools to keep apart.

    Raises:
        NotFoundError: the tracer is not compiled (`make build`).
        UnsupportedError: this kernel has no BTF or no such tracepoints.
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
    """

    def __init__(self, *, most: int = MOST_POOLS) -> None:
        from pathlib import Path

        self._held = contextlib.ExitStack()
        self._counts: dict[tuple[int, float], tuple[Count, Count]] = {}
        self._cpus = possible_cpus()
        try:
            self._object = self._held.enter_context(Object.open(resolve(Path(OBJECT))))
            for name in ("counts", "pools"):
                self._object.map(name).set_max_entries(most)
            self._object.load()
            self._ring = self._held.enter_context(_ring(self._object.map("events").fd))
            for program, name in TRACEPOINTS.items():
                self._held.enter_context(tracepoint.attach(name, self._object.program(program).fd))
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and forget; safe to repeat."""
        self._held.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there are events."""
        return self._ring.epoll_fd

    def events(self, seconds: float = 0.0) -> list[PoolEvent]:
        """What happened since the last call; waits at most `seconds` for the first."""
        return [decode_event(one) for one in self._ring.poll(round(seconds * 1000))]

    def read(self) -> Reading:
        """Every pool with its counts as they are now, and the events since the last call."""
        told = {int.from_bytes(key, "little"): value for key, value in self._object.map("counts").items()}
        slots: dict[tuple[int, float], dict[int, tuple[int | None, int | None]]] = {}
        for data in [data for _, data in self._object.map("slots").items()]:
            slots.update(decode_slots(data))
        pools = []
        for data in [data for _, data in self._object.map("pools").items()]:
            pool = decode_pool(data)
            own = slots.get((pool.address, pool.seen), {})
            pools.append(self._counted(pool, told.get(pool.address), own))
        kept = {(one.address, one.seen) for one in pools}
        self._counts = {key: value for key, value in self._counts.items() if key in kept}
        lost_pools, lost_events = (self._lost(number) for number in (0, 1))
        events = self.events()
        gone = {(one.pool.address, one.pool.seen) for one in events if one.pool.ended or _frees(one)}
        return Reading(
            boottime(),
            tuple(
                sorted(
                    (one for one in pools if (one.address, one.seen) not in gone), key=lambda one: one.seen
                )
            ),
            tuple(events),
            lost_pools,
            lost_events,
        )

    def _counted(
        self, pool: TracedPool, told: bytes | None, slots: Mapping[int, tuple[int | None, int | None]]
    ) -> TracedPool:
        """The pool with the newest counts among what it was read with, its last attempt and what CPUs were told."""
        key = (pool.address, pool.seen)
        hold, release = self._counts.setdefault(key, (Count(pool.hold), Count(pool.release)))
        none: list[int | None] = [None] * self._cpus
        holds, releases = decode_latest(told) if told is not None else (none, none)
        own = [slots.get(cpu, (None, None)) for cpu in range(self._cpus)]
        return replace(
            pool,
            hold=hold.update([*holds, *(one[0] for one in own), pool.hold]),
            release=release.update([*releases, *(one[1] for one in own), pool.release]),
        )

    def _lost(self, number: int) -> int:
        value = self._object.map("lost").lookup(number.to_bytes(4, "little"))
        return int.from_bytes(value or b"", "little")

    def veth_pool(self, ifindex: int, queue: int = 0) -> TracedPool | None:
        """The pool of a veth's receive queue as it lies in memory (struct veth_rq, page_pool: 6.6).

        Args:
            ifindex: of a veth, in this thread's network namespace: of another link it reads garbage.
            queue: a receive queue that it has.

        Returns:
            None: it has none (NAPI is off), or this kernel does not tell.
        """
        try:
            if not tracepoint.run(self._object.program(FINDER).fd, (ifindex, queue)):
                return None
        except KernelError:
            return None
        data = self._object.map("found").lookup(bytes(4))
        return decode_pool(data) if data else None


def _ring(map_fd: int) -> RingBuffer:
    try:
        return RingBuffer(map_fd)
    except CallError as why:
        raise UnsupportedError("tracing page pools", needs="a BPF ring buffer (5.8)", has=str(why)) from why


def _frees(event: PoolEvent) -> bool:
    return event.kind == "attempt" and event.inflight == 0
