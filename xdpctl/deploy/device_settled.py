"""What changes of devices made of each setting: as it was, and as it is now or would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.deploy.device_names import ring_word
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdpctl.deploy.change import Change, Json

_PREFIX = {
    "device.channels": "channels.",
    "device.coalesce": "coalesce.",
    "device.pause": "pause.",
    "device.private-flags": "flag.",
    "device.napi": "napi.",
}


@dataclass(frozen=True, slots=True)
class Settled:
    """One setting of one device."""

    interface: str
    netns: str | None
    setting: str
    """In the words of `xdpctl driver set`; a feature by the kernel's name."""
    before: Json
    after: Json

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name."""
        return {
            "interface": self.interface,
            "netns": self.netns,
            "setting": self.setting,
            "before": self.before,
            "after": self.after,
        }


def planned(changes: Sequence[Change]) -> list[Settled]:
    """What changes would make of the settings; of one that is changed twice, the first and the last. Pure."""
    found: dict[tuple[str | None, str, str], Settled] = {}
    for one in changes:
        for name, value in one.after.items():
            word = _word(one.kind, name)
            key = one.netns, one.target, word
            was = found[key].before if key in found else one.before.get(name)
            found[key] = Settled(one.target, one.netns, word, was, value)
    return list(found.values())


def settled(changes: Sequence[Change]) -> list[Settled]:
    """What changes that were made have become: the values are read from the devices.

    Raises:
        NotFoundError: a device is gone.
        NetlinkError: it won't tell.
    """
    now = dict(_read(changes))
    return [
        Settled(
            one.interface,
            one.netns,
            one.setting,
            one.before,
            now.get((one.netns, one.interface, one.setting)),
        )
        for one in planned(changes)
    ]


def _read(changes: Sequence[Change]) -> Iterator[tuple[tuple[str | None, str, str], Json]]:
    from xdpctl.deploy.device_execute import KINDS
    from xdpctl.netlink import interfaces, netns

    for one in changes:
        with netns.enter(one.netns):
            index = one.ifindex if one.ifindex is not None else interfaces.ifindex(one.target)
            kind = KINDS[one.kind]
            values = (kind.check or kind.read)(index, one.after)
        for name in one.after:
            yield (one.netns, one.target, _word(one.kind, name)), values.get(name)


def _word(kind: str, name: str) -> str:
    return ring_word(name) if kind == "device.rings" else f"{_PREFIX.get(kind, '')}{name}"
