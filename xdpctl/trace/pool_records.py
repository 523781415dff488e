"""What bpf/pool_trace.bpf.c tells of a page pool, unpacked: its structs ``pool``, ``event`` and ``latest``.

A pool's hold and release counts are 32 bits wide and wrap around (struct page_pool, pages_state_hold_cnt and
pages_state_release_cnt): only differences mean something, taken as RFC 1982 does, and as page_pool_inflight() does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BITS = 32
_HALF, _WHOLE = 1 << (BITS - 1), 1 << BITS
NANOSECONDS = 1e9
WARNS_AFTER = 60.0
"""Seconds after which page_pool_release_retry() says "stalled pool shutdown", each time (DEFER_WARN_INTERVAL)."""
RETRIES_EVERY = 1.0
"""Seconds between two attempts to shut a pool down (DEFER_TIME)."""

_POOL = struct.Struct("=6Q12I2i16s32s16s")
_EVENT = struct.Struct("=QIi")
_LATEST = struct.Struct("=III")
_SLOT = struct.Struct("=QQI")
_HOLD, _RELEASE = 1, 2
_NO_QUEUE = 2**32 - 1

POOL_BYTES, EVENT_BYTES, LATEST_BYTES = _POOL.size, _EVENT.size + _POOL.size, _LATEST.size


def distance(later: int, earlier: int) -> int:
    """How far `later` is ahead of `earlier`, both 32 bits: negative when it is behind (``_distance()``)."""
    return (later - earlier + _HALF) % _WHOLE - _HALF


class Shutdown(str, Enum):
    """How far a pool's shutdown has come: the four ways that it can go."""

    LIVE = "live"
    CLOSING = "closing"
    """Destroyed with pages out, for less than a minute: the kernel asks each second and says nothing."""
    STALLED = "stalled"
    """Destroyed with pages out a minute or more ago: whoever has them doesn't give them back."""
    NEGATIVE = "negative"
    """More pages came back than went out: a driver's error. The kernel stops asking, the pool is never freed."""
    ENDED = "ended"
    """Every page came back, and the pool was freed."""


@dataclass(frozen=True, slots=True)
class TracedPool:
    """One page pool as the tracer knows it. Times are CLOCK_BOOTTIME seconds, sizes are pages."""

    address: int
    """Of its struct page_pool: what tells it from others while it exists."""
    hold: int
    """Pages it ever took from the allocator, modulo 2^32; recycled ones don't count."""
    release: int
    """Pages it ever let go of, modulo 2^32."""
    seen: float
    id: int | None = None
    """As netlink and the kernel log name it (6.8)."""
    mem_id: int | None = None
    """xdp_mem_info's, where the pool serves XDP (or the kernel keeps it in the pool: 5.18)."""
    interface: str | None = None
    """Its name when the pool was seen first; None: the pool does not say whose it is."""
    ifindex: int | None = None
    netns: int | None = None
    """nsfs inode."""
    napi: int | None = None
    queue: int | None = None
    parent: str | None = None
    """The bus device that its pages are mapped for: ``0000:03:00.0``."""
    driver: str | None = None
    node: int | None = None
    """NUMA node; None: any."""
    cpu: int | None = None
    """Of the kernel's own pool of that CPU (6.8)."""
    order: int = 0
    """Each of its pages is 2^order pages of memory."""
    size: int = 0
    """Pages its ring has room for (0: the default, 1024)."""
    attempts: int = 0
    """Attempts to shut it down since it was seen."""
    stalls: int = 0
    """Those that found pages out."""
    first_attempt: float | None = None
    """The first one that found pages out, since it was seen."""
    last_attempt: float | None = None
    detach_time: float | None = None
    """When it was destroyed with pages out, as the kernel keeps it (6.8); None: live, or not known."""
    init_callback: int = 0
    """Address of the function that prepares its pages, 0: none."""
    ended: bool = False

    @property
    def inflight(self) -> int:
        """Pages that are out: in rings, queues, sockets; negative only after a driver's error."""
        return distance(self.hold, self.release)

    @property
    def since(self) -> float | None:
        """When its shutdown began to wait for pages; None: it does not. A late tracer only saw a later attempt."""
        return self.detach_time if self.detach_time is not None else self.first_attempt

    def shutdown(self, now: float) -> Shutdown:
        """How far its shutdown has come at `now`."""
        if self.ended:
            return Shutdown.ENDED
        since = self.since
        if since is None:
            return Shutdown.LIVE
        if self.inflight < 0:
            return Shutdown.NEGATIVE
        return Shutdown.STALLED if now - since >= WARNS_AFTER else Shutdown.CLOSING

    def label(self) -> str:
        """``veth0``, ``0000:03:00.0``, ``CPU 3``, or ``?``: whose it is."""
        if self.interface:
            return self.interface
        return self.parent or (f"CPU {self.cpu}" if self.cpu is not None else "?")


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """One step in a pool's life."""

    at: float
    kind: str
    """connected (to a device's receive queue), disconnected, or attempt (to shut it down)."""
    inflight: int
    """Pages that an attempt found out; 0: it freed the pool."""
    pool: TracedPool


