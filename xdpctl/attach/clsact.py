"""TC programs as bpf filters on a clsact qdisc (net/sched/cls_bpf.c, direct action), the way before tcx (Linux 6.6).

Filters run by priority, the lower number first. Left to itself the kernel counts priorities downward, so that the
newest runs first; here they are always given, and a new program goes last unless told otherwise.
"""

from __future__ import annotations

import errno
import struct
from itertools import count
from typing import TYPE_CHECKING

from xdpctl.attach import runstate
from xdpctl.attach.strategy import Change
from xdpctl.attach.tcx import find_anchor
from xdpctl.bpf import net
from xdpctl.errors import AttachError, NetlinkError
from xdpctl.netlink import tc, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.request import Position
    from xdpctl.attach.strategy import Loaded, Target
    from xdpctl.attach.transaction import Transaction

STEP = 100
"""Distance between the priorities of filters of ours: room for others before and after."""
HIGHEST = 0xFFFF


def priority(
    position: Position | None, taken: Sequence[int], present: Sequence[Attachment], target: Target
) -> int:
    """A free priority for a position among the filters of a hook.

    Args:
        position: what was asked.
        taken: priorities of all filters, ascending.
        present: the bpf filters among them.
        target: for messages.

    Raises:
        AttachError: there is no number left at that place.
        NotFoundError: the program to go before or after is not there.
    """
    place = position.place if position is not None else "last"
    low, high = 0, HIGHEST + 1
    if place == "last":
        low = taken[-1] if taken else 0
    elif place == "first":
        high = taken[0] if taken else high
    else:
        anchor = find_anchor((position.anchor if position else None) or "", present, target).priority or 0
        at = taken.index(anchor)
        if place == "before":
            low, high = taken[at - 1] if at else 0, anchor
        else:
            low, high = anchor, taken[at + 1] if at + 1 < len(taken) else high
    if high - low < 2:
        raise AttachError(
            f"no priority is left {place} on {target.hook} of {target.where}: taken are {', '.join(map(str, taken))}",
            interface=target.interface,
            hint=target.command(
                "tc", "filter", "show", "dev", target.interface, target.hook.removeprefix("clsact-")
            ),
        )
    if high > HIGHEST:
        return min(low + STEP, (low + high) // 2)
    return max(high - STEP, (low + high) // 2)


class Clsact:
    """TC by a bpf filter on clsact.

    Args:
        place: priority by ifindex.
    """

    via = "clsact"

    def __init__(self, place: dict[int, int] | None = None) -> None:
        self._place = place or {}

    def attach(self, program: Loaded, target: Target, changes: Transaction) -> Change:
        """See `Strategy`."""
        direction = target.hook.removeprefix("clsact-")
        made = net.tc_hook_create(target.ifindex)
        if made:
            changes.add(f"clsact of {target.where}", lambda: _destroy_if_empty(target.ifindex))
        where = self._place.get(target.ifindex, STEP)
        # one that leaves this priority may still be there: no frame is to pass without a program
        taken = {one.handle for one in tc.bpf_filters(target.ifindex, direction) if one.priority == where}
        free = next(handle for handle in count(1) if handle not in taken)
        filter_ = net.tc_attach(target.ifindex, direction, program.fd, priority=where, handle=free)
        changes.add(
            f"{target.hook} of {target.where}",
            lambda: net.tc_detach(target.ifindex, direction, priority=where, handle=free),
        )
        return Change("clsact", priority=filter_.priority, handle=filter_.handle, made_clsact=made)

    def replace(self, program: Loaded, target: Target, old: Attachment, changes: Transaction) -> Change:
        """See `Strategy`."""
        before = changes.program(old.program.id)
        _exchange(old, program.fd)
        changes.add(f"{target.hook} of {target.where}", lambda: _exchange(old, before.fd))
        return Change("clsact", priority=old.priority, handle=old.handle)

    def detach(self, old: Attachment) -> str | None:
        """See `Strategy`."""
        try:
            net.tc_detach(
                old.ifindex,
                old.hook.removeprefix("clsact-"),
                priority=old.priority or 0,
                handle=old.handle or 0,
            )
        except AttachError as error:
            if error.errno != errno.ENOENT:  # gone meanwhile
                raise
        if runstate.made_clsact(old.netns_inode, old.ifindex) and _destroy_if_empty(old.ifindex):
            runstate.unmark_clsact(old.netns_inode, old.ifindex)
        return None


def _exchange(old: Attachment, new_fd: int) -> None:
    """Put another program into a filter: cls_bpf_change() swaps it under RCU, so one of the two always runs."""
    net.tc_attach(
        old.ifindex,
        old.hook.removeprefix("clsact-"),
        new_fd,
        priority=old.priority or 0,
        handle=old.handle or 0,
        replace=True,
    )


def priorities(ifindex: int, direction: str) -> list[int]:
    """Priorities that filters of any kind, anybody's, have on a clsact hook; none where there is no clsact.

    Raises:
        NetlinkError: the kernel does not list them.
    """
    parent = {"ingress": tc.TC_H_CLSACT_INGRESS, "egress": tc.TC_H_CLSACT_EGRESS}[direction]
    asked = struct.pack("=BxxxiIII", 0, ifindex, 0, parent, 0)  # struct tcmsg
    with wire.Socket(wire.NETLINK_ROUTE) as sock:
        try:
            answers = sock.dump(
                tc.RTM_GETTFILTER, asked, what=f"listing {direction} filters of link {ifindex}"
            )
        except NetlinkError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # no qdisc to hang filters on
                return []
            raise
    # tcm_info carries the priority in its upper half
    return sorted(
        {struct.unpack_from("=I", data, start + 16)[0] >> 16 for data, start, _end in answers} - {0}
    )


def _destroy_if_empty(ifindex: int) -> bool:
    """Remove clsact where no filter is left on it; whether it was."""
    if any(priorities(ifindex, direction) for direction in ("ingress", "egress")):
        return False
    net.tc_hook_destroy(ifindex)
    return True
