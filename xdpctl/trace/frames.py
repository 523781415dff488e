"""Real Ethernet frames through packet sockets, packet(7): make one, send it, see where it arrives.

A packet socket stays in the network namespace in which it was made, so a `Port` can be opened inside one
namespace and used from any other. What it sends passes the interface's own transmit path (ndo_start_xmit),
what it sees has passed the interface's XDP program: a frame dropped or redirected there never shows here.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from xdpctl.errors import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

ETHERTYPE_LOCAL = 0x88B5
"""IEEE 802 local experimental ethertype 1: no protocol of the kernel takes it."""
ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
BROADCAST = "ff:ff:ff:ff:ff:ff"
MIN_LENGTH = 60
"""Bytes of the shortest Ethernet frame without its checksum; shorter ones are padded."""

_ETH_P_ALL = 0x0003
_PACKET_OUTGOING = 4
_SO_RCVBUFFORCE = 33  # Linux has it, Python does not name it
_ROOM = 1 << 22
"""Bytes of frames that wait to be read. A frame that was redirected counts for a page: of the default, some 50 fit."""


def mac(text: str) -> bytes:
    """The 6 bytes of ``02:00:00:00:00:01``."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(
    payload: bytes,
    *,
    destination: str = BROADCAST,
    source: str = "02:00:00:00:00:01",
    ethertype: int = ETHERTYPE_LOCAL,
    vlan: int | None = None,
    length: int | None = None,
) -> bytes:
    """An Ethernet frame, without checksum.

    Args:
        payload: what follows the header.
        destination: MAC address, as is `source`.
        source: locally administered by default, so that it is nobody's.
        ethertype: what the payload is.
        vlan: 802.1Q tag to insert (its id), None for none.
        length: bytes of the whole frame, padded with zeros; at least `MIN_LENGTH`.
    """
    tag = b"" if vlan is None else struct.pack("!HH", ETHERTYPE_VLAN, vlan)
    frame = mac(destination) + mac(source) + tag + struct.pack("!H", ethertype) + payload
    return frame.ljust(max(MIN_LENGTH, length or 0), b"\0")


def udp4(
    payload: bytes,
    *,
    destination: str = BROADCAST,
    addresses: tuple[str, str] = ("192.0.2.1", "192.0.2.2"),
    ports: tuple[int, int] = (40000, 9),
) -> bytes:
    """An Ethernet frame with an IPv4 UDP datagram (from, to), its UDP checksum left out as IPv4 allows."""
    datagram = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, socket.IPPROTO_UDP, 0,
        *(socket.inet_aton(one) for one in addresses),
    )  # fmt: skip
    header = header[:10] + struct.pack("!H", _internet_checksum(header)) + header[12:]
    return ethernet(header + datagram, destination=destination, ethertype=ETHERTYPE_IPV4)


def _internet_checksum(data: bytes) -> int:
    """RFC 1071 over an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Port:
    """A packet socket on one interface of the current network namespace.

    Raises:
        NetlinkError: the interface is not there, is down, or refuses a frame (EMSGSIZE above its MTU).
    """

    def __init__(self, interface: str) -> None:
        self.interface = interface
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            self.close()
            raise NetlinkError(
                f"no packet socket on {interface}: {error.strerror}", errno=error.errno
            ) from error
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(AttributeError):
            self._socket.close()

    def fileno(self) -> int:
        """The descriptor, for select and poll."""
        return self._socket.fileno()

    def send(self, frame: bytes) -> None:
        """Transmit one frame."""
        try:
            self._socket.send(frame)
        except OSError as error:
            raise NetlinkError(
                f"sending {len(frame)} bytes on {self.interface} failed: {error.strerror}", errno=error.errno
            ) from error

    def arrived(self) -> Iterator[bytes]:
        """The frames received since the last call (not those sent from here), without waiting."""
        while True:
            try:
                frame, address = self._socket.recvfrom(1 << 17)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # told once to a socket whose interface is down
                    return
                raise NetlinkError(
                    f"receiving on {self.interface} failed: {error.strerror}", errno=error.errno
                ) from error
            if address[2] != _PACKET_OUTGOING:
                yield frame

    def count(self, mark: bytes, *, expect: int = 1, seconds: float = 0.5) -> int:
        """How many frames that hold `mark` arrive, waiting at most `seconds` for the expected number."""
        seen, end = 0, time.monotonic() + seconds
        while True:
            seen += sum(mark in frame for frame in self.arrived())
            left = end - time.monotonic()
            if seen >= expect or left <= 0:
                return seen
            select.select([self], [], [], left)
