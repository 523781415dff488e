"""Everything that one network namespace says about its links, by dumps (rtnetlink, ethtool, netdev, SIOCETHTOOL).

The calling thread must be in the namespace. What can't be read becomes None and a Problem, never a failure.
"""

from __future__ import annotations

import errno
from dataclasses import field
from typing import TYPE_CHECKING, TypeVar

from xdpctl.errors import KernelError, UnsupportedError, errno_name
from xdpctl.host.model import Problem, TcHook
from xdpctl.netlink import channels, ethtool_ioctl, features, netdev, private_flags, rings, rtnl, tc, wire
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from xdpctl.netlink import pause
    from xdpctl.netlink.netns import NetnsRef

T = TypeVar("T")

ARPHRD_LOOPBACK = 772


@dataclass(slots=True)
class Observed:
    """One namespace's answers, by ifindex; None: that dump is not to be had."""

    ref: NetnsRef
    cookie: int | None = None
    links: list[rtnl.RawLink] = field(default_factory=list)
    qdiscs: Mapping[int, list[tc.RawQdisc]] | None = None
    features: Mapping[int, features.FeatureBits] | None = None
    channels: Mapping[int, channels.RawChannels] | None = None
    rings: Mapping[int, rings.RawRings] | None = None
    private_flags: Mapping[int, Mapping[str, bool]] | None = None
    devices: Mapping[int, netdev.Device] | None = None
    queues: Mapping[int, list[netdev.Queue]] | None = None
    """Asked for only where some link's counts are not known otherwise."""
    napis: Mapping[int, list[netdev.RawNapi]] | None = None
    drivers: dict[int, ethtool_ioctl.DriverInfo] = field(default_factory=dict)
    """Of links that are no virtual kind."""
    hooks: dict[int, list[TcHook]] = field(default_factory=dict)
    statistics: dict[int, dict[str, int]] = field(default_factory=dict)
    settings: bool = False
    """The rest was asked for."""
    coalesce: Mapping[int, Mapping[str, int]] | None = None
    pauses: Mapping[int, pause.RawPause] | None = None
    pools: Mapping[int, list[netdev.PagePool]] | None = None
    napi_defaults: dict[int, dict[str, int]] = field(default_factory=dict)


def observe(
    ref: NetnsRef,
    problems: list[Problem],
    *,
    tcx: bool,
    statistics_of: Collection[str] = (),
    settings: bool = False,
) -> Observed:
    """Ask the namespace that the calling thread is in.

    Args:
        ref: what it is.
        problems: grows by what can't be read.
        tcx: ask the tcx hooks too. They have no dump, so each costs a system call; without any loaded
            sched_cls program they are all empty.
        statistics_of: names of links whose driver counters are read.
        settings: read what only `driver show` and `driver set` look at, too.

    Raises:
        NetlinkError: not even its links can be listed.
    """
    seen = Observed(ref, settings=settings)
    asking = _Asking(f"netns {ref.label}" if ref.label else "the current netns", problems)
    with wire.Socket(wire.NETLINK_ROUTE) as route, wire.Socket(wire.NETLINK_GENERIC) as generic:
        seen.cookie = route.cookie()
        seen.links = rtnl.links(route)
        qdiscs = asking.ask("qdiscs", lambda: tc.qdiscs(route))
        seen.qdiscs = None if qdiscs is None else _by_ifindex(qdiscs)
        _ethtool(seen, generic, asking)
        _netdev(seen, generic, asking, settings=settings)
        if settings:
            _settings(seen, generic, asking)
        for sock, what in ((route, "links"), (generic, "link settings")):
            if sock.interrupted:
                problems.append(Problem(f"{asking.where} {what}", "they kept changing while being listed"))
        _clsact(seen, qdiscs or (), route, asking)
    _drivers(seen, statistics_of, asking, every=settings)
    if tcx:
        _tcx(seen, asking)
    return seen


@dataclass(slots=True)
class _Asking:
    """Turns failures into problems of one namespace."""

    where: str
    problems: list[Problem]

    def ask(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except UnsupportedError:
            return None  # the kernel has no such thing: None says it, and kernel.features why
        except KernelError as error:
            if error.errno != errno.EOPNOTSUPP:
                self.problems.append(Problem(f"{self.where} {what}", error.message))
            return None


def _by_ifindex(items: list[T]) -> dict[int, list[T]]:
    grouped: dict[int, list[T]] = {}
    for one in items:
        grouped.setdefault(one.ifindex, []).append(one)  # type: ignore[attr-defined]
    return grouped


def _ethtool(seen: Observed, generic: wire.Socket, asking: _Asking) -> None:
    def each(
        what: str, dump: Callable[[wire.Socket], Mapping[int, T]], one: Callable[[int], T | None]
    ) -> Mapping[int, T] | None:
        """A dump; where the kernel is too old, or one sick device ends it (ENODEV while suspended), link by link."""
        try:
            return dump(generic)
        except UnsupportedError:
            pass  # before 5.7: by ioctl
        except KernelError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
                return None
            asking.problems.append(Problem(f"{asking.where} {what}", f"{error.message}; read link by link"))
        found: dict[int, T] = {}
        for link in seen.links:
            try:
                value = one(link.ifindex)
            except KernelError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENODEV):
                    asking.problems.append(Problem(f"{link.name} {what}", error.message))
            else:
                if value is not None:
                    found[link.ifindex] = value
        return found

    seen.features = each("features", features.features, lambda index: features.features_of(index, generic))
    seen.channels = each("channels", channels.channels, lambda index: channels.channels_of(index, generic))
    seen.rings = each("rings", rings.rings, lambda index: rings.rings_of(index, generic))
    seen.private_flags = each(
        "private flags",
        private_flags.private_flags,
        lambda index: private_flags.private_flags_of(index, generic),
    )


