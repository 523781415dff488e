"""Features of links: what the driver can change, what was asked for, what is on (ETHTOOL_MSG_FEATURES_*, 5.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import UnsupportedError
from xdpctl.netlink import ethtool
from xdpctl.netlink.attributes import BYTE_ORDER, RAW, U32, attributes, malformed, nest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

FEATURES_GET, FEATURES_SET = 11, 12
ETH_SS_FEATURES = 4


class FeatureBits(NamedTuple):
    """ETHTOOL_MSG_FEATURES_GET as integers: bit i is feature `names()[i]`."""

    hw: int
    """May be changed (hw_features)."""
    wanted: int
    """Was asked for: what veth's driver tests for GRO."""
    active: int
    nochange: int
    """NETIF_F_NEVER_CHANGE."""


_COMPACT = nest({2: ("size", U32), 4: ("value", RAW)})
_FEATURES = {2: ("hw", _COMPACT), 3: ("wanted", _COMPACT), 4: ("active", _COMPACT), 5: ("nochange", _COMPACT)}
_SET = {1: ("header", ethtool.HEADER_KIND), 3: ("wanted", ethtool.BITSET)}

_names: tuple[str, ...] = ()


def names(opened: wire.Socket | None = None) -> tuple[str, ...]:
    """The kernel's feature names by bit (string set ETH_SS_FEATURES); "" for an unused bit. Read once.

    Raises:
        NetlinkError: the kernel refused.
    """
    global _names  # noqa: PLW0603 - the running kernel's, they never change
    if not _names:
        try:
            _names = ethtool.strings(ETH_SS_FEATURES, "features", opened)
        except UnsupportedError:
            from xdpctl.netlink import ethtool_legacy

            _names = ethtool_legacy.feature_names()
    return _names


def features(opened: wire.Socket | None = None) -> dict[int, FeatureBits]:
    """Features of every link, by ifindex: one dump with compact bitsets, equal sets shared.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    shared: dict[bytes, FeatureBits] = {}
    found: dict[int, FeatureBits] = {}
    for data, start, end in ethtool.ask(
        opened, FEATURES_GET, "features", None, flags=ethtool.FLAG_COMPACT_BITSETS
    ):
        ifindex, rest = ethtool.leading_header(data, start, end)
        # links of one kind send the very same bytes: decode them once
        raw = data[rest:end]
        bits = shared.get(raw)
        if bits is None:
            bits = shared[raw] = _feature_bits(raw)
        found[ifindex] = bits
    return found


def features_of(ifindex: int, opened: wire.Socket | None = None) -> FeatureBits:
    """Features of one link.

    Raises:
        NetlinkError: ENODEV: there is none; or refused.
    """
    try:
        answers = ethtool.ask(opened, FEATURES_GET, "features", ifindex, flags=ethtool.FLAG_COMPACT_BITSETS)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        return FeatureBits(*ethtool_legacy.features_of(ifindex))
    for data, start, end in answers:
        _ifindex, rest = ethtool.leading_header(data, start, end)
        return _feature_bits(data[rest:end])
    raise malformed("no features in it")


def _feature_bits(raw: bytes) -> FeatureBits:
    found = attributes(raw, 0, len(raw), _FEATURES)

    def bits(name: str) -> int:
        # a bitmap of 32-bit words in host order: on a little-endian machine that is one long integer
        value = found.get(name, {}).get("value", b"")
        if BYTE_ORDER == "little":
            return int.from_bytes(value, "little")
        words = [value[at : at + 4] for at in range(0, len(value), 4)]
        return sum(int.from_bytes(word, "big") << (32 * place) for place, word in enumerate(words))

    return FeatureBits(bits("hw"), bits("wanted"), bits("active"), bits("nochange"))


def set_features(ifindex: int, wanted: Mapping[str, bool], opened: wire.Socket | None = None) -> None:
    """Ask for features, or no longer, by their kernel names.

    The kernel says yes even where a driver then refuses, or one feature switches another: read them back.

    Raises:
        PrivilegeError: CAP_NET_ADMIN is missing.
        NetlinkError: EINVAL: no such feature; or the driver refused.
    """
    try:
        ethtool.change(opened, FEATURES_SET, "features", ifindex, ethtool.bitset(3, wanted), _SET)
    except UnsupportedError:
        from xdpctl.netlink import ethtool_legacy

        ethtool_legacy.set_features(ifindex, wanted, names())
