"""The drivers' private flags, by name (ETHTOOL_MSG_PRIVFLAGS_*, 5.7; before by ioctl)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.errors import UnsupportedError
from xdpctl.netlink import ethtool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

PRIVFLAGS_GET, PRIVFLAGS_SET = 13, 14
_PRIVFLAGS = {1: ("header", ethtool.HEADER_KIND), 2: ("flags", ethtool.BITSET)}


def private_flags(opened: wire.Socket | None = None) -> dict[int, Mapping[str, bool]]:
    """The driver's private flags by name, of every link that has some, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return ethtool.decoded(opened, PRIVFLAGS_GET, "private flags", _PRIVFLAGS, _flags)


def private_flags_of(ifindex: int, opened: wire.Socket | None = None) -> Mapping[str, bool]:
    """The private flags of one link, {} when it has none.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver has none.
    """
    try:
        found = ethtool.decoded(opened, PRIVFLAGS_GET, "private flags", _PRIVFLAGS, _flags, ifindex=ifindex)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        return ethtool_legacy.private_flags_of(ifindex)
    return found.get(ifindex, {})


def _flags(found: dict[str, Any]) -> Mapping[str, bool]:
    bits = found.get("flags", {}).get("bits", ())
    return {one["name"]: one.get("value", False) for one in bits if one.get("name")}


def set_private_flags(ifindex: int, flags: Mapping[str, bool], opened: wire.Socket | None = None) -> None:
    """Change private flags; what is not named stays.

    Raises:
        PrivilegeError: CAP_NET_ADMIN is missing.
        NetlinkError: refused, in the kernel's words.
    """
    try:
        ethtool.change(opened, PRIVFLAGS_SET, "private flags", ifindex, ethtool.bitset(2, flags), _PRIVFLAGS)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        ethtool_legacy.set_private_flags(ifindex, flags)
