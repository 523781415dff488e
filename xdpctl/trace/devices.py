"""Names behind what tracers key their figures by: devices as the kernel saw them, namespaces, programs, maps."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from xdpctl.errors import ConfigError, NotFoundError, XdpctlError
from xdpctl.netlink import interfaces, netns
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xdpctl.bpf.map import Map

_KEY = struct.Struct("=II")
_VALUE = struct.Struct("=16s16s")


@dataclass(frozen=True, slots=True)
class Device:
    """A network device as an event named it."""

    netns: int
    """Inode of its network namespace."""
    ifindex: int
    name: str | None
    """None: it was gone, or never there."""
    kind: str | None = None
    """rtnl's (``veth``, ``macvtap``, ``tun``); None for hardware, or where it is not known."""

    def label(self, labels: Mapping[int, str]) -> str:
        """``veth0``, or ``blue/veth0`` in a namespace that is not the caller's."""
        name = self.name or f"ifindex {self.ifindex}"
        where = labels.get(self.netns, f"net:[{self.netns}]")
        return f"{where}/{name}" if where else name

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """``{"name", "ifindex", "netns", "kind"}``."""
        return {
            "name": self.name,
            "ifindex": self.ifindex,
            "netns": labels.get(self.netns, f"net:[{self.netns}]") or None,
            "kind": self.kind,
        }


def _text(raw: bytes) -> str | None:
    return raw.split(b"\0", 1)[0].decode(errors="replace") or None


def read_devices(devices: Map) -> dict[tuple[int, int], Device]:
    """What a tracer's map `devices` holds, by (namespace's inode, ifindex)."""
    found = {}
    for key, value in devices.items():
        inode, ifindex = _KEY.unpack(key)
        name, kind = _VALUE.unpack(value)
        found[inode, ifindex] = Device(inode, ifindex, _text(name), _text(kind))
    return found


def namespace_labels() -> dict[int, str]:
    """Inode -> how people name a namespace; "" for the caller's own."""
    labels = {one.inode: one.label for one in netns.discover()}
    labels[netns.current().inode] = ""
    return labels


def chosen(patterns: Iterable[str], *, in_netns: str | None = None) -> frozenset[tuple[int, int]] | None:
    """(namespace's inode, ifindex) of the interfaces named; None where nothing was named: all, everywhere.

    Raises:
        NotFoundError: no such interface or namespace; near names in the hint.
        PrivilegeError: the namespace may not be entered.
    """
    named = tuple(patterns)
    if not named and in_netns is None:
        return None
    with netns.enter(in_netns) as where:
        inode = where.inode
        if not named:
            return frozenset((inode, ifindex) for ifindex in interfaces.names())
        return frozenset((inode, ifindex) for _, ifindex in interfaces.expand(named))


@dataclass(slots=True)
class Names:
    """Names of programs and maps by id, looked up once: what is gone later keeps its name."""

    _programs: dict[int, str | None]
    _maps: dict[int, str | None]

    @classmethod
    def empty(cls) -> Names:
        """None looked up yet."""
        return cls({}, {})

    def program(self, number: int) -> str | None:
        """Name of a loaded program; None: none, gone, or not to be known."""
        if not number:
            return None
        if number not in self._programs:
            from xdpctl.bpf.program import program_by_id

            try:
                with program_by_id(number) as held:
                    self._programs[number] = held.info().name or None
            except (NotFoundError, ConfigError, XdpctlError, OSError):
                self._programs[number] = None
        return self._programs[number]

    def map(self, number: int) -> str | None:
        """Name of a map; None: none, gone, or not to be known."""
        if not number:
            return None
        if number not in self._maps:
            from xdpctl.bpf.map import open_map

            try:
                with open_map(number) as held:
                    self._maps[number] = held.name or None
            except (XdpctlError, OSError):
                self._maps[number] = None
        return self._maps[number]
