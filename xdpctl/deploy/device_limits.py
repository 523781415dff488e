"""Would the device take these values? Every misfit at once, before anything is sent.

Mirrors the checks of net/ethtool/{rings,channels,coalesce}.c, dev_validate_mtu(), and those that drivers make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.deploy import device_rings
from xdpctl.deploy.device_names import NAPI_NAMES, SHORT, kernel_feature_names, ring_word
from xdpctl.errors import ConfigError, near

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from xdpctl.deploy.device import DeviceSettings
    from xdpctl.host.model import Link


KEEPS_CHANNELS = frozenset({"virtio_net"})
"""Drivers that refuse, in no words, to change channels under XDP: virtnet_set_channels()."""


class MisfitError(ConfigError):
    """Values that a device can't take; nothing was changed.

    Attributes:
        misfits: one line each: ``rx-ring=9000: at most 4096``.
    """

    def __init__(self, target: str, misfits: Iterable[str]) -> None:
        self.misfits = tuple(misfits)
        one = len(self.misfits) == 1
        told = self.misfits[0] if one else "".join(f"\n  {line}" for line in self.misfits)
        super().__init__(
            f"{target} can't be set so: {told}", hint=f"xdpctl driver show {target} tells its limits"
        )

    def to_json(self) -> dict[str, Any]:
        """The same, and the misfits."""
        return {**super().to_json(), "misfits": list(self.misfits)}


def misfits(link: Link, desired: DeviceSettings) -> list[str]:
    """What the device can't take, one sentence each."""
    return [
        *_mtu(link, desired.mtu),
        *_rings(link, desired.rings),
        *_channels(link, desired.channels),
        *_features(link, desired.features),
        *_coalesce(link, desired.coalesce),
        *_pause(link, desired.pause),
        *_private_flags(link, desired.private_flags),
        *_napi(link, desired.napi),
    ]


def _mtu(link: Link, wanted: int | None) -> Iterator[str]:
    if wanted is None:
        return
    least = 68 if link.min_mtu is None else link.min_mtu
    if wanted < least:
        yield f"mtu={wanted}: at least {least}"
    elif link.max_mtu is not None and wanted > link.max_mtu:
        why = " with the XDP program that is attached" if link.kind == "veth" and link.max_mtu < 65535 else ""
        yield f"mtu={wanted}: at most {link.max_mtu}{why}"


def _none_of(what: str, names: Iterable[str], link: Link) -> str:
    return f"{', '.join(names)}: {link.driver or link.name} has no {what} that can be set"


def _rings(link: Link, wanted: Mapping[str, Any]) -> Iterator[str]:
    if not wanted:
        return
    now = link.rings
    if now is None:
        yield _none_of("rings", map(ring_word, wanted), link)
        return
    for name, value in wanted.items():
        said = f"{ring_word(name)}={_shown(value)}"
        field = name.replace("-", "_")
        if getattr(now, field, None) is None:
            yield f"{said}: its driver has no such setting"
            continue
        if isinstance(value, (bool, str)) or value is None:
            continue
        most = getattr(now, f"{field}_max", None)
        wrong = (
            f"at most {most}" if most is not None and value > most else device_rings.misfit(link, name, value)
        )
        if wrong:
            yield f"{said}: {wrong}"


def _channels(link: Link, wanted: Mapping[str, int]) -> Iterator[str]:
    if not wanted:
        return
    now = link.channels
    if now is None:
        yield _none_of("channels", (f"channels.{name}" for name in wanted), link)
        return
    for name, count in wanted.items():
        most = getattr(now, f"{name}_max")
        if not most and count:
            kinds = [one for one in ("rx", "tx", "combined", "other") if getattr(now, f"{one}_max")]
            yield f"channels.{name}={count}: it has none of these, but {', '.join(kinds) or 'none at all'}"
        elif count > most:
            yield f"channels.{name}={count}: at most {most}"
    if (
        link.driver in KEEPS_CHANNELS
        and link.xdp.native
        and any(getattr(now, one) != wanted[one] for one in wanted)
    ):
        yield f"channels: {link.driver} keeps them while a native XDP program is attached; detach it first"
    after = {name: wanted.get(name, getattr(now, name)) for name in ("rx", "tx", "combined")}
    for way in ("rx", "tx"):
        if not after[way] + after["combined"] and any(name in wanted for name in (way, "combined")):
            yield f"channels.{way}=0: at least one {way} queue must stay"


def _features(link: Link, wanted: Mapping[str, bool]) -> Iterator[str]:
    if wanted and link.features is None:
        yield _none_of("features", wanted, link)
        return
    meant: dict[str, tuple[str, bool]] = {}
    for name, on in wanted.items():
        said = f"{name}={_shown(on)}"
        there = {one: found for one in kernel_feature_names(name) if (found := link.feature(one)) is not None}
        if not there:
            close = near(name, [*SHORT, *(link.features or ())])
            more = f"; did you mean {', '.join(close)}?" if close else ""
            yield f"{said}: this kernel has no such feature{more}"
            continue
        if all(found.fixed for found in there.values()) and any(
            found.active != on for found in there.values()
        ):
            state = "on" if any(found.active for found in there.values()) else "off"
            yield f"{said}: it is {state} [fixed], its driver does not let it change"
        for one in there:
            if one in meant and meant[one][1] != on:
                yield f"{said}: contradicts {meant[one][0]}, both are {one}"
            meant.setdefault(one, (said, on))


def _coalesce(link: Link, wanted: Mapping[str, Any]) -> Iterator[str]:
    if not wanted:
        return
    if not link.coalesce:
        yield _none_of("interrupt coalescing", (f"coalesce.{name}" for name in wanted), link)
        return
    for name, value in wanted.items():
        if name not in link.coalesce:
            yield f"coalesce.{name}={_shown(value)}: its driver takes only {', '.join(link.coalesce)}"


def _pause(link: Link, wanted: Mapping[str, Any]) -> Iterator[str]:
    if wanted and link.pause is None:
        yield _none_of("pause settings", (f"pause.{name}" for name in wanted), link)


def _private_flags(link: Link, wanted: Mapping[str, bool]) -> Iterator[str]:
    known = link.private_flags or {}
    for name, on in wanted.items():
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            yield f"flag.{name}={_shown(on)}: its driver has no such private flag; {there}"


def _napi(link: Link, wanted: Mapping[str, Any]) -> Iterator[str]:
    for name, value in wanted.items():
        said = f"napi.{name}={_shown(value)}"
        if name not in NAPI_NAMES:
            yield f"{said}: no such setting; there is {', '.join(NAPI_NAMES)}"
        elif napi_setting(link, name) is None:
            why = "" if link.napis or link.up else " while it is down"
            yield f"{said}: not to be had here{why}"
        elif name == "defer-hard-irqs" and not 0 <= value < 1 << 31:
            yield f"{said}: from 0 to 2147483647"


_NAPI_FIELDS = {
    "threaded": "threaded",
    "defer-hard-irqs": "defer_hard_irqs",
    "gro-flush-timeout": "gro_flush_timeout_ns",
    "irq-suspend-timeout": "irq_suspend_timeout_ns",
}


def napi_setting(link: Link, name: str) -> int | list[int] | None:
    """A setting of a device's NAPIs now: one number, or one of each where they differ; None: nothing tells."""
    each = [getattr(one, _NAPI_FIELDS[name]) for one in sorted(link.napis or (), key=lambda one: one.id)]
    if each and None not in each:
        return each[0] if len(set(each)) == 1 else each
    return (link.napi_defaults or {}).get(name)


def _shown(value: object) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
