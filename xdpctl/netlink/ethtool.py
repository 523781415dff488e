"""The generic netlink family ethtool (5.6 and later): what all its messages share, and its string sets.

Messages as in include/uapi/linux/ethtool_netlink.h, one subject a module: features, rings, channels, coalesce,
pause, private_flags, linkstate, standard_stats. What the family does not have (driver name, the driver's own
counters), and everything on kernels without it, is read by the SIOCETHTOOL ioctl: ethtool_ioctl, ethtool_legacy.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from xdpctl.errors import NetlinkError, PrivilegeError
from xdpctl.netlink import genl
from xdpctl.netlink.attributes import (
    FLAG,
    TEXT,
    U32,
    attr_flag,
    attr_nest,
    attr_text,
    attr_u8,
    attr_u32,
    attr_uint,
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
    from xdpctl.netlink.attributes import Kind

    T = TypeVar("T")
    Table = Mapping[int, tuple[str, Kind]]

FAMILY = "ethtool"
STRSET_GET = 1

HEADER = 1
FLAG_COMPACT_BITSETS, FLAG_OMIT_REPLY = 1, 2

_HEADER = {1: ("ifindex", U32), 2: ("name", TEXT)}
HEADER_KIND = nest(_HEADER)
"""The attribute that every ethtool message begins with."""
BIT = nest({1: ("index", U32), 2: ("name", TEXT), 3: ("value", FLAG)})
BITSET = nest({2: ("size", U32), 3: ("bits", nests(1, BIT))})
"""A bitset spelled out (ETHTOOL_A_BITSET_*)."""

_STRING = nest({1: ("index", U32), 2: ("value", TEXT)})
_STRSET = {2: ("sets", nests(1, nest({1: ("id", U32), 3: ("strings", nests(1, _STRING))})))}


def label(ifindex: int) -> str:
    """How messages call a link: its name, or its number where it has none (any more)."""
    try:
        return socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        return f"link {ifindex}"


def strings(number: int, what: str, opened: wire.Socket | None = None) -> tuple[str, ...]:
    """A string set that belongs to no device (ETH_SS_*): names by place; "" for an unused one.

    Raises:
        UnsupportedError: before 5.6.
        NetlinkError: the kernel refused: it has no such set.
    """
    wanted = attr_nest(2, attr_nest(1, attr_u32(1, number)))
    answer = genl.request(
        opened, FAMILY, STRSET_GET, attr_nest(HEADER) + wanted, f"reading the names of {what}"
    )
    if answer is None:
        raise malformed(f"no names of {what} in it")
    found = {
        one.get("index", 0): one.get("value", "")
        for each in attributes(*answer, _STRSET).get("sets", ())
        for one in each.get("strings", ())
    }
    if found and max(found) > 4096:
        raise malformed(f"one of the {what} with the number {max(found)}")
    return tuple(found.get(place, "") for place in range(max(found, default=-1) + 1))


def leading_header(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The ifindex in the header that every ethtool answer begins with, and where the rest starts."""
    for number, at, stop in walk(data, start, end):
        header = attributes(data, at, stop, _HEADER) if number == HEADER else {}
        if "ifindex" in header:
            return header["ifindex"], start + ((stop - start + 3) & ~3)
        break
    raise malformed("no link in the ethtool header")


def ask(
    opened: wire.Socket | None,
    command: int,
    what: str,
    ifindex: int | None,
    *,
    flags: int = 0,
) -> list[wire.Payload]:
    """The answers of one GET, for one link or (None) of all that have what is asked for."""
    inner = attr_u32(3, flags) if flags else b""
    if ifindex is None:
        return genl.dump(opened, FAMILY, command, attr_nest(HEADER, inner), f"listing {what}")
    header = attr_nest(HEADER, attr_u32(1, ifindex), inner)
    answer = genl.request(opened, FAMILY, command, header, f"reading the {what} of {label(ifindex)}")
    return [] if answer is None else [answer]


def decoded(
    opened: wire.Socket | None,
    command: int,
    what: str,
    table: Table,
    make: Callable[[dict[str, Any]], T],
    *,
    ifindex: int | None = None,
    flags: int = 0,
) -> dict[int, T]:
    """The answers of one GET through a table (whose header is named ``header``), by ifindex."""
    found_all: dict[int, T] = {}
    for one in ask(opened, command, what, ifindex, flags=flags):
        found = attributes(*one, table)
        header = found.pop("header", {})
        if "ifindex" in header:
            found_all[header["ifindex"]] = make(found)
    return found_all


def encode(values: Mapping[str, int | bool], table: Table) -> bytes:
    """Attributes for values by their names in a table (``rx-buf-len`` is its ``rx_buf_len``)."""
    places = {name: (number, kind) for number, (name, kind) in table.items()}
    made = b""
    for name, value in values.items():
        number, kind = places[name.replace("-", "_")]
        made += {1: attr_u8, 4: attr_u32}.get(kind.size, attr_uint)(number, int(value))
    return made


def bitset(number: int, bits: Mapping[str, bool]) -> bytes:
    """A bitset attribute that sets and clears the named bits, and leaves the others."""
    spelled = [attr_nest(1, attr_text(2, name), attr_flag(3) if on else b"") for name, on in bits.items()]
    return attr_nest(number, attr_nest(3, *spelled))


def change(
    opened: wire.Socket | None, command: int, what: str, ifindex: int, attrs: bytes, table: Table
) -> None:
    """One SET of a link.

    Raises:
        UnsupportedError: before 5.6.
        PrivilegeError: CAP_NET_ADMIN is missing.
        NetlinkError: refused: in the kernel's words, with the attribute that it is about.
    """
    header = attr_nest(HEADER, attr_u32(1, ifindex), attr_u32(3, FLAG_OMIT_REPLY))
    action = f"setting the {what} of {label(ifindex)}"
    try:
        genl.request(opened, FAMILY, command, header + attrs, action, names=table)
    except NetlinkError as error:
        if error.errno == errno.EPERM:
            raise PrivilegeError(action, capability="CAP_NET_ADMIN", errno=error.errno) from error
        raise
