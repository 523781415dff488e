"""TC programs on tcx hooks, in an order, by pinned links (kernel/bpf/tcx.c, kernel/bpf/mprog.c, Linux 6.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.attach import pinned
from xdpctl.attach.observe import TCX
from xdpctl.bpf.link import Order, link_tcx
from xdpctl.errors import AttachError, ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.request import Position
    from xdpctl.attach.strategy import Change, Loaded, Target
    from xdpctl.attach.transaction import Transaction


def order(position: Position | None, present: Sequence[Attachment], target: Target) -> Order:
    """The kernel's words for a position among the programs of a hook.

    Raises:
        NotFoundError: the program to go before or after is not there.
    """
    if position is None or position.place == "last":
        return Order(before=False)
    if position.place == "first":
        return Order(before=True)
    anchor = find_anchor(position.anchor or "", present, target)
    before = position.place == "before"
    if anchor.link_id is not None:
        return Order(before=before, link_id=anchor.link_id)
    return Order(before=before, program_id=anchor.program.id)


def find_anchor(name: str, present: Sequence[Attachment], target: Target) -> Attachment:
    """The program of a hook that is called `name`, or has this program id.

    Raises:
        NotFoundError: it is not there.
        ConfigError: several are.
    """
    hits = [one for one in present if name in (one.program.name, str(one.program.id))]
    if not hits:
        known = [one.program_name for one in present]
        raise NotFoundError(
            "program",
            name,
            known=known,
            where=f"{target.hook} of {target.where}",
            hint=None if known else f"{target.hook} of {target.interface} is empty",
        )
    if len(hits) > 1:
        raise ConfigError(
            f"{target.hook} of {target.where} has {len(hits)} programs named {name}",
            hint=f"name one by its id: {', '.join(str(one.program.id) for one in hits)}",
        )
    return hits[0]


class Tcx:
    """TC by a tcx link.

    Args:
        place: where it goes, by ifindex; last where nothing is said.
    """

    via = "tcx"

    def __init__(self, place: dict[int, Order] | None = None) -> None:
        self.place = place or {}

    def attach(self, program: Loaded, target: Target, changes: Transaction) -> Change:
        """See `Strategy`."""
        link = link_tcx(
            program.fd, target.ifindex, TCX[target.hook], order=self.place.get(target.ifindex, Order())
        )
        return pinned.keep(link, target, changes, via=self.via)

    def replace(self, program: Loaded, target: Target, old: Attachment, changes: Transaction) -> Change:
        """See `Strategy`."""
        _with_link(old)
        return pinned.replace(program, target, old, changes, via=self.via)

    def detach(self, old: Attachment) -> str | None:
        """See `Strategy`."""
        _with_link(old)
        return pinned.detach(old)


def _with_link(old: Attachment) -> None:
    if old.link_id is None:
        raise AttachError(
            f"{old.program_name} on {old.hook} of {old.interface} was attached without a link, by somebody else's"
            " BPF_PROG_ATTACH: only who attached it can detach it",
            program=old.program.name,
            interface=old.interface,
            hint="stop the tool that attached it, or delete and remake the interface",
        )
