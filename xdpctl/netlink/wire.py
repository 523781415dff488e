"""What does the kernel answer on a netlink socket? (messages of include/uapi/linux/netlink.h).

Requests, dumps of many parts, repeated when something changed meanwhile, and errors with the kernel's own
words (extack). Payloads are built and decoded by `xdpctl.netlink.attributes`.
"""

from __future__ import annotations

import contextlib
import errno as errno_module
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import NetlinkError, errno_text
from xdpctl.netlink.attributes import BYTE_ORDER, TEXT, U32, attributes, malformed, name_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.netlink.attributes import Kind

NETLINK_ROUTE = 0
NETLINK_GENERIC = 16

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP = 0x300
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4
NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS, NLMSGERR_ATTR_MISS_TYPE = 1, 2, 5

SO_NETNS_COOKIE = 71
"""asm-generic/socket.h; Linux 5.14."""
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

_BUFFER = 1 << 17
"""Bytes of one recvmsg; the kernel fills at most 32 KiB a dump message unless one object alone is larger."""
_RETRIES = 5
"""Dumps begun when something changes meanwhile (NLM_F_DUMP_INTR), before the last is taken as it is."""
_PATIENCE_SECONDS = 10

_HEADER = struct.Struct("=IHHII")
_unpack_errno = struct.Struct("=i").unpack_from

Payload = tuple[bytes, int, int]
"""One message's payload: the datagram it lies in, and where it starts and ends there."""


_ERROR_ATTRIBUTES = {
    NLMSGERR_ATTR_MSG: ("msg", TEXT),
    NLMSGERR_ATTR_OFFS: ("offset", U32),
    NLMSGERR_ATTR_MISS_TYPE: ("missing", U32),
}


class _Asked(NamedTuple):
    """A request as sent, to find in it what its refusal points at."""

    payload: bytes
    names: Mapping[int, tuple[str, Kind]]
    fixed: int
    """Bytes of the family's own header, before the attributes."""

    def attribute(self, told: Mapping[str, int]) -> str | None:
        """Name of the attribute that the extack means (its offset counts from the netlink header)."""
        if "missing" in told:
            return self.names.get(told["missing"], (None,))[0]
        if "offset" not in told:
            return None
        with contextlib.suppress(NetlinkError):
            at = told["offset"] - _HEADER.size
            return name_at(self.payload, self.fixed, len(self.payload), at, self.names)
        return None


def _extack(data: bytes, start: int, end: int) -> dict[str, Any]:
    try:
        return attributes(data, start, end, _ERROR_ATTRIBUTES)
    except NetlinkError:
        return {}  # the errno is worth more than a complaint about its explanation


