"""A device's settings as they should be, and the ordered changes that lead there. Pure.

Mirrors what ethtool -G, -L, -K, -C, -A, --set-priv-flags, ip link set mtu/up and netdev napi-set change.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from xdpctl.deploy.change import Change, Disturbs, Json
from xdpctl.deploy.device_limits import MisfitError, misfits, napi_setting
from xdpctl.deploy.device_names import THREADED, kernel_feature_names
from xdpctl.deploy.device_rings import rounded
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.host.model import Link

Part = dict[str, Json]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a device should be set to; what is left out stays as it is."""

    up: bool | None = None
    mtu: int | None = None
    rings: Mapping[str, Json] = field(default_factory=dict)
    """rx, tx, rx-mini, rx-jumbo, rx-buf-len, tcp-data-split (on, off, auto), hds-thresh, cqe-size, rx-push, tx-push,
    tx-push-buf-len."""
    channels: Mapping[str, int] = field(default_factory=dict)
    """rx, tx, other, combined."""
    features: Mapping[str, bool] = field(default_factory=dict)
    """By ethtool's kernel names (rx-gro) or its short ones (gro, tso, lro, ...)."""
    coalesce: Mapping[str, Json] = field(default_factory=dict)
    """By ethtool's names: rx-usecs, rx-frames, adaptive-rx, ..."""
    pause: Mapping[str, bool] = field(default_factory=dict)
    """autoneg, rx, tx."""
    private_flags: Mapping[str, bool] = field(default_factory=dict)
    napi: Mapping[str, Json] = field(default_factory=dict)
    """threaded, defer-hard-irqs, gro-flush-timeout (ns), irq-suspend-timeout (ns): for all NAPIs of the device."""


def settings_changes(
    link: Link, desired: DeviceSettings, *, netns: str | None = None, why: str | None = None
) -> list[Change]:
    """The changes that lead from the observed link to the desired settings, in an order that works. Pure.

    Args:
        link: as `host.collect.collect(settings_of=...)` observed it.
        desired: only what differs becomes a change.
        netns: as `netlink.netns.find` takes it, for the changes.
        why: the reason to tell with each; by default what the setting does.

    Raises:
        ConfigError: values that the device can't take: every misfit in one message, one a line.
    """
    wrong = misfits(link, desired)
    if wrong:
        raise MisfitError(link.name, wrong)
    parts = [
        ("device.rings", _ring_change(link, desired.rings)),
        ("device.channels", _channel_change(link, desired.channels)),
        ("device.private-flags", _flag_change(link, desired.private_flags)),
        ("device.coalesce", _mapped(link.coalesce or {}, desired.coalesce)),
        ("device.pause", _pause_change(link, desired.pause)),
        ("device.napi", _napi_change(link, desired.napi)),
        ("device.mtu", _differing({"mtu": link.mtu}, {} if desired.mtu is None else {"mtu": desired.mtu})),
        ("device.up", _differing({"up": link.up}, {} if desired.up is None else {"up": desired.up})),
    ]
    for early, part in _feature_changes(link, desired.features).items():
        parts.append(("device.features early" if early else "device.features", part))
    changes = []
    for kind, (before, after) in parts:
        if after:
            plain = kind.split()[0]
            disturbs = disturbance(link, plain, after)
            place = _place(link, kind, before, after)
            text = why or f"{SAID[plain]}: {_list(before, after)}"
            changes.append(
                (place, Change(plain, netns, link.name, link.ifindex, before, after, text, disturbs))
            )
    return [one for _place, one in sorted(changes, key=lambda pair: pair[0])]


SAID = {
    "device.up": "link state",
    "device.mtu": "MTU",
    "device.rings": "rings",
    "device.channels": "channels",
    "device.features": "features",
    "device.coalesce": "interrupt coalescing",
    "device.pause": "pause frames",
    "device.private-flags": "private flags",
    "device.napi": "NAPI settings",
}
"""What each kind of change is called."""

_ORDER = (
    "down",
    "features early",
    "private-flags",
    "fewer channels",
    "smaller rings",
    "smaller mtu",
    "rings",
    "channels",
    "mtu",
    "pause",
    "coalesce",
    "up",
    "features",
    "napi",
    "veth down",
)
"""What gives room comes before what takes it: merging offloads off before the rings and MTU that exclude them, fewer
queues before larger rings. Features of a veth are switched while it is up, or the kernel forgets to tell its peer
(veth_set_features()); NAPIs come with IFF_UP and anew with rings and channels, so theirs are set last."""

RECEIVE_OFFLOADS = frozenset({"rx-lro", "rx-gro-hw"})
"""Offloads that exclude XDP, header split or large buffers."""


