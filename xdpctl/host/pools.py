"""Page pools that netlink lists, in every namespace observed, and what the kernel's log and sockets say of theirs.

netdev genl page-pool-get and page-pool-stats-get (net/core/page_pool_user.c, 6.8), syslog(2), /proc/net.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from xdpctl.errors import KernelError, NotFoundError, UnsupportedError
from xdpctl.host import kernel_log, sockets
from xdpctl.host.model import Problem
from xdpctl.host.pool_model import ListedPool, PoolState, UnreadSocket
from xdpctl.netlink import netdev, netns, wire

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xdpctl.netlink.netns import NetnsRef


def observe(spaces: Sequence[NetnsRef], problems: list[Problem]) -> PoolState:
    """Page pools of these namespaces. Sockets are asked only where a destroyed pool has pages out."""
    pools: list[ListedPool] | None = []
    for space in spaces:
        try:
            with netns.enter(space):
                listed = pools_here(space.inode, problems, space.label)
        except (KernelError, NotFoundError, OSError) as error:
            problems.append(Problem(f"netns {space.label} page pools", str(error)))
            continue
        pools = None if pools is None or listed is None else pools + listed
    waits = any(one.detach_time is not None and one.inflight for one in pools or ())
    return PoolState(
        time.clock_gettime(time.CLOCK_BOOTTIME),
        time.clock_gettime(time.CLOCK_MONOTONIC),
        None if pools is None else tuple(pools),
        kernel_log.messages(problems),
        unread_in(spaces, problems) if waits else None,
        cpumaps() if waits else None,
    )


def pools_here(inode: int, problems: list[Problem], label: str | None = None) -> list[ListedPool] | None:
    """Those that the calling thread's namespace lists; None: a kernel before 6.8."""
    where = f"netns {label}" if label else "the current netns"
    with wire.Socket(wire.NETLINK_GENERIC) as generic:
        try:
            found = netdev.page_pools(generic)
        except UnsupportedError:
            return None
        except KernelError as error:
            if error.errno == errno.EOPNOTSUPP:  # the family is older than the command: 6.3 to 6.7
                return None
            problems.append(Problem(f"{where} page pools", error.message))
            return []
        if not found:
            return []
        counts = _statistics(generic, where, problems)
        queues = _queues(generic)
    return [
        ListedPool(
            one.id,
            inode,
            one.ifindex,
            one.napi,
            queues.get((one.ifindex, one.napi)),
            one.inflight,
            one.inflight_bytes,
            one.detach_time,
            None if counts is None else counts.get(one.id),
        )
        for one in sorted(found, key=lambda one: (one.ifindex or 0, one.id))
    ]


def _statistics(
    generic: wire.Socket, where: str, problems: list[Problem]
) -> Mapping[int, Mapping[str, int]] | None:
    try:
        return {pool.id: counts for pool, counts in netdev.page_pool_stats(generic)}
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP:  # which is how a kernel without CONFIG_PAGE_POOL_STATS answers
            problems.append(Problem(f"{where} page pool statistics", error.message))
        return None


def _queues(generic: wire.Socket) -> Mapping[tuple[int | None, int | None], int]:
    """(ifindex, NAPI) -> receive queue."""
    try:
        return {
            (one.ifindex, one.napi): one.id for one in netdev.queues(generic) if one.napi and one.type == "rx"
        }
    except KernelError:
        return {}


def unread_in(spaces: Collection[NetnsRef], problems: list[Problem]) -> tuple[UnreadSocket, ...]:
    """Sockets of these namespaces with data that nobody has read, with the processes that hold them."""
    found: list[UnreadSocket] = []
    for space in spaces:
        try:
            with netns.enter(space):
                found += sockets.unread(space.inode)
        except (KernelError, NotFoundError, OSError) as error:
            problems.append(Problem(f"netns {space.label} sockets", str(error)))
    return sockets.with_processes(found)


def unread_anywhere(problems: list[Problem]) -> tuple[UnreadSocket, ...]:
    """The same, for every namespace that can be seen."""
    return unread_in(netns.discover(include_processes=True), problems)


def cpumaps() -> tuple[str, ...] | None:
    """The cpumaps that are loaded, attached or not; None: we may not list maps."""
    from xdpctl.bpf import query

    try:
        return tuple(f"{one.name} (id {one.id})" for one in query.maps() if one.type == "cpumap")
    except KernelError:
        return None
