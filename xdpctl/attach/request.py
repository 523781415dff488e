"""What a user asks of attach and detach, checked for contradictions before anything is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MODE_CHOICES = ("native", "generic", "offload", "auto")
HOOK_CHOICES = ("xdp", "ingress", "egress")
VIA_CHOICES = ("link", "netlink", "tcx", "clsact")
XDP_VIA = ("link", "netlink")
TC_VIA = ("tcx", "clsact")
MIGRATE_CHOICES = ("reuse", "copy", "recreate", "fail")


class MapSetting(NamedTuple):
    """``--map NAME=...``: what a map of the object is made from, or how large."""

    name: str
    pin: str | None = None
    """Path of a pinned map to use; a relative one starts at the bpffs."""
    max_entries: int | None = None


class MigrateChoice(NamedTuple):
    """``--migrate``: what becomes of a pinned map that differs from the object's."""

    choice: str
    """One of MIGRATE_CHOICES."""
    map: str | None = None
    """None: every map that none is given for."""


class Position(NamedTuple):
    """Where a TC program goes among those of its hook."""

    place: str
    """first, last, before, after."""
    anchor: str | None = None
    """For before and after: name or id of a program that is there."""


LAST = Position("last")


class AttachRequest(NamedTuple):
    """One attach: one program of one object onto one hook of several interfaces."""

    object: Path
    interfaces: tuple[str, ...]
    """Names or globs."""
    netns: str | None = None
    mode: str | None = None
    """One of MODE_CHOICES; None: native, the only mode that was worth calling the default."""
    hook: str | None = None
    via: str | None = None
    program: str | None = None
    type: str | None = None
    """What ``--type`` said, for a section name that says nothing."""
    settings: tuple[str, ...] = ()
    """``NAME=VALUE`` for global variables."""
    maps: tuple[MapSetting, ...] = ()
    replace: bool = False
    position: Position | None = None
    migrate: tuple[MigrateChoice, ...] = ()

    def check(self) -> AttachRequest:
        """Itself, when nothing in it contradicts itself.

        Raises:
            ConfigError: it does.
        """
        if not self.interfaces:
            raise ConfigError(
                "no interface given", hint=f"xdpctl attach IFACE {self.object}: the object comes last"
            )
        _one_of("--mode", self.mode, MODE_CHOICES)
        _one_of("--hook", self.hook, HOOK_CHOICES)
        _one_of("--via", self.via, VIA_CHOICES)
        for one in self.migrate:
            _one_of("--migrate", one.choice, MIGRATE_CHOICES)
        for_tc = self.hook in ("ingress", "egress") or self.via in TC_VIA or self.position is not None
        for_xdp = self.hook == "xdp" or self.via in XDP_VIA or self.mode is not None
        if for_tc and for_xdp:
            raise ConfigError(
                f"{self._option_of('tc')} is for TC programs, {self._option_of('xdp')} for XDP",
                hint="native and generic are modes of XDP; TC hooks have none",
            )
        return self

    def _option_of(self, family: str) -> str:
        """The option that says this is for XDP, or for TC."""
        if family == "tc":
            if self.hook in ("ingress", "egress"):
                return f"--hook {self.hook}"
            return (
                f"--via {self.via}"
                if self.via in TC_VIA
                else f"--{self.position.place if self.position else ''}"
            )
        if self.hook == "xdp":
            return "--hook xdp"
        return f"--via {self.via}" if self.via in XDP_VIA else f"--mode {self.mode}"


class DetachRequest(NamedTuple):
    """One detach: everything that matches leaves the interfaces."""

    interfaces: tuple[str, ...]
    """Names or globs."""
    netns: str | None = None
    mode: str | None = None
    hook: str | None = None
    program: str | None = None
    """Name or id."""
    all: bool = False
    """Every hook, where several have something."""
    foreign: bool = False
    """Also what xdpctl did not attach."""
    keep_maps: bool = False

    def check(self) -> DetachRequest:
        """Itself, when nothing in it contradicts itself.

        Raises:
            ConfigError: it does.
        """
        if not self.interfaces:
            raise ConfigError("no interface given", hint="xdpctl detach IFACE")
        _one_of("--mode", self.mode, MODE_CHOICES[:3])
        _one_of("--hook", self.hook, HOOK_CHOICES)
        if self.mode is not None and self.hook in ("ingress", "egress"):
            raise ConfigError(f"--mode {self.mode} is for XDP, --hook {self.hook} for TC programs")
        return self


def _one_of(option: str, value: str | None, choices: Iterable[str]) -> None:
    if value is not None and value not in choices:
        raise ConfigError(f"{option} {value}: no such choice", hint=f"one of {', '.join(choices)}")


def parse_map(text: str) -> MapSetting:
    """``NAME=PIN`` or ``NAME=max_entries=N``.

    Raises:
        ConfigError: neither.
    """
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise ConfigError(
            f"--map {text}: not of the form NAME=PIN or NAME=max_entries=N",
            hint="--map flows=xdpctl/maps/flows, --map flows=max_entries=4096",
        )
    key, equals, number = value.partition("=")
    if key != "max_entries" or not equals:
        return MapSetting(name, pin=value)
    try:
        count = int(number, 0)
    except ValueError:
        count = 0
    if not 0 < count < 1 << 32:
        raise ConfigError(f"--map {text}: max_entries is a number from 1 to 4294967295, not {number!r}")
    return MapSetting(name, max_entries=count)


def parse_migrate(text: str) -> MigrateChoice:
    """``copy``, or ``NAME=copy`` for one map.

    Raises:
        ConfigError: no such choice.
    """
    name, equals, choice = text.rpartition("=")
    if choice not in MIGRATE_CHOICES or (equals and not name):
        raise ConfigError(
            f"--migrate {text}: no such choice",
            hint=f"one of {', '.join(MIGRATE_CHOICES)}, or NAME=... for one map",
        )
    return MigrateChoice(choice, name or None)


def merge_maps(settings: Iterable[MapSetting]) -> tuple[MapSetting, ...]:
    """Settings of the same map put together.

    Raises:
        ConfigError: a map that is given a pin can't be given a size as well.
    """
    merged: dict[str, MapSetting] = {}
    for one in settings:
        before = merged.get(one.name)
        if before is not None and (before.pin or one.pin):
            raise ConfigError(
                f"--map {one.name}: given twice", hint="a pinned map has its size already: give only the pin"
            )
        merged[one.name] = one
    return tuple(merged.values())
