"""Which links, programs and maps a deployment means on an observed machine: names become things, globs become lists.

Pure. What can't be is collected as `Wrong`, so that everything is told at once.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import field, fields, replace
from typing import TYPE_CHECKING, Any

from xdpctl.deploy import entries
from xdpctl.deploy.desired import Deployment, Place, Wrong
from xdpctl.deploy.device import DeviceSettings
from xdpctl.errors import NotFoundError, XdpctlError, near
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xdpctl.deploy.desired import AttachWish, InterfaceWish, ProgramWish, RedirectWish
    from xdpctl.host.model import Link, LinkRef, Namespace, Snapshot
    from xdpctl.obj.model import ObjFile, ObjMap, ObjProgram

GLOB = "*?["
LOOPBACK = 772
MAP_ENTRY_PROGRAMS = ("xdp/devmap", "xdp/cpumap")


@dataclass(frozen=True, slots=True)
class MapUse:
    """A map of an instance, and where it is pinned."""

    name: str
    pin: str
    """Below the deployment's pin folder; another schema or size has another pin."""
    base: str
    """The same without the schema's mark: pins with one base hold versions of one map."""
    max_entries: int | None
    on_schema_change: str
    type: str
    value_size: int
    entries: Mapping[str, str | None] | None = None
    """Hexadecimal key -> value, None: whatever the program has put there. None: nothing is said of its content."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A program as it is loaded once: an object, its globals, its maps."""

    wish: ProgramWish
    folder: str
    """``PROGRAM@IDENTITY`` or ``PROGRAM,SCOPE@IDENTITY``: of its pins."""
    functions: tuple[tuple[str, str], ...]
    """(C function, hook) of each that is attached."""
    patches: tuple[tuple[str, int, str], ...]
    """(data section, offset, hexadecimal bytes) of its globals."""
    maps: tuple[MapUse, ...]
    ifindex: int = 0
    """Device that it is bound or offloaded to."""
    offload: bool = False
    netns: str | None = None
    """Label of that device's namespace."""


@dataclass(frozen=True, slots=True)
class Hooked:
    """A program that is wanted on a hook of a link."""

    wish: AttachWish
    instance: Instance
    function: str

    @property
    def key(self) -> str:
        """``FOLDER/FUNCTION``: the pinned program."""
        return f"{self.instance.folder}/{self.function}"

    @property
    def same(self) -> tuple[str, str]:
        """What stays the same from version to version."""
        return self.wish.program, self.function


@dataclass(slots=True)
class LinkWish:
    """All that is wanted of one link."""

    link: Link
    settings: DeviceSettings = field(default_factory=DeviceSettings)
    said: dict[tuple[str, str], Place] = field(default_factory=dict)
    """Where each setting was said first."""
    attach: list[tuple[AttachWish, Place]] = field(default_factory=list)
    hooked: list[Hooked] = field(default_factory=list)


@dataclass(slots=True)
class Resolved:
    """A deployment on an observed machine."""

    deployment: Deployment
    links: dict[LinkRef, LinkWish] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    """By folder."""
    redirects: list[tuple[RedirectWish, Link, Link]] = field(default_factory=list)
    waiting: list[InterfaceWish] = field(default_factory=list)
    """Interfaces that are not there yet, and may come."""
    wrong: list[Wrong] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no mistake, and may be one."""


def resolve(deployment: Deployment, objects: Mapping[str, ObjFile], snapshot: Snapshot) -> Resolved:
    """What the deployment means on this machine; contradictions and absent things are in `wrong`."""
    found = Resolved(deployment)
    for wish in deployment.interfaces:
        for link in _links(found, wish, snapshot):
            _merge(found, wish, link)
    for one in found.links.values():
        _hooks(found, one, objects, snapshot)
    _load_each_once(found, objects, snapshot)
    for redirect in deployment.redirects:
        _redirect(found, redirect, snapshot)
    return found


def label_of(snapshot: Snapshot, inode: int) -> str | None:
    """What names a namespace to `netlink.netns.find`; None: the caller's own."""
    space = snapshot.namespace(inode)
    if space is None:
        return f"net:[{inode}]"
    return None if space.current and not space.name else space.label


# -- links --------------------------------------------------------------------------------------------------------


