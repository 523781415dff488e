"""A look at every page pool of the machine: netlink's lists, a tracer for the rest, and what the shutdowns wait for."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.doctor.page_holders import Holder, holders
from xdpctl.doctor.page_pools import Pool, allowance, from_tracer, merged
from xdpctl.errors import ConfigError, KernelError, NotFoundError, PrivilegeError, UnsupportedError
from xdpctl.records import dataclass
from xdpctl.trace.pool_records import Shutdown, distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdpctl.host.model import Snapshot
    from xdpctl.trace.pool_records import PoolEvent, TracedPool
    from xdpctl.trace.pools import PoolTracer, Reading

MOST_QUEUES = 4096
"""veth receive queues that are looked up one by one."""
ONE_RETRY = 1.2
"""Seconds within which the kernel tries each waiting shutdown once."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen."""

    snapshot: Snapshot
    pools: tuple[Pool, ...]
    events: tuple[PoolEvent, ...] = ()
    lost_pools: int = 0
    lost_events: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leak:
    """A pool whose pages don't come back, and who may hold them."""

    pool: Pool
    why: str
    """destroyed: it waits to be freed; beyond: it is live, with more out than its rings and caches hold; growing."""
    holders: tuple[Holder, ...]

    def to_json(self) -> dict[str, Any]:
        """``{"pool", "why", "holders"}``."""
        return {
            "pool": self.pool.to_json(),
            "why": self.why,
            "holders": [one.to_json() for one in self.holders],
        }


