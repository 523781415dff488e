"""What a reboot would change: BPF programs, links, maps and pins end with the kernel, /run with the boot.

What brings a deployment back is an enabled unit (`deploy.boot_units`) whose files survive, on interfaces that come
back under the same names. What other tools set at boot (networkd, udev, netplan, ifupdown) can't be told from here.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xdpctl.deploy.boot_units import Service, read_services
from xdpctl.deploy.desired import Deployment, Place
from xdpctl.deploy.device import DeviceSettings
from xdpctl.deploy.unit import VOLATILE, name_of
from xdpctl.errors import XdpctlError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xdpctl.deploy.running import Held, OnHook, Running
    from xdpctl.host.model import Link

Fate = Literal["lost", "changed", "late", "returns", "stays"]
"""lost: gone, and nothing brings it back. changed: it comes back as something else. late: its return hangs on
something that comes later, or under another name. returns: an enabled unit makes it again. stays: a reboot does not
touch it."""
BAD = ("lost", "changed")
NAMED_BY_KERNEL, RENAMED = 1, 4
"""NET_NAME_ENUM, NET_NAME_RENAMED (linux/netdevice.h), as /sys/class/net/D/name_assign_type tells them."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing, and what becomes of it."""

    fate: Fate
    what: str
    why: str
    hint: str | None = None
    deployment: str | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"fate", "what", "why", "hint", "deployment"}``."""
        return {
            "fate": self.fate,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
            "deployment": self.deployment,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """Deployments that a user's files describe."""

    wanted: Deployment
    files: tuple[Path, ...]


def check(
    seen: Running,
    *,
    root: Path = Path("/"),
    names: Sequence[str] = (),
    asked: Sequence[Asked] = (),
) -> list[Item]:
    """What a reboot would change, in the order of deployments, then what is in none.

    Args:
        seen: the machine now.
        root: where /etc/systemd and /usr/lib/systemd are looked for.
        names: only these deployments; (): all, and what is in none.
        asked: deployments by their files, applied or not.
    """
    services = read_services(root)
    found: list[Item] = []
    only = {*names, *(one.wanted.name for one in asked)}
    for name, held in seen.deployments.items():
        if not only or name in only:
            service = services.get(name)
            mine = [one for one in seen.programs if one.deployment == name]
            found += _deployment(name, held, service, mine, seen)
    for one in asked:
        if one.wanted.name not in seen.deployments:
            found += _not_applied(one, services.get(one.wanted.name))
    if only:
        return found
    for name, why in seen.broken.items():
        found.append(Item("lost", f"deployment {name}", why, deployment=name))
    for name, service in services.items():
        if service.enabled and name not in seen.deployments:
            found.append(
                Item(
                    "changed",
                    f"deployment {name}",
                    f"it is not applied now, and {service.name} would apply it",
                    f"xdpctl apply {' '.join(service.files)}" if service.files else None,
                    name,
                )
            )
    found += _by_hand(seen)
    found += _settings(seen)
    return found


# -- deployments --------------------------------------------------------------------------------------------------


def _deployment(
    name: str, held: Held, service: Service | None, mine: Sequence[OnHook], seen: Running
) -> Iterator[Item]:
    stored = held.stored.deployment
    files = sorted({str(Path(one.place.file).absolute()) for one in stored.interfaces if one.place.file})
    files = files if all(map(_there, files)) else []
    what = _contents(held, mine)
    hint = f"xdpctl unit {' '.join(files)}" if files else f"xdpctl export --deployment {name} -o {name}.toml"
    if service is None or not service.enabled:
        why = "nothing applies it at boot" if service is None else service.why
        if service is not None and service.path is not None:
            hint = f"systemctl enable {service.name}"
        yield Item("lost", f"deployment {name}: {what}", why, hint, name)
        return
    trouble = _troubles(service)
    if trouble:
        yield Item("lost", f"deployment {name}: {what}", trouble, hint, name)
        return
    difference = _difference(stored, service)
    if difference:
        yield Item(
            "changed",
            f"deployment {name}: {what}",
            difference,
            f"xdpctl plan {' '.join(service.files)}",
            name,
        )
    else:
        yield Item("returns", f"deployment {name}: {what}", f"{service.name} is enabled", None, name)
    yield from _interfaces(name, held, seen)


