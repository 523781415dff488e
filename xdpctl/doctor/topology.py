"""The data path of a machine as a graph: namespaces, interfaces and their programs, pairs, masters, and redirects.

A redirect is *proven* when a program that is attached now leads there and no rule has anything against it,
*promised* when so far only a deployment says so, *broken* when a rule says that frames are lost (its finding is on the
edge), and *unknown* when the machine does not tell enough to say which.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from xdpctl.doctor.finding import Finding
    from xdpctl.host.model import LinkRef

PROVEN, PROMISED, BROKEN, UNKNOWN = "proven", "promised", "broken", "unknown"
STATES = (PROVEN, PROMISED, BROKEN, UNKNOWN)

PAIR, PORT, ABOVE, REDIRECT = "pair", "port", "above", "redirect"
"""Two ends of a veth or netkit; a port and its bridge, bond or team; a stacked device and the one below; a redirect."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A deployment's [[redirect]] between two links that are there."""

    source: LinkRef
    target: LinkRef
    deployment: str


@dataclass(frozen=True, slots=True)
class Attached:
    """One program on one hook of an interface."""

    hook: str
    """xdp, or a TC hook as in `TcHook.hook`."""
    mode: str | None
    """native, generic, offload; None on TC hooks."""
    id: int
    name: str

    def to_json(self) -> dict[str, Any]:
        """``{"hook", "mode", "id", "name"}``."""
        return {"hook": self.hook, "mode": self.mode, "id": self.id, "name": self.name}


@dataclass(frozen=True, slots=True)
class Interface:
    """One link."""

    id: str
    """``NETNS:NAME``; names edges' ends."""
    ref: LinkRef
    name: str
    netns: str | None
    """Label of its namespace, None for the caller's."""
    kind: str | None
    """rtnl kind, or the driver of hardware."""
    up: bool
    mtu: int
    rx_queues: int | None
    tx_queues: int | None
    programs: tuple[Attached, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name; `ref` as ``ifindex``."""
        return {
            "id": self.id,
            "name": self.name,
            "netns": self.netns,
            "ifindex": self.ref.ifindex,
            "kind": self.kind,
            "up": self.up,
            "mtu": self.mtu,
            "rx_queues": self.rx_queues,
            "tx_queues": self.tx_queues,
            "programs": [one.to_json() for one in self.programs],
        }


@dataclass(frozen=True, slots=True)
class Space:
    """One network namespace."""

    netns: str | None
    """Its label; None for the caller's."""
    interfaces: tuple[Interface, ...]

    @property
    def title(self) -> str:
        """What people call it."""
        return f"netns {self.netns}" if self.netns else "this namespace"


@dataclass(frozen=True, slots=True)
class End:
    """Where an edge ends that leads to no interface."""

    id: str
    kind: str
    """cpus (of a cpumap), sockets (of an xskmap), nowhere (an empty map, an ifindex that nobody has), untold (the
    instructions don't tell), unseen (the other end of a pair, in a namespace that was not observed)."""
    label: str
    netns: str | None = None
    """Label of the namespace it belongs to, where it does."""

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name."""
        return {"id": self.id, "kind": self.kind, "label": self.label, "netns": self.netns}


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection between two interfaces, or of one with an `End`."""

    kind: str
    """pair, port, above or redirect."""
    source: str
    target: str
    state: str | None = None
    """Of a redirect: proven, promised, broken, unknown."""
    program: int | None = None
    """Id of the program that redirects."""
    mode: str | None = None
    via: str | None = None
    """``devmap ports[0-3]``, ``cpumap cpus[0,2]``, ``bpf_redirect_peer``, or None for bpf_redirect."""
    why: str | None = None
    """What the state rests upon, where no finding says it."""
    deployments: tuple[str, ...] = ()
    """Deployments that promise it."""
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name."""
        return {
            "kind": self.kind,
            "source": self.source,
            "target": self.target,
            "state": self.state,
            "program": self.program,
            "mode": self.mode,
            "via": self.via,
            "why": self.why,
            "deployments": list(self.deployments),
            "findings": [one.to_json() for one in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole picture."""

    taken_at: str
    kernel: str
    spaces: tuple[Space, ...]
    ends: tuple[End, ...]
    edges: tuple[Edge, ...]

    def interfaces(self) -> Iterator[Interface]:
        """Of every namespace."""
        for space in self.spaces:
            yield from space.interfaces

    def counts(self) -> dict[str, int]:
        """How many redirects are in which state."""
        return {state: sum(one.state == state for one in self.edges) for state in STATES}

    def to_json(self) -> dict[str, Any]:
        """``{"taken_at", "kernel", "namespaces", "interfaces", "ends", "edges"}``."""
        return {
            "taken_at": self.taken_at,
            "kernel": self.kernel,
            "namespaces": [one.netns for one in self.spaces],
            "interfaces": [one.to_json() for one in self.interfaces()],
            "ends": [one.to_json() for one in self.ends],
            "edges": [one.to_json() for one in self.edges],
        }


def around(whole: Topology, chosen: Collection[LinkRef]) -> Topology:
    """What concerns these links: they, what an edge joins to them, and the other ends of the pairs among those."""
    ids = {one.id: one.ref for one in whole.interfaces()}
    near = {name for name, ref in ids.items() if ref in chosen}
    for kinds in ((PAIR, PORT, ABOVE, REDIRECT), (PAIR,)):
        near |= {
            end
            for one in whole.edges
            if one.kind in kinds and (one.source in near or one.target in near)
            for end in (one.source, one.target)
        }
    spaces = (
        replace(space, interfaces=tuple(one for one in space.interfaces if one.id in near))
        for space in whole.spaces
    )
    return replace(
        whole,
        spaces=tuple(one for one in spaces if one.interfaces),
        ends=tuple(one for one in whole.ends if one.id in near),
        edges=tuple(one for one in whole.edges if one.source in near and one.target in near),
    )
