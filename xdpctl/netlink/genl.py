"""Generic netlink: families by name, and their commands (include/uapi/linux/genetlink.h)."""

from __future__ import annotations

import errno
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xdpctl.errors import NetlinkError, UnsupportedError
from xdpctl.netlink import wire
from xdpctl.netlink.attributes import TEXT, U16, U32, Kind, attr_text, attributes, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_NAME = 2
GENL_HDRLEN = 4


def _groups_of(data: bytes, start: int, end: int) -> list[dict[str, Any]]:
    """CTRL_ATTR_MCAST_GROUPS: an array whose elements are numbered by their place."""
    return [attributes(data, at, stop, _GROUP) for _place, at, stop in walk(data, start, end)]


_GROUP = {1: ("name", TEXT), 2: ("id", U32)}
_FAMILY = {1: ("id", U16), 7: ("groups", Kind(decode=_groups_of))}

_SINCE = {"ethtool": "Linux 5.6", "netdev": "Linux 6.3"}
_ids: dict[str, int] = {}
_groups: dict[tuple[str, str], int] = {}
# family ids are the machine's, not a namespace's, and stay until a module is unloaded
_absent: set[str] = set()
# asked again, the kernel would run modprobe again each time (ctrl_getfamily); ours are never in modules


@contextmanager
def genl_socket(opened: wire.Socket | None) -> Iterator[wire.Socket]:
    """The NETLINK_GENERIC socket that was given, or one of the current namespace for the while."""
    if opened is not None:
        yield opened
        return
    with wire.Socket(wire.NETLINK_GENERIC) as own:
        yield own


def family_id(sock: wire.Socket, name: str) -> int:
    """The number of a family.

    Raises:
        UnsupportedError: this kernel has no such family.
        NetlinkError: the kernel refused otherwise.
    """
    if name in _absent:
        raise _lacking(name)
    if name not in _ids:
        payload = struct.pack("=BBH", CTRL_CMD_GETFAMILY, 1, 0) + attr_text(CTRL_ATTR_FAMILY_NAME, name)
        try:
            answer = sock.request(GENL_ID_CTRL, payload, what=f"looking up the netlink family {name}")
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            if name in _SINCE:
                _absent.add(name)
            raise _lacking(name) from error
        told: dict[str, Any] = {}
        if answer is not None:
            data, start, end = answer
            told = attributes(data, start + GENL_HDRLEN, end, _FAMILY)
        if "id" not in told:
            raise NetlinkError(f"the kernel gave no id for the netlink family {name}")
        _ids[name] = told["id"]
        for group in told.get("groups", ()):
            if "name" in group and "id" in group:
                _groups[name, group["name"]] = group["id"]
    return _ids[name]


def group_id(sock: wire.Socket, family: str, group: str) -> int:
    """The number of a family's multicast group, to be joined with `wire.Socket.join`.

    Raises:
        UnsupportedError: this kernel has no such family, or the family no such group.
        NetlinkError: the kernel refused otherwise.
    """
    family_id(sock, family)
    found = _groups.get((family, group))
    if found is None:
        raise UnsupportedError(
            f"notifications {group} of the netlink family {family}",
            needs="a newer kernel",
            has="one without them",
            errno=errno.ENOENT,
        )
    return found


def _lacking(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"the netlink family {name}",
        needs=_SINCE.get(name, "a newer kernel"),
        has="a kernel without it",
        errno=errno.ENOENT,
    )


def dump(
    opened: wire.Socket | None, family: str, command: int, attrs: bytes, what: str
) -> list[wire.Payload]:
    """Every object of one command; payloads start at the attributes.

    Raises:
        UnsupportedError: this kernel has no such family.
        NetlinkError: the kernel refused.
    """
    with genl_socket(opened) as sock:
        payload = struct.pack("=BBH", command, 1, 0) + attrs
        answers = sock.dump(family_id(sock, family), payload, what=what)
    return [(data, start + GENL_HDRLEN, end) for data, start, end in answers]


def request(
    opened: wire.Socket | None,
    family: str,
    command: int,
    attrs: bytes,
    what: str,
    *,
    names: Mapping[int, tuple[str, Kind]] | None = None,
) -> wire.Payload | None:
    """One object, or one change; the payload starts at the attributes.

    Args:
        opened: a NETLINK_GENERIC socket to use.
        family: its name.
        command: the family's.
        attrs: the encoded attributes.
        what: the operation in words, for the error.
        names: table of `attrs`, so that a refusal names the one that it is about.

    Raises:
        UnsupportedError: this kernel has no such family.
        NetlinkError: the kernel refused.
    """
    with genl_socket(opened) as sock:
        payload = struct.pack("=BBH", command, 1, 0) + attrs
        answer = sock.request(family_id(sock, family), payload, what=what, names=names, fixed=GENL_HDRLEN)
    if answer is None:
        return None
    data, start, end = answer
    return data, start + GENL_HDRLEN, end
