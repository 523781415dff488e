"""What changed, as the kernel tells it: links, device settings (ethtool), XDP features and page pools (netdev).

A listener hears the namespace in which it was opened. Groups that a kernel does not have are left out, and told.
"""

from __future__ import annotations

import errno
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import NetlinkError, UnsupportedError
from xdpctl.netlink import ethtool, genl, netdev, rtnl, wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Self

RTNLGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK = 16, 17

LINKS, SETTINGS, DEVICES, PAGE_POOLS = "links", "settings", "devices", "page-pools"
GROUPS = {SETTINGS: ("ethtool", "monitor"), DEVICES: ("netdev", "mgmt"), PAGE_POOLS: ("netdev", "page-pool")}
"""What can be listened to, by family and group; LINKS is rtnetlink's."""

_NETDEV = {
    2: "device-add",
    3: "device-delete",
    4: "device-change",
    6: "page-pool-add",
    7: "page-pool-delete",
    8: "page-pool-change",
}
"""NETDEV_CMD_*_NTF."""
_ETHTOOL = {
    3: "linkinfo",
    5: "linkmodes",
    13: "features",
    15: "private-flags",
    17: "rings",
    19: "channels",
    21: "coalesce",
    23: "pause",
    25: "eee",
    31: "fec",
    36: "module",
}
"""ETHTOOL_MSG_*_NTF."""


class Notice(NamedTuple):
    """One notification."""

    what: str
    """link-change, link-delete; rings, channels, features, ...; device-change, page-pool-add, ...; lost: some were not
    read in time, look at everything anew."""
    ifindex: int | None
    about: Any = None
    """rtnl.RawLink, netdev.Device or netdev.PagePool; None for settings: read them."""


class Listener:
    """Open netlink sockets that hear; a context manager.

    Args:
        what: of LINKS, SETTINGS, DEVICES, PAGE_POOLS.

    Raises:
        NetlinkError: no socket can be opened.
    """

    def __init__(self, what: Iterable[str] = (LINKS, SETTINGS, DEVICES, PAGE_POOLS)) -> None:
        wanted = tuple(what)
        self.lacking: list[str] = []
        """Those of `what` that this kernel does not tell."""
        self._sockets: list[wire.Socket] = []
        self._families: dict[int, str] = {}
        try:
            if LINKS in wanted:
                self._open(wire.NETLINK_ROUTE).join(RTNLGRP_LINK)
            generic = [one for one in wanted if one in GROUPS]
            if generic:
                sock = self._open(wire.NETLINK_GENERIC)
                for one in generic:
                    family, group = GROUPS[one]
                    try:
                        sock.join(genl.group_id(sock, family, group))
                    except UnsupportedError:
                        self.lacking.append(one)
                    else:
                        self._families[genl.family_id(sock, family)] = family
        except BaseException:
            self.close()
            raise

    def _open(self, family: int) -> wire.Socket:
        made = wire.Socket(family)
        self._sockets.append(made)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more."""
        for one in self._sockets:
            one.close()
        self._sockets = []

    def notices(self, seconds: float | None = None) -> Iterator[Notice]:
        """What is heard until the time is over; None: for ever.

        Raises:
            NetlinkError: the kernel sent what can't be read.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            ready, _, _ = select.select(self._sockets, (), (), None if left is None else max(left, 0))
            for sock in ready:
                yield from self._read(sock)
            if not ready and left is not None and left <= 0:
                return

    def _read(self, sock: wire.Socket) -> Iterator[Notice]:
        try:
            heard = sock.heard()
        except NetlinkError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield Notice("lost", None)
            return
        for kind, payload in heard:
            found = (
                _link(kind, payload) if sock.family == wire.NETLINK_ROUTE else self._generic(kind, payload)
            )
            if found is not None:
                yield found

    def _generic(self, kind: int, payload: wire.Payload) -> Notice | None:
        data, start, end = payload
        family = self._families.get(kind)
        if family is None or end - start < genl.GENL_HDRLEN:
            return None
        command, start = data[start], start + genl.GENL_HDRLEN
        if family == "ethtool":
            what = _ETHTOOL.get(command)
            return None if what is None else Notice(what, ethtool.leading_header(data, start, end)[0])
        what = _NETDEV.get(command)
        if what is None:
            return None
        about: Any = (netdev.decode_device if what.startswith("device") else netdev.decode_pool)(
            data, start, end
        )
        return None if about is None else Notice(what, about.ifindex, about)


def _link(kind: int, payload: wire.Payload) -> Notice | None:
    if kind not in (RTM_NEWLINK, RTM_DELLINK):
        return None
    link = rtnl.decode_link(*payload)
    return Notice("link-delete" if kind == RTM_DELLINK else "link-change", link.ifindex, link)
