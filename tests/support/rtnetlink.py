"""The rtnetlink requests that every test makes, scenarios by the dozen, without a program or a library's event loop.

An emulated CPU feels the difference: pyroute2 takes twenty times as long for each, and starting ip(8) longer still.
Of its own, not xdpctl's: what tests stand on is not what they test.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_NEWLINK, _DELLINK, _GETLINK, _SETLINK, _ERROR = 16, 17, 18, 19, 2
_REQUEST, _ACK, _TLVS, _CREATE_EXCL = 0x1, 0x4, 0x200, 0x600
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER, _INFO = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
IFF_UP, IFF_LOWER_UP, IFF_PROMISC = 0x1, 0x10000, 0x100
_NUMBERS = {"mtu": 4, "master": 10, "group": 27, "net_ns_fd": 28}
_NAME, _XDP, _XDP_FD, _XDP_FLAGS = 3, 43, 1, 3
_LINKINFO, _KIND, _DATA, _VETH_PEER, _TX_QUEUES, _RX_QUEUES = 18, 1, 2, 1, 31, 32
_NESTED = 0x8000
_ADDRESS, _OPERSTATE, _STATS64 = 1, 16, 23
OPER_DOWN = 2


@dataclass(frozen=True)
class State:
    """What scenarios ask of a link."""

    flags: int
    address: str
    operstate: int
    sent: int
    """tx_packets."""


def open_socket() -> socket.socket:
    """A socket for the current network namespace."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    for option in (_CAP_ACK, _EXT_ACK):
        made.setsockopt(_SOL_NETLINK, option, 1)
    return made


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, place = {}, 0
    while place + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, place)
        found[kind & 0x3FFF] = data[place + 4 : place + length]
        place += length + (-length % 4)
    return found


def _ask(route: socket.socket, kind: int, body: bytes, flags: int = 0) -> bytes:
    route.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
    answer = route.recv(1 << 16)
    length, told, how, _, _ = _HEADER.unpack_from(answer)
    if told != _ERROR:
        return answer[_HEADER.size : length]
    (error,) = struct.unpack_from("=i", answer, _HEADER.size)
    if error:
        from pyroute2.netlink.exceptions import NetlinkError  # late: most tests never need it

        words = _attributes(answer[_HEADER.size + 4 + _HEADER.size : length]).get(1) if how & _TLVS else None
        raise NetlinkError(-error, words and words.rstrip(b"\0").decode())
    return b""


def set_link(
    route: socket.socket,
    index: int,
    *,
    state: str | None = None,
    flags: int = 0,
    change: int = 0,
    ifname: str | None = None,
    xdp: tuple[int, int] | None = None,
    **numbers: int,
) -> None:
    """RTM_SETLINK; `xdp` is (descriptor or -1, XDP_FLAGS_*).

    Raises:
        NetlinkError: with the kernel's extack as its second argument, or the errno's usual words.
    """
    if state is not None:
        flags, change = flags | IFF_UP * (state == "up"), change | IFF_UP
    body = _INFO.pack(socket.AF_UNSPEC, 0, index, flags, change)
    if ifname is not None:
        body += _attribute(_NAME, ifname.encode() + b"\0")
    for name, value in numbers.items():
        body += _attribute(_NUMBERS[name], struct.pack("=I", value))
    if xdp is not None:
        inner = _attribute(_XDP_FD, struct.pack("=i", xdp[0])) + _attribute(
            _XDP_FLAGS, struct.pack("=I", xdp[1])
        )
        body += _attribute(_XDP | _NESTED, inner)
    _ask(route, _SETLINK, body, _ACK)


@dataclass(frozen=True)
class End:
    """One end of a veth pair that is to be."""

    name: str
    index: int = 0
    """0: the kernel chooses."""
    mtu: int | None = None
    queues: tuple[int | None, int | None] = (None, None)
    """(rx, tx); None: the kernel's default."""
    netns: int | None = None
    """Descriptor of another namespace."""

    def packed(self, group: int) -> bytes:
        """Its struct ifinfomsg and attributes."""
        rx, tx = self.queues
        numbers = {4: self.mtu, 27: group, _RX_QUEUES: rx, _TX_QUEUES: tx, 28: self.netns}
        body = _INFO.pack(socket.AF_UNSPEC, 0, self.index, 0, 0) + _attribute(
            _NAME, self.name.encode() + b"\0"
        )
        given = ((kind, value) for kind, value in numbers.items() if value is not None)
        return body + b"".join(_attribute(kind, struct.pack("=I", value)) for kind, value in given)


def new_veth(route: socket.socket, one: End, other: End, *, group: int = 0) -> None:
    """RTM_NEWLINK of a pair."""
    data = _attribute(_VETH_PEER, other.packed(group))
    info = _attribute(_KIND, b"veth\0") + _attribute(_DATA | _NESTED, data)
    _ask(route, _NEWLINK, one.packed(group) + _attribute(_LINKINFO | _NESTED, info), _ACK | _CREATE_EXCL)


def delete_group(route: socket.socket, group: int) -> None:
    """RTM_DELLINK of all devices of a group.

    Raises:
        NetlinkError: ENODEV where there is none.
    """
    body = _INFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_NUMBERS["group"], struct.pack("=I", group))
    _ask(route, _DELLINK, body, _ACK)


def get_link(route: socket.socket, index: int) -> State:
    """RTM_GETLINK of one device.

    Raises:
        NetlinkError: it isn't there.
    """
    answer = _ask(route, _GETLINK, _INFO.pack(socket.AF_UNSPEC, 0, index, 0, 0))
    _, _, _, flags, _ = _INFO.unpack_from(answer)
    found = _attributes(answer[_INFO.size :])
    (sent,) = struct.unpack_from("=Q", found[_STATS64], 8)
    return State(flags, found.get(_ADDRESS, b"").hex(":"), found[_OPERSTATE][0], sent)