def _links(found: Resolved, wish: InterfaceWish, snapshot: Snapshot) -> list[Link]:
    spaces = _spaces(wish.netns, snapshot)
    if not spaces:
        if wish.wait and wish.name is not None:
            found.waiting.append(wish)
            return []
        if not _is_glob(wish.netns or ""):
            known = [one.label for one in snapshot.namespaces if one.label]
            found.wrong.append(
                Wrong(wish.place, f"no such network namespace: {wish.netns}", _near(wish.netns or "", known))
            )
        return []
    if wish.name is not None:
        chosen = []
        for space in spaces:
            link = snapshot.named(wish.name, space.inode)
            if link is not None:
                chosen.append(link)
        if not chosen and wish.wait:
            found.waiting.append(wish)
        elif not chosen and not _is_glob(wish.netns or ""):
            names = [one.name for space in spaces for one in space.links]
            where = f" in network namespace {wish.netns}" if wish.netns else ""
            hint = _near(wish.name, names) or 'if it comes later: wait = "30s"'
            found.wrong.append(Wrong(wish.place, f"no such interface: {wish.name}{where}", hint))
    else:
        patterns = wish.match or ("*",)
        chosen = [
            one
            for space in spaces
            for one in space.links
            if one.type != LOOPBACK and any(fnmatch.fnmatchcase(one.name, each) for each in patterns)
        ]
    if wish.driver is not None:
        fitting = [one for one in chosen if wish.driver in (one.driver, one.kind)]
        if wish.name is not None and chosen and not fitting:
            told = chosen[0].driver or chosen[0].kind or "not known"
            found.wrong.append(Wrong(wish.place, f"{wish.name} has driver {told}, not {wish.driver}"))
        chosen = fitting
    if not chosen and wish.name is None:
        said = ", ".join(wish.match) or f"driver {wish.driver}"
        found.notes.append(f"{wish.place}: {said} fits no interface now")
    return chosen


def _spaces(name: str | None, snapshot: Snapshot) -> list[Namespace]:
    if name is not None and _is_glob(name):
        # those with a name alone: what is merely seen through somebody's process is not ours to change
        return [one for one in snapshot.namespaces if one.name and fnmatch.fnmatchcase(one.name, name)]
    space = snapshot.namespace_named(name)
    return [space] if space is not None else []


def _is_glob(text: str) -> bool:
    return any(one in text for one in GLOB) and not text.startswith("net:[")


def _near(name: str, known: list[str]) -> str | None:
    close = near(name, known)
    return f"did you mean {', '.join(close)}?" if close else None


def _merge(found: Resolved, wish: InterfaceWish, link: Link) -> None:
    """Add what one [[interface]] wants of a link; two that want different things of it contradict each other."""
    one = found.links.get(link.ref)
    if one is None:
        one = found.links[link.ref] = LinkWish(link)
    one.attach += [(attach, wish.place) for attach in wish.attach]
    if wish.settings == DeviceSettings():
        return
    merged: dict[str, Any] = {}
    for each in fields(DeviceSettings):
        before, more = getattr(one.settings, each.name), getattr(wish.settings, each.name)
        if isinstance(before, (bool, int, type(None))):
            pairs = {} if more is None else {"": more}
            held = {} if before is None else {"": before}
        else:
            pairs, held = dict(more), dict(before)
        for key, value in pairs.items():
            spot = (each.name, key)
            if key in held and held[key] != value:
                what = f"{each.name}.{key}" if key else each.name
                found.wrong.append(
                    Wrong(
                        wish.place,
                        f"{what} = {json.dumps(value)} of {link.name} contradicts {json.dumps(held[key])},"
                        f" wanted at {one.said[spot]}",
                    )
                )
            held.setdefault(key, value)
            one.said.setdefault(spot, wish.place)
        merged[each.name] = held.get("") if isinstance(before, (bool, int, type(None))) else held
    one.settings = DeviceSettings(**merged)


# -- programs -----------------------------------------------------------------------------------------------------


def _hooks(found: Resolved, one: LinkWish, objects: Mapping[str, ObjFile], snapshot: Snapshot) -> None:
    """Which function of which program goes on which hook of the link."""
    from xdpctl.deploy.load import two_programs

    chosen: dict[tuple[object, ...], AttachWish] = {}
    for wish, _place in one.attach:
        obj, program = objects.get(wish.program), found.deployment.program(wish.program)
        if obj is None or program is None:
            found.wrong.append(Wrong(wish.place, f"no [[program]] is called {wish.program}"))
            continue
        function = wish.function or program.function or _only(found, wish, obj, program)
        if function is None:
            continue
        if obj.program(function) is None:
            known = [each.name for each in obj.programs]
            found.wrong.append(
                Wrong(wish.place, f"{obj.path.name} has no function {function}", _near(function, known))
            )
            continue
        slot: tuple[object, ...] = (wish.hook, wish.program, function)
        if wish.hook == "xdp":
            slot = ("xdp", wish.mode == "offload")
        earlier = chosen.get(slot)
        if earlier is not None:
            if replace(earlier, place=Place()) != replace(wish, place=Place()):
                found.wrong.append(two_programs(wish.place, earlier, f" of {one.link.name}"))
            continue
        chosen[slot] = wish
        scope = _scope(wish, obj.program(function), one.link)
        one.hooked.append(
            Hooked(
                wish,
                Instance(
                    program,
                    scope,  # until all functions are known
                    ((function, wish.hook),),
                    (),
                    (),
                    ifindex=one.link.ifindex if scope else 0,
                    offload=wish.mode == "offload",
                    netns=label_of(snapshot, one.link.netns) if scope else None,
                ),
                function,
            )
        )


