"""A Topology in Graphviz's language: clusters by namespace, left to right, every state told by more than its colour.

Names come from files and the kernel: whatever they hold, they become text, never markup (graphviz.org/doc/info:
lang.html for quoted strings, shapes.html#html for labels).
"""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.doctor.fix import command_line
from xdpctl.doctor.topology import (
    ABOVE,
    BROKEN,
    PAIR,
    PORT,
    PROMISED,
    PROVEN,
    REDIRECT,
    UNKNOWN,
)
from xdpctl.doctor.topology_order import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.doctor.finding import Finding
    from xdpctl.doctor.topology import Attached, Edge, Interface, Topology

FONT = "Helvetica,Arial,sans-serif"
GREY, PALE = "#555555", "#8c8c8c"
MOST_NOTES = 8
"""Findings that are written below the picture; the others are in the tooltips and with --json."""
NOTE_WIDTH = 110
"""Characters of a line below the picture."""
GAP = '<BR/><FONT POINT-SIZE="3"> </FONT><BR/>'
"""Below a name: underscores would touch the line below."""
LONGEST = 40
"""Characters of a name that are drawn; the tooltip has the whole."""


class Look(NamedTuple):
    """How an edge is drawn."""

    colour: str
    style: str
    arrow: str
    width: str
    sample: str
    """The same in text, for the legend."""
    words: str


# colours of Okabe and Ito, told apart with any eyes; the line and its end tell the same
STATES = {
    PROVEN: Look(
        "#0072B2", "solid", "normal", "2", "━━━▶", "proven: it happens now, nothing stands against it"
    ),
    PROMISED: Look("#9A5B8A", "dashed", "onormal", "1.6", "╍╍╍▷", "promised by a deployment"),
    BROKEN: Look("#C44E00", "bold", "teenonetee", "2.6", "━━━┤┤", "broken: frames are lost"),
    UNKNOWN: Look("#555555", "dotted", "odot", "1.6", "┈┈┈○", "unknown: the machine doesn't tell"),
}
WIRES = {
    PAIR: Look(PALE, "solid", "none", "1", "────", "two ends of a pair"),
    PORT: Look(PALE, "solid", "odiamond", "1", "───◇", "port of a bridge, bond or team"),
    ABOVE: Look(PALE, "dashed", "vee", "1", "╌╌╌&gt;", "device stacked on another"),
}
_HOOKS = {"native": "#cfe3f1", "generic": "#f6ecc8", "offload": "#d6ead9", None: "#e8e8e8"}
"""Fill of a program's row; its words say the same."""
_SYMBOLS = {PROVEN: "✓", PROMISED: "…", BROKEN: "✗", UNKNOWN: "?"}


def dot(topology: Topology) -> str:
    """The whole graph as text."""
    ids = {one.id: f"i{number}" for number, one in enumerate(topology.interfaces())}
    ids |= {one.id: f"e{number}" for number, one in enumerate(topology.ends)}
    notes = Notes()
    ports = {
        (one.id, program.id): f"p{row}"
        for one in topology.interfaces()
        for row, program in enumerate(one.programs)
    }
    order = Order(topology)
    edges = list(_edges(topology, order, ids, ports, notes))
    lines = [
        "digraph xdpctl {",
        f'  graph [rankdir=LR, bgcolor="white", fontname={quoted(FONT)}, fontsize=11, nodesep=0.18, ranksep=0.7,',
        "    pad=0.25, labelloc=b, labeljust=l,",
        f"    tooltip={quoted(f'kernel {topology.kernel}, {topology.taken_at}')},",
        f"    label={_legend(topology, notes)}];",
        f"  node [shape=plain, fontname={quoted(FONT)}, fontsize=11];",
        f'  edge [fontname={quoted(FONT)}, fontsize=9, arrowsize=0.8, color="{GREY}"];',
    ]
    for number, space in reversed(list(enumerate(topology.spaces))):  # the last is drawn on top
        lines += [
            f"  subgraph cluster_{number} {{",
            f"    graph [label=<<B>{markup(space.title)}</B>>, labelloc=t, labeljust=l, fontsize=12,",
            '      style="rounded,filled", color="#bbbbbb", fillcolor="#f7f7f7", margin=12,',
            f"      tooltip={quoted(space.title)}];",
        ]
        lines += [f"    {ids[one.id]} {_interface(one)};" for one in space.interfaces]
        lines += [
            f"    {ids[one.id]} {_end(one.kind, one.label)};"
            for one in topology.ends
            if one.netns == space.netns
        ]
        lines += [f"    {{rank=same; {ids[one]}; {ids[other]}}}" for one, other in order.beside(space)]
        lines.append("  }")
    drawn = {space.netns for space in topology.spaces}
    lines += [
        f"  {ids[one.id]} {_end(one.kind, one.label)};" for one in topology.ends if one.netns not in drawn
    ]
    return "\n".join([*lines, *edges, "}", ""])