def _settings(seen: Observed, generic: wire.Socket, asking: _Asking) -> None:
    """What a device is set to, beyond what rules look at."""
    from xdpctl.netlink import coalesce, device_files, pause

    seen.coalesce = asking.ask("coalescing", lambda: coalesce.coalesce(generic))
    seen.pauses = asking.ask("pause settings", lambda: pause.pause(generic))
    pools = asking.ask("page pools", lambda: netdev.page_pools(generic)) if seen.devices is not None else None
    seen.pools = None if pools is None else _by_ifindex(pools)
    listed = {one for one, napis in (seen.napis or {}).items() if all(_complete(napi) for napi in napis)}
    try:
        seen.napi_defaults = device_files.read(
            [(link.ifindex, link.name) for link in seen.links if link.ifindex not in listed]
        )
    except KernelError as error:
        asking.problems.append(Problem(f"{asking.where} NAPI settings", error.message))


def _complete(napi: netdev.RawNapi) -> bool:
    return napi.threaded is not None and napi.defer_hard_irqs is not None


def _netdev(seen: Observed, generic: wire.Socket, asking: _Asking, *, settings: bool) -> None:
    seen.devices = asking.ask("XDP features", lambda: netdev.devices(generic))
    if seen.devices is None:
        return
    napis = asking.ask("NAPIs", lambda: netdev.napis(generic))
    seen.napis = None if napis is None else _by_ifindex(napis)
    channels = seen.channels or {}
    if settings or any(
        (link.num_rx_queues != 1 or link.num_tx_queues != 1) and link.ifindex not in channels
        for link in seen.links
    ):
        queues = asking.ask("queues", lambda: netdev.queues(generic))
        seen.queues = None if queues is None else _by_ifindex(queues)


def _drivers(seen: Observed, statistics_of: Collection[str], asking: _Asking, *, every: bool) -> None:
    """What has no dump: the driver's name of hardware, and counters of the links that were asked about."""
    hardware = [
        link
        for link in seen.links
        if every or ((link.kind is None or link.parent_dev is not None) and link.type != ARPHRD_LOOPBACK)
    ]
    counted = [link for link in seen.links if link.name in statistics_of]
    if not hardware and not counted:
        return
    with ethtool_ioctl.control_socket() as sock:
        for link in hardware:
            name = link.name
            driver = asking.ask(f"{name} driver", lambda: ethtool_ioctl.driver_info(name, sock))  # noqa: B023
            if driver is not None:
                seen.drivers[link.ifindex] = driver
        for link in counted:
            name = link.name
            found = asking.ask(f"{name} statistics", lambda: ethtool_ioctl.statistics(name, sock))  # noqa: B023
            if found is not None:
                seen.statistics[link.ifindex] = found


def _clsact(seen: Observed, qdiscs: Collection[tc.RawQdisc], route: wire.Socket, asking: _Asking) -> None:
    """BPF filters, on links that have a qdisc for them: filters can only be listed link by link."""
    for qdisc in qdiscs:
        if not tc.has_clsact(qdisc):
            continue
        for hook in ("ingress", "egress") if qdisc.kind == "clsact" else ("ingress",):
            found = asking.ask(
                f"{hook} filters of link {qdisc.ifindex}",
                lambda: tc.bpf_filters(qdisc.ifindex, hook, route),  # noqa: B023
            )
            for one in found or ():
                seen.hooks.setdefault(qdisc.ifindex, []).append(
                    TcHook(
                        f"clsact-{hook}",
                        one.prog_id,
                        one.name or "",
                        priority=one.priority,
                        handle=one.handle,
                    )
                )


def _tcx(seen: Observed, asking: _Asking) -> None:
    """Programs on tcx and netkit hooks, in the order they run."""
    from xdpctl.bpf import query
    from xdpctl.libbpf import uapi

    both = (("tcx-ingress", uapi.TCX_INGRESS), ("tcx-egress", uapi.TCX_EGRESS))
    netkit = (("netkit-primary", uapi.NETKIT_PRIMARY), ("netkit-peer", uapi.NETKIT_PEER))
    for link in seen.links:
        for hook, number in (*both, *netkit) if link.kind == "netkit" else both:
            try:
                found = query.tcx_query(link.ifindex, number)
            except UnsupportedError:
                return
            except KernelError as error:
                # ENOENT: nothing was ever attached there; ENODEV: gone meanwhile; EACCES, ENXIO: the other
                # end of the pair is the one to ask
                if error.errno in (errno.ENOENT, errno.ENODEV, errno.EACCES, errno.ENXIO):
                    continue
                asking.problems.append(
                    Problem(f"{asking.where} tcx hooks", errno_name(error.errno) or error.message)
                )
                return
            for entry in found.entries:
                seen.hooks.setdefault(link.ifindex, []).append(
                    TcHook(hook, entry.program_id, "", link_id=entry.link_id)
                )