def _scope(wish: AttachWish, function: ObjProgram | None, link: Link) -> str:
    """A program for a device's hardware, or with its metadata kfuncs, is loaded for that device alone."""
    if wish.mode == "offload" or (function is not None and function.rx_metadata):
        return f"{link.netns}-{link.ifindex}"
    return ""


def _only(found: Resolved, wish: AttachWish, obj: ObjFile, program: ProgramWish) -> str | None:
    kind = "xdp" if wish.hook == "xdp" else "sched_cls"
    fitting = [
        one
        for one in obj.programs
        if one.autoload
        and (
            one.type == kind or (one.type is None and program.type == {"xdp": "xdp", "sched_cls": "tc"}[kind])
        )
        and one.attach_type not in MAP_ENTRY_PROGRAMS
    ]
    if wish.hook != "xdp":
        fitting = [one for one in fitting if one.hook in (None, wish.hook)] or fitting
    if len(fitting) == 1:
        return fitting[0].name
    listed = ", ".join(f"{one.name} (SEC {one.section})" for one in (fitting or obj.programs))
    what = "no program" if not fitting else f"{len(fitting)} programs"
    untold = not fitting and any(one.type is None for one in obj.programs)
    hint = (
        'function = "..."' if fitting else f'type = "{"xdp" if kind == "xdp" else "tc"}" in its [[program]]'
    )
    found.wrong.append(
        Wrong(
            wish.place,
            f"{obj.path.name} has {what} for hook {wish.hook}: {listed}",
            hint if fitting or untold else None,
        )
    )
    return None


def _load_each_once(found: Resolved, objects: Mapping[str, ObjFile], snapshot: Snapshot) -> None:
    """Put attachments of one program together to instances: one where its globals name no interfaces.

    Names of interfaces in globals and elements are looked up in the namespace that is attached in: where they mean
    different devices, each namespace gets its own.
    """
    groups: dict[tuple[str, str, int], list[tuple[LinkWish, int]]] = {}
    naming: dict[str, bool] = {}
    for one in found.links.values():
        for place, hooked in enumerate(one.hooked):
            name = hooked.wish.program
            if name not in naming:
                naming[name] = _names_interfaces(hooked.instance.wish, objects[name])
            space = one.link.netns if naming[name] else 0
            groups.setdefault((hooked.wish.program, hooked.instance.folder, space), []).append((one, place))
    for (program, scope, space), members in groups.items():
        first = members[0][0].hooked[members[0][1]].instance
        functions = tuple(
            sorted({each for one, place in members for each in one.hooked[place].instance.functions})
        )
        home = space or members[0][0].link.netns
        scopes = "-".join(part for part in (scope or (str(space) if space else ""),) if part)
        made = _instance(found, replace(first, functions=functions), objects[program], scopes, home, snapshot)
        if made is None:
            continue
        found.instances[made.folder] = made
        for one, place in members:
            one.hooked[place] = replace(one.hooked[place], instance=made)


def _names_interfaces(wish: ProgramWish, obj: ObjFile) -> bool:
    asked: list[str] = []

    def ifindex(name: str) -> int:
        asked.append(name)
        return 1

    _patches(wish, obj, ifindex)
    for one in wish.maps:
        found = obj.map(one.name)
        for key, value in one.entries if found is not None and len(one.entries) < 4096 else ():
            try:
                entries.encode(obj, found, key, value, ifindex)  # type: ignore[arg-type]  # it is not None here
            except XdpctlError:
                break
    return bool(asked)


def _patches(
    wish: ProgramWish, obj: ObjFile, ifindex: Callable[[str], int]
) -> tuple[tuple[tuple[str, int, str], ...], XdpctlError | None]:
    from xdpctl.obj import globals as variables

    try:
        settings = variables.parse_all(obj, wish.settings, ifindex=ifindex)
    except XdpctlError as error:
        return (), error
    return tuple((one.section, one.offset, one.data.hex()) for one in settings), None