def _place(link: Link, kind: str, before: Part, after: Part) -> int:
    name = kind.partition(".")[2]
    if name == "up":
        name = "up" if after["up"] else "veth down" if link.kind == "veth" else "down"
    elif name == "mtu" and _number(after["mtu"]) < _number(before["mtu"]):
        name = "smaller mtu"
    elif name == "channels" and all(_number(after[one]) <= _number(before[one]) for one in after):
        name = "fewer channels"
    elif name == "rings" and not any(_number(after[one]) > _number(before[one]) for one in after):
        name = "smaller rings"
    return _ORDER.index(name)


def _number(value: Json) -> float:
    return value if isinstance(value, (int, float)) else 0


def disturbance(link: Link, kind: str, after: Mapping[str, Json]) -> Disturbs:
    """What a change does to traffic, as far as drivers are known: hardware resets its link for most of them."""
    if kind == "device.up":
        return "nothing" if after["up"] else "link"
    hardware = link.kind is None and link.driver not in (
        "virtio_net",
        "hv_netvsc",
        "xen_netfront",
        "vif",
        "netdevsim",
    )
    if kind in ("device.rings", "device.channels", "device.private-flags"):
        quiet = not link.up or (kind == "device.rings" and set(after) <= {"hds-thresh"})
        return "nothing" if quiet else "link" if hardware else "traffic"
    if kind in ("device.mtu", "device.pause"):
        return "link" if hardware and link.up else "nothing"
    if kind == "device.features" and hardware and link.up:
        rebuilding = {"rx-vlan-hw-parse", "rx-ntuple-filter", "rx-all", "rx-fcs", *RECEIVE_OFFLOADS}
        return "traffic" if rebuilding & set(after) else "nothing"
    return "nothing"


def _list(before: Part, after: Part) -> str:
    return ", ".join(f"{name} {shown(before[name])} -> {shown(after[name])}" for name in after)


def shown(value: Json) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "/".join(map(shown, value))
    return str(value)


def _differing(now: Mapping[str, Json], wanted: Mapping[str, Json]) -> tuple[Part, Part]:
    names = [name for name, value in wanted.items() if now.get(name) != value]
    return {name: now.get(name) for name in names}, {name: wanted[name] for name in names}


def _mapped(now: Mapping[str, int], wanted: Mapping[str, Json]) -> tuple[Part, Part]:
    """Coalescing, whose switches are numbers in a snapshot."""
    typed: Part = {
        name: bool(value) if isinstance(wanted.get(name), bool) else value for name, value in now.items()
    }
    return _differing(typed, wanted)


def _ring_change(link: Link, wanted: Mapping[str, Json]) -> tuple[Part, Part]:
    now: Part = {name: getattr(link.rings, name.replace("-", "_"), None) for name in wanted}
    if now.get("tcp-data-split") == "unknown":
        now["tcp-data-split"] = "auto"
    taken: Part = {
        name: rounded(link, name, value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in wanted.items()
    }
    return _differing(now, taken)


def _channel_change(link: Link, wanted: Mapping[str, int]) -> tuple[Part, Part]:
    return _differing({name: getattr(link.channels, name, None) for name in wanted}, dict(wanted))


def _flag_change(link: Link, wanted: Mapping[str, bool]) -> tuple[Part, Part]:
    return _differing(dict(link.private_flags or {}), dict(wanted))


def _pause_change(link: Link, wanted: Mapping[str, bool]) -> tuple[Part, Part]:
    return _differing({name: getattr(link.pause, name, None) for name in wanted}, dict(wanted))


def _napi_change(link: Link, wanted: Mapping[str, Json]) -> tuple[Part, Part]:
    now: Part = {}
    for name in wanted:
        value = napi_setting(link, name)
        words = name == "threaded"
        now[name] = (
            [_threaded(one) if words else one for one in value]
            if isinstance(value, list)
            else _threaded(value)
            if words
            else value
        )
    spelled = {
        name: shown(value) if name == "threaded" and isinstance(value, bool) else value
        for name, value in wanted.items()
    }
    return _differing(now, spelled)


def _threaded(value: int | None) -> str | None:
    return None if value is None or not 0 <= value < len(THREADED) else THREADED[value]


def _feature_changes(link: Link, wanted: Mapping[str, bool]) -> dict[bool, tuple[Part, Part]]:
    """By whether they come early. What was *wanted* is what is put back, and what veth's driver tests."""
    changes: dict[bool, tuple[Part, Part]] = {True: ({}, {}), False: ({}, {})}
    for given, on in wanted.items():
        for name in kernel_feature_names(given):
            now = link.feature(name)
            if now is None or now.fixed or now.wanted == on:
                continue
            before, after = changes[not on and name in RECEIVE_OFFLOADS]
            before[name], after[name] = now.wanted, on
    return changes
