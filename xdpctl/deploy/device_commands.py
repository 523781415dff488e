"""What would a command of ip or ethtool set, in the words of `xdpctl driver set`? Doctor's fixes become changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.deploy.device_names import RING_SIZES

if TYPE_CHECKING:
    from collections.abc import Sequence


def words_of(argv: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """The device and the settings of a command of doctor.rules.commands: ``ethtool -K D gro on`` is D, ``gro=on``.

    Returns:
        None: the command changes something else than a device's settings.
    """
    tool, *rest = argv
    if tool == "ip" and rest[:3] == ["link", "set", "dev"] and len(rest) > 3:
        words = _of_ip(rest[4:])
        return None if words is None else (rest[3], words)
    if tool == "ethtool" and len(rest) >= 4 and not len(rest) % 2:
        option, device, *pairs = rest
        spelled = _ETHTOOL.get(option)
        if spelled is not None:
            names = [_NAMES.get((option, name), name) for name in pairs[::2]]
            told = zip(names, pairs[1::2], strict=True)
            return device, tuple(spelled.format(name=name, value=value) for name, value in told)
    return None


def _of_ip(rest: Sequence[str]) -> tuple[str, ...] | None:
    if rest in (["up"], ["down"]):
        return (f"up={'on' if rest[0] == 'up' else 'off'}",)
    return (f"mtu={rest[1]}",) if len(rest) == 2 and rest[0] == "mtu" else None


_ETHTOOL = {
    "-K": "features.{name}={value}",
    "-L": "channels.{name}={value}",
    "-G": "{name}={value}",
    "--set-priv-flags": "flag.{name}={value}",
}
_NAMES = {("-G", name): f"{name}-ring" for name in RING_SIZES}
