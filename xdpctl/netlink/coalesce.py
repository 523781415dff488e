"""Interrupt coalescing of links (ETHTOOL_MSG_COALESCE_*, 5.7; before by ioctl), under the names of ethtool -C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.errors import UnsupportedError
from xdpctl.netlink import ethtool
from xdpctl.netlink.attributes import U8, U32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

COALESCE_GET, COALESCE_SET = 19, 20
_COALESCE = {
    1: ("header", ethtool.HEADER_KIND),
    2: ("rx_usecs", U32),
    3: ("rx_frames", U32),
    4: ("rx_usecs_irq", U32),
    5: ("rx_frames_irq", U32),
    6: ("tx_usecs", U32),
    7: ("tx_frames", U32),
    8: ("tx_usecs_irq", U32),
    9: ("tx_frames_irq", U32),
    10: ("stats_block_usecs", U32),
    11: ("adaptive_rx", U8),
    12: ("adaptive_tx", U8),
    13: ("pkt_rate_low", U32),
    14: ("rx_usecs_low", U32),
    15: ("rx_frames_low", U32),
    16: ("tx_usecs_low", U32),
    17: ("tx_frames_low", U32),
    18: ("pkt_rate_high", U32),
    19: ("rx_usecs_high", U32),
    20: ("rx_frames_high", U32),
    21: ("tx_usecs_high", U32),
    22: ("tx_frames_high", U32),
    23: ("sample_interval", U32),
    24: ("cqe_mode_tx", U8),
    25: ("cqe_mode_rx", U8),
    26: ("tx_aggr_max_bytes", U32),
    27: ("tx_aggr_max_frames", U32),
    28: ("tx_aggr_time_usecs", U32),
}
SWITCHES = frozenset(name.replace("_", "-") for name, kind in _COALESCE.values() if kind is U8)
"""Those that are on or off; the rest are microseconds, frames or rates."""
NAMES = tuple(name.replace("_", "-") for name, kind in _COALESCE.values() if kind is not ethtool.HEADER_KIND)


def coalesce(opened: wire.Socket | None = None) -> dict[int, Mapping[str, int | bool]]:
    """Parameters of every link that has some, by ifindex: only those that its driver takes, or that are not 0.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return ethtool.decoded(opened, COALESCE_GET, "coalescing", _COALESCE, _named)


def coalesce_of(ifindex: int, opened: wire.Socket | None = None) -> Mapping[str, int | bool]:
    """Parameters of one link.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver has none.
    """
    try:
        found = ethtool.decoded(opened, COALESCE_GET, "coalescing", _COALESCE, _named, ifindex=ifindex)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        return _named(ethtool_legacy.coalesce_of(ifindex))
    return found.get(ifindex, {})


def _named(found: dict[str, Any]) -> Mapping[str, int | bool]:
    spelled = {name.replace("_", "-"): value for name, value in found.items()}
    return {name: bool(value) if name in SWITCHES else value for name, value in spelled.items()}


def set_coalesce(ifindex: int, values: Mapping[str, int | bool], opened: wire.Socket | None = None) -> None:
    """Change parameters; what is not named stays.

    Raises:
        PrivilegeError: CAP_NET_ADMIN is missing.
        UnsupportedError: a kernel before 5.7 is asked for what its ioctl lacks.
        NetlinkError: refused, in the kernel's words.
    """
    try:
        ethtool.change(
            opened, COALESCE_SET, "coalescing", ifindex, ethtool.encode(values, _COALESCE), _COALESCE
        )
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        ethtool_legacy.set_coalesce(ifindex, values)
