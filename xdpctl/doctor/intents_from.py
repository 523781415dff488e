"""What somebody wants, as intents: from an object and options, from what is attached now, from names alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.intent import (
    AttachTc,
    AttachXdp,
    EmptySlot,
    Health,
    Redirect,
    Transmit,
    UntoldTarget,
)
from xdpctl.errors import ConfigError, NotFoundError, ObjectError
from xdpctl.host.model import LinkRef
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from xdpctl.doctor.intent import Intent
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.globals import Setting
    from xdpctl.obj.model import ObjFile, ObjProgram, RedirectCall

DEVMAPS = ("devmap", "devmap_hash")
SAY = "say where it goes: --redirect-to IFACE"


@dataclass(frozen=True, slots=True)
class Wish:
    """A program of an object, and how it is to be attached."""

    obj: ObjFile
    program: ObjProgram
    mode: str = "native"
    via: str = "link"
    hook: str = "xdp"
    """xdp, ingress or egress."""
    replace: bool = False
    settings: Sequence[str] = ()
    """``NAME=VALUE``, as --set takes them."""
    redirect_to: Sequence[str] = ()
    """Names of interfaces in the namespace of the one that is attached to."""
    filled: frozenset[str] = frozenset()
    """Maps that are not empty when the program starts: somebody else's, pinned."""
    offloaded: bool = False
    """Loaded for the device's hardware."""


def pick(obj: ObjFile, name: str | None) -> ObjProgram:
    """The program that is meant: by name, or the only one for a network interface.

    Raises:
        NotFoundError: there is no program of that name.
        ConfigError: several fit, and none was named.
        ObjectError: none can be attached to an interface.
    """
    if name is not None:
        found = obj.program(name)
        if found is None:
            raise NotFoundError(
                "program", name, known=[one.name for one in obj.programs], where=str(obj.path)
            )
        return found
    fit = [one for one in obj.programs if one.type in ("xdp", "sched_cls") and one.autoload]
    plain = [one for one in fit if one.attach_type not in ("xdp/devmap", "xdp/cpumap")] or fit
    if not plain:
        raise ObjectError(
            f"{obj.path} has no XDP or TC program", hint=f"xdpctl inspect {obj.path} shows what it has"
        )
    if len(plain) > 1:
        names = ", ".join(one.name for one in plain)
        raise ConfigError(f"{obj.path} has several programs: {names}", hint=f"--program {plain[0].name}")
    return plain[0]


def from_wish(wish: Wish, snapshot: Snapshot, link: Link) -> list[Intent]:
    """Attaching the program to `link`, what it redirects to from there, and XDP_TX where it may return it.

    Raises:
        ConfigError: a setting does not fit its variable.
        NotFoundError: a setting or --redirect-to names what isn't there.
    """
    program = wish.program
    targets = [named(snapshot, link, name) for name in wish.redirect_to]
    if wish.hook in ("ingress", "egress"):
        via = wish.via if wish.via in ("tcx", "clsact", "netkit") else "tcx"
        return [AttachTc(link.ref, wish.hook, program.name, via, wish.replace)]
    intents: list[Intent] = [
        AttachXdp(
            link.ref,
            wish.mode,
            program.name,
            frags=program.frags,
            attach_type=program.attach_type or "xdp",
            bound_ifindex=link.ifindex if program.rx_metadata else None,
            offloaded=wish.offloaded,
            via=wish.via,
            replace=wish.replace,
            sends_tx=program.returns_tx is not False,
            redirects=bool(program.redirects),
            entry_programs=_entry_programs(wish.obj, program),
        )
    ]
    mode = "generic" if wish.mode == "generic" else "native"
    if program.returns_tx:
        intents.append(Transmit(link.ref, mode))
    intents += [
        Redirect(link.ref, one.ref, mode, via_map=_by_map(program), multi_buffer=program.frags)
        for one in targets
    ]
    settings = settings_of(wish, snapshot, link)
    for call in program.redirects:
        intents += _of_call(wish, call, link, mode, settings, told=bool(targets))
    return list(dict.fromkeys(intents))


def settings_of(wish: Wish, snapshot: Snapshot, link: Link) -> list[Setting]:
    """The --set values; names of interfaces are those of the namespace that is attached in."""
    if not wish.settings:
        return []
    from xdpctl.obj import globals as variables

    return variables.parse_all(
        wish.obj, wish.settings, ifindex=lambda name: named(snapshot, link, name).ifindex
    )


def _entry_programs(obj: ObjFile, program: ObjProgram) -> bool:
    """Whether a map that it redirects through has values of 8 bytes: an ifindex or queue size, and a program."""
    used = {one.map for one in program.redirects if one.map}
    return any(
        one.name in used and one.type in (*DEVMAPS, "cpumap") and one.value_size >= 8 for one in obj.maps
    )


def _by_map(program: ObjProgram) -> bool:
    return any(one.helper == "bpf_redirect_map" for one in program.redirects)


