"""What runs now, as a deployment that `xdpctl plan` finds nothing to do for: the way from a shell script to a file."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import field
from typing import TYPE_CHECKING, Any

from xdpctl.deploy import defaults, exported_program
from xdpctl.deploy.desired import RedirectWish
from xdpctl.deploy.device import DeviceSettings
from xdpctl.deploy.exported_program import LeftOut, ProgramPart
from xdpctl.deploy.resolve import label_of
from xdpctl.errors import ConfigError, NotFoundError, PrivilegeError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xdpctl.deploy.running import Held, OnHook, Running
    from xdpctl.host.model import Link, LinkRef, Namespace

STEP = 10
"""Distance of orders, where none is known."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be exported."""

    interfaces: tuple[str, ...] = ()
    """Names or globs; (): all. They choose among what is in no deployment."""
    netns: str | None = None
    all_netns: bool = False
    deployment: str | None = None
    """It alone."""
    name: str | None = None
    """Of what is in no deployment; None: the host's."""
    all_settings: bool = False
    entries: bool = False
    """All elements of the programs' maps, not only those that a deployment declares."""
    copy_to: Path | None = None
    """Where objects and long lists of elements are copied."""
    relative_to: Path | None = None
    """Folder of the file that is written: what is copied below it is named relative to it."""


@dataclass(slots=True)
class InterfacePart:
    """One [[interface]]."""

    link: Link
    netns: str | None
    settings: DeviceSettings
    attach: list[dict[str, Any]] = field(default_factory=list)
    wait: float = 0.0
    driver: str | None = None


@dataclass(slots=True)
class Exported:
    """A deployment that says what runs."""

    name: str
    adopt: bool = False
    held: bool = False
    """Whether there is a deployment of this name."""
    programs: list[ProgramPart] = field(default_factory=list)
    interfaces: list[InterfacePart] = field(default_factory=list)
    redirects: list[RedirectWish] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.programs or self.interfaces or self.redirects)


def export(request: Request, *, progress: Callable[[str], None] = lambda _text: None) -> list[Exported]:
    """What runs now: every deployment, and what is in none, as deployments.

    Raises:
        NotFoundError: no such deployment, namespace or interface.
        PrivilegeError: loaded programs can't be listed.
        ConfigError: an object can't be copied.
    """
    from xdpctl.deploy import running

    progress("looking at the machine")
    seen = running.look()
    if not seen.whole:
        raise PrivilegeError("tell what runs", capability="CAP_SYS_ADMIN")
    if request.deployment is not None and request.deployment not in seen.deployments:
        if request.deployment in seen.broken:
            raise ConfigError(seen.broken[request.deployment])
        raise NotFoundError("deployment", request.deployment, known=seen.deployments)
    spaces = _spaces(request, seen)
    chosen = _chosen(request, seen, spaces)
    made = []
    for name, held in seen.deployments.items():
        if request.deployment in (None, name) and (not request.interfaces or _concerns(held, seen, chosen)):
            progress(f"deployment {name}")
            made.append(
                _Maker(request, seen, Exported(name, held.stored.deployment.adopt, held=True)).held(held)
            )
    if request.deployment is None:
        name = request.name or _host_name()
        progress("what is in no deployment")
        made.append(_Maker(request, seen, Exported(name)).loose(chosen))
    for name, why in seen.broken.items() if made else ():
        made[-1].left_out.append(LeftOut(f"deployment {name}", why))
    return made


def together(parts: list[Exported]) -> Exported:
    """One deployment and what is in none, as one; they must be at most one deployment.

    Raises:
        ConfigError: they are several.
    """
    named = [one for one in parts if one.held]
    loose = [one for one in parts if not one.held]
    if len(named) > 1:
        listed = ", ".join(one.name for one in named)
        raise ConfigError(
            f"{len(named)} deployments run here ({listed}), and a file holds one",
            hint=f"--deployment {named[0].name}, or -o FOLDER/ for a file of each",
        )
    if not named:
        return loose[0]
    whole = named[0]
    taken = {one.name for one in whole.programs}
    for part in loose:
        for one in part.programs:
            fresh = exported_program.free_name(one.name, taken)
            for interface in part.interfaces:
                for attach in interface.attach:
                    if attach["program"] == one.name:
                        attach["program"] = fresh
            one.name = fresh
            taken.add(fresh)
            whole.programs.append(one)
        whole.interfaces += part.interfaces
        whole.redirects += [one for one in part.redirects if one not in whole.redirects]
        whole.left_out += part.left_out
        whole.adopt = whole.adopt or part.adopt
    return whole


