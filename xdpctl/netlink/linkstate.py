"""Ports, carrier and why there is none (ETHTOOL_MSG_LINKINFO_GET, ETHTOOL_MSG_LINKSTATE_GET, 5.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.netlink import ethtool
from xdpctl.netlink.attributes import U8, U32

if TYPE_CHECKING:
    from xdpctl.netlink import wire

LINKINFO_GET, LINKSTATE_GET = 2, 6


class LinkInfo(NamedTuple):
    """ETHTOOL_MSG_LINKINFO_GET."""

    port: int | None = None
    """PORT_*: 0 TP, 3 fibre, 5 direct attach, 239 none, 255 other."""
    phyaddr: int | None = None
    transceiver: int | None = None


class LinkState(NamedTuple):
    """ETHTOOL_MSG_LINKSTATE_GET."""

    link: bool | None = None
    """The driver sees a carrier; None: it does not say."""
    reason: str | None = None
    """Why there is none, where the driver tells (5.11)."""
    sqi: int | None = None
    """Signal quality index (5.8), of sqi_max."""
    sqi_max: int | None = None


_LINKINFO = {
    1: ("header", ethtool.HEADER_KIND),
    2: ("port", U8),
    3: ("phyaddr", U8),
    6: ("transceiver", U8),
}
_LINKSTATE = {
    1: ("header", ethtool.HEADER_KIND),
    2: ("link", U8),
    3: ("sqi", U32),
    4: ("sqi_max", U32),
    5: ("reason", U8),
}
REASONS = (
    "autonegotiation failed",
    "link training failed",
    "logical mismatch",
    "bad signal integrity",
    "no cable",
    "cable issue",
    "EEPROM issue",
    "calibration failure",
    "power budget exceeded",
    "overheat",
    "module not ready",
)
"""enum ethtool_link_ext_state."""


def linkinfo(opened: wire.Socket | None = None) -> dict[int, LinkInfo]:
    """Port and transceiver of every link that has them, by ifindex.

    Raises:
        UnsupportedError: before 5.6.
        NetlinkError: the kernel refused.
    """
    return ethtool.decoded(opened, LINKINFO_GET, "link settings", _LINKINFO, lambda found: LinkInfo(**found))


def linkstate(opened: wire.Socket | None = None) -> dict[int, LinkState]:
    """The drivers' view of the carrier, by ifindex.

    Raises:
        UnsupportedError: before 5.6.
        NetlinkError: the kernel refused.
    """

    def make(found: dict[str, int]) -> LinkState:
        link, reason = found.get("link"), found.get("reason")
        return LinkState(
            None if link is None else bool(link),
            None if reason is None else REASONS[reason] if reason < len(REASONS) else f"reason {reason}",
            found.get("sqi"),
            found.get("sqi_max"),
        )

    return ethtool.decoded(opened, LINKSTATE_GET, "link states", _LINKSTATE, make)
