"""Programs go onto hooks, change there in place, and leave (the strategies of `attach`, one link at a time).

Every execution looks first what is there: a journal may run it again, or run its inverse, wherever it was cut off.
A link that was made but not yet pinned when the process died is gone with it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from xdpctl.attach import ownership
from xdpctl.attach.model import Attachment, ProgramRef
from xdpctl.attach.strategy import Target
from xdpctl.attach.xdp import XdpLink, XdpNetlink
from xdpctl.bpf import query
from xdpctl.bpf.link import Order, open_link
from xdpctl.deploy import holding
from xdpctl.errors import AttachError, NotFoundError, XdpctlError
from xdpctl.netlink import tc

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.attach.strategy import Loaded, Strategy
    from xdpctl.deploy.change import Change, Context
    from xdpctl.deploy.holding import Holding
    from xdpctl.netlink.netns import NetnsRef


def execute(change: Change, context: Context) -> None:
    """Attach, update or detach; see `change.execute`.

    Raises:
        AttachError: the kernel refused, or something else is there than was planned.
        NotFoundError: the interface or its namespace is gone.
    """
    with holding.inside(change, context) as (held, ref):
        room = change.kind.partition(".")[0]
        if room == "xdp":
            _xdp(change, held, ref)
        else:
            held.xdp(change)  # is it there still?
            _tc(change, held, ref)


def _id(held: Holding, told: dict[str, Any]) -> int | None:
    """Id of the program that a side of a change names; None: nothing."""
    if told["program"] is None:
        return None
    return held.program(told["deployment"], told["program"]).id


def _id_if_held(held: Holding, told: dict[str, Any]) -> int | None:
    """As `_id`, of what is to leave: where its pin is gone, nobody runs it."""
    try:
        return _id(held, told)
    except NotFoundError:
        return None


def _changed(change: Change, number: int) -> AttachError:
    return AttachError(
        f"{change.target} holds program {number} now, which it did not when this was planned",
        interface=change.target,
        hint="plan again",
    )


def _target(change: Change, ref: NetnsRef, hook: str, mode: str | None = None) -> Target:
    return Target(change.target, change.ifindex or 0, None, ref.label or None, ref.inode, hook, mode)


def _listed(held: Holding, inode: int, key: tuple[int, str]) -> list[Path]:
    """Pins of a device's hook in this namespace; the folder is read once, and again where it had none."""
    known = held.pins.get(inode)
    if known is None or key not in known:
        known = held.pins[inode] = {}
        with contextlib.suppress(OSError):
            for one in (ownership.links_folder() / str(inode)).iterdir():
                name = ownership.pin_name(one.name)
                if name is not None:
                    known.setdefault((name.ifindex, name.hook), []).append(one)
    return known.get(key, [])


def _pin_of(held: Holding, ref: NetnsRef, ifindex: int, hook: str, program: int) -> tuple[Path, int] | None:
    """Our pin of the link that holds a program on a hook: (path, link id)."""
    for path in _listed(held, ref.inode, (ifindex, hook)):
        try:
            with open_link(path) as link:
                info = query.link_info(link.fd)
        except XdpctlError:
            continue
        if info.program_id == program and info.ifindex == ifindex:
            return path, info.id
    # pinned when the device was in another namespace; but no pin of a device that is in that one still
    from xdpctl.attach.observe import Observer

    others = [
        one
        for one in ownership.pinned_links()
        if (one.ifindex, one.program_id) == (ifindex, program) and f"-{hook}-" in one.path.name
    ]
    if len(others) == 1 and not Observer().held_elsewhere(ifindex, program, ref):
        return others[0].path, others[0].link_id
    return None


def _pin_of_mprog(
    held: Holding, ref: NetnsRef, ifindex: int, hook: str, program: int
) -> tuple[Path, int] | None:
    """The same of a tcx or netkit hook, whose links the kernel tells."""
    entries = _mprog(ifindex, hook)
    number = next((one.link_id for one in entries if one.program_id == program), None)
    if number is None:
        return None
    here = [one for one in _listed(held, ref.inode, (ifindex, hook)) if one.name.endswith(f"-{number}")]
    moved = (one.path for one in ownership.pinned_links() if one.link_id == number)
    path = here[0] if here else next(moved, None)
    return (path, number) if path is not None else None


