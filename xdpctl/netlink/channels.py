"""Channels of links: queues with an interrupt of their own (ETHTOOL_MSG_CHANNELS_*, 5.7; before by ioctl)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import UnsupportedError
from xdpctl.netlink import ethtool
from xdpctl.netlink.attributes import U32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

CHANNELS_GET, CHANNELS_SET = 17, 18


class RawChannels(NamedTuple):
    """ETHTOOL_MSG_CHANNELS_GET; a count whose maximum is 0 is left out by the kernel, and is 0 here."""

    rx_max: int = 0
    tx_max: int = 0
    other_max: int = 0
    combined_max: int = 0
    rx: int = 0
    tx: int = 0
    other: int = 0
    combined: int = 0


_CHANNELS = {
    1: ("header", ethtool.HEADER_KIND),
    2: ("rx_max", U32),
    3: ("tx_max", U32),
    4: ("other_max", U32),
    5: ("combined_max", U32),
    6: ("rx", U32),
    7: ("tx", U32),
    8: ("other", U32),
    9: ("combined", U32),
}


def channels(opened: wire.Socket | None = None) -> dict[int, RawChannels]:
    """Channel counts of every link that has them, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return ethtool.decoded(opened, CHANNELS_GET, "channels", _CHANNELS, _channels)


def channels_of(ifindex: int, opened: wire.Socket | None = None) -> RawChannels | None:
    """Channel counts of one link, None when it has none.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver has no channels.
    """
    try:
        found = ethtool.decoded(opened, CHANNELS_GET, "channels", _CHANNELS, _channels, ifindex=ifindex)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        return RawChannels(**ethtool_legacy.channels_of(ifindex))
    return found.get(ifindex)


def _channels(found: dict[str, Any]) -> RawChannels:
    return RawChannels(**found)


def set_channels(ifindex: int, counts: Mapping[str, int], opened: wire.Socket | None = None) -> None:
    """Change channel counts (rx, tx, other, combined); what is not named stays.

    Raises:
        PrivilegeError: CAP_NET_ADMIN is missing.
        NetlinkError: refused, in the kernel's words.
    """
    try:
        ethtool.change(
            opened, CHANNELS_SET, "channels", ifindex, ethtool.encode(counts, _CHANNELS), _CHANNELS
        )
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        ethtool_legacy.set_channels(ifindex, counts)