def _host_name() -> str:
    made = re.sub(r"[^A-Za-z0-9_-]+", "-", os.uname().nodename.partition(".")[0]).strip("-")[:64]
    return made or "exported"


def _spaces(request: Request, seen: Running) -> list[Namespace]:
    if request.all_netns:
        return list(seen.snapshot.namespaces)
    found = seen.snapshot.namespace_named(request.netns)
    if found is None:
        known = [one.label for one in seen.snapshot.namespaces if one.label]
        raise NotFoundError("network namespace", request.netns or "", known=known)
    return [found]


def _chosen(request: Request, seen: Running, spaces: Sequence[Namespace]) -> set[LinkRef]:
    links = [one for space in spaces for one in space.links]
    if not request.interfaces:
        return {one.ref for one in links}
    found = set()
    for pattern in request.interfaces:
        hits = {one.ref for one in links if one.name == pattern or fnmatch.fnmatchcase(one.name, pattern)}
        if not hits:
            raise NotFoundError("interface", pattern, known=[one.name for one in links], where=request.netns)
        found |= hits
    del seen
    return found


def _concerns(held: Held, seen: Running, chosen: set[LinkRef]) -> bool:
    name = held.stored.name
    return any(ref in chosen for ref in held.found.links) or any(
        one.deployment == name and one.link.ref in chosen for one in seen.programs
    )


class _Maker:
    def __init__(self, request: Request, seen: Running, made: Exported) -> None:
        self.request = request
        self.seen = seen
        self.made = made
        self.parts: dict[LinkRef, InterfacePart] = {}
        self.copy = exported_program.Copier(request.copy_to, request.relative_to)

    def part(self, link: Link, settings: DeviceSettings) -> InterfacePart:
        found = self.parts.get(link.ref)
        if found is None:
            label = label_of(self.seen.snapshot, link.netns)
            found = self.parts[link.ref] = InterfacePart(link, label, settings)
            self.made.interfaces.append(found)
            if label is not None and label.startswith(("pid:", "net:[")):
                self.leave_out(
                    f"the name of network namespace {label}", "it has none: this one ends with its process"
                )
        return found

    def leave_out(self, what: str, why: str) -> None:
        if not any(one.what == what for one in self.made.left_out):
            self.made.left_out.append(LeftOut(what, why))

    def settings(self, link: Link, asked: DeviceSettings) -> DeviceSettings:
        if self.request.all_settings:
            return _over(defaults.everything(link), defaults.as_now(link, asked))
        return defaults.as_now(link, asked)

    # -- a deployment ---------------------------------------------------------------------------------------------

    def held(self, held: Held) -> Exported:
        stored = held.stored.deployment
        mine = [one for one in self.seen.programs if one.deployment == stored.name]
        used: list[str] = []
        for wrong in held.found.wrong:
            self.leave_out(f"what {wrong.place} wants", wrong.message)
        for ref, wish in held.found.links.items():
            link = self.seen.snapshot.link(ref)
            here = [one for one in mine if one.link.ref == ref]
            if link is None or (
                not here and wish.settings == DeviceSettings() and not self.request.all_settings
            ):
                continue
            part = self.part(link, self.settings(link, wish.settings))
            part.wait = max((one.wait for one in stored.interfaces if one.name == link.name), default=0.0)
            for missing in wish.hooked:
                if not any(one.key == missing.key and one.hook == missing.wish.hook for one in here):
                    self.leave_out(
                        f"{missing.wish.program} on {missing.wish.hook} of {link.name}",
                        "applied, but not there now",
                    )
        for place, one in enumerate(mine):
            part = self.part(one.link, DeviceSettings())
            program, _, function = str(one.key).partition("/")
            program = program.partition("@")[0].partition(",")[0]
            hooked = held.hooked(one.link.ref, one.hook, str(one.key))
            used.append(program)
            wish_ = hooked.wish if hooked is not None else None
            part.attach.append(
                _attach(
                    one,
                    program,
                    order=wish_.order if wish_ is not None else STEP * (place + 1),
                    via=wish_.via if wish_ is not None else None,
                    function=wish_.function if wish_ is not None else function,
                )
            )
        for each in stored.programs:
            if each.name in used:
                self.made.programs.append(
                    exported_program.of_deployment(
                        held, each, self.copy, self.leave_out, entries=self.request.entries
                    )
                )
        self.made.redirects += [_without_place(one) for one in stored.redirects]
        return self.made

    # -- what is in no deployment ---------------------------------------------------------------------------------

    def loose(self, chosen: set[LinkRef]) -> Exported:
        programs: list[ProgramPart] = []
        orders: dict[tuple[LinkRef, str], int] = {}
        spare = {ref: one for held in self.seen.deployments.values() for ref, one in held.found.links.items()}
        for space in self.seen.snapshot.namespaces:
            for link in space.links:
                if link.ref not in chosen or link.type == defaults.LOOPBACK:
                    continue
                settings = self.unheld(link)
                if settings != DeviceSettings() and not (self.request.all_settings and link.ref in spare):
                    self.part(link, settings)
        for one in self.seen.programs:
            if one.deployment is not None or one.link.ref not in chosen:
                continue
            found = exported_program.of_record(one, self.seen.snapshot, self.copy, self.leave_out)
            if found is None:
                continue
            same = next((each for each in programs if each.same_as(found)), None)
            if same is None:
                found.name = exported_program.free_name(found.name, {each.name for each in programs})
                programs.append(found)
                same = found
            self.made.adopt = True
            part = self.part(one.link, DeviceSettings())
            slot = (one.link.ref, one.hook)
            orders[slot] = one.priority or orders.get(slot, 0) + STEP
            # without it a plan may find a better hook than the one that it is on
            via = "clsact" if one.at.startswith("clsact") else None
            part.attach.append(_attach(one, same.name, order=orders[slot], via=via, function=None))
            if via is not None:
                self.leave_out(
                    f"that {one.called} on {one.where} leaves",
                    "applying this adds its own copy beside it: detach that one first",
                )
        self.made.programs = programs
        if self.made.programs:
            self.redirects({ref for ref in chosen if any(one.link.ref == ref for one in self.seen.programs)})
        return self.made

    def unheld(self, link: Link) -> DeviceSettings:
        """Settings of a link that no deployment asks for, and that are worth telling."""
        if self.request.all_settings:
            return defaults.everything(link)
        return unheld(self.seen, link)

    def redirects(self, refs: set[LinkRef]) -> None:
        from xdpctl.doctor.intents_from import live

        whose = {(one.link.ref, one.mode): one for one in self.seen.programs if one.hook == "xdp"}
        for one in live(self.seen.snapshot):
            program = whose.get((one.source, one.mode)) if one.source is not None else None
            if program is None or one.source is None:
                continue
            source, target = self.seen.snapshot.link(one.source), self.seen.snapshot.link(one.target)
            if program.deployment is not None or one.source not in refs:
                continue
            if program.record is None or source is None or target is None or source.netns != target.netns:
                continue
            wish = RedirectWish(source.name, target.name, label_of(self.seen.snapshot, source.netns))
            if wish not in self.made.redirects:
                self.made.redirects.append(wish)