def _mprog(ifindex: int, hook: str) -> tuple[query.TcxEntry, ...]:
    from xdpctl.attach.observe import NETKIT, TCX

    return query.tcx_query(ifindex, {**TCX, **NETKIT}[hook]).entries


def _attachment(
    held: Holding,
    change: Change,
    ref: NetnsRef,
    hook: str,
    number: int,
    told: dict[str, Any],
    mode: str | None = None,
) -> Attachment:
    """What is there now, as the strategies take it."""
    ifindex = change.ifindex or 0
    pin = None
    link_id = None
    if told.get("via") not in ("netlink", "clsact"):
        found = (_pin_of if hook == "xdp" else _pin_of_mprog)(held, ref, ifindex, hook, number)
        if found is not None:
            pin, link_id = found
        elif told.get("foreign") is not None:
            # links don't tell their namespace: one of somebody else is only taken where no other could be meant
            others = [one.id for one in query.links() if (one.ifindex, one.program_id) == (ifindex, number)]
            link_id = others[0] if len(others) == 1 else None
    if told.get("via") == "clsact":
        via = "clsact"
    elif hook == "xdp":
        via = "link" if link_id is not None else "netlink"
    else:
        via = hook.partition("-")[0]
    return Attachment(
        interface=change.target,
        ifindex=ifindex,
        netns=ref.label or None,
        netns_inode=ref.inode,
        hook=hook,
        mode=mode,
        via=via,
        program=ProgramRef(number),
        link_id=link_id,
        pin=pin,
        owner="xdpctl" if pin is not None else "other",
        priority=told.get("priority"),
        handle=_handle(change, hook, number, told.get("priority")) or told.get("handle"),
    )


# -- XDP ----------------------------------------------------------------------------------------------------------


def _xdp(change: Change, held: Holding, ref: NetnsRef) -> None:
    before, after = holding.side(change, "before"), holding.side(change, "after")
    what = change.kind.partition(".")[2]
    mode = after["mode"] if what != "detach" else before["mode"]
    if what == "attach" and _attached(change, held, ref, after, mode):
        return
    xdp = held.xdp(change)
    present = {"native": xdp.native, "generic": xdp.generic, "offload": xdp.offload}
    modes = ("native", "generic") if mode == "auto" else (mode,)
    now_mode = next((one for one in modes if present.get(one)), modes[0])
    now = present.get(now_mode)
    if what == "detach":
        number = _id_if_held(held, before)
        if now is None or now != number:
            return  # it has left already; what is there now is none of ours
        old = _attachment(held, change, ref, "xdp", now, before, now_mode)
        (XdpNetlink() if old.link_id is None else XdpLink()).detach(old)
        return
    wanted = held.program(after["deployment"], after["program"])
    if now == wanted.id:
        return
    if what == "attach" and now is not None:
        raise _changed(change, now)
    if what == "attach" or (now is None and after.get("foreign") is None):
        _attach(wanted, change, held, ref, after, mode)
        return
    if now is None or now != _id(held, before):
        raise _changed(change, now or 0)
    old = _attachment(held, change, ref, "xdp", now, before, now_mode)
    target = _target(change, ref, "xdp", now_mode)
    (XdpNetlink() if old.link_id is None else XdpLink()).replace(wanted, target, old, held.transaction)
    if after.get("foreign") is not None and not after.get("pinned") and old.pin is not None:
        from xdpctl.bpf import pins

        pins.unpin(old.pin)  # somebody else's link is theirs again


def _attached(change: Change, held: Holding, ref: NetnsRef, after: dict[str, Any], mode: str) -> bool:
    """Attach; False: refused, for reasons that a look may tell.

    Nothing is looked at beforehand, as the kernel itself refuses where a program is (dev_xdp_attach in net/core/dev.c).
    """
    wanted = held.program(after["deployment"], after["program"])
    try:
        _attach(wanted, change, held, ref, after, mode)
    except AttachError:
        return False
    held.xdps.pop((ref.inode, change.ifindex or 0), None)
    return True


