"""Features, channels, rings and private flags of links (the generic netlink family ethtool, 5.6 and later).

Tables as in include/uapi/linux/ethtool_netlink.h. What that family does not have (driver name, the driver's
own counters) is read by the SIOCETHTOOL ioctl in `xdpctl.netlink.ethtool_ioctl`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.netlink import genl
from xdpctl.netlink.attributes import (
    BYTE_ORDER,
    FLAG,
    RAW,
    TEXT,
    U8,
    U32,
    attr_nest,
    attr_u32,
    attributes,
    malformed,
    nest,
    nests,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from xdpctl.netlink import wire

    T = TypeVar("T")

FAMILY = "ethtool"
STRSET_GET = 1
LINKINFO_GET = 2
FEATURES_GET = 11
PRIVFLAGS_GET = 13
RINGS_GET = 15
CHANNELS_GET = 17

HEADER = 1
FLAG_COMPACT_BITSETS = 1
ETH_SS_FEATURES = 4


class FeatureBits(NamedTuple):
    """ETHTOOL_MSG_FEATURES_GET as integers: bit i is feature `feature_names()[i]`."""

    hw: int
    """May be changed (hw_features)."""
    wanted: int
    """Was asked for: what veth's driver tests for GRO."""
    active: int
    nochange: int
    """NETIF_F_NEVER_CHANGE."""


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


class RawRings(NamedTuple):
    """ETHTOOL_MSG_RINGS_GET; None where the driver does not say."""

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


class LinkInfo(NamedTuple):
    """ETHTOOL_MSG_LINKINFO_GET."""

    port: int | None = None
    """PORT_*: 0 TP, 3 fibre, 5 direct attach, 239 none, 255 other."""
    phyaddr: int | None = None
    transceiver: int | None = None


_HEADER = {1: ("ifindex", U32), 2: ("name", TEXT)}
_HEADER_KIND = nest(_HEADER)
_COMPACT = {2: ("size", U32), 4: ("value", RAW)}
_FEATURES = {
    2: ("hw", nest(_COMPACT)),
    3: ("wanted", nest(_COMPACT)),
    4: ("active", nest(_COMPACT)),
    5: ("nochange", nest(_COMPACT)),
}
_CHANNELS = {
    1: ("header", _HEADER_KIND),
    2: ("rx_max", U32),
    3: ("tx_max", U32),
    4: ("other_max", U32),
    5: ("combined_max", U32),
    6: ("rx", U32),
    7: ("tx", U32),
    8: ("other", U32),
    9: ("combined", U32),
}
_RINGS = {
    1: ("header", _HEADER_KIND),
    2: ("rx_max", U32),
    5: ("tx_max", U32),
    6: ("rx", U32),
    9: ("tx", U32),
    10: ("rx_buf_len", U32),
    11: ("tcp_data_split", U8),
    17: ("hds_thresh", U32),
    18: ("hds_thresh_max", U32),
}
_TCP_DATA_SPLIT = ("unknown", "off", "on")
_LINKINFO = {
    1: ("header", _HEADER_KIND),
    2: ("port", U8),
    3: ("phyaddr", U8),
    6: ("transceiver", U8),
}
_BIT = nest({1: ("index", U32), 2: ("name", TEXT), 3: ("value", FLAG)})
_PRIVFLAGS = {
    1: ("header", _HEADER_KIND),
    2: ("flags", nest({3: ("bits", nests(1, _BIT))})),
}
_STRING = nest({1: ("index", U32), 2: ("value", TEXT)})
_STRSET = {2: ("sets", nests(1, nest({1: ("id", U32), 3: ("strings", nests(1, _STRING))})))}

_names: tuple[str, ...] = ()


def feature_names(opened: wire.Socket | None = None) -> tuple[str, ...]:
    """The kernel's feature names by bit (string set ETH_SS_FEATURES); "" for an unused bit. Read once.

    Raises:
        UnsupportedError: before 5.6.
        NetlinkError: the kernel refused.
    """
    global _names  # noqa: PLW0603 - the running kernel's, they never change
    if not _names:
        wanted = attr_nest(2, attr_nest(1, attr_u32(1, ETH_SS_FEATURES)))
        answer = genl.request(
            opened, FAMILY, STRSET_GET, attr_nest(HEADER) + wanted, "reading the names of features"
        )
        if answer is None:
            raise malformed("no feature names in it")
        found = {
            one.get("index", 0): one.get("value", "")
            for each in attributes(*answer, _STRSET).get("sets", ())
            for one in each.get("strings", ())
        }
        if found and max(found) > 4096:
            raise malformed(f"a feature with the number {max(found)}")
        _names = tuple(found.get(bit, "") for bit in range(max(found, default=-1) + 1))
    return _names


