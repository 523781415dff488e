"""A Topology as a tree of text: namespaces, interfaces, their programs, and where those redirect to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xdpctl.doctor.topology import (
    ABOVE,
    BROKEN,
    PAIR,
    PORT,
    PROMISED,
    PROVEN,
    REDIRECT,
    STATES,
    UNKNOWN,
)
from xdpctl.doctor.topology_dot import finding_lines, hook, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.topology import Edge, Interface, Topology

_MARKS = {
    PROVEN: ("✓", "34"),
    PROMISED: ("…", "35"),
    BROKEN: ("✗", "31"),
    UNKNOWN: ("?", "36"),
}


class _Item(NamedTuple):
    text: str
    below: list[_Item]


def tree(topology: Topology, *, colour: bool) -> Iterator[str]:
    """The lines of the whole; `colour` adds a terminal's."""
    words = _Words(topology, colour)
    for space in topology.spaces:
        yield words.paint(visible(space.title), "1")
        yield from _drawn([words.interface(one) for one in space.interfaces])
    yield _summary(topology)


def _drawn(items: list[_Item], before: str = "") -> Iterator[str]:
    for place, item in enumerate(items):
        last = place == len(items) - 1
        first, *more = item.text.split("\n")
        yield f"{before}{'└─' if last else '├─'} {first}"
        inner = before + ("   " if last else "│  ")
        for line in more:
            yield f"{inner}{'│  ' if item.below else '   '}{line}"
        yield from _drawn(item.below, inner)


class _Words:
    def __init__(self, topology: Topology, colour: bool) -> None:
        self.colour = colour
        self.names = {
            one.id: visible(f"{one.name} (netns {one.netns})" if one.netns else one.name)
            for one in topology.interfaces()
        }
        self.inside = {one.id: visible(one.name) for one in topology.interfaces()}
        self.spaces = {one.id: one.netns for one in topology.interfaces()}
        self.names |= {one.id: visible(one.label.replace("\n", ", ")) for one in topology.ends}
        self.edges = topology.edges

    def paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def name(self, end: str, seen_from: str) -> str:
        """An end's name, with its namespace where it is another one."""
        if self.spaces.get(end, "") == self.spaces[seen_from]:
            return self.inside[end]
        return self.names[end]

    def interface(self, one: Interface) -> _Item:
        facts = [visible(one.kind or "device"), "up" if one.up else "DOWN", f"mtu {one.mtu}"]
        for edge in self.edges:
            if edge.kind == PAIR and one.id in (edge.source, edge.target):
                other = edge.target if one.id == edge.source else edge.source
                facts.append(f"pair with {self.name(other, one.id)}")
            elif edge.kind == PORT and edge.source == one.id:
                facts.append(f"port of {self.name(edge.target, one.id)}")
            elif edge.kind == ABOVE and edge.source == one.id:
                facts.append(f"on {self.name(edge.target, one.id)}" + (f" as {edge.via}" if edge.via else ""))
        mine = [edge for edge in self.edges if edge.kind == REDIRECT and edge.source == one.id]
        below = []
        for program in one.programs:
            of_it = [
                self.redirect(edge, one.id)
                for edge in mine
                if (edge.program, edge.mode) == (program.id, program.mode)
            ]
            below.append(_Item(visible(f"{hook(program)}: {program.name} (id {program.id})"), of_it))
        below += [self.redirect(edge, one.id) for edge in mine if edge.program is None]
        return _Item(f"{self.paint(self.inside[one.id], '1')}  {', '.join(facts)}", below)

    def redirect(self, edge: Edge, seen_from: str) -> _Item:
        mark, code = _MARKS[edge.state or UNKNOWN]
        head = self.paint(f"{mark} {edge.state}", code)
        text = f"{head}: redirects to {self.name(edge.target, seen_from)}"
        if edge.via:
            text += f" by {visible(edge.via)}"
        if edge.deployments:
            text += f", promised by {', '.join(edge.deployments)}"
        lines = [text]
        if edge.why and not edge.findings and edge.state != PROVEN:
            lines.append(visible(edge.why))
        for finding in edge.findings:
            lines += map(visible, finding_lines(finding))
        return _Item("\n".join(lines), [])


def _summary(topology: Topology) -> str:
    """``5 interfaces in 2 namespaces, 2 redirects: 1 proven, 1 broken``."""
    links = sum(1 for _ in topology.interfaces())
    counts = topology.counts()
    redirects = sum(counts.values())
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return (
        f"{links} interface{'s' if links != 1 else ''} in {len(topology.spaces)}"
        f" namespace{'s' if len(topology.spaces) != 1 else ''},"
        f" {redirects} redirect{'s' if redirects != 1 else ''}{f': {told}' if told else ''}"
    )
