"""Pause frames of links (ETHTOOL_MSG_PAUSE_*, 5.7; before by ioctl), with their counters (5.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import UnsupportedError
from xdpctl.netlink import ethtool
from xdpctl.netlink.attributes import U8, U64, nest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

PAUSE_GET, PAUSE_SET = 21, 22
FLAG_STATS = 4
_PAUSE = {
    1: ("header", ethtool.HEADER_KIND),
    2: ("autoneg", U8),
    3: ("rx", U8),
    4: ("tx", U8),
    5: ("stats", nest({2: ("tx_frames", U64), 3: ("rx_frames", U64)})),
}


class RawPause(NamedTuple):
    """ETHTOOL_MSG_PAUSE_GET."""

    autoneg: bool = False
    rx: bool = False
    tx: bool = False
    rx_frames: int | None = None
    """Pause frames received; None: not counted."""
    tx_frames: int | None = None


def pause(opened: wire.Socket | None = None) -> dict[int, RawPause]:
    """Of every link whose driver tells, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return ethtool.decoded(opened, PAUSE_GET, "pause settings", _PAUSE, _pause, flags=FLAG_STATS)


def pause_of(ifindex: int, opened: wire.Socket | None = None) -> RawPause | None:
    """Of one link, None when the driver does not say.

    Raises:
        NetlinkError: EOPNOTSUPP: it has none.
    """
    try:
        found = ethtool.decoded(opened, PAUSE_GET, "pause settings", _PAUSE, _pause, ifindex=ifindex)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        return _pause(ethtool_legacy.pause_of(ifindex))
    return found.get(ifindex)


def _pause(found: dict[str, Any]) -> RawPause:
    switches = {name: bool(found.get(name)) for name in ("autoneg", "rx", "tx")}
    return RawPause(**switches, **found.get("stats", {}))


def set_pause(ifindex: int, values: Mapping[str, bool], opened: wire.Socket | None = None) -> None:
    """Change autoneg, rx, tx; what is not named stays.

    Raises:
        PrivilegeError: CAP_NET_ADMIN is missing.
        NetlinkError: refused, in the kernel's words.
    """
    try:
        ethtool.change(opened, PAUSE_SET, "pause settings", ifindex, ethtool.encode(values, _PAUSE), _PAUSE)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        ethtool_legacy.set_pause(ifindex, values)