# -- text that can't become anything else


def visible(text: str) -> str:
    """Control characters, lone surrogates and the like spelled out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def markup(text: str, longest: int = LONGEST) -> str:
    """Text for a label in angle brackets; long ones end in dots, an empty one is a blank."""
    text = visible(text)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return escape(text) or " "


def quoted(text: str) -> str:
    """A quoted string; line ends stay."""
    lines = [
        escape(visible(one), quote=False).replace("\\", "\\\\").replace('"', '\\"')
        for one in text.split("\n")
    ]
    return '"' + "\\n".join(lines) + '"'


# -- nodes


def _interface(one: Interface) -> str:
    facts = [one.kind or "device", *([] if one.up else ["DOWN"])]
    if one.mtu != 1500:
        facts.append(f"mtu {one.mtu}")
    if (one.rx_queues or 1, one.tx_queues or 1) != (1, 1):
        facts.append(f"{one.rx_queues or '?'} rx, {one.tx_queues or '?'} tx")
    small = f'<FONT POINT-SIZE="8.5" COLOR="{GREY}">{markup(" · ".join(facts))}</FONT>'
    rows = [f'<TR><TD PORT="n" BGCOLOR="white"><B>{markup(one.name)}</B>{GAP}{small}</TD></TR>']
    rows += [
        f'<TR><TD PORT="p{row}" BGCOLOR="{_HOOKS[each.mode]}" ALIGN="LEFT">'
        f'<FONT POINT-SIZE="9">{markup(hook(each))}: <B>{markup(each.name)}</B></FONT></TD></TR>'
        for row, each in enumerate(one.programs)
    ]
    style = ' STYLE="DASHED"' if not one.up else ""
    table = (
        f'<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0" CELLPADDING="4" COLOR="{GREY}"{style}>'
        f"{''.join(rows)}</TABLE>"
    )
    told = [
        f"{one.name}, ifindex {one.ref.ifindex}, {one.kind or 'device'}, {'up' if one.up else 'down'}, mtu {one.mtu}"
    ]
    told += [f"{hook(each)}: {each.name}, id {each.id}" for each in one.programs]
    return f"[label=<{table}>, tooltip={quoted(chr(10).join(told))}]"


def hook(one: Attached) -> str:
    """``XDP native``, ``tcx ingress``."""
    return f"XDP {one.mode}" if one.mode else one.hook.replace("-", " ")


def _end(kind: str, label: str) -> str:
    shape = {"cpus": "box3d", "sockets": "cylinder"}.get(kind, "note" if kind == "nowhere" else "plaintext")
    lines = [markup(each) for one in label.split("\n") for each in textwrap.wrap(visible(one), 26) or [" "]]
    text = f'<FONT POINT-SIZE="9.5">{"<BR/>".join(lines)}</FONT>'
    return (
        f'[shape={shape}, style="filled", fillcolor="white", color="{GREY}", margin="0.1,0.05", width=0, height=0,'
        f" label=<{text}>, tooltip={quoted(label)}]"
    )


# -- edges


class Notes:
    """Findings by the numbers that edges carry."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str], int] = {}
        self.findings: list[Finding] = []

    def number(self, one: Finding) -> int:
        """The finding's number, the same one for the same sentence."""
        key = (one.id, one.summary)
        if key not in self.numbers:
            self.numbers[key] = len(self.findings) + 1
            self.findings.append(one)
        return self.numbers[key]


def _edges(
    topology: Topology,
    order: Order,
    ids: dict[str, str],
    ports: dict[tuple[str, int], str],
    notes: Notes,
) -> Iterator[str]:
    for one in topology.edges:
        if one.kind == REDIRECT:
            yield _redirect(one, ids, ports, notes, back=order.goes_back(one))
            continue
        look = WIRES[one.kind]
        turned = order.turned(one)
        tail, head = (one.target, one.source) if turned else (one.source, one.target)
        end = f"dir=back, arrowtail={look.arrow}" if turned else f"arrowhead={look.arrow}"
        words = f', label=<{markup(one.via)}>, fontcolor="{GREY}"' if one.via else ""
        yield (
            f'  {ids[tail]}{_port(tail, ids)} -> {ids[head]}{_port(head, ids)} [color="{look.colour}",'
            f" style={look.style}, {end}, penwidth={look.width}{words}, weight=2,"
            f" tooltip={quoted(f'{one.source} and {one.target}: {look.words}')}];"
        )


