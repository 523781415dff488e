"""What a deployment wants: plain frozen dataclasses, made from TOML by `deploy.load`, compared by `deploy.plan`."""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING

from xdpctl.deploy.device import DeviceSettings
from xdpctl.errors import ConfigError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is said: a file and a line, for messages."""

    file: str = ""
    line: int | None = None
    path: str = ""
    """``interface[0].rings.rx``."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else self.file


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong with a deployment."""

    place: Place
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place.file else ""
        at = f"{self.place.path}: " if self.place.path else ""
        return f"{where}{at}{self.message}" + (f" ({self.hint})" if self.hint else "")

    def to_json(self) -> dict[str, Any]:
        """``{"file", "line", "path", "message", "hint"}``."""
        return {
            "file": self.place.file or None,
            "line": self.place.line,
            "path": self.place.path or None,
            "message": self.message,
            "hint": self.hint,
        }


class DeploymentError(ConfigError):
    """A deployment that can't be: every error at once; nothing was changed.

    Attributes:
        errors: each with its place.
    """

    def __init__(self, errors: Iterable[Wrong], *, hint: str | None = None) -> None:
        self.errors = tuple(sorted(dict.fromkeys(errors), key=_order))
        first = str(self.errors[0])
        count = len(self.errors)
        message = (
            first if count == 1 else "\n".join([f"{count} errors:", *(f"  {one}" for one in self.errors)])
        )
        super().__init__(message, hint=hint)

    def to_json(self) -> dict[str, Any]:
        """The same, and the attribute above."""
        return {**super().to_json(), "errors": [one.to_json() for one in self.errors]}


def _order(one: Wrong) -> tuple[str, int, str]:
    return one.place.file, one.place.line or 0, one.place.path


@dataclass(frozen=True, slots=True)
class MapWish:
    """What a map of a program is made like, and what it holds."""

    name: str
    max_entries: int | None = None
    entries: tuple[tuple[object, object], ...] = ()
    """(key, value) as the file wrote them: text, numbers, tables; encoded by the map's types."""
    on_schema_change: str = "fail"
    """fail, reuse, copy, recreate: what happens to its elements when a new version changes its key or value."""
    place: Place = Place()


@dataclass(frozen=True, slots=True)
class ProgramWish:
    """An object to load, once for all its attachments."""

    name: str
    object: Path
    """The file to load: compiled already where a source was named."""
    digest: str
    """sha256 of the object's bytes, hexadecimal."""
    function: str | None = None
    """Default of its attachments; None: the only one that fits the hook."""
    type: str | None = None
    """What it is loaded as where its section name says nothing (xdp, tc)."""
    settings: tuple[str, ...] = ()
    """``NAME=VALUE`` for global variables."""
    maps: tuple[MapWish, ...] = ()
    place: Place = Place()
    origin: str = ""
    """Where the object was before a deployment kept its copy."""
    source: str = ""
    """What it was compiled from, where a source was named."""


@dataclass(frozen=True, slots=True)
class AttachWish:
    """One program on one hook."""

    program: str
    hook: str = "xdp"
    """xdp, ingress, egress."""
    mode: str = "native"
    """native, generic, offload, auto; of XDP alone."""
    via: str | None = None
    """link, netlink, tcx, clsact; None: the best that is there."""
    order: int = 0
    """Among the programs of a TC hook: lower ones run first."""
    function: str | None = None
    place: Place = Place()


@dataclass(frozen=True, slots=True)
class InterfaceWish:
    """Which interfaces are meant, how they are set, and what is attached to them."""

    name: str | None = None
    match: tuple[str, ...] = ()
    driver: str | None = None
    netns: str | None = None
    """Name or glob; None: the caller's."""
    wait: float = 0.0
    """Seconds that a named interface may take to appear."""
    settings: DeviceSettings = field(default_factory=DeviceSettings)
    attach: tuple[AttachWish, ...] = ()
    place: Place = Place()


@dataclass(frozen=True, slots=True)
class RedirectWish:
    """A promise: frames that a program redirects from one interface reach another."""

    source: str
    target: str
    netns: str | None = None
    ensure: bool = False
    """May set what it needs."""
    place: Place = Place()


@dataclass(frozen=True, slots=True)
class Deployment:
    """All that is wanted under one name."""

    name: str
    adopt: bool = False
    programs: tuple[ProgramWish, ...] = ()
    interfaces: tuple[InterfaceWish, ...] = ()
    redirects: tuple[RedirectWish, ...] = ()

    def program(self, name: str) -> ProgramWish | None:
        """The program by its name in the deployment."""
        for one in self.programs:  # asked for each attachment: no generator
            if one.name == name:
                return one
        return None


_UNITS: dict[str | None, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, None: 1.0}


def seconds(text: str | float | None) -> float:
    """Seconds of ``30s``, ``2min``, ``0.5``."""
    if text is None or isinstance(text, (int, float)):
        return float(text or 0)
    found = re.fullmatch(r"([0-9.]+)(ms|s|min|m|h)?", text)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
