"""Which counters of a link moved between two readings, per queue and summed, and do they agree with each other?

Mirrors struct rtnl_link_stats64, the netdev family's qstats-get and, when asked, ethtool -S and ethtool's standard
groups.
"""

from __future__ import annotations

import errno
import re
import time
from typing import TYPE_CHECKING

from xdpctl.errors import NetlinkError, UnsupportedError
from xdpctl.host.counter_words import meaning
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

SOURCES = ("link", "queues", "driver", "standard")
"""rtnl's counters; qstats-get (6.12); ethtool -S; ethtool's standard groups (5.13)."""

Key = tuple[str, str, "int | None"]
"""Source, name without its queue, queue (None: the counter is the device's)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Every counter of some links at one time."""

    at: float
    """Seconds of the monotonic clock."""
    counters: Mapping[int, Mapping[Key, int]]
    """By ifindex."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """One counter that moved."""

    source: str
    name: str
    delta: int
    """Of the whole device, or the sum of its queues."""
    rate: float
    """A second."""
    queues: Mapping[int, int] | None
    """Queue -> its part, None where the counter is not kept by queue."""
    means: str | None
    """In plain words, None where nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Check:
    """Two ways to count one thing, compared."""

    name: str
    holds: bool | None
    """None: it only tells a share, which can't be wrong."""
    says: str


@dataclass(frozen=True, slots=True)
class Movement:
    """What happened on one link between two readings."""

    seconds: float
    counters: tuple[Moved, ...]
    fell: tuple[str, ...]
    """Counters that are less than before: reset meanwhile, or no counters but states."""
    checks: tuple[Check, ...]


_QUEUED = (
    re.compile(r"(?P<head>rx|tx)_queue_(?P<queue>\d+)_(?P<rest>.+)"),
    re.compile(r"(?P<head>rx|tx|ch)-?(?P<queue>\d+)[_.](?P<rest>.+)"),
    re.compile(r"(?P<head>rx|tx)_?q(?P<queue>\d+)_(?P<rest>.+)"),
    re.compile(r"(?P<head>rx|tx)_ring_?(?P<queue>\d+)_(?P<rest>.+)"),
    re.compile(r"queue_(?P<queue>\d+)_(?P<rest>.+)"),
    re.compile(r"rvec_(?P<queue>\d+)_(?P<rest>.+)"),
    re.compile(r"\[(?P<queue>\d+)\]: ?(?P<rest>.+)"),
    re.compile(r"(?P<rest>.+)\[(?P<queue>\d+)\]"),
)
"""How drivers write a queue into a counter's name: veth, igb, virtio_net; i40e, mlx5; mvneta; ...; ena; nfp; bnxt; gve.
A number that follows an underscore alone is a frame's size (``rx_64_bytes``)."""


def split(name: str) -> tuple[str, int | None]:
    """A driver's name of a counter -> its name without the queue, and the queue."""
    for pattern in _QUEUED:
        found = pattern.fullmatch(name)
        if found:
            head = found.groupdict().get("head")
            return (f"{head}_{found['rest']}" if head else found["rest"]), int(found["queue"])
    return name, None


def read(links: Mapping[int, str], *, ethtool: bool = False) -> Reading:
    """Read every counter of some links of the thread's network namespace.

    Args:
        links: ifindex -> name.
        ethtool: the driver's own counters and ethtool's standard groups too.

    Raises:
        NetlinkError: the kernel refused the counters that every link has.
    """
    from xdpctl.netlink import ethtool_ioctl, netdev, standard_stats
    from xdpctl.netlink.link_stats import link_stats

    counters: dict[int, dict[Key, int]] = {number: {} for number in links}
    problems: list[str] = []
    for number, found in link_stats().items():
        if number in counters:
            counters[number] |= {("link", name, None): value for name, value in found.items()}
    by_queue = _attempt(netdev.queue_stats, problems) or {}
    for number in counters.keys() & by_queue.keys():
        for (way, queue), one in by_queue[number].items():
            names = {name: name if name.startswith(way) else f"{way}-{name}" for name in one}
            counters[number] |= {("queues", names[name], queue): value for name, value in one.items()}
    if ethtool:
        with ethtool_ioctl.control_socket() as sock:
            for number, name in links.items():
                own = _attempt(lambda: ethtool_ioctl.statistics(name, sock), problems) or {}  # noqa: B023
                counters[number] |= {("driver", *split(key)): value for key, value in own.items()}
                groups = _attempt(lambda: standard_stats.standard_stats(number), problems) or {}  # noqa: B023
                for group, values in groups.items():
                    counters[number] |= {
                        ("standard", f"{group}.{key}", None): one for key, one in values.items()
                    }
    return Reading(time.monotonic(), counters, tuple(problems))