def _port(name: str, ids: dict[str, str]) -> str:
    return ":n" if ids[name].startswith("i") else ""


def _redirect(
    one: Edge, ids: dict[str, str], ports: dict[tuple[str, int], str], notes: Notes, *, back: bool
) -> str:
    look = STATES[one.state or UNKNOWN]
    numbers = " ".join(f"({notes.number(each)})" for each in one.findings)
    lines = [f"{_SYMBOLS[one.state or UNKNOWN]} {one.state}{' ' + numbers if numbers else ''}"]
    lines += [one.via] if one.via else []
    lines += [f"deployment {', '.join(one.deployments)}"] if one.deployments else []
    head, *rest = (markup(line) for line in lines)
    label = "<BR/>".join([f"<B>{head}</B>", *rest])
    start = f"{ids[one.source]}:{ports.get((one.source, one.program or 0), 'n')}"
    end = f"{ids[one.target]}{_port(one.target, ids)}"
    if back:
        way = f"{end}:e -> {start}:w"
        arrow = f"dir=back, arrowtail={look.arrow}"
    else:
        way = f"{start}:e -> {end}"
        arrow = f"arrowhead={look.arrow}"
    return (
        f'  {way} [color="{look.colour}", fontcolor="{look.colour}", style={look.style}, {arrow},'
        f" penwidth={look.width}, weight=3, label=<{label}>, tooltip={quoted(told(one))},"
        f" labeltooltip={quoted(told(one))}];"
    )


def told(one: Edge) -> str:
    """All that is known of a redirect, in lines."""
    lines = [f"{one.source} to {one.target}: {one.state}" + (f", by {one.via}" if one.via else "")]
    if one.why:
        lines.append(one.why)
    if one.deployments:
        lines.append(f"promised by {', '.join(one.deployments)}")
    for finding in one.findings:
        lines += finding_lines(finding)
    return "\n".join(lines)


def finding_lines(one: Finding) -> list[str]:
    """The whole of a finding, without paint."""
    lines = [f"{one.summary} [{one.id}]"]
    lines += [one.consequence] if one.consequence else []
    lines += [f"- {each.fact} ({each.source})" for each in one.evidence]
    lines += [f"fix: {command_line(each)}" for each in one.fix]
    lines += [f"or: {each}" for each in one.alternatives]
    return lines


# -- what stands below


def _legend(topology: Topology, notes: Notes) -> str:
    """A table: the kinds of edges that are drawn, and the findings by number."""
    states = {one.state for one in topology.edges if one.kind == REDIRECT}
    kinds = {one.kind for one in topology.edges}
    looks = [look for state, look in STATES.items() if state in states]
    looks += [look for kind, look in WIRES.items() if kind in kinds]
    rows = [
        f'<TR><TD ALIGN="LEFT"><FONT COLOR="{one.colour}"><B>{one.sample}</B></FONT></TD>'
        f'<TD ALIGN="LEFT"><FONT COLOR="{GREY}">{escape(one.words)}</FONT></TD></TR>'
        for one in looks
    ]
    for number, finding in enumerate(notes.findings[:MOST_NOTES], 1):
        lines = list(_note(finding))
        text = '<BR ALIGN="LEFT"/>'.join(lines) + '<BR ALIGN="LEFT"/>'
        rows.append(
            f'<TR><TD ALIGN="LEFT" VALIGN="TOP"><B>({number})</B></TD><TD ALIGN="LEFT" BALIGN="LEFT">{text}</TD></TR>'
        )
    more = len(notes.findings) - MOST_NOTES
    if more > 0:
        rows.append(f'<TR><TD></TD><TD ALIGN="LEFT">and {more} more: the lines\' tooltips tell</TD></TR>')
    if not rows:
        return '""'
    return f'<<FONT POINT-SIZE="10"><TABLE BORDER="0" CELLSPACING="1" CELLPADDING="1">{"".join(rows)}</TABLE></FONT>>'


def _note(finding: Finding) -> Iterable[str]:
    shown = [f"{finding.summary}  [{finding.id}]"]
    shown += [finding.consequence] if finding.consequence else []
    shown += [f"fix: {command_line(one)}" for one in finding.fix]
    for text in shown:
        for line in textwrap.wrap(visible(text), NOTE_WIDTH) or [" "]:
            yield escape(line)
