"""Page pools as an engineer looks at them: netlink's and the tracer's accounts of each as one, its state and health.

Mirrors net/core/page_pool.c: page_pool_inflight(), page_pool_release_retry(), and where its statistics are counted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass
from xdpctl.trace.pool_records import WARNS_AFTER, Shutdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xdpctl.host.model import Link, Snapshot
    from xdpctl.host.pool_model import ListedPool
    from xdpctl.trace.pool_records import TracedPool

DEFAULT_RING = 1024
"""Pages in a pool's ring where the driver asked for none (page_pool_init)."""
LARGEST_RING = 16384
"""page_pool_init() cuts the ring at this."""
ALLOC_CACHE = 128
"""PP_ALLOC_CACHE_SIZE: pages that a pool keeps at hand besides its ring."""

ENOUGH = 1000
"""Pages returned or handed out below which shares mean nothing."""


@dataclass(frozen=True, slots=True)
class LowFigure:
    """One counter that says why pages don't come back, or not from where they should."""

    name: str
    count: int
    share: float
    """Of the pages that could have gone that way, 0 to 1."""
    means: str

    def to_json(self) -> dict[str, Any]:
        """``{"name", "count", "share", "means"}``."""
        return {"name": self.name, "count": self.count, "share": round(self.share, 4), "means": self.means}