def _instance(
    found: Resolved, draft: Instance, obj: ObjFile, scope: str, home: int, snapshot: Snapshot
) -> Instance | None:
    wish = draft.wish

    def ifindex(name: str) -> int:
        link = snapshot.named(name, home)
        if link is None:
            space = snapshot.namespace(home)
            raise NotFoundError("interface", name, known=[one.name for one in space.links] if space else [])
        return link.ifindex

    patches, error = _patches(wish, obj, ifindex)
    if error is not None:
        found.wrong.append(Wrong(wish.place, error.message, error.hint))
        return None
    tail = hashlib.sha256(
        json.dumps(
            [
                wish.digest,
                wish.type,
                draft.functions,
                patches,
                draft.offload,
                [(one.name, one.max_entries) for one in wish.maps if one.max_entries is not None],
            ]
        ).encode()
    ).hexdigest()[:16]
    base = f"{wish.name},{scope}" if scope else wish.name
    folder = f"{base}@{tail}"
    maps = []
    for one in obj.maps:
        if one.definition == "internal":
            continue
        use = _map_use(found, one, obj, wish, base, folder, ifindex)
        if use is None:
            return None
        maps.append(use)
    return replace(draft, folder=folder, patches=patches, maps=tuple(maps))


def _map_use(
    found: Resolved,
    one: ObjMap,
    obj: ObjFile,
    wish: ProgramWish,
    base: str,
    folder: str,
    ifindex: Callable[[str], int],
) -> MapUse | None:
    asked = next((each for each in wish.maps if each.name == one.name), None)
    room = asked.max_entries if asked is not None else None
    mark = hashlib.sha256(
        json.dumps(
            [one.type, one.key_size, one.value_size, room or one.max_entries, one.flags, *_shape(obj, one)]
        ).encode()
    ).hexdigest()[:8]
    if one.type == "prog_array":
        # holds programs of this very load: another version must not find them
        pin, home = f"programs/{folder}/{one.name}", f"programs/{folder}/{one.name}"
    else:
        # LIBBPF_PIN_BY_NAME asks for one map for every object that names it: of this deployment, that is
        home = f"maps/{'shared' if one.pin else base}/{one.name}"
        pin = f"{home}@{mark}"
    content: dict[str, str | None] | None = None
    if asked is not None and asked.entries:
        content = {}
        for key, value in asked.entries:
            try:
                key_bytes, value_bytes = entries.encode(obj, one, key, value, ifindex)
            except XdpctlError as error:
                found.wrong.append(Wrong(asked.place, error.message, error.hint))
                return None
            content[key_bytes.hex()] = None if value_bytes is None else value_bytes.hex()
    return MapUse(
        one.name,
        pin,
        home,
        room,
        asked.on_schema_change if asked is not None else "fail",
        one.type,
        one.value_size,
        content,
    )


def _shape(obj: ObjFile, one: ObjMap) -> list[str]:
    """The key's and value's types with their members: a struct may change and keep its size."""
    if obj.btf is None:
        return []
    from xdpctl.btf.names import spell
    from xdpctl.btf.types import Composite
    from xdpctl.btf.values import members

    told = []
    for number in (one.key_type_id, one.value_type_id):
        if not number:
            continue
        found = obj.btf.resolve(number)
        text = spell(obj.btf, number)
        if isinstance(found, Composite):
            inner = members(obj.btf, found)
            text += "".join(
                f";{name}:{spell(obj.btf, each.type)}@{each.bit_offset}" for name, each in inner.items()
            )
        told.append(text)
    return told


# -- redirects ----------------------------------------------------------------------------------------------------


def _redirect(found: Resolved, wish: RedirectWish, snapshot: Snapshot) -> None:
    waiting = {(one.name, one.netns) for one in found.waiting}
    spaces = _spaces(wish.netns, snapshot)
    if not spaces and not any(space == wish.netns for _, space in waiting):
        known = [one.label for one in snapshot.namespaces if one.label]
        found.wrong.append(
            Wrong(wish.place, f"no such network namespace: {wish.netns}", _near(wish.netns or "", known))
        )
    for space in spaces:
        names = [one.name for one in space.links]
        sources = [one for one in space.links if fnmatch.fnmatchcase(one.name, wish.source)]
        target = snapshot.named(wish.target, space.inode)
        where = f" in network namespace {wish.netns}" if wish.netns else ""
        if not sources and not any(fnmatch.fnmatchcase(str(name), wish.source) for name, _ in waiting):
            found.wrong.append(
                Wrong(
                    wish.place,
                    f"redirect from {wish.source}: no such interface{where}",
                    _near(wish.source, names),
                )
            )
        if target is None and (wish.target, wish.netns) not in waiting:
            hint = (
                _near(wish.target, names) or "nothing here makes it; an [[interface]] with wait may expect it"
            )
            found.wrong.append(
                Wrong(wish.place, f"redirect to {wish.target}: no such interface{where}", hint)
            )
        if target is None:
            continue
        for source in sources:
            one = found.links.get(source.ref)
            hooked = one.hooked if one is not None else ()
            if not source.xdp and not any(each.wish.hook == "xdp" for each in hooked):
                told = f"redirect from {source.name}: nothing redirects there, it has no XDP program"
                found.wrong.append(Wrong(wish.place, told, "attach one in its [[interface]]"))
            elif source.ref != target.ref:
                found.redirects.append((wish, source, target))
