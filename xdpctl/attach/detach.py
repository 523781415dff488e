"""Take programs off interfaces: what matches goes, with its pin, and what does not match is named.

The kernel calls a detach in the wrong mode a success (dev_xdp_attach() with nothing to remove); here it is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.attach import cleanup, conflicts, runstate
from xdpctl.attach.clsact import Clsact
from xdpctl.attach.model import DISPATCHERS
from xdpctl.attach.netkit import Netkit
from xdpctl.attach.observe import Observer
from xdpctl.attach.strategy import Target
from xdpctl.attach.tcx import Tcx
from xdpctl.attach.transaction import held_signals
from xdpctl.attach.xdp import XdpLink, XdpNetlink
from xdpctl.bpf import pins
from xdpctl.bpf.failure import lacks
from xdpctl.errors import AttachError, NotFoundError, PrivilegeError
from xdpctl.netlink import interfaces, rtnl
from xdpctl.netlink import netns as namespaces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.ownership import PinnedLink
    from xdpctl.attach.request import DetachRequest
    from xdpctl.attach.strategy import Strategy
    from xdpctl.netlink.netns import NetnsRef

STRATEGIES: dict[str, Strategy] = {
    "link": XdpLink(),
    "netlink": XdpNetlink(),
    "tcx": Tcx(),
    "netkit": Netkit(),
    "clsact": Clsact(),
}

HOOKS = {
    "xdp": ("xdp",),
    "ingress": ("tcx-ingress", "clsact-ingress", "netkit-peer"),
    "egress": ("tcx-egress", "clsact-egress", "netkit-primary"),
}
"""What ``--hook`` means among model.HOOKS."""


class Detached(NamedTuple):
    """What a detach took away."""

    attachments: tuple[Attachment, ...]
    stale: tuple[Path, ...] = ()
    """Pins of devices that are gone, removed on the way."""
    map_pins: tuple[Path, ...] = ()
    """Maps pinned by name that nothing of ours uses any more."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``{"detached": [...], "stale_pins": [...], "map_pins": [...]}``."""
        return {
            "detached": [one.to_json() for one in self.attachments],
            "stale_pins": [str(one) for one in self.stale],
            "map_pins": [str(one) for one in self.map_pins],
        }


def detach(request: DetachRequest) -> Detached:
    """Detach what matches from every interface of the request; all is looked at before anything is taken away.

    Raises:
        ConfigError: the request contradicts itself.
        NotFoundError: no such interface or namespace.
        AttachError: nothing matches (the message says what is there), it is somebody else's, several could be
            meant, or the kernel refused.
        PrivilegeError: a capability is missing.
        KeyboardInterrupt: Ctrl-C; what is detached by then stays detached, with its pin gone.
    """
    request.check()
    recovered = runstate.recover()
    with namespaces.enter(request.netns) as ref:
        observer = Observer()
        stale = [one for one in observer.pins.values() if one.ifindex is None]
        found, gone = _expand(request.interfaces, stale)
        missing = lacks("CAP_NET_ADMIN", "CAP_BPF")
        if missing:
            raise PrivilegeError(
                f"detach from {', '.join(request.interfaces)}", capability=" and ".join(missing)
            )
        present = _present(found, ref, observer)
        chosen, notes = _choose(found, present, request, ref)
        notes = [*recovered, *notes]
        left = {one.program.id for one in chosen} | {one.program_id for one in stale}
        done: list[Attachment] = []
        with held_signals() as signals:
            try:
                for one in chosen:
                    signals.check()
                    note = STRATEGIES[one.via or "netlink"].detach(one)
                    done.append(one)
                    if note:
                        notes.append(note)
            except AttachError as error:
                if done:
                    error.message += f"; {len(done)} before it are detached"
                raise
            finally:
                removed = [one.path for one in stale if pins.unpin(one.path)]
                maps = cleanup.after_leaving(left, keep_maps=request.keep_maps)
    notes += [f"{name} is gone; its stale pin is removed" for name in gone]
    return Detached(tuple(done), tuple(removed), tuple(maps), tuple(notes))