def _not_applied(asked: Asked, service: Service | None) -> Iterator[Item]:
    name = asked.wanted.name
    what = f"deployment {name}"
    if service is None or not service.enabled:
        why = "it is not applied now, and nothing would apply it"
        yield Item("stays", what, why, f"xdpctl unit {' '.join(map(str, asked.files))}", name)
        return
    trouble = _troubles(service)
    why = trouble or f"it is not applied now, and {service.name} would apply it"
    yield Item("lost" if trouble else "changed", what, why, None, name)


def _contents(held: Held, mine: Sequence[OnHook]) -> str:
    places = {(one.link.netns, one.link.ifindex) for one in mine}
    settings = {one for one in held.settings if (one[0].netns, one[0].ifindex)}
    parts = [_count(len(held.stored.programs), "loaded program"), f"on {_count(len(places), 'interface')}"]
    if settings:
        parts.append(_count(len(settings), "setting"))
    if held.stored.maps:
        parts.append(f"{_count(len(held.stored.maps), 'map')} with all that programs have put into them")
    return ", ".join(parts)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _troubles(service: Service) -> str | None:
    for text in service.files:
        if any(text.startswith(f"{top}/") for top in VOLATILE):
            return f"{service.name} reads {text}, which does not outlive a boot"
        if not _there(text):
            return f"{service.name} reads {text}, which is not there"
    if service.command and not _there(service.command):
        return f"{service.name} runs {service.command}, which is not there"
    return None


def _there(path: str) -> bool:
    """Whether a file is there, as far as the caller may look."""
    try:
        os.stat(path)  # noqa: PTH116 - a text
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _difference(stored: Deployment, service: Service) -> str | None:
    """How what the unit's files say now differs from what was applied; None: it does not, or nobody can tell."""
    if not service.files:
        return None
    from xdpctl.deploy.load import load

    try:
        loaded = load(
            [Path(one) for one in service.files], variables=service.variables, compile_sources=False
        )
    except XdpctlError as error:
        return f"{service.name} would fail: {error.message.splitlines()[0]}"
    fresh = loaded.deployment
    for old, new in ((_bare(stored), _bare(fresh)),):
        parts = [
            word
            for word, one, other in (
                ("its name", old.name, new.name),
                ("programs", old.programs, new.programs),
                ("interfaces", old.interfaces, new.interfaces),
                ("redirects", old.redirects, new.redirects),
            )
            if one != other
        ]
        if parts:
            return f"{', '.join(service.files)} says other {' and '.join(parts)} now than what was applied"
    for one in fresh.programs:
        path = str(one.object)
        if any(path.startswith(f"{top}/") for top in VOLATILE):
            return f"object {path} of {one.name} does not outlive a boot"
    return None


def _bare(wanted: Deployment) -> Deployment:
    """Without what says where it was written, and where objects lie; a source's object is the compiler's."""
    nowhere = Place()
    return replace(
        wanted,
        programs=tuple(
            replace(
                one,
                place=nowhere,
                object=Path(one.source or one.name),
                digest="" if one.source else one.digest,
                origin="",
                maps=tuple(
                    replace(
                        each,
                        place=nowhere,
                        entries=tuple((str(key), str(value)) for key, value in each.entries),
                    )
                    for each in one.maps
                ),
            )
            for one in wanted.programs
        ),
        interfaces=tuple(
            replace(one, place=nowhere, attach=tuple(replace(each, place=nowhere) for each in one.attach))
            for one in wanted.interfaces
        ),
        redirects=tuple(replace(one, place=nowhere) for one in wanted.redirects),
    )