def features(opened: wire.Socket | None = None) -> dict[int, FeatureBits]:
    """Features of every link, by ifindex: one dump with compact bitsets, equal sets shared.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    shared: dict[bytes, FeatureBits] = {}
    found: dict[int, FeatureBits] = {}
    for data, start, end in _ask(opened, FEATURES_GET, "features", None, FLAG_COMPACT_BITSETS):
        ifindex, rest = _leading_header(data, start, end)
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
        UnsupportedError: before 5.7.
        NetlinkError: ENODEV: there is none; or refused.
    """
    for data, start, end in _ask(opened, FEATURES_GET, "features", ifindex, FLAG_COMPACT_BITSETS):
        _ifindex, rest = _leading_header(data, start, end)
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


def _leading_header(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The ifindex in the header that every ethtool answer begins with, and where the rest starts."""
    for number, at, stop in walk(data, start, end):
        header = attributes(data, at, stop, _HEADER) if number == HEADER else {}
        if "ifindex" in header:
            return header["ifindex"], start + ((stop - start + 3) & ~3)
        break
    raise malformed("no link in the ethtool header")


def channels(opened: wire.Socket | None = None) -> dict[int, RawChannels]:
    """Channel counts of every link that has them, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return _decoded(opened, CHANNELS_GET, "channels", _CHANNELS, _channels)


def channels_of(ifindex: int, opened: wire.Socket | None = None) -> RawChannels | None:
    """Channel counts of one link, None when it has none.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: EOPNOTSUPP: the driver has no channels.
    """
    return _decoded(opened, CHANNELS_GET, "channels", _CHANNELS, _channels, ifindex=ifindex).get(ifindex)


def _channels(found: dict[str, Any]) -> RawChannels:
    return RawChannels(**found)


def rings(opened: wire.Socket | None = None) -> dict[int, RawRings]:
    """Ring sizes of every link that has them, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return _decoded(opened, RINGS_GET, "rings", _RINGS, _rings)


def rings_of(ifindex: int, opened: wire.Socket | None = None) -> RawRings | None:
    """Ring sizes of one link, None when it has none.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: EOPNOTSUPP: the driver has no rings.
    """
    return _decoded(opened, RINGS_GET, "rings", _RINGS, _rings, ifindex=ifindex).get(ifindex)


def _rings(found: dict[str, Any]) -> RawRings:
    split = found.pop("tcp_data_split", None)
    word = None if split is None or split >= len(_TCP_DATA_SPLIT) else _TCP_DATA_SPLIT[split]
    return RawRings(**found, tcp_data_split=word)


def private_flags(opened: wire.Socket | None = None) -> dict[int, Mapping[str, bool]]:
    """The driver's private flags by name, of every link that has some, by ifindex.

    Raises:
        UnsupportedError: before 5.7.
        NetlinkError: the kernel refused.
    """
    return _decoded(opened, PRIVFLAGS_GET, "private flags", _PRIVFLAGS, _flags)


def _flags(found: dict[str, Any]) -> Mapping[str, bool]:
    bits = found.get("flags", {}).get("bits", ())
    return {one["name"]: one.get("value", False) for one in bits if one.get("name")}


def linkinfo(opened: wire.Socket | None = None) -> dict[int, LinkInfo]:
    """Port and transceiver of every link that has them, by ifindex.

    Raises:
        UnsupportedError: before 5.6.
        NetlinkError: the kernel refused.
    """
    return _decoded(opened, LINKINFO_GET, "link settings", _LINKINFO, lambda found: LinkInfo(**found))


def _ask(
    opened: wire.Socket | None, command: int, what: str, ifindex: int | None, flags: int = 0
) -> list[wire.Payload]:
    inner = attr_u32(3, flags) if flags else b""
    if ifindex is None:
        return genl.dump(opened, FAMILY, command, attr_nest(HEADER, inner), f"listing {what}")
    header = attr_nest(HEADER, attr_u32(1, ifindex), inner)
    answer = genl.request(opened, FAMILY, command, header, f"reading the {what} of link {ifindex}")
    return [] if answer is None else [answer]


def _decoded(
    opened: wire.Socket | None,
    command: int,
    what: str,
    table: Any,
    make: Callable[[dict[str, Any]], T],
    *,
    ifindex: int | None = None,
) -> dict[int, T]:
    decoded: dict[int, T] = {}
    for one in _ask(opened, command, what, ifindex):
        found = attributes(*one, table)
        header = found.pop("header", {})
        if "ifindex" in header:
            decoded[header["ifindex"]] = make(found)
    return decoded
