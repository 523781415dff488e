"""A request made ready: object opened and adjusted, interfaces found, conflicts settled; nothing changed yet.

Whoever wants to look before it happens (will the kernel refuse this?) looks at a `Prepared`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.attach import ownership, runstate
from xdpctl.attach.choose import choose
from xdpctl.attach.observe import Observer
from xdpctl.attach.strategy import Target
from xdpctl.attach.xdp import XdpLink, XdpNetlink
from xdpctl.bpf import pins
from xdpctl.bpf.failure import lacks
from xdpctl.bpf.object import Object
from xdpctl.errors import AttachError, ConfigError, MapError, PrivilegeError, UnsupportedError
from xdpctl.netlink import interfaces, rtnl
from xdpctl.netlink import netns as namespaces

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.attach.migrate_plan import Plan
    from xdpctl.attach.model import Attachment
    from xdpctl.attach.request import AttachRequest
    from xdpctl.attach.strategy import Strategy
    from xdpctl.bpf.map import Map
    from xdpctl.bpf.program import Program
    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.netlink.rtnl import RawLink

FEW = 8
"""Interfaces that are asked for one by one; more are found in one dump."""


class Step(NamedTuple):
    """What will be done to one interface."""

    target: Target
    strategy: Strategy
    old: Attachment | None = None
    """What is replaced, None: nothing is there, or nothing in the way."""


class Prepared(NamedTuple):
    """An attach that is ready to happen: close it, or use it as a context manager."""

    request: AttachRequest
    netns: NetnsRef
    object: Object
    program: Program
    hook: str
    """xdp, ingress or egress."""
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    migration: Plan | None = None
    """Pinned maps that differ from the object's; None: there are none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the object; what is attached by then stays."""
        if self.migration is not None:
            self.migration.close()
        self.object.close()


def prepare(request: AttachRequest) -> Prepared:
    """Open the object, choose its program, set globals and maps, find the interfaces and what is in the way.

    Raises:
        ConfigError: the request contradicts itself or the object; a --set or --map does not fit.
        NotFoundError: no such file, program, global, map, interface or namespace.
        ObjectError: the object can't be used.
        PrivilegeError: a capability is missing.
        UnsupportedError: no bpffs, no libbpf.
        AttachError: something is in the way.
        SchemaError: a pinned map is another one than the object's, and --migrate does not say what to do.
    """
    request.check()
    recovered = runstate.recover()
    migration = None
    obj = Object.open(request.object, pin_root=ownership.maps_folder())
    try:
        candidate, hook = choose(obj, request)
        _load_only(obj, candidate.program)
        with namespaces.enter(request.netns) as ref:
            notes = _set_globals(obj, request)
            for setting in request.maps:
                if setting.max_entries is not None:
                    obj.map(setting.name).set_max_entries(setting.max_entries)
            for one in obj.maps.values():
                if one.pin_path is not None:
                    pins.component(one.pin_path.name)
            found = interfaces.expand(request.interfaces)
            _require_capabilities(candidate.program.name, found)
            steps = _steps(found, ref, hook, candidate.program.name, request)
            migration = _migration(obj, request, steps)
        if request.mode == "offload":
            _offload(candidate.program, steps)
    except BaseException:
        if migration is not None:
            migration.close()
        obj.close()
        raise
    return Prepared(request, ref, obj, candidate.program, hook, steps, (*recovered, *notes), migration)


def _migration(obj: Object, request: AttachRequest, steps: tuple[Step, ...]) -> Plan | None:
    """What becomes of pinned maps that differ; None: no map of the object is pinned already, or all are the same."""
    named = {one.name: _pin_path(one.pin) for one in request.maps if one.pin is not None}
    if not named and not any(one.pin_path and one.pin_path.exists() for one in obj.maps.values()):
        for choice in request.migrate:
            if choice.map is not None:
                obj.map(choice.map)
        return None
    from xdpctl.attach import cleanup, migrate_plan

    plan = migrate_plan.examine(obj, pinned=named, choices=request.migrate)
    try:
        if plan.moved:
            replaced = {step.old.program.id for step in steps if step.old is not None}
            migrate_plan.refuse_shared(plan, replaced, cleanup.attached())
    except BaseException:
        plan.close()
        raise
    return plan if plan.moves else None


def _require_capabilities(program: str, found: list[tuple[str, int]]) -> None:
    missing = lacks("CAP_NET_ADMIN", "CAP_BPF")
    if missing:
        names = ", ".join(name for name, _ in found[:3]) + (", ..." if len(found) > 3 else "")
        raise PrivilegeError(f"attach {program} to {names}", capability=" and ".join(missing))


def _load_only(obj: Object, chosen: Program) -> None:
    """Leave the other programs of the object out, unless tail calls may need them (BPF_MAP_TYPE_PROG_ARRAY)."""
    together = any(one.type == "prog_array" for one in obj.maps.values())
    for one in obj.programs.values():
        if one.name == chosen.name:
            one.set_autoload(True)
        elif not together or one.type != chosen.type:
            one.set_autoload(False)


