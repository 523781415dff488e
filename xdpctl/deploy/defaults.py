"""Which settings of a device somebody has changed, as far as the kernel's own defaults are known; and all of them.

No interface tells a driver's defaults: rings, channels, coalescing and offloads of hardware are told only when all
settings are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.deploy.device import DeviceSettings, settings_changes
from xdpctl.deploy.device_names import CHANNEL_NAMES, PAUSE_NAMES, RING_NAMES
from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.deploy.change import Json
    from xdpctl.host.model import Kernel, Link

ETHERNET, LOOPBACK = 1, 772
ETHERNET_MTU = 1500
"""ether_setup(): ETH_DATA_LEN."""
SOFT_ON = ("rx-gro", "tx-generic-segmentation")
"""NETIF_F_SOFT_FEATURES: register_netdevice() asks for them on every device."""
SOFT_OFF = ("tx-nocache-copy", "rx-gro-list", "rx-udp-gro-forwarding")
"""NETIF_F_SOFT_FEATURES_OFF, and NETIF_F_NOCACHE_COPY: offered by every device, asked for by none."""


def differing(link: Link, kernel: Kernel) -> DeviceSettings:
    """Settings that are not what the kernel begins with, of those whose beginning is known.

    Args:
        link: observed with its settings (`collect(settings=True)`).
        kernel: GRO of a veth is off from Linux 5.13 on (veth_disable_gro()).
    """
    if link.type == LOOPBACK:
        return DeviceSettings()
    features = {}
    for name, one in (link.features or {}).items():
        default = _feature_default(link, name, kernel)
        if not one.fixed and default is not None and one.wanted != default:
            features[name] = one.wanted
    channels = {}
    if link.kind == "veth" and link.channels is not None:  # veth_init_queues(): one each
        channels = {name: getattr(link.channels, name) for name in ("rx", "tx")}
        channels = channels if any(one != 1 for one in channels.values()) else {}
    changed_mtu = link.type == ETHERNET and link.mtu != ETHERNET_MTU
    napi = {name: value for name, value in _napi(link).items() if value}
    return fitting(
        link,
        DeviceSettings(
            mtu=link.mtu if changed_mtu else None, features=features, channels=channels, napi=napi
        ),
    )


def _feature_default(link: Link, name: str, kernel: Kernel) -> bool | None:
    if name in SOFT_OFF:
        return False
    if link.kind == "veth":
        if name == "rx-gro":
            return not kernel.at_least(5, 13)
        return True  # veth_setup() offers and asks for VETH_FEATURES
    return True if name in SOFT_ON else None


def everything(link: Link) -> DeviceSettings:
    """Every setting that the device has and takes."""
    if link.type == LOOPBACK:
        return DeviceSettings()
    rings = {name: getattr(link.rings, name.replace("-", "_"), None) for name in RING_NAMES}
    if rings["tcp-data-split"] == "unknown":
        rings["tcp-data-split"] = "auto"
    channels = {
        name: getattr(link.channels, name)
        for name in CHANNEL_NAMES
        if link.channels is not None and getattr(link.channels, f"{name}_max")
    }
    return fitting(
        link,
        DeviceSettings(
            up=link.up,
            mtu=link.mtu,
            rings={name: one for name, one in rings.items() if one is not None},
            channels=channels,
            features={name: one.wanted for name, one in (link.features or {}).items() if not one.fixed},
            coalesce=_switches(link.coalesce or {}),
            pause={name: getattr(link.pause, name) for name in PAUSE_NAMES} if link.pause is not None else {},
            private_flags=dict(link.private_flags or {}),
            napi=_napi(link),
        ),
    )


def _switches(values: Mapping[str, int]) -> dict[str, Json]:
    from xdpctl.netlink import coalesce

    return {name: bool(value) if name in coalesce.SWITCHES else value for name, value in values.items()}


def _napi(link: Link) -> dict[str, Json]:
    found: dict[str, Json] = dict(link.napi_defaults or {})
    threaded = found.get("threaded")
    if threaded is not None:
        found.pop("threaded")
        if threaded in (0, 1):  # a file knows on and off; busy polling is set per NAPI
            found["threaded"] = bool(threaded)
    return found


def fitting(link: Link, settings: DeviceSettings) -> DeviceSettings:
    """Those of the settings that asking for changes nothing: what a driver shows, it may refuse to be asked for."""
    kept: dict[str, Any] = {}
    for name in DeviceSettings.__slots__:
        value = getattr(settings, name)
        if isinstance(value, (bool, int, type(None))):
            kept[name] = value if value is not None and _quiet(link, {name: value}) else None
        else:
            kept[name] = dict(value) if _quiet(link, {name: value}) else {
                key: one for key, one in value.items() if _quiet(link, {name: {key: one}})
            }  # fmt: skip
    return DeviceSettings(**kept)


def _quiet(link: Link, part: dict[str, Any]) -> bool:
    try:
        return not settings_changes(link, DeviceSettings(**part))
    except ConfigError:
        return False


def as_now(link: Link, asked: DeviceSettings) -> DeviceSettings:
    """What was asked for, with the values that the device has now."""
    from xdpctl.deploy.device_names import kernel_feature_names
    from xdpctl.deploy.plan import FIELDS

    made: dict[str, Any] = {name: getattr(asked, name) for name in DeviceSettings.__slots__}
    made = {name: dict(one) if hasattr(one, "items") else one for name, one in made.items()}
    try:
        changes = settings_changes(link, asked)
    except ConfigError:
        return fitting(link, asked)
    for one in changes:
        name = FIELDS[one.kind]
        if name in ("up", "mtu"):
            made[name] = one.before[name]
            continue
        if name == "features":  # tso stands for five, which may differ now
            for short in [each for each in made[name] if kernel_feature_names(each) != (each,)]:
                kernel = kernel_feature_names(short)
                if any(each in one.after for each in kernel):
                    value = made[name].pop(short)
                    made[name].update({each: value for each in kernel if link.feature(each) is not None})
        for setting, value in one.before.items():
            if value is None or isinstance(value, (list, tuple)):
                made[name].pop(setting, None)
            else:
                made[name][setting] = _typed(setting, value)
    return fitting(link, DeviceSettings(**made))


def _typed(setting: str, value: Json) -> Json:
    return value == "on" if setting == "threaded" else value
