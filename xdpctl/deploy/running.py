"""What runs on the machine now, and which deployment holds it: programs on hooks, and settings that were asked for."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from xdpctl.attach import runstate
from xdpctl.deploy import state
from xdpctl.deploy.desired import DeploymentError
from xdpctl.deploy.observe import Observed, _pins_of
from xdpctl.deploy.plan import _declared
from xdpctl.deploy.resolve import Hooked, Resolved, resolve
from xdpctl.errors import XdpctlError
from xdpctl.host.model import LinkRef
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.attach.runstate import Record
    from xdpctl.deploy.state import Stored
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.model import ObjFile

MODES = ("native", "generic", "offload")
DIRECTIONS = {
    "tcx-ingress": "ingress",
    "tcx-egress": "egress",
    "clsact-ingress": "ingress",
    "clsact-egress": "egress",
    "netkit-peer": "ingress",
    "netkit-primary": "egress",
}
"""Where a program is -> how a deployment calls it."""


@dataclass(frozen=True, slots=True)
class OnHook:
    """One program on one hook of a link."""

    link: Link
    hook: str
    """xdp, ingress, egress."""
    program_id: int
    name: str | None
    tag: str | None
    mode: str | None = None
    """native, generic, offload; None on TC hooks."""
    at: str = "xdp"
    """xdp, tcx-ingress, clsact-egress, ..."""
    priority: int | None = None
    deployment: str | None = None
    """Whose it is; None: of none."""
    key: str | None = None
    """``FOLDER/FUNCTION`` among the deployment's pins."""
    record: Record | None = None
    """Of a program that xdpctl loaded."""

    @property
    def where(self) -> str:
        """``native XDP of eth0``, ``tcx-ingress of eth0``."""
        hook = f"{self.mode} XDP" if self.hook == "xdp" else self.at
        return f"{hook} of {self.link.name}"

    @property
    def called(self) -> str:
        """``xdp_count (program 12)``."""
        name = self.record.name if self.record is not None else self.name
        return f"{name} (program {self.program_id})" if name else f"program {self.program_id}"


@dataclass(frozen=True, slots=True)
class Held:
    """A deployment, and what of the machine it means."""

    stored: Stored
    observed: Observed
    found: Resolved
    objects: Mapping[str, ObjFile]
    settings: frozenset[tuple[LinkRef, str, str]]
    """(link, kind of change, the kernel's name): settings that it asks for, itself or for a [[redirect]]."""

    def hooked(self, ref: LinkRef, hook: str, key: str) -> Hooked | None:
        """The wish behind a program on a hook."""
        wish = self.found.links.get(ref)
        return next(
            (one for one in (wish.hooked if wish else ()) if one.wish.hook == hook and one.key == key), None
        )


@dataclass(frozen=True, slots=True)
class Running:
    """The machine, and whose is what."""

    snapshot: Snapshot
    programs: tuple[OnHook, ...]
    deployments: Mapping[str, Held]
    broken: Mapping[str, str] = field(default_factory=dict)
    """Deployments whose state can't be read: name -> why."""

    @property
    def whole(self) -> bool:
        """Whether loaded programs could be listed, so that nothing that runs is left out."""
        return not any(one.what == "loaded programs" for one in self.snapshot.problems)

    def holder(self, ref: LinkRef, kind: str, key: str) -> str | None:
        """The deployment that asks for a setting."""
        return next(
            (name for name, one in self.deployments.items() if (ref, kind, key) in one.settings), None
        )


def look() -> Running:
    """Look at every network namespace that can be seen.

    Raises:
        NetlinkError: the caller's own namespace can't be read.
    """
    from xdpctl.deploy import ready
    from xdpctl.host.collect import collect
    from xdpctl.netlink import netns

    snapshot = collect(netns="all", probes=("tcx",), settings=True)
    here = netns.current().inode
    held: dict[str, Held] = {}
    broken: dict[str, str] = {}
    whose: dict[int, tuple[str, str]] = {}
    for name in state.names():
        try:
            stored = state.existing(name)
            desired, objects = ready.of_stored(stored)
        except XdpctlError as error:
            broken[name] = error.message
            continue
        try:
            programs, maps, kept = _pins_of(name, stored.entries)
        except XdpctlError:  # a bpffs that only root may look into
            programs, maps, kept = {}, {}, {}
        observed = Observed(snapshot, here, programs, maps, kept, stored=stored)
        try:
            found = resolve(desired, objects, snapshot)
        except DeploymentError:
            found = Resolved(desired)
        held[name] = Held(stored, observed, found, objects, _settings(stored, found))
        whose.update({number: (name, key) for key, number in programs.items()})
    records = runstate.read()
    attached = [
        each
        for space in snapshot.namespaces
        for link in space.links
        for each in _on(link, snapshot, whose, records)
    ]
    seen = Running(snapshot, tuple(attached), held, broken)
    return seen if seen.whole else replace(seen, programs=tuple(_likely(each, held) for each in attached))


def _settings(stored: Stored, found: Resolved) -> frozenset[tuple[LinkRef, str, str]]:
    asked = {(ref, kind, key) for ref, wish in found.links.items() for kind, key in _declared(wish.settings)}
    for one in stored.found:
        asked |= {(LinkRef(one.netns, one.ifindex), one.kind, key) for key in one.values}
    return frozenset(asked)


def _likely(one: OnHook, held: Mapping[str, Held]) -> OnHook:
    """Without the right to read pins: whose a program is by its name, where a deployment wants one of that name."""
    for name, each in held.items():
        wish = each.found.links.get(one.link.ref)
        for hooked in wish.hooked if wish is not None and one.record is not None else ():
            if (hooked.wish.hook, hooked.function) == (one.hook, one.record.name if one.record else None):
                return replace(one, deployment=name)
    return one


def _on(
    link: Link, snapshot: Snapshot, whose: Mapping[int, tuple[str, str]], records: Mapping[int, Record]
) -> list[OnHook]:
    places: list[tuple[str, int, str | None, str, int | None]] = [
        ("xdp", number, mode, "xdp", None)
        for mode in MODES
        if (number := getattr(link.xdp, mode)) is not None
    ]
    places += [
        (DIRECTIONS[one.hook], one.program_id, None, one.hook, one.priority)
        for one in link.tc
        if one.program_id
    ]
    made = []
    for hook, number, mode, at, priority in places:
        known = snapshot.programs.get(number)
        record = records.get(number)
        deployment, key = whose.get(number, (None, None))
        made.append(
            OnHook(
                link,
                hook,
                number,
                known.name if known is not None else None,
                known.tag if known is not None else None,
                mode,
                at,
                priority,
                deployment,
                key,
                # ids are given out again, programs of one id and tag are what the record tells of
                record if record is not None and (known is None or record.tag == known.tag) else None,
            )
        )
    return made
