"""From the answers of one namespace to the links of a Snapshot: pure, but for /sys where no netlink message tells."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.host.model import (
    Bond,
    Channels,
    Feature,
    Link,
    Napi,
    PagePool,
    Pause,
    Peer,
    Qdisc,
    Rings,
    TcHook,
    Tun,
    Xdp,
)
from xdpctl.host.namespace import ARPHRD_LOOPBACK
from xdpctl.netlink import rtnl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xdpctl.host.model import BpfProgram
    from xdpctl.host.namespace import Observed
    from xdpctl.netlink.channels import RawChannels
    from xdpctl.netlink.ethtool_ioctl import DriverInfo
    from xdpctl.netlink.features import FeatureBits
    from xdpctl.netlink.netdev import RawNapi

PAIRS = frozenset({"veth", "netkit", "vxcan"})
"""Kinds whose IFLA_LINK is the other end."""
STACKED = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"})
"""Kinds whose IFLA_LINK is the device below, an upper/lower pair to the core (netdev_upper_dev_link)."""

_TUN_TYPES = {1: "tun", 2: "tap"}
"""IFF_TUN, IFF_TAP (include/uapi/linux/if_tun.h)."""

_NOTHING = Xdp()


class Assembler:
    """Makes links; equal feature sets, qdiscs and channel counts are one object for all links that have them."""

    def __init__(self, feature_names: Sequence[str]) -> None:
        self._names = feature_names
        self._features: dict[FeatureBits, Mapping[str, Feature]] = {}
        self._kinds = {
            (active, wanted, fixed): Feature(active, wanted, fixed)
            for active in (False, True)
            for wanted in (False, True)
            for fixed in (False, True)
        }
        self._qdiscs: dict[tuple[object, ...], Qdisc] = {}
        self._channels: dict[RawChannels, Channels] = {}

    def links(
        self,
        seen: Observed,
        namespaces: Mapping[tuple[int, int], int],
        programs: Mapping[int, BpfProgram],
    ) -> tuple[Link, ...]:
        """Every link of one namespace, by ifindex.

        Args:
            seen: the namespace's answers.
            namespaces: inode of the namespace that (inode, nsid) means.
            programs: loaded ones, for the names on TC hooks.
        """
        sysfs = _own_sysfs(seen)
        made = [self._link(raw, seen, namespaces, programs, sysfs) for raw in seen.links]
        return tuple(sorted(made, key=lambda one: one.ifindex))

    def _link(
        self,
        raw: rtnl.RawLink,
        seen: Observed,
        namespaces: Mapping[tuple[int, int], int],
        programs: Mapping[int, BpfProgram],
        sysfs: frozenset[int],
    ) -> Link:
        number = raw.ifindex
        inode = seen.ref.inode
        device = seen.devices.get(number) if seen.devices is not None else None
        driver = seen.drivers.get(number)
        channels = seen.channels.get(number) if seen.channels is not None else None
        rings = seen.rings.get(number) if seen.rings is not None else None
        bits = seen.features.get(number) if seen.features is not None else None
        rx, tx = _queues(raw, seen, channels, number in sysfs)
        hooks = seen.hooks.get(number)
        xdp = raw.xdp
        pause = (seen.pauses or {}).get(number)
        other = _other_end(raw, inode, namespaces)
        return Link(
            number,
            raw.name,
            inode,
            raw.kind,
            driver.driver if driver is not None else raw.kind,
            raw.flags,
            raw.operstate,
            raw.type,
            raw.mtu,
            raw.min_mtu,
            raw.max_mtu,
            raw.address or None,
            raw.master,
            other if raw.kind in PAIRS else None,
            other if raw.kind not in PAIRS else None,
            raw.num_rx_queues,
            raw.num_tx_queues,
            rx,
            tx,
            Xdp(xdp.native, xdp.generic, xdp.offload) if xdp else _NOTHING,
            tuple(_named(one, programs) for one in hooks) if hooks else (),
            None if bits is None else self._feature_set(bits),
            None if device is None else device.xdp_features,
            None if device is None else device.zc_max_segs,
            None if device is None else device.rx_metadata,
            None if channels is None else self._channel_counts(channels),
            None if rings is None else Rings(**rings._asdict()),
            None if seen.private_flags is None else seen.private_flags.get(number, {}),
            None if seen.qdiscs is None else self._qdiscs_of(seen, number),
            None if seen.napis is None else tuple(_napi(one, seen) for one in seen.napis.get(number, ())),
            _bond(raw) if raw.kind == "bond" else None,
            _tun(raw) if raw.kind == "tun" else None,
            raw.data.get("id") if raw.kind == "vlan" else None,
            _parent_file(raw, driver, "virtio", "features"),
            seen.statistics.get(number),
            _number(_parent_file(raw, driver, "pci", "sriov_numvfs")),
            (driver.bus_info if driver is not None else None) or raw.parent_dev,
            None if driver is None else driver.firmware,
            _numa_node(raw, driver) if seen.settings else None,
            None if seen.coalesce is None else seen.coalesce.get(number, {}),
            None if pause is None else Pause(pause.autoneg, pause.rx, pause.tx),
            None if seen.pools is None else tuple(PagePool(*one) for one in seen.pools.get(number, ())),
            seen.napi_defaults.get(number),
        )

    def _feature_set(self, bits: FeatureBits) -> Mapping[str, Feature]:
        found = self._features.get(bits)
        if found is None:
            fixed = ~bits.hw | bits.nochange
            found = self._features[bits] = {
                name: self._kinds[
                    bool(bits.active >> bit & 1), bool(bits.wanted >> bit & 1), bool(fixed >> bit & 1)
                ]
                for bit, name in enumerate(self._names)
                if name
            }
        return found

    def _channel_counts(self, raw: RawChannels) -> Channels:
        found = self._channels.get(raw)
        if found is None:
            found = self._channels[raw] = Channels(
                raw.rx,
                raw.tx,
                raw.other,
                raw.combined,
                raw.rx_max,
                raw.tx_max,
                raw.other_max,
                raw.combined_max,
            )
        return found

    def _qdiscs_of(self, seen: Observed, number: int) -> tuple[Qdisc, ...]:
        made = []
        for one in (seen.qdiscs or {}).get(number, ()):
            key = (one.kind, one.handle, one.parent, one.qlen, one.backlog, one.drops)
            found = self._qdiscs.get(key)
            if found is None:
                found = self._qdiscs[key] = Qdisc(*key)
            made.append(found)
        return tuple(made)


def _other_end(raw: rtnl.RawLink, inode: int, namespaces: Mapping[tuple[int, int], int]) -> Peer | None:
    """The peer of a pair, or the device below a stacked link; 0 in IFLA_LINK says that the peer is gone."""
    if raw.kind in PAIRS or raw.kind in STACKED:
        target = raw.link
    elif raw.kind == "vxlan":
        target = raw.data.get("link")  # IFLA_VXLAN_LINK; vxlan links its lower device as an upper does
    else:
        return None
    if not target:
        return None
    nsid = raw.link_netnsid
    return Peer(target, inode if nsid is None else namespaces.get((inode, nsid)), nsid)


def _queues(
    raw: rtnl.RawLink, seen: Observed, channels: RawChannels | None, in_sysfs: bool
) -> tuple[int | None, int | None]:
    """Queues in use: channels, or the only one there is, or queue-get, or /sys/class/net/D/queues."""
    if channels is not None:
        return channels.rx + channels.combined, channels.tx + channels.combined
    rx, tx = (1 if count == 1 else None for count in (raw.num_rx_queues, raw.num_tx_queues))
    if rx is not None and tx is not None:
        return rx, tx
    if seen.queues is not None and raw.flags & 1 and raw.ifindex in seen.queues:
        listed = seen.queues[raw.ifindex]
        return (
            sum(one.type == "rx" for one in listed),
            sum(one.type == "tx" for one in listed),
        )
    if in_sysfs:
        try:
            names = [one.name for one in Path("/sys/class/net", raw.name, "queues").iterdir()]
        except OSError:
            return rx, tx
        rx = sum(one.startswith("rx-") for one in names) or rx
        tx = sum(one.startswith("tx-") for one in names) or tx
    return rx, tx


def _own_sysfs(seen: Observed) -> frozenset[int]:
    """Ifindexes for which /sys/class/net shows this very namespace's links.

    sysfs shows the namespace in which it was mounted, whatever namespace the thread is in: believe it only where
    ifindex and hardware address agree. Only links are looked at whose queue counts nothing else tells.
    """
    channels = seen.channels or {}
    found = set()
    for raw in seen.links:
        if raw.ifindex in channels or (raw.num_rx_queues == 1 and raw.num_tx_queues == 1):
            continue
        if raw.flags & 1 and seen.queues is not None and raw.ifindex in seen.queues:
            continue
        folder = Path("/sys/class/net", raw.name)
        try:
            index = folder.joinpath("ifindex").read_text().strip()
            address = folder.joinpath("address").read_text().strip()
        except OSError:
            continue
        if index == str(raw.ifindex) and address == (raw.address or ""):
            found.add(raw.ifindex)
    return frozenset(found)


def _napi(raw: RawNapi, seen: Observed) -> Napi:
    queues: tuple[str, ...] = ()
    cpus = None
    if seen.settings:
        queues = tuple(
            f"{one.type}-{one.id}" for one in (seen.queues or {}).get(raw.ifindex, ()) if one.napi == raw.id
        )
        if raw.irq:
            with contextlib.suppress(OSError):
                cpus = Path(f"/proc/irq/{raw.irq}/effective_affinity_list").read_text().strip()
    return Napi(
        raw.id,
        raw.irq,
        raw.pid,
        raw.defer_hard_irqs,
        raw.gro_flush_timeout_ns,
        raw.irq_suspend_timeout_ns,
        raw.threaded,
        cpus,
        queues,
    )


def _numa_node(raw: rtnl.RawLink, driver: DriverInfo | None) -> int | None:
    """Of the PCI device itself, or of the one below a virtio device."""
    device, bus = raw.parent_dev, raw.parent_bus
    if device is None and driver is not None and raw.kind is None:
        device, bus = driver.bus_info, "pci"
    if not device or "/" in device:
        return None
    folder = Path("/sys/bus", bus or "pci", "devices", device)
    for place in (folder, folder.resolve().parent):
        with contextlib.suppress(OSError, ValueError):
            return int(place.joinpath("numa_node").read_text())
    return None


def _parent_file(raw: rtnl.RawLink, driver: DriverInfo | None, bus: str, name: str) -> str | None:
    """A file of the device behind a link; /sys/bus is the same for every network namespace.

    Before 5.14 (IFLA_PARENT_DEV_NAME) ethtool's bus-info tells it: for a virtio device the PCI device below.
    """
    device = raw.parent_dev
    places: Iterable[Path] = ()
    if device is not None and raw.parent_bus == bus and "/" not in device:
        places = (Path("/sys/bus", bus, "devices", device, name),)
    elif device is None and raw.kind is None and driver is not None and "/" not in driver.bus_info:
        below = Path("/sys/bus/pci/devices", driver.bus_info)
        places = below.glob(f"virtio*/{name}") if bus == "virtio" else (below / name,)
    for place in places:
        with contextlib.suppress(OSError):
            return place.read_text(errors="replace").strip()
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _named(hook: TcHook, programs: Mapping[int, BpfProgram]) -> TcHook:
    program = programs.get(hook.program_id)
    return hook if program is None or hook.program_name else replace(hook, program_name=program.name)


def _bond(raw: rtnl.RawLink) -> Bond:
    mode, policy = raw.data.get("mode"), raw.data.get("xmit_hash_policy")
    return Bond(
        _word(rtnl.BOND_MODES, mode) or f"mode {mode}",
        raw.data.get("active_slave") or None,
        _word(rtnl.BOND_HASH_POLICIES, policy),
    )


def _word(words: Sequence[str], number: int | None) -> str | None:
    return words[number] if number is not None and number < len(words) else None


def _tun(raw: rtnl.RawLink) -> Tun:
    data = raw.data
    multi = None if "multi_queue" not in data else bool(data["multi_queue"])
    queues = data.get("num_queues")
    if multi is False and queues is None and raw.carrier is not None:
        # the driver counts queues for multi-queue ones alone; a single-queue one has its carrier while its
        # queue is open (tun_set_iff, tun_detach)
        queues = int(raw.carrier)
    return Tun(
        _TUN_TYPES.get(data.get("type", 0), "tap" if raw.type != 65534 else "tun"),
        multi,
        queues,
        None if "persist" not in data else bool(data["persist"]),
    )


__all__ = ["ARPHRD_LOOPBACK", "PAIRS", "STACKED", "Assembler"]
