"""What devices count as lost beside what tracepoints tell: rtnl's counters and ethtool -S, told where they grew.

A NIC that drops for want of buffers, or a veth whose XDP program drops, frees no skb that a tracepoint could tell of:
only a counter grows (struct rtnl_link_stats64, ethtool -S). Counters overlap, so the largest alone is held against the
packets that were told with a reason.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from xdpctl.errors import NetlinkError, NotFoundError, PrivilegeError
from xdpctl.host import counters
from xdpctl.netlink import netns, rtnl
from xdpctl.records import dataclass
from xdpctl.trace.devices import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xdpctl.host.counters import Moved, Reading
    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.netlink.rtnl import RawLink
    from xdpctl.trace.drops import DropReport

LOSS = re.compile(
    r"drop|discard|missed|no_?buf|nobuf|overrun|over_errors|fifo_errors|nohandler|xmit_err|alloc.*fail"
)
"""In a counter's name: packets that it counts are lost."""
MOST_OWN = 64
"""Devices whose own counters (ethtool -S, three system calls each) are read, if they were not named."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What one device counted as lost between two readings."""

    device: Device
    counters: tuple[Moved, ...]
    """Those of loss that grew, per queue and summed."""
    told: int
    """Packets that tracepoints told of as lost at this device."""

    @property
    def untold(self) -> int:
        """Packets at least that no tracepoint told of."""
        return max(0, max((one.delta for one in self.counters), default=0) - self.told)

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys; see docs/json.md."""
        return {
            "device": self.device.to_json(labels),
            "counters": [
                {"source": one.source, "name": one.name, "packets": one.delta, "means": one.means}
                for one in self.counters
            ],
            "told": self.told,
            "untold": self.untold,
        }


@dataclass(frozen=True, slots=True)
class Counted:
    """Every counter of some devices at one moment."""

    links: Mapping[int, Mapping[int, RawLink]]
    """Namespace's inode -> ifindex -> the link."""
    readings: Mapping[int, Reading]
    """By the namespace's inode."""


def read(wanted: frozenset[tuple[int, int]] | None, places: Iterable[NetnsRef]) -> Counted:
    """Read the counters of the devices wanted (None: of all in these namespaces)."""
    links: dict[int, dict[int, RawLink]] = {}
    readings: dict[int, Reading] = {}
    for place in places:
        with contextlib.suppress(NotFoundError, PrivilegeError, NetlinkError), netns.enter(place):
            of = {
                one.ifindex: one
                for one in rtnl.links()
                if wanted is None or (place.inode, one.ifindex) in wanted
            }
            names = {number: one.name for number, one in of.items()}
            readings[place.inode] = counters.read(names, ethtool=wanted is not None or len(of) <= MOST_OWN)
            links[place.inode] = of
    return Counted(links, readings)


def losses(before: Counted, now: Counted, report: DropReport) -> list[Losses]:
    """What grew between two readings, with what `report` tells of the same devices and time. Pure."""
    found = []
    for inode, links in now.links.items():
        earlier = before.readings.get(inode)
        if earlier is None:
            continue
        for ifindex, link in links.items():
            moved = counters.movement(earlier, now.readings[inode], ifindex).counters
            lost = tuple(one for one in moved if LOSS.search(one.name.replace("-", "_")))
            if lost:
                device = Device(inode, ifindex, link.name, link.kind)
                told = sum(
                    one.packets for one in report.drops if one.device and _about(one.device, inode, link)
                )
                found.append(Losses(device, lost, told))
    return found


def _about(device: Device, inode: int, link: RawLink) -> bool:
    """A drop there may be what this link counts: a veth counts what its peer's ring did not take."""
    if device.ifindex == link.ifindex:
        return device.netns == inode
    return link.kind == device.kind == "veth" and device.ifindex == link.link
