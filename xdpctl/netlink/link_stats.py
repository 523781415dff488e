"""The counters that every link has: struct rtnl_link_stats64 by RTM_GETSTATS (include/uapi/linux/if_link.h, 4.7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from xdpctl.netlink.attributes import walk
from xdpctl.netlink.rtnl import route_socket

if TYPE_CHECKING:
    from xdpctl.netlink import wire

RTM_GETSTATS = 94
_HEADER = struct.Struct("=BBHII")
"""struct if_stats_msg: family, padding, ifindex, filter_mask."""
IFLA_STATS_LINK_64 = 1
NAMES = (
    *(
        "rx_packets",
        "tx_packets",
        "rx_bytes",
        "tx_bytes",
        "rx_errors",
        "tx_errors",
        "rx_dropped",
        "tx_dropped",
    ),
    *("multicast", "collisions", "rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors"),
    *("rx_fifo_errors", "rx_missed_errors", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors"),
    *("tx_heartbeat_errors", "tx_window_errors", "rx_compressed", "tx_compressed", "rx_nohandler"),
    "rx_otherhost_dropped",
)
"""In the order of the struct; older kernels end sooner."""


def link_stats(opened: wire.Socket | None = None) -> dict[int, dict[str, int]]:
    """ifindex -> counter by its name, of every link of the namespace.

    Raises:
        NetlinkError: the kernel refused.
    """
    return {
        ifindex: dict(zip(NAMES, values, strict=False)) for ifindex, values in link_counters(opened).items()
    }


def link_counters(opened: wire.Socket | None = None) -> dict[int, tuple[int, ...]]:
    """ifindex -> counters in the order of `NAMES`, as many as this kernel has, of every link of the namespace.

    Raises:
        NetlinkError: the kernel refused.
    """
    found: dict[int, tuple[int, ...]] = {}
    with route_socket(opened) as sock:
        asked = _HEADER.pack(0, 0, 0, 0, 1 << (IFLA_STATS_LINK_64 - 1))
        for data, start, end in sock.dump(RTM_GETSTATS, asked, what="reading the counters of links"):
            if end - start < _HEADER.size:
                continue
            ifindex = _HEADER.unpack_from(data, start)[3]
            for number, at, stop in walk(data, start + _HEADER.size, end):
                if number == IFLA_STATS_LINK_64:
                    found[ifindex] = struct.unpack_from(f"={min((stop - at) // 8, len(NAMES))}Q", data, at)
    return found
