"""Which interfaces does the current network namespace have, by name and ifindex? (if_nameindex(3))."""

from __future__ import annotations

import fnmatch
import socket
from typing import TYPE_CHECKING

from xdpctl.errors import NetlinkError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

_WILD = frozenset("*?[")


def names() -> dict[int, str]:
    """Every interface: ifindex -> name.

    Raises:
        NetlinkError: the kernel does not list them.
    """
    try:
        return dict(socket.if_nameindex())
    except OSError as error:
        raise NetlinkError(f"can't list interfaces: {error.strerror}", errno=error.errno) from error


def ifindex(name: str) -> int:
    """The ifindex of an interface; alternative names (altname) count too.

    Raises:
        NotFoundError: there is none of that name; near ones are suggested.
    """
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        if len(name) > 15:  # SIOCGIFINDEX knows alternative names too, but none longer than a name may be
            from xdpctl.netlink import rtnl

            for link in rtnl.links():
                if name in link.altnames:
                    return link.ifindex
        raise NotFoundError("interface", name, known=names().values()) from error


def expand(patterns: Iterable[str]) -> list[tuple[str, int]]:
    """Names and globs (``veth*``) to (name, ifindex), each interface once, in the order asked for.

    Raises:
        NotFoundError: a name does not exist, or a glob matches nothing.
    """
    found: dict[int, str] = {}
    known: dict[int, str] | None = None
    for pattern in patterns:
        if not _WILD.intersection(pattern):
            found.setdefault(ifindex(pattern), pattern)
            continue
        if known is None:
            known = names()
        matching = {number: name for number, name in known.items() if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            raise NotFoundError("interface", pattern, known=known.values(), hint=_among(known.values()))
        for number, name in matching.items():
            found.setdefault(number, name)
    return [(name, number) for number, name in found.items()]


def _among(known: Iterable[str]) -> str:
    listed = sorted(known)
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    return f"no interface matches; there is {', '.join(listed[:12])}{more}"
