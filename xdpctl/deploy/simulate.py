"""What the machine would look like after changes: the observed one with each change's after-state put in. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.deploy.observe import LinkPin, MapPin, Observed
from xdpctl.host.model import Channels, Feature, LinkRef, Rings, TcHook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdpctl.deploy.change import Change
    from xdpctl.host.model import Link, Snapshot

XDP_HOOK, NOT_PINNED = "xdp", ("netlink", "clsact")
XMIT = 0x44
"""NETDEV_XDP_ACT_NDO_XMIT and NDO_XMIT_SG."""


def after(observed: Observed, changes: Iterable[Change]) -> Observed:
    """The machine as it should be once these changes are made, in this order.

    Programs that would be loaded have negative ids.
    """
    machine = _Machine(observed)
    for one in changes:
        machine.make(one)
    return machine.result()


class _Machine:
    def __init__(self, observed: Observed) -> None:
        self.observed = observed
        self.programs = dict(observed.programs)
        self.maps = dict(observed.maps)
        self.kept = dict(observed.kept)
        self.pinned: set[int] = set()
        """Ids of what was pinned again."""
        self.pins = list(observed.links)
        self.links: dict[LinkRef, Link] = {}
        self.next = min([0, *self.programs.values(), *observed.lost.values()]) - 1
        self.spaces = {space.inode: space.inode for space in observed.snapshot.namespaces}
        self.named: dict[str | None, int] = {None: observed.here}
        for space in observed.snapshot.namespaces:
            self.named.setdefault(space.label, space.inode)

    def result(self) -> Observed:
        return replace(
            self.observed,
            snapshot=self.snapshot(),
            programs=self.programs,
            maps=self.maps,
            kept=self.kept,
            links=tuple(self.pins),
            lost={key: one for key, one in self.observed.lost.items() if one not in self.pinned},
            lost_maps={key: one for key, one in self.observed.lost_maps.items() if one not in self.pinned},
        )

    def snapshot(self) -> Snapshot:
        if not self.links:
            return self.observed.snapshot
        for link in list(self.links.values()):
            self.settle(link)
        spaces = tuple(
            replace(space, links=tuple(self.links.get(one.ref, one) for one in space.links))
            for space in self.observed.snapshot.namespaces
        )
        return replace(self.observed.snapshot, namespaces=spaces)

    def settle(self, link: Link) -> None:
        """A veth's xdp-features follow its peer's GRO and program (veth_set_xdp_features(), Linux 6.3)."""
        if link.kind != "veth" or link.peer is None or link.peer.netns is None:
            return
        ref = LinkRef(link.peer.netns, link.peer.ifindex)
        before = self.observed.snapshot.link(link.ref)
        other = self.links.get(ref) or self.observed.snapshot.link(ref)
        if other is None or other.xdp_features is None or before is None or _takes(before) == _takes(link):
            return
        bits = other.xdp_features | XMIT if _takes(link) else other.xdp_features & ~XMIT
        self.links[ref] = replace(other, xdp_features=bits)

    def make(self, change: Change) -> None:
        room, _, what = change.kind.partition(".")
        if room == "program":
            self.program(change, what)
        elif room == "map":
            self.elements(change, what)
        elif room in ("xdp", "tc", "device"):
            link = self.link(change)
            if link is not None:
                made = {"xdp": _xdp, "tc": _tc}.get(room)
                self.links[link.ref] = made(self, link, change) if made is not None else device(link, change)

    def link(self, change: Change) -> Link | None:
        inode = self.named.get(change.netns)
        if inode is None:
            return None
        if change.ifindex is not None:
            ref = LinkRef(inode, change.ifindex)
            return self.links.get(ref) or self.observed.snapshot.link(ref)
        found = self.observed.snapshot.named(change.target, inode)
        return self.links.get(found.ref, found) if found is not None else None

    def program(self, change: Change, what: str) -> None:
        told: Any = change.after if what in ("load", "pin", "keep") else change.before
        if what == "load":
            for function, _hook in told["functions"]:
                self.programs.setdefault(f"{told['folder']}/{function}", self.next)
                self.next -= 1
            for one in told["maps"].values():
                fresh = MapPin(self.next, one["type"], 0, 0, {} if one["pin"] in told["fresh"] else None)
                self.maps.setdefault(one["pin"], fresh)
                self.next -= 1
        elif what == "unload":
            for function, _hook in told["functions"]:
                self.programs.pop(f"{told['folder']}/{function}", None)
            for one in told["fresh"]:
                self.maps.pop(one, None)
        elif what == "pin":
            for function, number in told["functions"].items():
                self.programs[f"{told['folder']}/{function}"] = number
            self.pinned.update(told["functions"].values(), told["maps"].values())
        elif what == "keep":
            self.kept[told["pin"]] = told["id"]
        elif what == "release":
            self.kept.pop(told["pin"], None)

    def elements(self, change: Change, what: str) -> None:
        found = self.maps.get(change.target)
        if found is None:
            return
        told: Any = change.after
        if what == "copy":
            older = self.maps.get(told["from"])
            if older is not None:
                self.maps[change.target] = replace(found, elements=older.elements)
        elif what == "entries":
            held = dict(found.elements or {})
            for key, value in told["entries"].items():
                if value is None:
                    held.pop(key, None)
                else:
                    held[key] = value
            self.maps[change.target] = replace(found, elements=held)

    def id_of(self, told: Any) -> int | None:
        """Id of the program that a side of a change names; None: it is still to be loaded, by nobody here."""
        if told.get("program") is None:
            return None
        if told.get("foreign"):
            return int(told["foreign"])
        return self.programs.get(told["program"])


def _takes(link: Link) -> bool:
    """Whether a veth has NAPI for what is redirected into its peer."""
    gro = link.feature("rx-gro")
    return link.up and bool(link.xdp.native or (gro is not None and gro.wanted))


def _xdp(machine: _Machine, link: Link, change: Change) -> Link:
    told: Any = change.after if change.after.get("program") is not None else change.before
    mode = told["mode"] if told["mode"] != "auto" else "native"
    number = machine.id_of(change.after)
    machine.pins = [
        one
        for one in machine.pins
        if (one.netns, one.ifindex, one.hook) != (link.netns, link.ifindex, XDP_HOOK)
    ]
    if number is not None and told.get("via") not in NOT_PINNED:
        machine.pins.append(LinkPin("", number, number, link.netns, link.ifindex, link.name, XDP_HOOK))
    return replace(link, xdp=replace(link.xdp, **{mode: number, f"{mode}_link_id": None}))


def _tc(machine: _Machine, link: Link, change: Change) -> Link:
    before, number = machine.id_of(change.before), machine.id_of(change.after)
    told: Any = change.after if number is not None else change.before
    hook, priority = told["at"], told.get("priority")
    entries = list(link.tc)
    at = next(
        (
            place
            for place, one in enumerate(entries)
            if one.hook == hook
            and one.program_id == before
            and (priority is None or one.priority == priority)
        ),
        None,
    )
    if number is None:
        if at is not None:
            del entries[at]
    elif at is not None:
        entries[at] = replace(entries[at], program_id=number)
    else:
        made = TcHook(hook, number, "", priority=priority, handle=1 if priority else None)
        spot = len(entries)
        for word, step in (("before", 0), ("behind", 1)):
            named = str(told.get(word))
            anchor = int(named[3:]) if named.startswith("id:") else machine.programs.get(named)
            at = next(
                (p for p, one in enumerate(entries) if (one.hook, one.program_id) == (hook, anchor)), None
            )
            if at is not None:
                spot = at + step
                break
        if priority is not None:
            spot = next(
                (
                    place
                    for place, one in enumerate(entries)
                    if one.hook == hook and (one.priority or 0) > priority
                ),
                len(entries),
            )
        entries.insert(spot, made)
    return replace(link, tc=tuple(entries))


def device(link: Link, change: Change) -> Link:
    """A link with a device setting put in, as far as the Snapshot tells such settings."""
    values: Any = change.after
    if change.kind == "device.mtu":
        return replace(link, mtu=values["mtu"])
    if change.kind == "device.up":
        flags = link.flags | 0x41 if values["up"] else link.flags & ~0x41
        return replace(link, flags=flags, operstate="up" if values["up"] else "down")
    if change.kind == "device.features" and link.features is not None:
        held = dict(link.features)
        for name, value in values.items():
            fixed = held[name].fixed if name in held else False
            held[name] = Feature(bool(value), bool(value), fixed)
        return replace(link, features=held)
    if change.kind == "device.channels":
        channels = replace(
            link.channels or Channels(), **{key.replace("-", "_"): one for key, one in values.items()}
        )
        return replace(
            link,
            channels=channels,
            real_rx_queues=channels.rx + channels.combined,
            real_tx_queues=channels.tx + channels.combined,
        )
    if change.kind == "device.rings":
        known = {key.replace("-", "_"): one for key, one in values.items()}
        rings = link.rings or Rings()
        return replace(
            link, rings=replace(rings, **{key: one for key, one in known.items() if hasattr(rings, key)})
        )
    if change.kind == "device.private-flags":
        return replace(link, private_flags={**(link.private_flags or {}), **values})
    return link
