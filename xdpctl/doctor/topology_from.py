"""A Topology from a Snapshot and the promises of deployments; each redirect is judged by doctor's rules. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import Redirect
from xdpctl.doctor.rules import judge
from xdpctl.doctor.topology import (
    ABOVE,
    BROKEN,
    PAIR,
    PORT,
    PROMISED,
    PROVEN,
    REDIRECT,
    UNKNOWN,
    Attached,
    Edge,
    End,
    Interface,
    Promise,
    Space,
    Topology,
)
from xdpctl.host.model import LinkRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from xdpctl.doctor.finding import Finding
    from xdpctl.host.model import Link, Snapshot, TcHook

LOOPBACK = 772
"""ARPHRD_LOOPBACK: drawn only where something happens on it."""
_MODES = ("native", "generic", "offload")


def topology(snapshot: Snapshot, promises: Iterable[Promise] = ()) -> Topology:
    """The graph of a machine.

    Args:
        snapshot: of every namespace, so that both ends of pairs are in it.
        promises: what deployments say that happens.
    """
    made = _Making(snapshot)
    for link in snapshot.links():
        made.wiring(link)
        for mode, program in _xdp(link):
            made.redirects(link, mode, program)
        for hooked in link.tc:
            made.tc_redirects(link, hooked)
    made.promised(promises)
    touched = {end for one in made.edges for end in (one.source, one.target)}
    spaces = (
        Space(
            made.labels[space.inode],
            tuple(
                made.interface(one)
                for one in space.links
                if one.type != LOOPBACK or one.xdp or one.tc or made.ids[one.ref] in touched
            ),
        )
        for space in snapshot.namespaces
    )
    return Topology(
        snapshot.taken_at,
        snapshot.kernel.release,
        tuple(one for one in spaces if one.interfaces),
        tuple(made.ends.values()),
        tuple(made.edges),
    )


def _xdp(link: Link) -> Iterator[tuple[str, int]]:
    for mode in _MODES:
        program: int | None = getattr(link.xdp, mode)
        if program:
            yield mode, program


class _Making:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.labels = {
            one.inode: one.name or (None if one.current else one.label) for one in snapshot.namespaces
        }
        self.ids = {one.ref: f"{self.labels.get(one.netns) or ''}:{one.name}" for one in snapshot.links()}
        self.places = {one.inode: place for place, one in enumerate(snapshot.namespaces)}
        self.ends: dict[str, End] = {}
        self.edges: list[Edge] = []

    # -- interfaces

    def interface(self, link: Link) -> Interface:
        programs = [Attached("xdp", mode, number, self.program(number)) for mode, number in _xdp(link)]
        programs += [
            Attached(one.hook, None, one.program_id, one.program_name or f"program {one.program_id}")
            for one in link.tc
        ]
        return Interface(
            self.ids[link.ref],
            link.ref,
            link.name,
            self.labels.get(link.netns),
            link.kind or link.driver,
            link.up,
            link.mtu,
            link.real_rx_queues or link.num_rx_queues,
            link.real_tx_queues or link.num_tx_queues,
            tuple(programs),
        )

    def program(self, number: int) -> str:
        """Its name, or its id in words."""
        known = self.snapshot.programs.get(number)
        return known.name if known is not None and known.name else f"program {number}"

    def end(self, kind: str, key: str, label: str, link: Link) -> str:
        """The id of an end that is no interface."""
        name = f"{kind}:{key}"
        self.ends.setdefault(name, End(name, kind, label, self.labels.get(link.netns)))
        return name

    # -- pairs, ports, stacked devices

    def wiring(self, link: Link) -> None:
        here = self.ids[link.ref]
        if link.peer is not None:
            other = self.snapshot.peer(link)
            if other is None:
                target = self.end("unseen", here, "peer in a namespace that was not observed", link)
                self.edges.append(Edge(PAIR, here, target))
            elif self._order(link) < self._order(other):
                self.edges.append(Edge(PAIR, here, self.ids[other.ref]))
        master = self.snapshot.link(LinkRef(link.netns, link.master)) if link.master else None
        if master is not None:
            self.edges.append(Edge(PORT, here, self.ids[master.ref]))
        if link.lower is not None and link.lower.netns is not None:
            below = self.snapshot.link(LinkRef(link.lower.netns, link.lower.ifindex))
            if below is not None:
                via = f"vlan {link.vlan_id}" if link.vlan_id is not None else None
                self.edges.append(Edge(ABOVE, here, self.ids[below.ref], via=via))

    def _order(self, link: Link) -> tuple[int, int]:
        return self.places.get(link.netns, len(self.places)), link.ifindex

    # -- redirects that happen

    def redirects(self, link: Link, mode: str, program: int) -> None:
        """All that one attached program leads to."""
        by_target: dict[tuple[int, int], list[int]] = {}
        cpus: dict[int, dict[int, int | None]] = {}
        known = {one.id: one for one in self.snapshot.redirect_maps.get(program, ())}
        used = set()
        names = {}
        for entry in self.snapshot.redirects.get(program, ()):
            used.add(entry.map_id)
            names[entry.map_id] = f"{entry.map_type} {entry.map_name}"
            if entry.map_type == "cpumap":
                cpus.setdefault(entry.map_id, {})[entry.key] = entry.program_id
            elif entry.ifindex:
                by_target.setdefault((entry.map_id, entry.ifindex), []).append(entry.key)
        for (number, ifindex), keys in by_target.items():
            via = f"{names[number]}[{ranges(keys)}]"
            self._to_link(link, LinkRef(link.netns, ifindex), mode, program, via)
        for number, keys_of in cpus.items():
            self._to_cpus(link, mode, program, number, names[number], keys_of)
        for number, one in known.items():
            if number not in used:
                self._to_unread(link, mode, program, number, f"{one.type} {one.name}", one.type)
        plain = self.snapshot.redirect_targets.get(program, ())
        for ifindex in dict.fromkeys(one.ifindex for one in plain if one.ifindex):
            self._to_link(link, LinkRef(link.netns, ifindex), mode, program, None)
        if any(not one.ifindex for one in plain) or (
            self.snapshot.redirect_calls.get(program) is True and not (plain or used or known)
        ):
            self._untold(link, mode, program)

    def _to_link(self, link: Link, target: LinkRef, mode: str, program: int, via: str | None) -> None:
        found = self.judged(link.ref, target, mode, via is not None)
        why = f"{self.program(program)} is attached ({mode}), and its " + (
            "map was read" if via else "instructions and globals were read"
        )
        there = self.snapshot.link(target)
        if there is not None:
            end = self.ids[there.ref]
        else:
            end = self.end(
                "nowhere",
                f"{target.netns}/{target.ifindex}",
                f"no interface has ifindex {target.ifindex}",
                link,
            )
        self._redirect(link, end, found, mode, program, via, why)

    def _to_cpus(
        self, link: Link, mode: str, program: int, number: int, name: str, keys: dict[int, int | None]
    ) -> None:
        text = f"CPU{'s' if len(keys) > 1 else ''} {ranges(keys)}"
        running = sorted({self.program(one) for one in keys.values() if one})
        if running:
            text += f"\nthere: {', '.join(running)}"
        end = self.end("cpus", str(number), text, link)
        why = f"{self.program(program)} is attached ({mode}), and its map was read"
        # generic XDP takes no cpumap before 5.15 (cpu_map_generic_redirect)
        state = PROVEN if mode == "native" or self.snapshot.kernel.at_least(5, 15) else UNKNOWN
        self.edges.append(
            Edge(REDIRECT, self.ids[link.ref], end, state, program, mode, f"{name}[{ranges(keys)}]", why)
        )

    def _to_unread(self, link: Link, mode: str, program: int, number: int, name: str, kind: str) -> None:
        if kind == "xskmap":
            end = self.end("sockets", str(number), "AF_XDP sockets", link)
            why = "the kernel does not tell what is in an xskmap"
        else:
            end = self.end("nowhere", f"map {number}", f"{name} is empty", link)
            why = "nothing is in the map"
        self.edges.append(Edge(REDIRECT, self.ids[link.ref], end, UNKNOWN, program, mode, name, why))

    def _untold(self, link: Link, mode: str, program: int) -> None:
        end = self.end("untold", f"{program}", "somewhere", link)
        why = f"{self.program(program)} redirects, and its instructions don't tell where to"
        self.edges.append(Edge(REDIRECT, self.ids[link.ref], end, UNKNOWN, program, mode, None, why))

    def tc_redirects(self, link: Link, hooked: TcHook) -> None:
        """Where a TC program sends frames to: they are lost if there is no such device, or it is down.

        Mirrors skb_do_redirect() (net/core/filter.c), which asks nothing of the target's driver.
        """
        name = hooked.program_name or self.program(hooked.program_id)
        for one in self.snapshot.redirect_targets.get(hooked.program_id, ()):
            there = self.snapshot.link(LinkRef(link.netns, one.ifindex)) if one.ifindex else None
            via = None if one.helper == "bpf_redirect" else one.helper
            why = f"{name} is attached ({hooked.hook}), and its instructions and globals were read"
            state = PROVEN
            if not one.ifindex:
                state, why = UNKNOWN, f"{name} redirects, and its instructions don't tell where to"
                end = self.end("untold", f"{hooked.program_id}", "somewhere", link)
            elif there is None:
                state, why = BROKEN, f"frames are lost: no interface has ifindex {one.ifindex}"
                key, label = f"{link.netns}/{one.ifindex}", f"no interface has ifindex {one.ifindex}"
                end = self.end("nowhere", key, label, link)
            else:
                end = self.ids[there.ref]
                if not there.up:
                    state, why = BROKEN, f"frames are lost: {there.name} is down"
            edge = Edge(REDIRECT, self.ids[link.ref], end, state, hooked.program_id, None, via, why)
            if edge not in self.edges:
                self.edges.append(edge)

    def _redirect(
        self,
        link: Link,
        end: str,
        found: tuple[Finding, ...],
        mode: str,
        program: int | None,
        via: str | None,
        why: str,
        deployments: Sequence[str] = (),
    ) -> None:
        if any(one.status is Status.FAIL for one in found):
            state = BROKEN
        elif any(one.status is Status.UNKNOWN for one in found):
            state = UNKNOWN
        else:
            state = PROVEN if program else PROMISED
        self.edges.append(
            Edge(
                REDIRECT,
                self.ids[link.ref],
                end,
                state,
                program,
                mode,
                via,
                why,
                tuple(deployments),
                found,
            )
        )

    def judged(self, source: LinkRef, target: LinkRef, mode: str, via_map: bool) -> tuple[Finding, ...]:
        """What the rules say of one redirect."""
        kind = "generic" if mode == "generic" else "native"
        found = judge(self.snapshot, [Redirect(source, target, kind, via_map=via_map)])
        return tuple(one for one in found if one.status is not Status.OK)

    # -- redirects that are promised

    def promised(self, promises: Iterable[Promise]) -> None:
        """Mark those that happen, add those that don't yet."""
        from dataclasses import replace

        wanted: dict[tuple[LinkRef, LinkRef], list[str]] = {}
        for one in promises:
            wanted.setdefault((one.source, one.target), []).append(one.deployment)
        for (source, target), names in wanted.items():
            link, there = self.snapshot.link(source), self.snapshot.link(target)
            if link is None or there is None:
                continue
            ends = self.ids[source], self.ids[target]
            live = [
                at
                for at, one in enumerate(self.edges)
                if one.kind == REDIRECT and (one.source, one.target) == ends
            ]
            for at in live:
                self.edges[at] = replace(self.edges[at], deployments=tuple(names))
            if live:
                continue
            mode = "generic" if link.xdp.generic and not link.xdp.native else "native"
            why = (
                "a program is attached, and where it redirects to can't be read"
                if link.xdp
                else f"no program is attached to {link.name} now"
            )
            self._redirect(
                link, ends[1], self.judged(source, target, mode, False), mode, None, None, why, names
            )


def ranges(keys: Iterable[int]) -> str:
    """``0-3,7``."""
    found: list[list[int]] = []
    for one in sorted(set(keys)):
        if found and one == found[-1][1] + 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
