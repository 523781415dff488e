"""Executing changes of kind ``device.*``: reads what is, sends what differs, reads back what became of it.

Each kind has a reader of the settings that a change names and a sender (netlink.rings, channels, features, ...).
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.deploy.change import namespace
from xdpctl.deploy.device import shown
from xdpctl.deploy.device_names import THREADED
from xdpctl.errors import KernelError, NetlinkError, NotFoundError, UnsupportedError
from xdpctl.netlink import (
    channels,
    coalesce,
    device_files,
    features,
    interfaces,
    links,
    netdev,
    netns,
    pause,
    private_flags,
    rings,
    rtnl,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from xdpctl.deploy.change import Change, Context, Json

Values = dict[str, Any]


class Kind(NamedTuple):
    """How one kind of setting is read and sent."""

    read: Callable[[int, Collection[str]], Values]
    """(ifindex, names) -> the settings now; a name that is not to be had is left out."""
    send: Callable[[int, Values], None]
    check: Callable[[int, Collection[str]], Values] | None = None
    """What became of it, where that is more than reading again."""


def execute(change: Change, context: Context) -> None:
    """Make the change in its namespace; where it holds already, nothing is sent.

    Raises:
        NotFoundError: the interface is gone, or another one has its name now.
        PrivilegeError: CAP_NET_ADMIN is missing, or /sys is read-only.
        UnsupportedError: this kernel can't.
        NetlinkError: refused, in the kernel's words; or it said yes and did otherwise.
    """
    kind = KINDS[change.kind]
    with netns.enter(namespace(change, context)):
        ifindex = _ifindex(change)
        wanted = dict(change.after)
        try:
            now = kind.read(ifindex, wanted)
            differing = {name: value for name, value in wanted.items() if now.get(name) != value}
            if not differing:
                return
            kind.send(ifindex, differing)
            became = (kind.check or kind.read)(ifindex, wanted)
        except KernelError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO) or not _there(ifindex):
                raise _gone(change) from error
            raise
    _compare(change, now, became, differing, context)


def _ifindex(change: Change) -> int:
    """The very device that was meant."""
    if change.ifindex is None:
        return interfaces.ifindex(change.target)
    if not _there(change.ifindex):
        raise _gone(change)
    return change.ifindex


def _there(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        return False
    return True


def _gone(change: Change) -> NotFoundError:
    where = f"network namespace {change.netns}" if change.netns else None
    return NotFoundError(
        "interface", change.target, where=where, hint="it was there before: somebody removed it meanwhile"
    )


def _compare(change: Change, now: Values, became: Values, sent: Values, context: Context) -> None:
    """A driver may round, which is told; it may also say yes and do nothing, which is a failure."""
    ignored = []
    for name, value in sent.items():
        is_now = became.get(name)
        if is_now == value:
            continue
        if is_now == now.get(name) or isinstance(value, (bool, str)):
            ignored.append(f"{name} stays {shown(is_now)} where {shown(value)} was asked for")
        else:
            context.tell(f"{change.target}: its driver made {name} {shown(is_now)} of {shown(value)}")
    if ignored:
        hint = None
        if change.kind == "device.features":
            hint = "another feature that it needs is off, or one that excludes it is on"
        raise NetlinkError(f"{change.target}: the driver said yes, but {', '.join(ignored)}", hint=hint)


def _read_link(ifindex: int, _names: Collection[str]) -> Values:
    found = rtnl.link(ifindex)
    return {"mtu": found.mtu, "up": bool(found.flags & links.IFF_UP)}


def _send_link(ifindex: int, values: Values) -> None:
    links.change(ifindex, **values)


def _read_rings(ifindex: int, names: Collection[str]) -> Values:
    found = rings.rings_of(ifindex)
    values = {name: getattr(found, name.replace("-", "_"), None) for name in names}
    if values.get("tcp-data-split") == "unknown":
        values["tcp-data-split"] = "auto"
    return values


def _read_channels(ifindex: int, names: Collection[str]) -> Values:
    found = channels.channels_of(ifindex)
    return {name: getattr(found, name) for name in names}


def _read_features(ifindex: int, names: Collection[str]) -> Values:
    """What is wanted: a feature that waits for another one is not asked for twice."""
    return _feature_bits(features.features_of(ifindex).wanted, names)


def _check_features(ifindex: int, names: Collection[str]) -> Values:
    """What is on."""
    return _feature_bits(features.features_of(ifindex).active, names)


def _feature_bits(bits: int, names: Collection[str]) -> Values:
    places = {name: place for place, name in enumerate(features.names()) if name in names}
    return {name: bool(bits >> place & 1) for name, place in places.items()}


def _read_pause(ifindex: int, _names: Collection[str]) -> Values:
    found = pause.pause_of(ifindex)
    return {} if found is None else {"autoneg": found.autoneg, "rx": found.rx, "tx": found.tx}


def _read_flags(ifindex: int, _names: Collection[str]) -> Values:
    return dict(private_flags.private_flags_of(ifindex))


def _read_coalesce(ifindex: int, _names: Collection[str]) -> Values:
    return dict(coalesce.coalesce_of(ifindex))


_NAPI = {
    "threaded": "threaded",
    "defer-hard-irqs": "defer_hard_irqs",
    "gro-flush-timeout": "gro_flush_timeout_ns",
    "irq-suspend-timeout": "irq_suspend_timeout_ns",
}


def _napis(ifindex: int) -> list[netdev.RawNapi]:
    try:
        return sorted((one for one in netdev.napis() if one.ifindex == ifindex), key=lambda one: one.id)
    except (UnsupportedError, NetlinkError):
        return []  # before 6.8


def _read_napi(ifindex: int, names: Collection[str]) -> Values:
    found = _napis(ifindex)
    values: Values = {}
    for name in names:
        each = [getattr(one, _NAPI[name]) for one in found]
        if each and None not in each:
            spelled = [THREADED[one] for one in each] if name == "threaded" else each
            values[name] = spelled[0] if len(set(spelled)) == 1 else spelled
    lacking = [name for name in names if name not in values]
    if lacking:
        defaults = device_files.read([(ifindex, socket.if_indextoname(ifindex))]).get(ifindex, {})
        for name in lacking:
            if name in defaults:
                values[name] = THREADED[defaults[name]] if name == "threaded" else defaults[name]
    return values


def _send_napi(ifindex: int, values: Mapping[str, Json]) -> None:
    """Each NAPI by netlink where the kernel lets it be set (6.13; threaded: 6.17), else all by /sys/class/net."""
    found = _napis(ifindex)
    name_now = socket.if_indextoname(ifindex)
    for name, value in values.items():
        wanted = value if isinstance(value, list) else [value] * len(found)
        numbers = [THREADED.index(str(one)) if name == "threaded" else int(str(one)) for one in wanted]
        by_netlink = bool(found) and getattr(found[0], _NAPI[name]) is not None
        if by_netlink and len(numbers) == len(found):
            for napi, number in zip(found, numbers, strict=True):
                netdev.set_napi(napi.id, {name: number})
        elif name in device_files.FILES and (isinstance(value, str) or numbers or not found):
            number = THREADED.index(str(value)) if name == "threaded" else int(str(value))
            device_files.write(ifindex, name_now, name, number)
        else:
            raise UnsupportedError(f"setting {name} of {name_now}", needs="Linux 6.13", has="an older kernel")


KINDS: dict[str, Kind] = {
    "device.up": Kind(_read_link, _send_link),
    "device.mtu": Kind(_read_link, _send_link),
    "device.rings": Kind(_read_rings, rings.set_rings),
    "device.channels": Kind(_read_channels, channels.set_channels),
    "device.features": Kind(_read_features, features.set_features, _check_features),
    "device.coalesce": Kind(_read_coalesce, coalesce.set_coalesce),
    "device.pause": Kind(_read_pause, pause.set_pause),
    "device.private-flags": Kind(_read_flags, private_flags.set_private_flags),
    "device.napi": Kind(_read_napi, _send_napi),
}
"""Every kind of device setting."""