KINDS = {1: "connected", 2: "disconnected", 3: "attempt"}


def decode_pool(data: bytes, *, now: float | None = None) -> TracedPool:
    """A ``struct pool``.

    Args:
        data: its bytes.
        now: CLOCK_BOOTTIME seconds, to tell a detach time in seconds (up to 6.12) from one in ns.
    """
    (
        address, seen, first, last, detached, init,
        hold, release, attempts, stalls, mem_id, ident, ifindex, netns, napi, queue, order, size,
        node, cpu, interface, parent, driver,
    ) = _POOL.unpack(data[:POOL_BYTES])  # fmt: skip
    return TracedPool(
        address, hold, release, seen / NANOSECONDS,
        id=ident or None, mem_id=mem_id or None,
        interface=_text(interface), ifindex=ifindex or None, netns=netns or None, napi=napi or None,
        queue=None if queue == _NO_QUEUE else queue,
        parent=_text(parent), driver=_text(driver),
        node=node if node >= 0 else None, cpu=cpu if cpu >= 0 else None, order=order, size=size,
        attempts=attempts, stalls=stalls,
        first_attempt=_seconds(first), last_attempt=_seconds(last),
        detach_time=_detach_time(detached, now if now is not None else max(seen, last) / NANOSECONDS),
        init_callback=init,
    )  # fmt: skip


def _text(field: bytes) -> str | None:
    return field.partition(b"\0")[0].decode(errors="replace") or None


def _seconds(nanoseconds: int) -> float | None:
    return nanoseconds / NANOSECONDS if nanoseconds else None


def _detach_time(kept: int, now: float) -> float | None:
    """Seconds since boot never get beyond `now`; nanoseconds do within the first second."""
    if not kept:
        return None
    return float(kept) if kept <= now + 1 else kept / NANOSECONDS


def decode_event(data: bytes) -> PoolEvent:
    """A ``struct event``."""
    nanoseconds, kind, inflight = _EVENT.unpack_from(data)
    at = nanoseconds / NANOSECONDS
    return PoolEvent(at, KINDS.get(kind, f"kind {kind}"), inflight, decode_pool(data[_EVENT.size :], now=at))


def decode_latest(data: bytes) -> tuple[list[int | None], list[int | None]]:
    """What each CPU was told last: hold counts and release counts, None where it never was.

    Args:
        data: a per-CPU ``struct latest``, 16 bytes a possible CPU.
    """
    holds: list[int | None] = []
    releases: list[int | None] = []
    for at in range(0, len(data), 16):
        hold, release, told = _LATEST.unpack_from(data, at)
        holds.append(hold if told & _HOLD else None)
        releases.append(release if told & _RELEASE else None)
    return holds, releases


SLOT_BYTES = 32
"""sizeof(struct slot): what follows _SLOT is a struct latest."""


def decode_slots(data: bytes) -> dict[tuple[int, float], dict[int, tuple[int | None, int | None]]]:
    """One place of the slots of all CPUs: (address, seen) -> CPU -> what it was told last (hold, release).

    Args:
        data: a per-CPU ``struct slot``.
    """
    found: dict[tuple[int, float], dict[int, tuple[int | None, int | None]]] = {}
    for cpu, at in enumerate(range(0, len(data), SLOT_BYTES)):
        address, seen, _ = _SLOT.unpack_from(data, at)
        if address:
            hold, release, told = _LATEST.unpack_from(data, at + _SLOT.size)
            found.setdefault((address, seen / NANOSECONDS), {})[cpu] = (
                hold if told & _HOLD else None,
                release if told & _RELEASE else None,
            )
    return found


class Count:
    """One count of a pool, put together from what its CPUs were told.

    The newest is the one furthest ahead of the last result, among those that changed since: a CPU that fell silent
    keeps an old value, which would seem to be ahead once the others are 2^31 further.
    """

    __slots__ = ("_told", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self._told: Sequence[int | None] = ()

    def update(self, told: Sequence[int | None]) -> int:
        """Take in what the CPUs know now; returns the count, 32 bits."""
        before = self._told if len(self._told) == len(told) else (None,) * len(told)
        ahead = [
            distance(new, self.value)
            for new, old in zip(told, before, strict=True)
            if new is not None and new != old
        ]
        self._told = tuple(told)
        self.value = (self.value + max([0, *ahead])) % _WHOLE
        return self.value
