"""Links and the ids that namespaces have for each other (rtnetlink's RTM_GETLINK and RTM_GETNSID).

Tables as in include/uapi/linux/{if_link,net_namespace}.h, reduced to what is used.
Every function asks about the namespace that its socket, or the calling thread, is in.
"""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.netlink import wire
from xdpctl.netlink.attributes import (
    MAC,
    RAW,
    S32,
    TEXT,
    U8,
    U16,
    U32,
    Kind,
    attr_u32,
    attributes,
    malformed,
    nest,
    nests,
    value_of,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RTM_GETLINK = 18
RTM_GETNSID = 90

RTEXT_FILTER_SKIP_STATS = 8
"""Leave counters out of link messages: they are half of their bytes."""

_IFINFO = struct.Struct("=BxHiII")
_unpack_ifinfo = _IFINFO.unpack_from

XDP_ATTACHED = (None, "native", "generic", "offload", "multi")
"""IFLA_XDP_ATTACHED (XDP_ATTACHED_NONE, _DRV, _SKB, _HW, _MULTI)."""

_XDP = {
    2: ("attached", U8),
    4: ("prog_id", U32),
    5: ("native", U32),
    6: ("generic", U32),
    7: ("offload", U32),
}

# IFLA_INFO_DATA by IFLA_INFO_KIND, for the kinds that somebody asks about
_DATA: Mapping[str, Kind] = {
    "bond": nest({1: ("mode", U8), 2: ("active_slave", U32), 14: ("xmit_hash_policy", U8)}),
    "tun": nest(
        {
            3: ("type", U8),
            4: ("pi", U8),
            5: ("vnet_hdr", U8),
            6: ("persist", U8),
            7: ("multi_queue", U8),
            8: ("num_queues", U32),
            9: ("num_disabled_queues", U32),
        }
    ),
    "vlan": nest({1: ("id", U16), 5: ("protocol", RAW)}),
    "macvlan": nest({1: ("mode", U32)}),
    "macvtap": nest({1: ("mode", U32)}),
    "netkit": nest({2: ("primary", U8), 3: ("policy", U32), 4: ("peer_policy", U32), 5: ("mode", U32)}),
    "vxlan": nest({1: ("id", U32), 3: ("link", U32)}),
}


def _linkinfo(data: bytes, start: int, end: int) -> dict[str, Any]:
    """IFLA_LINKINFO: how IFLA_INFO_DATA is read depends on IFLA_INFO_KIND, which comes before it."""
    found: dict[str, Any] = {}
    kind = ""
    for number, at, stop in walk(data, start, end):
        if number == 1:
            found["kind"] = kind = value_of(TEXT, data, at, stop)
        elif number == 2 and kind in _DATA:
            found["data"] = value_of(_DATA[kind], data, at, stop)
        elif number == 4:
            found["slave_kind"] = value_of(TEXT, data, at, stop)
    return found


_LINK = {
    1: ("address", MAC),
    3: ("name", TEXT),
    4: ("mtu", U32),
    5: ("link", U32),
    6: ("qdisc", TEXT),
    10: ("master", U32),
    13: ("txqlen", U32),
    16: ("operstate", U8),
    18: ("info", Kind(decode=_linkinfo)),
    21: ("num_vf", U32),
    31: ("num_tx_queues", U32),
    32: ("num_rx_queues", U32),
    33: ("carrier", U8),
    37: ("link_netnsid", S32),
    40: ("gso_max_segs", U32),
    41: ("gso_max_size", U32),
    43: ("xdp", nest(_XDP)),
    50: ("min_mtu", U32),
    51: ("max_mtu", U32),
    52: ("altnames", nests(53, TEXT)),
    54: ("permanent_address", MAC),
    56: ("parent_dev", TEXT),
    57: ("parent_bus", TEXT),
    58: ("gro_max_size", U32),
    60: ("tso_max_segs", U32),
}

_LINK_XDP = {43: _LINK[43]}

OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
"""IF_OPER_* (RFC 2863), as /sys/class/net/D/operstate spells them."""

BOND_MODES = (
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
)
BOND_HASH_POLICIES = ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac")


class RawXdp(NamedTuple):
    """IFLA_XDP: program ids by mode, None: none."""

    attached: str | None
    """native, generic, offload, or multi: several at once (IFLA_XDP_ATTACHED)."""
    native: int | None = None
    generic: int | None = None
    offload: int | None = None

    def __bool__(self) -> bool:
        return self.attached is not None


NO_XDP = RawXdp(None)
NO_DATA: Mapping[str, Any] = MappingProxyType({})


class RawLink(NamedTuple):
    """One RTM_NEWLINK message; None: the kernel did not say."""

    ifindex: int
    name: str
    type: int
    """ARPHRD_*."""
    flags: int
    """IFF_*."""
    mtu: int
    kind: str | None = None
    """IFLA_INFO_KIND."""
    slave_kind: str | None = None
    """bridge, bond, ... for a port of one."""
    data: Mapping[str, Any] = NO_DATA
    """IFLA_INFO_DATA, for bond, tun, vlan, macvlan, macvtap, netkit, vxlan."""
    xdp: RawXdp = NO_XDP
    link: int | None = None
    """IFLA_LINK: the peer or the device below; 0: it is gone."""
    link_netnsid: int | None = None
    """IFLA_LINK_NETNSID: the namespace that `link` is in, None: this one."""
    master: int | None = None
    operstate: str | None = None
    carrier: bool | None = None
    address: str | None = None
    """Hardware address; of IP tunnels the local IP address."""
    permanent_address: str | None = None
    altnames: tuple[str, ...] = ()
    qdisc: str | None = None
    """Kind of the root qdisc."""
    txqlen: int | None = None
    min_mtu: int | None = None
    max_mtu: int | None = None
    num_rx_queues: int | None = None
    """Allocated, not in use."""
    num_tx_queues: int | None = None
    gso_max_size: int | None = None
    gso_max_segs: int | None = None
    gro_max_size: int | None = None
    tso_max_segs: int | None = None
    parent_dev: str | None = None
    """Name of the device behind it, on `parent_bus`: ``0000:01:00.0`` on ``pci`` (5.14)."""
    parent_bus: str | None = None


@contextmanager
def route_socket(opened: wire.Socket | None) -> Iterator[wire.Socket]:
    """The NETLINK_ROUTE socket that was given, or one of the current namespace for the while."""
    if opened is not None:
        yield opened
        return
    with wire.Socket(wire.NETLINK_ROUTE) as own:
        yield own


def links(opened: wire.Socket | None = None) -> list[RawLink]:
    """Every link of the namespace: one RTM_GETLINK dump, without counters.

    Raises:
        NetlinkError: the kernel refused.
    """
    with route_socket(opened) as sock:
        payload = _IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(29, RTEXT_FILTER_SKIP_STATS)
        return [decode_link(*one) for one in sock.dump(RTM_GETLINK, payload, what="listing links")]


def link(ifindex: int, opened: wire.Socket | None = None) -> RawLink:
    """One link by ifindex.

    Raises:
        NetlinkError: ENODEV: there is none.
    """
    with route_socket(opened) as sock:
        payload = _IFINFO.pack(0, 0, ifindex, 0, 0) + attr_u32(29, RTEXT_FILTER_SKIP_STATS)
        answer = sock.request(RTM_GETLINK, payload, what=f"reading link {ifindex}")
        if answer is None:
            raise malformed("no link in it")
        return decode_link(*answer)


def programs_of_links(opened: wire.Socket) -> dict[int, RawXdp]:
    """XDP programs of every link of the namespace by ifindex, from one dump; half the work of `links`.

    Raises:
        NetlinkError: the kernel refused.
    """
    payload = _IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(29, RTEXT_FILTER_SKIP_STATS)
    found = {}
    for data, start, end in opened.dump(RTM_GETLINK, payload, what="listing links"):
        if end - start < _IFINFO.size:
            raise malformed("a short ifinfomsg")
        told = attributes(data, start + _IFINFO.size, end, _LINK_XDP)
        found[_unpack_ifinfo(data, start)[2]] = _xdp(told.get("xdp"))
    return found


def decode_link(data: bytes, start: int, end: int) -> RawLink:
    """An RTM_NEWLINK payload (struct ifinfomsg and IFLA_*).

    Raises:
        NetlinkError: malformed.
    """
    if end - start < _IFINFO.size:
        raise malformed("a short ifinfomsg")
    _family, arphrd, ifindex, flags, _change = _unpack_ifinfo(data, start)
    found = attributes(data, start + _IFINFO.size, end, _LINK)
    get = found.get
    info = get("info") or {}
    operstate = get("operstate")
    carrier = get("carrier")
    return RawLink(
        ifindex,
        get("name", ""),
        arphrd,
        flags,
        get("mtu", 0),
        info.get("kind"),
        info.get("slave_kind"),
        info.get("data", NO_DATA),
        _xdp(get("xdp")),
        get("link"),
        get("link_netnsid"),
        get("master"),
        OPERSTATES[operstate] if operstate is not None and operstate < len(OPERSTATES) else None,
        None if carrier is None else bool(carrier),
        _address(get("address"), arphrd),
        get("permanent_address"),
        tuple(get("altnames", ())),
        get("qdisc"),
        get("txqlen"),
        get("min_mtu"),
        # 0 means no limit to the core (dev_validate_mtu), as ip prints it: tell it as unknown limit, not as 0
        get("max_mtu") or None,
        get("num_rx_queues"),
        get("num_tx_queues"),
        get("gso_max_size"),
        get("gso_max_segs"),
        get("gro_max_size"),
        get("tso_max_segs"),
        get("parent_dev"),
        get("parent_bus"),
    )


_IP_TUNNELS = frozenset({768, 769, 776, 778, 823})
"""ARPHRD_TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE: their hardware address is the local IP address."""


def _address(found: str | None, arphrd: int) -> str | None:
    if not found or arphrd not in _IP_TUNNELS:
        return found or None
    raw = bytes.fromhex(found.replace(":", ""))
    family = {4: socket.AF_INET, 16: socket.AF_INET6}.get(len(raw))
    return found if family is None else socket.inet_ntop(family, raw)


def _xdp(found: dict[str, Any] | None) -> RawXdp:
    if not found or not found.get("attached"):
        return NO_XDP
    attached = found["attached"]
    mode = XDP_ATTACHED[attached] if attached < len(XDP_ATTACHED) else None
    ids = {name: found.get(name) or None for name in ("native", "generic", "offload")}
    if mode in ids and ids[mode] is None:  # before 4.20 the one id came alone
        ids[mode] = found.get("prog_id")
    return RawXdp(mode, **ids)


_NSID = {1: ("nsid", S32), 5: ("current_nsid", S32)}


def nsid_of(descriptor: int, opened: wire.Socket | None = None) -> int | None:
    """The id that this namespace has for another one, None where it has none.

    Args:
        descriptor: an open nsfs file of the other one.
        opened: a NETLINK_ROUTE socket of this one.

    Raises:
        NetlinkError: the kernel refused.
    """
    with route_socket(opened) as sock:
        payload = b"\0\0\0\0" + attr_u32(3, descriptor)  # struct rtgenmsg, padded; NETNSA_FD
        answer = sock.request(RTM_GETNSID, payload, what="reading a namespace id")
        if answer is None:
            return None
        data, start, end = answer
        nsid = attributes(data, start + 4, end, _NSID).get("nsid")
        return None if nsid is None or nsid < 0 else int(nsid)


def nsids(opened: wire.Socket | None = None) -> list[int]:
    """Every id that this namespace has for others (RTM_GETNSID dump): ids alone, not which namespace each is.

    Raises:
        NetlinkError: the kernel refused.
    """
    with route_socket(opened) as sock:
        answers = sock.dump(RTM_GETNSID, b"\0\0\0\0", what="listing namespace ids")
        found = (attributes(data, start + 4, end, _NSID).get("nsid") for data, start, end in answers)
        return [one for one in found if one is not None and one >= 0]