def _attach(
    wanted: Loaded, change: Change, held: Holding, ref: NetnsRef, after: dict[str, Any], mode: str
) -> None:
    netlink = after.get("via") == "netlink"
    strategy = XdpNetlink() if netlink else XdpLink(or_netlink=after.get("via") is None)
    strategy.attach(wanted, _target(change, ref, "xdp", mode), held.transaction)


# -- TC -----------------------------------------------------------------------------------------------------------


def _tc(change: Change, held: Holding, ref: NetnsRef) -> None:
    before, after = holding.side(change, "before"), holding.side(change, "after")
    what = change.kind.partition(".")[2]
    told = after if what != "detach" else before
    hook = told["at"]
    present = _tc_present(change.ifindex or 0, hook)
    strategy = _strategy(hook, held, after, present, change)
    if what == "detach":
        number = _id_if_held(held, before)
        if number is None or (number, before.get("priority")) not in present:
            return
        strategy.detach(_attachment(held, change, ref, hook, number, before))
        return
    wanted = held.program(after["deployment"], after["program"])
    if (wanted.id, after.get("priority")) in present:
        return
    if what == "attach":
        made = strategy.attach(wanted, _target(change, ref, hook), held.transaction)
        if made.via == "clsact":
            _mark_clsact(wanted.id, ref, change, made=made.made_clsact)
        return
    number = _id(held, before)
    if number is None or (number, before.get("priority")) not in present:
        raise AttachError(
            f"{hook} of {change.target} does not hold what it did when this was planned",
            interface=change.target,
            hint="plan again",
        )
    strategy.replace(
        wanted,
        _target(change, ref, hook),
        _attachment(held, change, ref, hook, number, before),
        held.transaction,
    )
    if hook.startswith("clsact"):
        from xdpctl.attach import runstate

        _mark_clsact(wanted.id, ref, change, made=runstate.made_clsact(ref.inode, change.ifindex or 0))


def _tc_present(ifindex: int, hook: str) -> list[tuple[int, int | None]]:
    """(program id, priority) of what is on a TC hook, in order."""
    if hook.startswith("clsact"):
        from xdpctl.errors import NetlinkError

        try:
            return [
                (one.prog_id, one.priority) for one in tc.bpf_filters(ifindex, hook.removeprefix("clsact-"))
            ]
        except NetlinkError:
            return []  # no clsact there
    return [(one.program_id, None) for one in _mprog(ifindex, hook)]


def _handle(change: Change, hook: str, number: int, priority: int | None) -> int | None:
    """Which of a priority's clsact filters runs a program: while programs change places it may have two."""
    if not hook.startswith("clsact"):
        return None
    found = tc.bpf_filters(change.ifindex or 0, hook.removeprefix("clsact-"))
    return next((one.handle for one in found if (one.prog_id, one.priority) == (number, priority)), None)


def _strategy(
    hook: str, held: Holding, after: dict[str, Any], present: list[tuple[int, int | None]], change: Change
) -> Strategy:
    ifindex = change.ifindex or 0
    if hook.startswith("clsact"):
        from xdpctl.attach.clsact import Clsact

        return Clsact({ifindex: after["priority"]} if after.get("priority") else {})
    from xdpctl.attach.netkit import Netkit
    from xdpctl.attach.tcx import Tcx

    place = {}
    for word, first in (("before", True), ("behind", False)):
        if after.get(word) is not None:
            named = str(after[word])
            number = (
                int(named[3:]) if named.startswith("id:") else _id_if_held(held, {**after, "program": named})
            )
            if any(one == number for one, _ in present):
                place[ifindex] = Order(before=first, program_id=number)
    return Netkit(place) if hook.startswith("netkit") else Tcx(place)


def _mark_clsact(program: int, ref: NetnsRef, change: Change, *, made: bool) -> None:
    """Remember that clsact of this device is ours to remove."""
    from xdpctl.attach import runstate

    record = runstate.read().get(program)
    if record is not None:
        marks = {*record.clsact, (ref.inode, change.ifindex or 0)} if made else set(record.clsact)
        runstate.write(record._replace(via="clsact", clsact=tuple(sorted(marks))))
