"""Driver name and the driver's own counters: the SIOCETHTOOL ioctl (include/uapi/linux/ethtool.h)."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from typing import NamedTuple

from xdpctl.errors import NetlinkError, errno_text
from xdpctl.netlink.statistic_names import distinct

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 0x03
ETHTOOL_GSTRINGS = 0x1B
ETHTOOL_GSTATS = 0x1D
ETHTOOL_GSSET_INFO = 0x37
ETH_SS_STATS = 1
ETH_GSTRING_LEN = 32
_MOST_STATISTICS = 1 << 20
_ROOM = 256
"""Counters more than there were a moment ago."""


class DriverInfo(NamedTuple):
    """struct ethtool_drvinfo."""

    driver: str
    version: str
    firmware: str
    bus_info: str
    """``0000:01:00.0``; "" where there is no bus."""


def control_socket() -> socket.socket:
    """A socket to ask through: it answers for the namespace it was opened in."""
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def driver_info(name: str, sock: socket.socket | None = None) -> DriverInfo:
    """What drives an interface.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver does not say; ENODEV: no such interface.
    """
    buffer = array.array("B", struct.pack("=I", ETHTOOL_GDRVINFO) + bytes(192))
    ioctl(name, buffer, "reading the driver information", sock)
    raw = buffer.tobytes()
    words = [os.fsdecode(raw[at : at + 32].split(b"\0")[0]) for at in (4, 36, 68, 100)]
    return DriverInfo(*words)


def statistics(name: str, sock: socket.socket | None = None) -> dict[str, int]:
    """The driver's own counters, as ``ethtool -S`` prints them; {} when it has none.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver keeps none; ENODEV: no such interface.
    """
    names = statistics_names(name, sock)
    return dict(zip(names, statistics_values(name, len(names), sock), strict=False)) if names else {}


def statistics_names(name: str, sock: socket.socket | None = None) -> list[str]:
    """What the driver's own counters are called, in their order; they change with its queues.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver keeps none; ENODEV: no such interface.
    """
    buffer = array.array("B", struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0))
    ioctl(name, buffer, "reading the statistics", sock)
    _command, _reserved, mask, count = struct.unpack("=IIQI", buffer.tobytes())
    if not mask or not count:
        return []
    if count > _MOST_STATISTICS:
        raise NetlinkError(f"{name} says that it has {count} counters")
    # drivers may grow their counters between two calls: the kernel writes no more than it says in len,
    # so leave room for some, and take as many as both calls agree upon
    strings = array.array("B", struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_STATS, count))
    strings.frombytes(bytes((count + _ROOM) * ETH_GSTRING_LEN))
    ioctl(name, strings, "reading the names of statistics", sock)
    raw = strings.tobytes()
    agreed = min(count, struct.unpack_from("=I", raw, 8)[0])
    starts = range(12, 12 + agreed * ETH_GSTRING_LEN, ETH_GSTRING_LEN)
    return distinct([os.fsdecode(raw[at : at + ETH_GSTRING_LEN].split(b"\0")[0]) for at in starts])


def statistics_values(name: str, count: int, sock: socket.socket | None = None) -> tuple[int, ...]:
    """The driver's own counters, in the order of their names: as many as there are now, at most `count` and some.

    Raises:
        NetlinkError: EOPNOTSUPP: the driver keeps none; ENODEV: no such interface.
    """
    room = count + _ROOM
    values = array.array("B", struct.pack("=II", ETHTOOL_GSTATS, count) + bytes(room * 8))
    ioctl(name, values, "reading the statistics", sock)
    there = min(struct.unpack_from("=I", values, 4)[0], room)
    return struct.unpack_from(f"={there}Q", values, 8)


def ioctl(name: str, buffer: array.array[int], what: str, sock: socket.socket | None = None) -> None:
    """One SIOCETHTOOL call on a buffer that begins with its command.

    Raises:
        NetlinkError: refused; `what` is what was done, in words.
    """
    address, _length = buffer.buffer_info()
    request = struct.pack("16sP16x", os.fsencode(name)[:15], address)  # struct ifreq
    opened = sock
    try:
        opened = sock or control_socket()
        fcntl.ioctl(opened, SIOCETHTOOL, request)
    except OSError as error:
        raise NetlinkError(f"{what} of {name}: {errno_text(error.errno or 0)}", errno=error.errno) from error
    finally:
        if sock is None and opened is not None:
            opened.close()