def _set_globals(obj: Object, request: AttachRequest) -> list[str]:
    if not request.settings:
        return []
    from xdpctl.obj import globals as variables
    from xdpctl.obj import reader

    notes = []
    for one in variables.parse_all(reader.read(request.object), request.settings, ifindex=interfaces.ifindex):
        section(obj, one.section).patch_initial_value(one.offset, one.data)
        if one.note:
            notes.append(one.note)
    return notes


def section(obj: Object, section: str) -> Map:
    """The map that libbpf makes of a data section: it is called ``NAME.rodata``, or ``.rodata.NAME`` in full."""
    for one in obj.maps.values():
        if one.internal and (one.name == section or one.name.endswith(section)):
            return one
    raise MapError(f"{obj.path.name} has no section {section} that libbpf would load")


def _pin_path(pin: str) -> Path:
    path = Path(pin)
    return path if path.is_absolute() else pins.mount_point() / path


def steps_of(request: AttachRequest, hook: str, program: str) -> tuple[Step, ...]:
    """What a request comes to in the present namespace, as things are now.

    Raises:
        NotFoundError: no such interface.
        AttachError: something is in the way.
    """
    return _steps(interfaces.expand(request.interfaces), namespaces.current(), hook, program, request)


def _steps(
    found: list[tuple[str, int]], ref: NetnsRef, hook: str, program: str, request: AttachRequest
) -> tuple[Step, ...]:
    observer = Observer()
    links = _links(found)
    steps = []
    for name, ifindex in found:
        raw = links.get(ifindex)
        if raw is None:
            raise AttachError(f"{name} has gone", interface=name)
        if hook == "xdp":
            steps.append(_xdp_step(raw, ref, observer, request, program))
        else:
            steps.append(_tc_step(raw, ref, observer, request, program, hook))
    if any(one.strategy.via not in {"netlink", "clsact"} for one in steps):
        _require_bpffs(hook)
    return tuple(steps)


def _links(found: list[tuple[str, int]]) -> dict[int, RawLink]:
    if len(found) <= FEW:
        from xdpctl.netlink import wire

        with wire.Socket(wire.NETLINK_ROUTE) as sock:
            return {ifindex: rtnl.link(ifindex, sock) for _, ifindex in found}
    return {one.ifindex: one for one in rtnl.links()}


def _require_bpffs(hook: str) -> None:
    try:
        pins.require_bpffs()
    except UnsupportedError as error:
        way = "netlink" if hook == "xdp" else "clsact"
        error.hint = f"{error.hint}; or --via {way}, which pins nothing"
        raise


def _target(raw: RawLink, ref: NetnsRef, hook: str, mode: str | None = None) -> Target:
    return Target(raw.name, raw.ifindex, raw.kind, ref.label or None, ref.inode, hook, mode)


def _xdp_step(raw: RawLink, ref: NetnsRef, observer: Observer, request: AttachRequest, program: str) -> Step:
    target = _target(raw, ref, "xdp", request.mode or "native")
    old = None
    if raw.xdp:
        from xdpctl.attach import conflicts

        old = conflicts.xdp(target, list(observer.xdp(raw, ref)), request, program)
    via = old.via if old is not None else request.via
    return Step(target, XdpNetlink() if via == "netlink" else XdpLink(or_netlink=request.via is None), old)


def _tc_step(
    raw: RawLink, ref: NetnsRef, observer: Observer, request: AttachRequest, program: str, direction: str
) -> Step:
    """On netkit, tcx or clsact: what was asked, or the newest that is there."""
    from xdpctl.attach import conflicts
    from xdpctl.attach.clsact import Clsact, priorities, priority
    from xdpctl.attach.netkit import HOOKS, Netkit
    from xdpctl.attach.tcx import Tcx, order

    via = request.via
    hook = f"{via}-{direction}"
    present: list[Attachment] = []
    if via is None and raw.kind == "netkit" and raw.data.get("primary"):
        via, hook = "netkit", HOOKS[direction]
    if via != "clsact":
        hook = hook if via else f"tcx-{direction}"
        present = list(observer.mprog(raw, ref, (hook,)))
        if not observer.has_tcx:
            if via is not None:
                raise UnsupportedError("tcx", needs="Linux 6.6", has="an older kernel", hint="--via clsact")
            via, hook = "clsact", f"clsact-{direction}"
    target = _target(raw, ref, hook)
    if via == "clsact":
        present = list(observer.clsact(raw, ref, (direction,)))
        old = conflicts.tc(target, present, request, program)
        taken = priorities(raw.ifindex, direction)
        place = {} if old else {raw.ifindex: priority(request.position, taken, present, target)}
        return Step(target, Clsact(place), old)
    old = conflicts.tc(target, present, request, program)
    at = {} if old else {raw.ifindex: order(request.position, present, target)}
    return Step(target, Netkit(at) if via == "netkit" else Tcx(at), old)


def _offload(program: Program, steps: tuple[Step, ...]) -> None:
    if len(steps) > 1:
        raise ConfigError(
            "--mode offload: a program is offloaded to one device", hint="attach to one interface a command"
        )
    program.set_ifindex(steps[0].target.ifindex, offload=True)