@dataclass(frozen=True, slots=True)
class Health:
    """What the statistics of a pool amount to; None: it did too little to say."""

    served: float | None
    """Share of its allocations that needed no page from the page allocator: (fast + refill) of all."""
    recycled: float | None
    """Share of the pages given back that stayed in the pool: (cached + ring) of all."""
    low: tuple[LowFigure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``{"served", "recycled", "low"}``."""
        return {
            "served": None if self.served is None else round(self.served, 4),
            "recycled": None if self.recycled is None else round(self.recycled, 4),
            "low": [one.to_json() for one in self.low],
        }


LOW_FIGURES = (
    (
        "recycle_ring_full",
        ("recycle_ring", "recycle_ring_full"),
        0.01,
        "more pages come back at once than the pool's ring holds (most drivers size it as the receive ring)",
    ),
    (
        "recycle_released_refcnt",
        ("recycle_cached", "recycle_ring", "recycle_ring_full", "recycle_released_refcnt"),
        0.01,
        "somebody else still had a reference when the page came back (skbs redirected by a veth, a mirror, splice)",
    ),
    (
        "alloc_waive",
        ("alloc_refill", "alloc_waive"),
        0.01,
        "pages of another NUMA node were in the ring: the NAPI runs on CPUs of another node than the memory's",
    ),
    (
        "alloc_empty",
        ("alloc_fast", "alloc_refill", "alloc_slow", "alloc_slow_high_order"),
        0.1,
        "the ring was empty when pages were wanted: they come back late, or leave the pool",
    ),
)
"""Counter, of which sum it is a share, the share from which it is told, what it means."""


def health(statistics: Mapping[str, int]) -> Health:
    """Ratios and low figures from page-pool-stats-get's counters.

    The allocation counters exclude each other: each page handed out counts in one of them. alloc_slow counts once
    for the up to 64 pages that the allocator gave at a time, the rest of which count as fast when they are taken.
    """

    def total(names: Iterable[str]) -> int:
        return sum(statistics.get(one, 0) for one in names)

    given = total(("alloc_fast", "alloc_refill", "alloc_slow", "alloc_slow_high_order"))
    kept = total(("recycle_cached", "recycle_ring"))
    back = kept + total(("recycle_ring_full", "recycle_released_refcnt"))
    low = []
    for name, of, from_, means in LOW_FIGURES:
        count, whole = statistics.get(name, 0), total(of)
        if whole >= ENOUGH and count >= from_ * whole:
            low.append(LowFigure(name, count, count / whole, means))
    return Health(
        total(("alloc_fast", "alloc_refill")) / given if given >= ENOUGH else None,
        kept / back if back >= ENOUGH else None,
        tuple(low),
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """One page pool. Sizes are pages, times seconds; None: not known."""

    source: str
    """netlink, tracer, memory (a veth's, as it lies there), or netlink+tracer."""
    state: Shutdown
    id: int | None = None
    interface: str | None = None
    netns: str | None = None
    """Label of the interface's namespace, None for the caller's."""
    netns_inode: int | None = None
    ifindex: int | None = None
    queue: int | None = None
    napi: int | None = None
    cpu: int | None = None
    device: str | None = None
    driver: str | None = None
    mem_id: int | None = None
    inflight: int | None = None
    inflight_bytes: int | None = None
    hold: int | None = None
    release: int | None = None
    size: int | None = None
    age: float | None = None
    """Of its shutdown; None: it is live."""
    age_at_least: bool = False
    """The shutdown began before we looked."""
    attempts: int | None = None
    stalls: int | None = None
    statistics: Mapping[str, int] | None = None
    address: int | None = None
    hold_rate: float | None = None
    """Pages a second that were taken from the page allocator, while it was watched."""
    release_rate: float | None = None

    @property
    def label(self) -> str:
        """Whose it is: an interface, a bus device, a CPU; else ``(gone)`` or ``(none)``."""
        if self.interface:
            return self.interface
        if self.device:
            return self.device
        if self.cpu is not None:
            return f"CPU {self.cpu}"
        return "(gone)" if "netlink" in self.source else "(none)"

    @property
    def waits(self) -> bool:
        """Destroyed, and pages are still out (or more came back than went out)."""
        return self.state in (Shutdown.CLOSING, Shutdown.STALLED, Shutdown.NEGATIVE)

    def health(self) -> Health | None:
        """What its statistics amount to, None without any."""
        return health(self.statistics) if self.statistics else None

    def to_json(self) -> dict[str, Any]:
        """Every field but the address, under its name; `health` beside the statistics."""
        told = self.health()
        return {
            "id": self.id,
            "interface": self.interface,
            "netns": self.netns,
            "ifindex": self.ifindex,
            "queue": self.queue,
            "napi": self.napi,
            "cpu": self.cpu,
            "device": self.device,
            "driver": self.driver,
            "mem_id": self.mem_id,
            "state": self.state.value,
            "inflight": self.inflight,
            "inflight_bytes": self.inflight_bytes,
            "hold": self.hold,
            "release": self.release,
            "hold_per_second": _rounded(self.hold_rate),
            "release_per_second": _rounded(self.release_rate),
            "size": self.size,
            "age_seconds": _rounded(self.age),
            "age_at_least": self.age_at_least,
            "attempts": self.attempts,
            "stalls": self.stalls,
            "statistics": dict(self.statistics) if self.statistics is not None else None,
            "health": told.to_json() if told is not None else None,
            "source": self.source,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def from_netlink(snapshot: Snapshot, listed: ListedPool, now: float) -> Pool:
    """A pool that netlink lists."""
    link = _link(snapshot, listed.netns, listed.ifindex)
    age = None if listed.detach_time is None else max(0.0, now - listed.detach_time)
    return Pool(
        "netlink",
        state(age, listed.inflight),
        id=listed.id,
        interface=link.name if link else None,
        netns=_label(snapshot, listed.netns),
        netns_inode=listed.netns,
        ifindex=listed.ifindex,
        queue=listed.queue,
        napi=listed.napi,
        driver=link.driver if link else None,
        inflight=listed.inflight,
        inflight_bytes=listed.inflight_bytes,
        age=age,
        statistics=listed.statistics,
    )


def state(age: float | None, inflight: int | None) -> Shutdown:
    """How far a shutdown has come, by its age; None: live."""
    if age is None:
        return Shutdown.LIVE
    if inflight is not None and inflight < 0:
        return Shutdown.NEGATIVE
    return Shutdown.STALLED if age >= WARNS_AFTER else Shutdown.CLOSING


def from_tracer(snapshot: Snapshot, traced: TracedPool, now: float, *, source: str = "tracer") -> Pool:
    """A pool that the tracer saw."""
    link = _link(snapshot, traced.netns, traced.ifindex)
    if (
        link is None and traced.parent
    ):  # a driver's pool names its bus device: the interface has it as bus-info
        link = next((one for one in snapshot.links() if one.bus_info == traced.parent), None)
    since = traced.since
    return Pool(
        source,
        traced.shutdown(now),
        id=traced.id,
        interface=link.name if link else traced.interface,
        netns=_label(snapshot, link.netns if link else traced.netns),
        netns_inode=link.netns if link else traced.netns,
        ifindex=link.ifindex if link else traced.ifindex,
        queue=traced.queue,
        napi=traced.napi,
        cpu=traced.cpu,
        device=traced.parent,
        driver=traced.driver or (link.driver if link else None),
        mem_id=traced.mem_id,
        inflight=traced.inflight,
        inflight_bytes=traced.inflight * snapshot.kernel.page_size << traced.order,
        hold=traced.hold,
        release=traced.release,
        size=traced.size or DEFAULT_RING,
        age=None if since is None else max(0.0, now - since),
        age_at_least=since is not None and traced.detach_time is None,
        attempts=traced.attempts,
        stalls=traced.stalls,
        address=traced.address,
    )


def merged(
    snapshot: Snapshot, traced: Sequence[TracedPool] = (), lying: Sequence[TracedPool] = (), *, now: float
) -> list[Pool]:
    """Every pool once: netlink's account first, completed by the tracer's of the same id.

    Args:
        snapshot: with `pool_state`.
        traced: what a tracer saw.
        lying: pools that were read as they lie in memory; the tracer's account wins.
        now: CLOCK_BOOTTIME, seconds.
    """
    observed = snapshot.pool_state
    found = [from_netlink(snapshot, one, now) for one in (observed.pools if observed else None) or ()]
    places = {one.id: number for number, one in enumerate(found)}
    seen = {one.address for one in traced}
    others = [(one, "tracer") for one in traced] + [
        (one, "memory") for one in lying if one.address not in seen
    ]
    for one, source in others:
        pool = from_tracer(snapshot, one, now, source=source)
        place = places.get(pool.id) if pool.id is not None else None
        if place is None:
            found.append(pool)
        else:
            found[place] = _completed(found[place], pool)
    return sorted(found, key=lambda one: (one.netns or "", one.label, one.queue or 0, one.id or 0))


def _completed(listed: Pool, traced: Pool) -> Pool:
    """Netlink's account with what only the tracer tells."""
    names = (
        "queue",
        "cpu",
        "device",
        "driver",
        "mem_id",
        "hold",
        "release",
        "size",
        "attempts",
        "stalls",
        "address",
    )
    lacking = {name: getattr(traced, name) for name in names if getattr(listed, name) is None}
    return replace(listed, source="netlink+tracer", **lacking)


def _link(snapshot: Snapshot, netns: int | None, ifindex: int | None) -> Link | None:
    from xdpctl.host.model import LinkRef

    return snapshot.link(LinkRef(netns, ifindex)) if netns is not None and ifindex is not None else None


def _label(snapshot: Snapshot, inode: int | None) -> str | None:
    if inode is None:
        return None
    space = snapshot.namespace(inode)
    if space is None:
        return f"net:[{inode}]"
    return None if space.current else space.label


def allowance(pool: Pool, link: Link | None) -> int | None:
    """Pages that a live pool may have out and nobody holds: posted to the receive ring, in its own ring, at hand.

    Returns:
        None: the receive ring's size is not known.
    """
    if link is not None and link.kind == "veth":
        posted: int | None = 0
    else:
        posted = link.rings.rx if link is not None and link.rings is not None else None
    if posted is None:
        return None
    ring = LARGEST_RING if pool.size is None else min(pool.size, LARGEST_RING)
    return posted + ring + ALLOC_CACHE