def _expand(patterns: Sequence[str], stale: list[PinnedLink]) -> tuple[list[tuple[str, int]], list[str]]:
    """Interfaces of the request; names that are gone but have left a pin are told apart."""
    gone = [one for one in patterns if any(pin.interface == one for pin in stale)]
    names = []
    for pattern in patterns:
        if pattern in gone:
            try:
                interfaces.ifindex(pattern)
            except NotFoundError:
                continue
        names.append(pattern)
    return interfaces.expand(names), [one for one in gone if one not in names]


def _present(found: list[tuple[str, int]], ref: NetnsRef, observer: Observer) -> dict[int, list[Attachment]]:
    wanted = {ifindex for _, ifindex in found}
    links = [one for one in rtnl.links() if one.ifindex in wanted]
    present: dict[int, list[Attachment]] = {ifindex: [] for ifindex in wanted}
    for one in observer.everything(links, ref):
        present[one.ifindex].append(one)
    return present


def _choose(
    found: list[tuple[str, int]], present: dict[int, list[Attachment]], request: DetachRequest, ref: NetnsRef
) -> tuple[list[Attachment], list[str]]:
    chosen: list[Attachment] = []
    notes: list[str] = []
    empty: list[AttachError] = []
    for name, ifindex in found:
        matching = [one for one in present[ifindex] if matches(one, request)]
        if not matching:
            error = _nothing(name, ref, present[ifindex], request)
            if name in request.interfaces:
                raise error
            empty.append(error)  # a glob meets interfaces that have nothing
            continue
        chosen += _of_one(name, ref, matching, request, notes)
    if not chosen and empty:
        raise empty[0]
    return chosen, notes


def matches(one: Attachment, request: DetachRequest) -> bool:
    """Whether an attachment is among what a request means."""
    if request.hook is not None and one.hook not in HOOKS[request.hook]:
        return False
    if request.mode is not None and one.mode != request.mode:
        return False
    return request.program is None or request.program in (one.program.name, str(one.program.id))


def _of_one(
    name: str, ref: NetnsRef, matching: list[Attachment], request: DetachRequest, notes: list[str]
) -> list[Attachment]:
    """What goes from one interface."""
    where = f"{name} in namespace {ref.label}" if ref.label else name
    foreign = [one for one in matching if not one.ours]
    if not request.foreign:
        if len(foreign) == len(matching):
            target = Target(name, foreign[0].ifindex, None, ref.label or None, ref.inode, foreign[0].hook)
            raise AttachError(
                f"{where}: {foreign[0].describe()} was put there by somebody else",
                program=foreign[0].program.name,
                interface=name,
                mode=foreign[0].mode,
                hint=f"--foreign detaches it all the same; better: {conflicts.clear_command(target, foreign[0])}",
            )
        notes += [f"{where}: {one.describe()} stays on {one.hook}" for one in foreign]
        matching = [one for one in matching if one.ours]
    if len(matching) > 1 and not request.all:
        listed = ", ".join(f"{one.program_name} ({one.program.id}) on {one.hook}" for one in matching)
        raise AttachError(
            f"{where} has {len(matching)} programs that could be meant: {listed}",
            interface=name,
            hint="--hook, --mode or --program names one; --all takes them all",
        )
    notes += [
        f"{where}: {one.program_name} was a dispatcher; the programs it called run no more"
        for one in matching
        if one.program.name in DISPATCHERS and not one.ours
    ]
    return matching


def _nothing(name: str, ref: NetnsRef, present: list[Attachment], request: DetachRequest) -> AttachError:
    where = f"{name} in namespace {ref.label}" if ref.label else name
    asked = " ".join(
        text
        for text in (
            f"in {request.mode} mode" if request.mode else "",
            f"on {request.hook}" if request.hook else "",
            f"named {request.program}" if request.program else "",
        )
        if text
    )
    if not present:
        what = f"no program {asked}".rstrip()
        return AttachError(
            f"{where} has {what}", interface=name, mode=request.mode, hint=f"xdpctl status {name}"
        )
    active = ", ".join(f"{one.mode or one.hook}: {one.describe()}" for one in present)
    target = Target(name, present[0].ifindex, None, ref.label or None, ref.inode, present[0].hook)
    return AttachError(
        f"{where} has nothing {asked}; active is {active}",
        interface=name,
        mode=request.mode,
        hint=conflicts.clear_command(target, present[0]),
    )
