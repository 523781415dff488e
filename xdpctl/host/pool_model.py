"""What a Snapshot holds about page pools and where their pages may wait; see host/model.py for its conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ListedPool:
    """A page pool that netlink lists (netdev genl page-pool-get, page-pool-stats-get; 6.8)."""

    id: int
    netns: int
    """Inode of the namespace that lists it."""
    ifindex: int | None
    """None: its device is gone, and pages are still out."""
    napi: int | None = None
    queue: int | None = None
    """Receive queue that its NAPI serves."""
    inflight: int | None = None
    """Pages handed out and not yet back: also those that wait in its own cache, ring, and the receive ring."""
    inflight_bytes: int | None = None
    detach_time: int | None = None
    """CLOCK_BOOTTIME seconds of its destruction with pages out; None: in use."""
    statistics: Mapping[str, int] | None = None
    """alloc_fast, recycle_ring, ... as the specification names them; None: a kernel without CONFIG_PAGE_POOL_STATS."""


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """A line of the kernel's log about page pools and devices that wait, the last of its kind about its object."""

    kind: str
    """stalled, negative, or device-waits."""
    text: str
    at: float | None = None
    """Seconds since boot (the log's clock); None: the log has no times."""
    pool_id: int | None = None
    """As netlink names it (6.8)."""
    pages: int | None = None
    seconds: int | None = None
    """How long the pool's shutdown had waited then."""
    device: str | None = None
    count: int = 1
    """Lines of the same."""


@dataclass(frozen=True, slots=True)
class UnreadSocket:
    """A socket with data that nobody has read: the frames it came in stay where they are (/proc/net/udp, ...)."""

    netns: int
    protocol: str
    """udp, udp6, tcp, tcp6, raw, raw6, packet."""
    local: str | None
    """``192.0.2.2:902``; None for packet sockets."""
    unread_bytes: int
    """Memory charged for what waits (truesize), for TCP bytes of the stream."""
    inode: int
    process: str | None = None
    """``name (pid)``; None: not told to us."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """Page pools, and who may hold what they gave out, at one moment."""

    boottime: float
    """CLOCK_BOOTTIME then, seconds: what `detach_time` counts from."""
    monotonic: float
    """CLOCK_MONOTONIC then, seconds: about what the kernel's log counts in."""
    pools: tuple[ListedPool, ...] | None = None
    """None: this kernel lists none (before 6.8). Drivers that list none of theirs are many."""
    messages: tuple[KernelMessage, ...] | None = None
    """None: the log may not be read."""
    unread: tuple[UnreadSocket, ...] | None = None
    """Looked for only where pages are out that should be back."""
    cpumaps: tuple[str, ...] | None = None
    """``name (id 7)`` of each loaded cpumap: frames wait in their queues. As `unread`."""
