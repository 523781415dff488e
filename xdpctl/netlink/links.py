"""Making and changing namespaces and virtual links, for labs (RTM_NEWLINK, RTM_DELLINK, ``ip netns add``).

Everything happens in the namespace that the calling thread is in: go there with `netns.enter`.
"""

from __future__ import annotations

import contextlib
import errno as errno_module
import os
import re
import struct
from pathlib import Path

from xdpctl.errors import ConfigError, NetlinkError, PrivilegeError, errno_text
from xdpctl.netlink import ethtool, interfaces, netns, wire
from xdpctl.netlink.attributes import NLA_F_NESTED, attr, attr_nest, attr_text, attr_u32

RTM_NEWLINK = 16
RTM_DELLINK = 17
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
IFF_UP = 0x1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 18, 28, 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16}

_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_IFINFO = struct.Struct("=BxHiII")
_NAME = re.compile(r"[^\s/\0]{1,255}")


def create_namespace(name: str) -> netns.NetnsRef:
    """A new network namespace, bound under /run/netns as ``ip netns add`` does; its lo is down.

    Raises:
        ConfigError: the name is taken, or can't be a file name.
        PrivilegeError: needs CAP_SYS_ADMIN.
    """
    from xdpctl.libbpf import libc

    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigError(f"{name!r} can't name a network namespace", hint="use letters, digits and dashes")
    path = f"{netns.RUN_NETNS}/{name}"
    try:
        Path(netns.RUN_NETNS).mkdir(mode=0o755, parents=True, exist_ok=True)
        _share(netns.RUN_NETNS)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError as error:
        raise ConfigError(f"network namespace {name} exists already") from error
    except OSError as error:
        raise _refused(f"creating network namespace {name}", error) from error
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.unshare(netns.CLONE_NEWNET)
        try:
            libc.mount("/proc/thread-self/ns/net", path, None, _MS_BIND)
        finally:
            libc.setns(back, netns.CLONE_NEWNET)
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise _refused(f"creating network namespace {name}", error) from error
    finally:
        os.close(back)
    return netns.find(name)


def delete_namespace(name: str) -> None:
    """Take a namespace's name away; it ends, with its links, when no process is left inside.

    Raises:
        NotFoundError: there is none of that name.
        PrivilegeError: needs CAP_SYS_ADMIN.
    """
    from xdpctl.libbpf import libc

    ref = netns.find(name)
    try:
        libc.umount(ref.path, 2)  # MNT_DETACH
        Path(ref.path).unlink()
    except OSError as error:
        raise _refused(f"deleting network namespace {name}", error) from error


def _share(folder: str) -> None:
    """Let bind mounts below be seen by other mount namespaces, as iproute2 does."""
    from xdpctl.libbpf import libc

    try:
        libc.mount("", folder, None, _MS_SHARED | _MS_REC)
    except OSError as error:
        if error.errno != errno_module.EINVAL:  # EINVAL: not a mount point yet
            raise
        libc.mount(folder, folder, None, _MS_BIND | _MS_REC)
        libc.mount("", folder, None, _MS_SHARED | _MS_REC)


def _refused(action: str, error: OSError) -> PrivilegeError | NetlinkError:
    if error.errno in (errno_module.EPERM, errno_module.EACCES):
        return PrivilegeError(action, capability="CAP_SYS_ADMIN", errno=error.errno)
    return NetlinkError(f"{action}: {errno_text(error.errno or 0)}", errno=error.errno)


def create_veth(
    name: str,
    peer: str,
    *,
    peer_netns: netns.NetnsRef | str | None = None,
    mtu: int | None = None,
    rx_queues: int | None = None,
    tx_queues: int | None = None,
    address: str | None = None,
    peer_address: str | None = None,
) -> None:
    """A veth pair, both ends down: `name` here, `peer` here or in `peer_netns`; queues and MTU hold for both.

    Raises:
        NetlinkError: the kernel refused (EEXIST: a name is taken).
        PrivilegeError: needs CAP_NET_ADMIN.
    """
    with contextlib.ExitStack() as stack:
        there = b""
        if peer_netns is not None:
            ref = netns.find(peer_netns) if isinstance(peer_netns, str) else peer_netns
            descriptor = netns.open_nsfs(ref)
            stack.callback(os.close, descriptor)
            there = attr_u32(IFLA_NET_NS_FD, descriptor)
        both = _optional(IFLA_MTU, mtu) + _optional(IFLA_NUM_RX_QUEUES, rx_queues)
        both += _optional(IFLA_NUM_TX_QUEUES, tx_queues)
        other = (
            _IFINFO.pack(0, 0, 0, 0, 0) + attr_text(IFLA_IFNAME, peer) + _address(peer_address) + both + there
        )
        _create(name, "veth", attr(VETH_INFO_PEER | NLA_F_NESTED, other), _address(address) + both)