def unheld(seen: Running, link: Link) -> DeviceSettings:
    """Settings of a link that differ from the kernel's defaults, and that no deployment asks for."""
    from xdpctl.deploy.plan import FIELDS

    found = defaults.differing(link, seen.snapshot.kernel)
    kept: dict[str, Any] = {}
    for kind, name in FIELDS.items():
        value = getattr(found, name)
        if isinstance(value, (bool, int, type(None))):
            kept[name] = None if seen.holder(link.ref, kind, name) else value
        else:
            kept[name] = {key: one for key, one in value.items() if not seen.holder(link.ref, kind, key)}
    return DeviceSettings(**kept)


def _attach(
    one: OnHook, program: str, *, order: int, via: str | None, function: str | None
) -> dict[str, Any]:
    return {
        "program": program,
        "hook": one.hook if one.hook != "xdp" else None,
        "mode": one.mode if one.hook == "xdp" else None,
        "via": via,
        "order": order if one.hook != "xdp" and order else None,
        "function": function,
    }


def _over(base: DeviceSettings, more: DeviceSettings) -> DeviceSettings:
    made: dict[str, Any] = {}
    for name in DeviceSettings.__slots__:
        one, other = getattr(base, name), getattr(more, name)
        plain = isinstance(one, (bool, int, type(None)))
        made[name] = (other if other is not None else one) if plain else {**one, **other}
    return DeviceSettings(**made)


def _without_place(one: RedirectWish) -> RedirectWish:
    return RedirectWish(one.source, one.target, one.netns, one.ensure)
