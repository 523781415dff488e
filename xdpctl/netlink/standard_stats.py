"""Counters with one meaning for all drivers: IEEE 802.3 and RMON (ETHTOOL_MSG_STATS_GET, 5.13)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xdpctl.errors import NetlinkError
from xdpctl.netlink import ethtool, genl
from xdpctl.netlink.attributes import U32, U64, attr_nest, attr_u32, nest, value_of, walk

if TYPE_CHECKING:
    from typing import Any

    from xdpctl.netlink import wire

STATS_GET = 32
GROUPS = ("eth-phy", "eth-mac", "eth-ctrl", "rmon")
"""ETHTOOL_STATS_*; a kernel's own list may be longer (phy, 6.14)."""

_HISTOGRAM = nest({7: ("low", U32), 8: ("high", U32), 9: ("value", U64)})
_NOTHING = 2**64 - 1
"""ETHTOOL_STAT_NOT_SET: the kernel leaves such counters out, this is for drivers that count so far."""


def _group(data: bytes, start: int, end: int) -> dict[str, Any]:
    """ETHTOOL_A_STATS_GRP: many nests of one number, each holding one counter by its place in a string set."""
    found: dict[str, Any] = {"counters": {}, "rx": [], "tx": []}
    for number, at, stop in walk(data, start, end):
        if number == 2:
            found["id"] = value_of(U32, data, at, stop)
        elif number == 3:
            found["names"] = value_of(U32, data, at, stop)
        elif number == 4:
            for place, value_at, value_stop in walk(data, at, stop):
                found["counters"][place] = value_of(U64, data, value_at, value_stop)
        elif number in (5, 6):
            found["rx" if number == 5 else "tx"].append(value_of(_HISTOGRAM, data, at, stop))
    return found


_sets: dict[int, tuple[str, ...]] = {}


def standard_stats(ifindex: int, opened: wire.Socket | None = None) -> dict[str, dict[str, int]]:
    """Counters by group and name: ``{"eth-mac": {"FramesTransmittedOK": 1, ...}, "rmon": {"rx-pkts-64-64": 2}}``.

    Raises:
        UnsupportedError: no ethtool family.
        NetlinkError: EOPNOTSUPP: the driver has none, or a kernel before 5.13.
    """
    # here the header is attribute 2
    asked = attr_nest(2, attr_u32(1, ifindex)) + ethtool.bitset(3, dict.fromkeys(GROUPS, True))
    what = f"reading the standard statistics of {ethtool.label(ifindex)}"
    answer = genl.request(opened, ethtool.FAMILY, STATS_GET, asked, what)
    found: dict[str, dict[str, int]] = {}
    if answer is None:
        return found
    for number, at, stop in walk(*answer):
        if number == 4:
            group = _group(answer[0], at, stop)
            place = group.get("id", -1)
            name = GROUPS[place] if 0 <= place < len(GROUPS) else f"group {place}"
            spelled = _spelled(group, opened)
            if spelled:
                found[name] = spelled
    return found


def _spelled(group: dict[str, Any], opened: wire.Socket | None) -> dict[str, int]:
    names = _names(group.get("names", 0), opened)
    counters = {
        names[place] if place < len(names) and names[place] else f"#{place}": value
        for place, value in group["counters"].items()
        if value != _NOTHING
    }
    for way in ("rx", "tx"):
        for bucket in group[way]:
            if bucket.get("value", _NOTHING) != _NOTHING:
                counters[f"{way}-pkts-{bucket.get('low', 0)}-{bucket.get('high', 0)}"] = bucket["value"]
    return counters


def _names(number: int, opened: wire.Socket | None) -> tuple[str, ...]:
    if number not in _sets:
        try:
            _sets[number] = ethtool.strings(number, "standard statistics", opened)
        except NetlinkError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            _sets[number] = ()
    return _sets[number]