def create(
    name: str,
    kind: str,
    *,
    lower: str | None = None,
    vlan_id: int | None = None,
    mode: str | None = None,
    mtu: int | None = None,
    rx_queues: int | None = None,
    tx_queues: int | None = None,
    address: str | None = None,
) -> None:
    """A virtual link that is down: bridge, ifb, dummy, vlan (lower, vlan_id), macvlan, macvtap (lower, mode).

    Raises:
        NotFoundError: there is no `lower`.
        ConfigError: `mode` is none of macvlan's.
        NetlinkError: the kernel refused (EOPNOTSUPP: it lacks the kind).
        PrivilegeError: needs CAP_NET_ADMIN.
    """
    data = b""
    if vlan_id is not None:
        data = attr(1, struct.pack("=H", vlan_id))
    elif mode is not None:
        if mode not in MACVLAN_MODES:
            raise ConfigError(f"{kind} has no mode {mode}", hint=f"one of {', '.join(MACVLAN_MODES)}")
        data = attr_u32(1, MACVLAN_MODES[mode])
    more = _optional(IFLA_MTU, mtu) + _optional(IFLA_NUM_RX_QUEUES, rx_queues) + _address(address)
    more += _optional(IFLA_NUM_TX_QUEUES, tx_queues)
    if lower is not None:
        more += attr_u32(IFLA_LINK, interfaces.ifindex(lower))
    _create(name, kind, data, more)


def delete(name: str) -> None:
    """Remove a link (a veth with its peer).

    Raises:
        NotFoundError: there is none of that name.
        NetlinkError: EOPNOTSUPP: it is no virtual one.
        PrivilegeError: needs CAP_NET_ADMIN.
    """
    _ask(RTM_DELLINK, _IFINFO.pack(0, 0, interfaces.ifindex(name), 0, 0), f"deleting {name}")


def set_up(name: str, up: bool = True) -> None:
    """Set a link up, or down.

    Raises:
        NotFoundError, NetlinkError, PrivilegeError: as `set_mtu`.
    """
    header = _IFINFO.pack(0, 0, interfaces.ifindex(name), IFF_UP if up else 0, IFF_UP)
    _ask(RTM_NEWLINK, header, f"setting {name} {'up' if up else 'down'}")


def set_mtu(name: str, mtu: int) -> None:
    """Change a link's MTU (bytes).

    Raises:
        NotFoundError: there is none of that name.
        NetlinkError: the kernel refused, in its own words (EINVAL: beyond its limits).
        PrivilegeError: needs CAP_NET_ADMIN.
    """
    _change(name, attr_u32(IFLA_MTU, mtu), f"setting the MTU of {name} to {mtu}")


def change(ifindex: int, *, up: bool | None = None, mtu: int | None = None) -> None:
    """Change a link by its number, so that none that took over its name is meant.

    Raises:
        NetlinkError: refused, in the kernel's words; ENODEV: it is gone.
        PrivilegeError: needs CAP_NET_ADMIN.
    """
    what = f"setting {'the MTU of ' if mtu is not None else ''}{ethtool.label(ifindex)}"
    flags, mask = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    if mtu is not None:
        what += f" to {mtu}"
    elif up is not None:
        what += " up" if up else " down"
    _ask(RTM_NEWLINK, _IFINFO.pack(0, 0, ifindex, flags, mask) + _optional(IFLA_MTU, mtu), what)


def set_address(name: str, address: str) -> None:
    """Change a link's hardware address.

    Raises:
        NotFoundError, NetlinkError, PrivilegeError: as `set_mtu`.
    """
    _change(name, _address(address), f"setting the address of {name}")


def set_master(name: str, master: str | None) -> None:
    """Make a link a port of a bridge or bond, or of none.

    Raises:
        NotFoundError, NetlinkError, PrivilegeError: as `set_mtu`.
    """
    number = interfaces.ifindex(master) if master else 0
    _change(name, attr_u32(IFLA_MASTER, number), f"making {name} a port of {master or 'none'}")


def move(name: str, where: netns.NetnsRef | str) -> None:
    """Move a link to another namespace; it goes down on the way.

    Raises:
        NotFoundError, NetlinkError, PrivilegeError: as `set_mtu`.
    """
    ref = netns.find(where) if isinstance(where, str) else where
    descriptor = netns.open_nsfs(ref)
    try:
        _change(
            name, attr_u32(IFLA_NET_NS_FD, descriptor), f"moving {name} to {ref.label or 'this namespace'}"
        )
    finally:
        os.close(descriptor)


def _optional(number: int, value: int | None) -> bytes:
    return b"" if value is None else attr_u32(number, value)


def _address(value: str | None) -> bytes:
    if value is None:
        return b""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", value):
        raise ConfigError(f"{value!r} is no hardware address", hint="write it as 02:00:00:00:00:01")
    return attr(IFLA_ADDRESS, bytes.fromhex(value.replace(":", "")))


def _create(name: str, kind: str, data: bytes, more: bytes) -> None:
    info = attr(IFLA_INFO_KIND, kind.encode())
    if data:
        info += attr_nest(IFLA_INFO_DATA, data)
    payload = (
        _IFINFO.pack(0, 0, 0, 0, 0) + attr_text(IFLA_IFNAME, name) + more + attr_nest(IFLA_LINKINFO, info)
    )
    _ask(RTM_NEWLINK, payload, f"creating {kind} {name}", NLM_F_CREATE | NLM_F_EXCL)


def _change(name: str, attrs: bytes, what: str) -> None:
    _ask(RTM_NEWLINK, _IFINFO.pack(0, 0, interfaces.ifindex(name), 0, 0) + attrs, what)


def _ask(message: int, payload: bytes, what: str, flags: int = 0) -> None:
    with wire.Socket(wire.NETLINK_ROUTE) as sock:
        try:
            sock.request(message, payload, flags=flags, what=what)
        except NetlinkError as error:
            if error.errno == errno_module.EPERM:
                raise PrivilegeError(what, capability="CAP_NET_ADMIN", errno=error.errno) from error
            raise