def tracer(notes: list[str]) -> PoolTracer | None:
    """A running tracer; None with a note where this kernel or our privileges allow none."""
    from xdpctl.trace.pools import PoolTracer

    try:
        return PoolTracer()
    except (UnsupportedError, PrivilegeError, NotFoundError) as error:
        notes.append(f"only what netlink lists: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    return None


def look(*, netns: str | None = None, seconds: float = ONE_RETRY) -> Look:
    """Look at all pools, with a tracer for `seconds` (0: without one).

    Raises:
        NotFoundError: there is no such namespace.
        NetlinkError: the caller's own namespace can't be read.
    """
    from xdpctl.host.collect import collect

    notes: list[str] = []
    running = tracer(notes) if seconds > 0 else None
    try:
        snapshot = collect(netns=netns or "all", probes=(), pools=True)
        if running is None:
            return Look(snapshot, tuple(_of(snapshot, netns, ())), notes=tuple(notes))
        lying = lying_pools(running, snapshot)
        events = _wait(running, seconds)
        reading = running.read()
    finally:
        if running is not None:
            running.close()
    snapshot = with_holders(snapshot, reading)
    pools = merged(snapshot, reading.pools, lying, now=reading.at)
    return Look(
        snapshot,
        tuple(_within(pools, snapshot, netns)),
        (*events, *reading.events),
        reading.lost_pools,
        reading.lost_events,
        tuple(notes),
    )


def _of(snapshot: Snapshot, netns: str | None, traced: Sequence[TracedPool]) -> Iterator[Pool]:
    from xdpctl.trace.pools import boottime

    yield from _within(merged(snapshot, traced, now=boottime()), snapshot, netns)


def _within(pools: Sequence[Pool], snapshot: Snapshot, netns: str | None) -> Iterator[Pool]:
    if netns is None:
        yield from pools
        return
    inodes = {one.inode for one in snapshot.namespaces}
    yield from (one for one in pools if one.netns_inode in inodes)


def _wait(running: PoolTracer, seconds: float) -> list[PoolEvent]:
    import time

    events: list[PoolEvent] = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        events += running.events(left)
    return events


def lying_pools(running: PoolTracer, snapshot: Snapshot) -> list[TracedPool]:
    """The pools of every veth that is up, as they lie in memory: one that recycles all its pages traces nothing."""
    from xdpctl.netlink import netns as spaces

    refs = {one.inode: one for one in spaces.discover(include_processes=True)}
    found: list[TracedPool] = []
    left = MOST_QUEUES
    for space in snapshot.namespaces:
        wanted = [one for one in space.links if one.kind == "veth" and one.up]
        if not wanted or space.inode not in refs:
            continue
        try:
            with spaces.enter(refs[space.inode]):
                for link in wanted:
                    for queue in range(min(link.real_rx_queues or 1, left)):
                        left -= 1
                        pool = running.veth_pool(link.ifindex, queue)
                        if pool is not None:
                            found.append(pool)
        except (KernelError, NotFoundError, OSError):
            continue  # it went away meanwhile
    return found


def with_holders(snapshot: Snapshot, reading: Reading) -> Snapshot:
    """The snapshot with unread sockets and cpumaps, where the tracer saw a shutdown that netlink does not list."""
    state = snapshot.pool_state
    waits = any(one.shutdown(reading.at) is not Shutdown.LIVE for one in reading.pools)
    if state is None or state.unread is not None or not waits:
        return snapshot
    from xdpctl.host import pools as page_pools

    problems = list(snapshot.problems)
    unread = page_pools.unread_anywhere(problems)
    return replace(
        snapshot,
        problems=tuple(problems),
        pool_state=replace(state, unread=unread, cpumaps=page_pools.cpumaps()),
    )


def leaks(seen: Look, *, before: Look | None = None) -> list[Leak]:
    """Pools that were destroyed and wait for pages, and live ones with more out than their rings and caches hold.

    Args:
        seen: the machine now.
        before: the same a while ago, to tell whether a live one grows.
    """
    earlier = {(one.id, one.address): one.inflight for one in before.pools} if before is not None else {}
    found: list[Leak] = []
    for pool in seen.pools:
        link = next(
            (
                one
                for one in seen.snapshot.links()
                if (one.netns, one.ifindex) == (pool.netns_inode, pool.ifindex)
            ),
            None,
        )
        if pool.waits and pool.inflight:
            found.append(Leak(pool, "destroyed", holders(seen.snapshot, pool)))
            continue
        may = allowance(pool, link)
        if pool.state is Shutdown.LIVE and may is not None and (pool.inflight or 0) > may:
            was = earlier.get((pool.id, pool.address))
            grows = was is not None and (pool.inflight or 0) > was
            found.append(Leak(pool, "growing" if grows else "beyond", holders(seen.snapshot, pool)))
    return found


def select(pools: Sequence[Pool], interfaces: Sequence[str]) -> list[Pool]:
    """Those of the interfaces (names or globs); all where none is named."""
    if not interfaces:
        return list(pools)
    return [one for one in pools if any(fnmatch.fnmatchcase(one.label, pattern) for pattern in interfaces)]


def named(seen: Look, number: str) -> Pool:
    """The pool with this id.

    Raises:
        ConfigError: it is no number.
        NotFoundError: there is none.
    """
    if not number.isdecimal():
        raise ConfigError(f"{number} is no pool's id", hint="xdpctl pool list shows them")
    found = next((one for one in seen.pools if one.id == int(number)), None)
    if found is None:
        known = [str(one.id) for one in seen.pools if one.id is not None]
        raise NotFoundError(
            "page pool", number, known=known, hint="xdpctl pool list shows those that can be seen"
        )
    return found


def rates(pools: Sequence[Pool], before: Sequence[Pool], seconds: float) -> list[Pool]:
    """The pools with how fast they take and give back pages since `before`."""
    earlier = {(one.id, one.address): one for one in before}
    made = []
    for one in pools:
        was = earlier.get((one.id, one.address))
        if was is None or None in (one.hold, one.release, was.hold, was.release) or seconds <= 0:
            made.append(one)
            continue
        taken = distance(one.hold or 0, was.hold or 0)
        given = distance(one.release or 0, was.release or 0)
        made.append(replace(one, hold_rate=taken / seconds, release_rate=given / seconds))
    return made


def event_pool(snapshot: Snapshot, event: PoolEvent) -> Pool:
    """The pool of an event, as it was then."""
    freed = event.kind == "attempt" and event.inflight == 0
    return from_tracer(snapshot, replace(event.pool, ended=freed), event.at)