def _interfaces(name: str, held: Held, seen: Running) -> Iterator[Item]:
    """Interfaces of a deployment that come late, or under another name."""
    waits = {(one.name, one.netns): one.wait for one in held.stored.deployment.interfaces if one.name}
    for wish in held.found.links.values():
        link = wish.link
        space = seen.snapshot.namespace(link.netns)
        label = space.name if space is not None and not (space.current and not space.name) else None
        where = f"{link.name} in {label}" if label else link.name
        waited = max(waits.get((link.name, None), 0.0), waits.get((link.name, label), 0.0))
        wait = f"; the deployment waits {waited:g} s for it" if waited else ""
        hint = None if waited else 'wait = "30s" in its [[interface]]'
        if label is not None:
            yield Item("late", where, f"namespaces and their links end with the boot{wait}", hint, name)
        elif link.kind is not None:
            made = "a tap" if link.kind == "tun" else f"a {link.kind}"
            yield Item("late", where, f"{made} is made anew by whoever makes it{wait}", hint, name)
        elif _assigned(link) == NAMED_BY_KERNEL and _hardware(seen) > 1:
            yield Item(
                "late", where,
                "the kernel numbers such names in the order in which it finds devices: it may be another one",
                "a .link file of systemd.link(5) names it by its address", name,
            )  # fmt: skip
        elif _assigned(link) == RENAMED:
            yield Item(
                "stays", where, "renamed since boot: by udev's rules, which stay, or by hand", None, name
            )


def _assigned(link: Link) -> int | None:
    try:
        return int(Path("/sys/class/net", link.name, "name_assign_type").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _hardware(seen: Running) -> int:
    links = [one for space in seen.snapshot.namespaces if space.current for one in space.links]
    return sum(1 for one in links if one.kind is None and one.type == 1)


# -- what is in no deployment -------------------------------------------------------------------------------------


def _by_hand(seen: Running) -> Iterator[Item]:
    for one in seen.programs:
        if one.deployment is not None:
            continue
        space = seen.snapshot.namespace(one.link.netns)
        label = f" ({space.label})" if space is not None and space.label else ""
        if one.record is not None:
            hint = f"xdpctl export{f' --netns {space.name}' if space and space.name else ''} {one.link.name}"
            yield Item(
                "lost", f"{one.called} on {one.where}{label}", "attached by hand, in no deployment", hint
            )
        else:
            yield Item(
                "lost",
                f"{one.called} on {one.where}{label}",
                "attached by another tool, which has to do it again",
            )


def _settings(seen: Running) -> Iterator[Item]:
    from xdpctl.deploy.export import unheld

    for space in seen.snapshot.namespaces:
        for link in space.links:
            found = unheld(seen, link)
            if found == DeviceSettings():
                continue
            label = f" ({space.label})" if space.label else ""
            told = ", ".join(_spelled(found))
            gone = " (the interface itself is made anew)" if link.kind is not None else ""
            yield Item(
                "lost",
                f"{told} of {link.name}{label}",
                f"no deployment asks for it{gone}; whether something else sets it at boot is not known here",
                f"xdpctl export{f' --netns {space.name}' if space.name else ''} {link.name}",
            )


def _spelled(settings: DeviceSettings) -> Iterator[str]:
    from xdpctl.deploy.device import shown

    for name in DeviceSettings.__slots__:
        value: Any = getattr(settings, name)
        if isinstance(value, (bool, int)):
            yield f"{name} {shown(value)}"
        elif value is not None:
            for key, one in value.items():
                yield f"{key} {shown(one)}" if name == "features" else f"{name}.{key} {shown(one)}"


def lost(items: Sequence[Item]) -> bool:
    """Whether a reboot would lose or change something."""
    return any(one.fate in BAD for one in items)


def grouped(items: Sequence[Item]) -> Mapping[str, list[Item]]:
    """By fate, worst first."""
    order: tuple[Fate, ...] = ("lost", "changed", "late", "returns", "stays")
    return {fate: [one for one in items if one.fate == fate] for fate in order}


__all__ = ["Asked", "Item", "check", "grouped", "lost", "name_of"]