def named(snapshot: Snapshot, link: Link, name: str) -> Link:
    """The interface called `name` in the namespace of `link`, where its redirects are looked up.

    Raises:
        NotFoundError: there is none.
    """
    found = snapshot.named(name, link.netns)
    if found is None:
        space = snapshot.namespace(link.netns)
        known = [one.name for one in space.links] if space else []
        where = f"the namespace of {link.name}, where its redirects are looked up"
        raise NotFoundError("interface", name, known=known, where=where)
    return found


def _of_call(
    wish: Wish, call: RedirectCall, link: Link, mode: str, settings: list[Setting], *, told: bool
) -> Iterator[Intent]:
    """One call site: its target where that can be told; `told`: the user said where it goes."""
    name = wish.program.name
    if call.helper == "bpf_redirect_map":
        yield from _of_map(wish, call, link, told=told)
        return
    if call.helper != "bpf_redirect":
        return
    if call.ifindex is not None:
        yield Redirect(link.ref, LinkRef(link.netns, call.ifindex), mode, multi_buffer=wish.program.frags)
        return
    if call.origin == "ctx->ingress_ifindex":
        yield Redirect(link.ref, link.ref, mode, multi_buffer=wish.program.frags)
        return
    if call.variable is not None:
        from xdpctl.obj import globals as variables

        held = [one for one in dict.fromkeys(variables.values(wish.obj, call.variable, settings)) if one]
        for one in held:
            yield Redirect(link.ref, LinkRef(link.netns, one), mode, multi_buffer=wish.program.frags)
        if held or told:
            return
        option = f"--set {call.variable.replace('[*]', '[0]')}=IFACE"
        yield UntoldTarget(
            link.ref, name, f"the ifindex in {call.variable}, which is 0", f"give it: {option}"
        )
        return
    if told:
        return
    origin = call.origin or "an ifindex that only runs know"
    yield UntoldTarget(link.ref, name, origin, SAY)


def _of_map(wish: Wish, call: RedirectCall, link: Link, *, told: bool) -> Iterator[Intent]:
    """bpf_redirect_map(): the map is empty when it is made, whoever fills it later."""
    found = wish.obj.map(call.map) if call.map else None
    if told or (found is not None and found.name in wish.filled):
        return
    if found is None:
        yield UntoldTarget(link.ref, wish.program.name, "a map that its instructions don't name", SAY)
        return
    if found.type not in (*DEVMAPS, "cpumap", "xskmap") or found.pin:
        return
    read = f"{wish.obj.path.name}: the map is made when the program is loaded"
    yield EmptySlot(
        link.ref,
        wish.program.name,
        found.name,
        found.type,
        call.key,
        call.flags,
        read_from=read,
        promised=False,
    )


def live(snapshot: Snapshot) -> list[Redirect]:
    """The redirects that happen now: attached programs, the devmap entries they own, and their plain redirects."""
    found = []
    for link in snapshot.links():
        for mode, program in (("native", link.xdp.native), ("generic", link.xdp.generic)):
            if not program:
                continue
            for entry in snapshot.redirects.get(program, ()):
                if entry.map_type in DEVMAPS and entry.ifindex:
                    target = LinkRef(link.netns, entry.ifindex)
                    found.append(Redirect(link.ref, target, mode, via_map=True))
            found += [
                Redirect(link.ref, LinkRef(link.netns, one.ifindex), mode)
                for one in snapshot.redirect_targets.get(program, ())
                if one.ifindex
            ]
    return list(dict.fromkeys(found))


def concerning(snapshot: Snapshot, redirects: Iterable[Redirect], links: Iterable[Link]) -> list[Redirect]:
    """Those redirects that leave, enter, or (through a veth) end in one of the links."""
    refs = {one.ref for one in links}
    near = set(refs)
    for one in links:
        peer = snapshot.peer(one)
        if peer is not None:
            near.add(peer.ref)
    return [one for one in redirects if one.target in near or one.source in refs]


def attached(snapshot: Snapshot, link: Link) -> Iterator[Intent]:
    """What a link's own programs do that the machine alone does not tell: plain redirects, empty maps."""
    for program in (link.xdp.native, link.xdp.generic):
        if not program or snapshot.redirect_calls.get(program) is not True or snapshot.redirects.get(program):
            continue
        plain = snapshot.redirect_targets.get(program, ())
        if plain and all(one.ifindex for one in plain):
            continue
        known = snapshot.programs.get(program)
        name = known.name if known and known.name else f"program {program}"
        yield UntoldTarget(
            link.ref,
            name,
            "an ifindex of its own, or through a map without entries",
            f"show the object: xdpctl doctor {link.name} --prog OBJ, or {SAY}",
            "bpf(2): its instructions and maps",
        )


def health(links: Iterable[Link], *, named: bool) -> list[Health]:
    """Are these links fit, as they stand?"""
    return [Health(one.ref, named) for one in links]


def possible(links: Iterable[Link], mode: str) -> list[AttachXdp]:
    """Could a program be attached to these links, if somebody wanted to? Not asked where one is."""
    return [
        AttachXdp(one.ref, mode, "a program", via="netlink", promised=False) for one in links if not one.xdp
    ]
