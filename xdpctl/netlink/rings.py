"""Rings of links: descriptors, buffers and how headers are split (ETHTOOL_MSG_RINGS_*, 5.7; before by ioctl)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import ConfigError, UnsupportedError
from xdpctl.netlink import ethtool
from xdpctl.netlink.attributes import U8, U32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

RINGS_GET, RINGS_SET = 15, 16


class RawRings(NamedTuple):
    """ETHTOOL_MSG_RINGS_GET; None where the driver, or a kernel before the version told, does not say."""

    rx_max: int | None = None
    tx_max: int | None = None
    rx: int | None = None
    tx: int | None = None
    rx_buf_len: int | None = None
    """Bytes (5.17)."""
    tcp_data_split: str | None = None
    """unknown, off or on (5.18)."""
    hds_thresh: int | None = None
    """Bytes (6.14)."""
    hds_thresh_max: int | None = None
    rx_mini_max: int | None = None
    rx_jumbo_max: int | None = None
    rx_mini: int | None = None
    rx_jumbo: int | None = None
    cqe_size: int | None = None
    """Bytes of a completion (5.18)."""
    tx_push: bool | None = None
    """Descriptors are written to the device instead of fetched by it (5.18)."""
    rx_push: bool | None = None
    """(6.3)."""
    tx_push_buf_len: int | None = None
    """Bytes (6.4)."""
    tx_push_buf_len_max: int | None = None


_RINGS = {
    1: ("header", ethtool.HEADER_KIND),
    2: ("rx_max", U32),
    3: ("rx_mini_max", U32),
    4: ("rx_jumbo_max", U32),
    5: ("tx_max", U32),
    6: ("rx", U32),
    7: ("rx_mini", U32),
    8: ("rx_jumbo", U32),
    9: ("tx", U32),
    10: ("rx_buf_len", U32),
    11: ("tcp_data_split", U8),
    12: ("cqe_size", U32),
    13: ("tx_push", U8),
    14: ("rx_push", U8),
    15: ("tx_push_buf_len", U32),
    16: ("tx_push_buf_len_max", U32),
    17: ("hds_thresh", U32),
    18: ("hds_thresh_max", U32),
}
_TCP_DATA_SPLIT = ("unknown", "off", "on")
"""ETHTOOL_TCP_DATA_SPLIT_*; setting ``unknown`` leaves it to the driver, as ethtool's ``auto``."""
_SPLIT_NUMBERS = {"auto": 0, "unknown": 0, "off": 1, "on": 2}


def rings(opened: wire.Socket | None = None) -> dict[int, RawRings]:
    """Rings of every link that has them, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return ethtool.decoded(opened, RINGS_GET, "rings", _RINGS, _rings)


def rings_of(ifindex: int, opened: wire.Socket | None = None) -> RawRings | None:
    """Rings of one link, None when it has none.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver has no rings.
    """
    try:
        return ethtool.decoded(opened, RINGS_GET, "rings", _RINGS, _rings, ifindex=ifindex).get(ifindex)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        return RawRings(**ethtool_legacy.rings_of(ifindex))


def _rings(found: dict[str, Any]) -> RawRings:
    split = found.pop("tcp_data_split", None)
    word = None if split is None or split >= len(_TCP_DATA_SPLIT) else _TCP_DATA_SPLIT[split]
    for name in ("tx_push", "rx_push"):
        if name in found:
            found[name] = bool(found[name])
    return RawRings(**found, tcp_data_split=word)


def set_rings(
    ifindex: int, values: Mapping[str, int | bool | str], opened: wire.Socket | None = None
) -> None:
    """Change rings; what is not named stays.

    Args:
        ifindex: the link.
        values: rx, tx, rx-mini, rx-jumbo (descriptors), rx-buf-len, cqe-size, hds-thresh, tx-push-buf-len (bytes),
            tcp-data-split (on, off, auto), rx-push, tx-push.
        opened: a NETLINK_GENERIC socket to use.

    Raises:
        ConfigError: no such word for tcp-data-split.
        PrivilegeError: CAP_NET_ADMIN is missing.
        UnsupportedError: a kernel before 5.7 is asked for more than ring sizes.
        NetlinkError: refused, in the kernel's words.
    """
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    split = values.get("tcp-data-split")
    if isinstance(split, str):
        if split not in _SPLIT_NUMBERS:
            raise ConfigError(f"tcp-data-split={split}: no such word", hint="on, off or auto")
        numbers["tcp-data-split"] = _SPLIT_NUMBERS[split]
    try:
        ethtool.change(opened, RINGS_SET, "rings", ifindex, ethtool.encode(numbers, _RINGS), _RINGS)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        ethtool_legacy.set_rings(ifindex, numbers)