class Socket:
    """A netlink socket in the network namespace that the calling thread is in when it is opened.

    It stays in that namespace afterwards. Requests and dumps are counted in `sent`.

    Args:
        family: NETLINK_ROUTE or NETLINK_GENERIC.

    Raises:
        NetlinkError: the socket can't be opened.
    """

    total_sent = 0
    """Datagrams sent by all sockets of this process: what "dumps, not per interface" is tested by."""

    def __init__(self, family: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        except OSError as error:
            raise NetlinkError(f"can't open a netlink socket: {error.strerror}", errno=error.errno) from error
        self._sequence = 0
        self._asked: _Asked | None = None
        self.family = family
        self.warning: str | None = None
        """The extack of the last request that succeeded, if it had one."""
        self.interrupted = False
        """A dump stayed inconsistent (NLM_F_DUMP_INTR) however often it was repeated."""
        try:
            self._socket.bind((0, 0))
            for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
                with contextlib.suppress(OSError):  # 4.3, 4.12, 4.20: an older kernel says less, but answers
                    self._socket.setsockopt(SOL_NETLINK, option, 1)
            # a kernel that does not answer (a driver that hangs under rtnl) must not hang us for ever
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _PATIENCE_SECONDS, 0)
            )
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except OSError as error:
            self._socket.close()
            raise NetlinkError(
                f"can't set up a netlink socket: {error.strerror}", errno=error.errno
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; closing twice is fine."""
        self._socket.close()

    def cookie(self) -> int | None:
        """What no other network namespace of this boot has, unlike the inode; None: before Linux 5.14."""
        try:
            return int.from_bytes(
                self._socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder
            )
        except OSError:
            return None

    def request(
        self,
        message: int,
        payload: bytes = b"",
        *,
        flags: int = 0,
        what: str = "netlink request",
        names: Mapping[int, tuple[str, Kind]] | None = None,
        fixed: int = 0,
    ) -> Payload | None:
        """Ask for one object, or for one change, and wait for the answer.

        Args:
            message: RTM_GETLINK, a generic netlink family id, ...
            payload: the family's own header and the attributes.
            flags: more NLM_F_*.
            what: the operation in words, for the error.
            names: table of the request's attributes, so that a refusal names the one that it is about.
            fixed: bytes of the family's own header at the start of the payload.

        Returns:
            The answer's payload, None when the kernel only acknowledged.

        Raises:
            NetlinkError: the kernel refused (errno, extack), or did not answer.
        """
        sequence = self._send(message, NLM_F_REQUEST | NLM_F_ACK | flags, payload, what)
        self.warning = None
        self._asked = None if names is None else _Asked(payload, names, fixed)
        answer: Payload | None = None
        done = False
        while not done:
            _flags, found, done = self._datagram(sequence, what)
            if found:
                answer = found[-1]
        return answer

    def dump(self, message: int, payload: bytes = b"", *, what: str = "netlink dump") -> list[Payload]:
        """Ask for all objects.

        A dump that something changed under (NLM_F_DUMP_INTR) is repeated a few times; then the last is taken
        and `interrupted` set.

        Raises:
            NetlinkError: the kernel refused (errno, extack), or did not answer.
        """
        self._asked = None
        for _attempt in range(_RETRIES):
            sequence = self._send(message, NLM_F_REQUEST | NLM_F_DUMP, payload, what)
            found: list[Payload] = []
            torn = done = False
            while not done:
                flags, part, done = self._datagram(sequence, what)
                found += part
                torn = torn or bool(flags & NLM_F_DUMP_INTR)
            if not torn:
                return found
        self.interrupted = True
        return found

    def join(self, group: int) -> None:
        """Hear a multicast group's notifications from now on, by `heard`.

        Raises:
            NetlinkError: there is no such group.
        """
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            raise NetlinkError(
                f"listening to netlink group {group}: {errno_text(error.errno or 0)}", errno=error.errno
            ) from error

    def fileno(self) -> int:
        """The descriptor, for select."""
        return self._socket.fileno()

    def heard(self) -> list[tuple[int, Payload]]:
        """Notifications that are there now: (message type, payload) each; [] for none.

        Raises:
            NetlinkError: ENOBUFS: some were lost because nobody read them in time.
        """
        try:
            data, _control, _flags, sender = self._socket.recvmsg(_BUFFER, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError as error:
            what = "notifications were lost" if error.errno == errno_module.ENOBUFS else "listening"
            raise NetlinkError(f"{what}: {errno_text(error.errno or 0)}", errno=error.errno) from error
        if sender[0] != 0:
            return []
        found: list[tuple[int, Payload]] = []
        at = 0
        while at + 16 <= len(data):
            length, kind, _flag, _number, _port = _HEADER.unpack_from(data, at)
            if length < 16 or at + length > len(data):
                raise malformed(f"a message of {length} bytes in {len(data) - at}")
            found.append((kind, (data, at + 16, at + length)))
            at += (length + 3) & ~3
        return found

    def _send(self, message: int, flags: int, payload: bytes, what: str) -> int:
        self._sequence += 1
        Socket.total_sent += 1
        header = _HEADER.pack(_HEADER.size + len(payload), message, flags, self._sequence, 0)
        try:
            self._socket.send(header + payload)
        except OSError as error:
            raise NetlinkError(f"{what}: {errno_text(error.errno or 0)}", errno=error.errno) from error
        return self._sequence

    def _datagram(self, sequence: int, what: str) -> tuple[int, list[Payload], bool]:
        """The next datagram: its messages' flags, their payloads, and whether the answer ends with it."""
        try:
            data, _control, received, sender = self._socket.recvmsg(_BUFFER)
        except BlockingIOError as error:
            raise NetlinkError(
                f"{what}: the kernel did not answer within {_PATIENCE_SECONDS} s",
                errno=errno_module.ETIMEDOUT,
            ) from error
        except OSError as error:
            raise NetlinkError(f"{what}: {errno_text(error.errno or 0)}", errno=error.errno) from error
        if received & socket.MSG_TRUNC:
            raise NetlinkError(f"{what}: an answer longer than {_BUFFER} bytes", errno=errno_module.EMSGSIZE)
        if sender[0] != 0:
            return 0, [], False  # from another process, not from the kernel
        return self._split(data, sequence, what)

    def _split(self, data: bytes, sequence: int, what: str) -> tuple[int, list[Payload], bool]:
        found: list[Payload] = []
        all_flags = at = 0
        total = len(data)
        while at + 16 <= total:
            length, kind, flags, number, _port = _HEADER.unpack_from(data, at)
            if length < 16 or at + length > total:
                raise malformed(f"a message of {length} bytes in {total - at}")
            start, end = at + 16, at + length
            at += (length + 3) & ~3
            if number != sequence:
                continue  # left over from an answer that was given up
            all_flags |= flags
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                self._finish(kind, flags, (data, start, end), what)
                return all_flags, found, True
            if kind == NLMSG_OVERRUN:
                raise NetlinkError(f"{what}: answers were lost", errno=errno_module.ENOBUFS)
            found.append((data, start, end))
        return all_flags, found, False

    def _finish(self, kind: int, flags: int, payload: Payload, what: str) -> None:
        """Raise what NLMSG_ERROR or NLMSG_DONE says; keep the extack of a success as `warning`."""
        data, start, end = payload
        if end - start < 4:
            if kind == NLMSG_DONE:
                return  # before 4.15 a dump may end without a status
            raise malformed("an error message without an errno")
        code = -_unpack_errno(data, start)[0]
        told: dict[str, Any] = {}
        if flags & NLM_F_ACK_TLVS:
            more = start + 4
            if kind == NLMSG_ERROR:
                more += 16
                if (
                    not flags & NLM_F_CAPPED and end - start >= 8
                ):  # the whole request is repeated before the extack
                    more = start + 4 + ((int.from_bytes(data[start + 4 : start + 8], BYTE_ORDER) + 3) & ~3)
            told = _extack(data, more, end)
        text = told.get("msg")
        if code:
            attribute = self._asked.attribute(told) if self._asked is not None else None
            about = f" (about {attribute})" if attribute else ""
            raise NetlinkError(
                f"{what}: {text or errno_text(code)}{about}", errno=code, extack=text, attribute=attribute
            )
        self.warning = text or self.warning
