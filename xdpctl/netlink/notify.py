"""What does the kernel tell by itself? Multicast groups of rtnetlink and ethtool netlink (netlink(7), rtnetlink(7))."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import TYPE_CHECKING

from xdpctl.errors import KernelError, NetlinkError
from xdpctl.netlink import genl, netns, wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

    from xdpctl.netlink.netns import NetnsRef

RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_NSID = 1, 4, 28
NETLINK_ADD_MEMBERSHIP = 1
ETHTOOL, MONITOR = "ethtool", "monitor"
"""Generic netlink family and group that tell of every changed setting (ETHTOOL_MCGRP_MONITOR_NAME, Linux 5.6)."""


class Watcher:
    """Sockets in several namespaces that hear of links, qdiscs, filters and device settings; a context manager.

    Args:
        spaces: the namespaces.

    Raises:
        NetlinkError, PrivilegeError, NotFoundError: one can't be listened in.
    """

    def __init__(self, spaces: Iterable[NetnsRef | None]) -> None:
        self._stack = contextlib.ExitStack()
        self._poll = select.poll()
        self._sockets: dict[int, socket.socket] = {}
        self._more: list[int] = []
        try:
            for space in spaces:
                with netns.enter(space):
                    self._listen()
        except BaseException:
            self._stack.close()
            raise

    def _listen(self) -> None:
        route = self._open(wire.NETLINK_ROUTE)
        for group in (RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_NSID):
            route.setsockopt(wire.SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        with contextlib.suppress(KernelError, OSError):  # before 5.6 settings change unheard
            with wire.Socket(wire.NETLINK_GENERIC) as asking:
                group = genl.group_id(asking, ETHTOOL, MONITOR)
            generic = self._open(wire.NETLINK_GENERIC)
            generic.setsockopt(wire.SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def _open(self, family: int) -> socket.socket:
        try:
            made = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family
            )
            self._stack.callback(made.close)
            made.bind((0, 0))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except OSError as error:
            raise NetlinkError(f"can't listen on netlink: {error.strerror}", errno=error.errno) from error
        self._sockets[made.fileno()] = made
        self._poll.register(made.fileno(), select.POLLIN)
        return made

    def also(self, fd: int) -> None:
        """Wake up when this descriptor is readable, too (inotify); it is read empty, and stays the caller's."""
        self._more.append(fd)
        self._poll.register(fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep until something was told, at most so long; whether something was.

        Messages that were lost (ENOBUFS) count as told.
        """
        ready = self._poll.poll(None if seconds is None else max(0, int(seconds * 1000)))
        for fd, _ in ready:
            self._drain(fd)
        return bool(ready)

    def _drain(self, fd: int) -> None:
        if fd in self._more:
            with contextlib.suppress(BlockingIOError):
                while os.read(fd, 1 << 16):
                    pass
            return
        made = self._sockets[fd]
        while True:
            try:
                if not made.recv(1 << 17):
                    return
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != 105:  # ENOBUFS: some were lost
                    raise NetlinkError(
                        f"listening on netlink: {error.strerror}", errno=error.errno
                    ) from error