def _attempt(ask: Callable[[], Any], problems: list[str]) -> Any:
    """What was answered; None: this device or kernel has none. Other refusals are told."""
    try:
        return ask()
    except UnsupportedError:
        return None
    except NetlinkError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            problems.append(error.message)
        return None


def movement(before: Reading, after: Reading, ifindex: int) -> Movement:
    """What moved on one link; a counter that is new since is left out, as nobody knows from where it started. Pure."""
    seconds = max(after.at - before.at, 1e-9)
    old, new = before.counters.get(ifindex, {}), after.counters.get(ifindex, {})
    total: dict[tuple[str, str], int] = {}
    parts: dict[tuple[str, str], dict[int, int]] = {}
    fell: set[str] = set()
    for (source, name, queue), value in new.items():
        was = old.get((source, name, queue))
        if was is None or value == was:
            continue
        if value < was:
            fell.add(name)
            continue
        # a device's own total and its queues may bear one name: the queues tell more
        place = (source, name)
        if queue is None:
            total[place] = value - was
        else:
            parts.setdefault(place, {})[queue] = value - was
    moved = []
    for place in sorted(total.keys() | parts.keys(), key=lambda one: (SOURCES.index(one[0]), one[1])):
        of = parts.get(place)
        delta = sum(of.values()) if of else total[place]
        moved.append(
            Moved(*place, delta, delta / seconds, dict(sorted(of.items())) if of else None, meaning(place[1]))
        )
    return Movement(seconds, tuple(moved), tuple(sorted(fell)), checks(moved, total))


def checks(moved: Sequence[Moved], total: Mapping[tuple[str, str], int]) -> tuple[Check, ...]:
    """Do the counters agree with each other, and how much of the memory is recycled? Pure.

    Args:
        moved: what moved.
        total: what the device itself counted, by source and name.
    """
    by_name = {one.name.replace("-", "_"): one.delta for one in reversed(moved)}
    made: list[Check] = []
    for one in moved:
        device = total.get((one.source, one.name), total.get(("link", one.name.replace("-", "_"))))
        if one.queues and device is not None and re.fullmatch(r"(rx|tx)[-_]packets", one.name):
            name = f"{one.name} of {one.source}"
            made.append(_same(name, "its queues", one.delta, "the device", device))
    frames = by_name.get("rx_xdp_packets")
    if frames:
        verdicts = sum(by_name.get(f"rx_xdp_{one}", 0) for one in ("drops", "redirect", "tx", "tx_errors"))
        rest = frames - verdicts
        says = f"{frames} frames met XDP: {verdicts} dropped, redirected or sent back, {rest} passed on or refused"
        wrong = f"{frames} frames met XDP, but {verdicts} were dropped, redirected or sent back"
        made.append(Check("XDP verdicts", rest >= -_slack(frames), says if rest >= 0 else wrong))
    made += _recycling(by_name)
    return tuple(made)


def _slack(count: int) -> int:
    """Counters are read one after the other, while frames come."""
    return 64 + count // 50


def _same(name: str, one: str, first: int, other: str, second: int) -> Check:
    holds = abs(first - second) <= _slack(max(first, second))
    return Check(name, holds, f"{one} {first}, {other} {second}")


RECYCLED = ("rx_cache_reuse", "rx_pp_recycle_cached", "rx_pp_recycle_ring")
FAILED = (
    *("rx_cache_full", "rx_cache_busy", "rx_cache_empty", "rx_cache_waive"),
    *("rx_pp_recycle_cache_full", "rx_pp_recycle_ring_full", "rx_pp_recycle_released_ref"),
)
"""Counters of page caches (mlx5) and of page pools (page_pool_ethtool_stats_get_strings())."""


def _recycling(by_name: Mapping[str, int]) -> list[Check]:
    """A page that is not recycled costs an allocation and a DMA mapping."""
    # a page that finds the pool's cache full goes on to its ring: counted there again
    failing: Collection[str] = [name for name in FAILED if name != "rx_pp_recycle_cache_full"]
    recycled, failed = (sum(by_name.get(name, 0) for name in names) for names in (RECYCLED, failing))
    if not recycled + failed:
        return []
    says = f"{recycled} recycled, {failed} not ({recycled / (recycled + failed):.1%} recycled)"
    packets = by_name.get("rx_packets")
    if packets:
        says += f"; together {(recycled + failed) / packets:.2f} for each of {packets} packets received"
    return [Check("pages", None, says)]
