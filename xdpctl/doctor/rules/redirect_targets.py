"""Redirect to any device: the checks that the core makes of a target, and what each driver needs to take a frame.

Mirrors kernel/bpf/devmap.c __xdp_enqueue() and dev_map_generic_redirect(), include/linux/filter.h
xdp_ok_fwd_dev(), net/core/filter.c xdp_do_redirect() and xdp_do_generic_redirect(), net/core/dev.c
generic_xdp_tx(). A veth's peer is redirect_veth's business, a bond's slaves bond's, a tap's reader tun's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import EmptySlot, Redirect, UntoldTarget
from xdpctl.doctor.rules.case import (
    Case,
    Mistake,
    Rule,
    forward_limit,
)
from xdpctl.doctor.rules.commands import larger_mtu, up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link

TARGET_MISSING = Mistake(
    "redirect.target-missing",
    "The target's ifindex does not exist in the namespace of the device that redirects.",
    "EINVAL in xdp_redirect_err; EINVAL of bpf(BPF_MAP_UPDATE_ELEM) for a devmap",
    ("net/core/filter.c xdp_do_redirect()", "kernel/bpf/devmap.c __dev_map_alloc_node()"),
)
TARGET_DOWN = Mistake(
    "redirect.target-down",
    "The target is down.",
    "ENETDOWN in xdp_redirect_err",
    ("include/linux/filter.h xdp_ok_fwd_dev()",),
)
TARGET_MTU = Mistake(
    "redirect.target-mtu",
    "Frames are longer than the target's MTU, link layer header and VLAN tag allow.",
    "EMSGSIZE in xdp_redirect_err",
    ("include/linux/filter.h xdp_ok_fwd_dev()",),
)
EMPTY_SLOT = Mistake(
    "redirect.empty-slot",
    "A program redirects through a map slot that nothing fills.",
    "none: bpf_redirect_map() returns the action in its flags, XDP_ABORTED for 0 (xdp_exception)",
    ("include/linux/filter.h __bpf_xdp_redirect_map()",),
)
UNTOLD = Mistake(
    "redirect.target-not-told",
    "A program redirects, but where to can't be told from its instructions and settings.",
    "not known",
    ("xdpctl obj/redirects.py",),
)
GENERIC_DROP = Mistake(
    "redirect.generic-driver-drop",
    "The target accepts a generic redirect and then drops every such frame.",
    "none: xdp_redirect reports success, the frame ends in kfree_skb",
    (
        "drivers/net/ifb.c ifb_xmit()",
        "net/bridge/br_device.c br_dev_xmit()",
        "drivers/net/ipvlan/ipvlan_core.c",
    ),
)
ENQUEUE, BULK = "xdp:xdp_redirect_err", "xdp:xdp_devmap_xmit"
GENERIC = "attach the redirecting program in generic mode (--mode generic): slower, but this device takes it"


def status_of(intent: Redirect) -> Status:
    """How much a lost redirect matters: whether anybody said that it happens."""
    return Status.FAIL if intent.promised else Status.WARN


def loses(errno: str | None, place: str) -> str:
    """What follows from an errno in one of the two tracepoints."""
    if place == ENQUEUE:
        return f"each redirect fails with {errno}: {ENQUEUE} fires, the program sees nothing"
    return f"the bulk is dropped with {errno} in {place}, while xdp_redirect reports success"


def missing(case: Case, intent: Redirect) -> Iterator[Finding]:
    """dev_get_by_index_rcu() of the target, in the namespace of the receiving device."""
    if case.link(intent.target) is not None:
        return
    source = case.link(intent.source)
    ifindex = intent.target.ifindex
    where = f" of {case.name(source)}" if source else ""
    about = {"interface": f"ifindex {ifindex}", "netns": case.labels.get(intent.target.netns)}
    if not case.observed(intent.target.netns):
        yield case.find(
            TARGET_MISSING,
            Status.UNKNOWN,
            source,
            f"whether ifindex {ifindex} can be redirected to is not known: its namespace was not observed",
            alternatives=("run xdpctl as root, or inside that namespace",),
            **({} if source else about),
        )
        return
    yield case.find(
        TARGET_MISSING,
        status_of(intent),
        source,
        f"there is no ifindex {ifindex} in the network namespace{where}, so frames redirected to it are lost",
        errno="EINVAL",
        shows_in="bpf(BPF_MAP_UPDATE_ELEM)" if intent.via_map else ENQUEUE,
        consequence="the devmap slot can't be filled: EINVAL" if intent.via_map else loses("EINVAL", ENQUEUE),
        evidence=(Evidence(f"no link has ifindex {ifindex} there", "RTM_GETLINK dump"),),
        alternatives=("an ifindex counts in one namespace only: take the one that `ip link` prints there",),
        **({} if source else about),
    )


def down(case: Case, intent: Redirect) -> Iterator[Finding]:
    """IFF_UP of the target, in either mode."""
    target = case.link(intent.target)
    if target is None or target.up:
        return
    yield case.find(
        TARGET_DOWN,
        status_of(intent),
        target,
        f"frames redirected to {case.name(target)} are lost: it is down",
        errno="ENETDOWN",
        shows_in=ENQUEUE,
        consequence=loses("ENETDOWN", ENQUEUE),
        evidence=(Evidence(f"{target.name} lacks IFF_UP", "RTM_GETLINK flags"),),
        fix=(up(case, target),),
    )


def too_long(case: Case, intent: Redirect) -> Iterator[Finding]:
    """The target's MTU, in either mode; without a known length, the source's MTU is what may come."""
    target, source = case.link(intent.target), case.link(intent.source)
    if target is None:
        return
    limit = forward_limit(target)
    if intent.frame_len is not None:
        longest, certain, read = intent.frame_len, True, "given"
    elif source is not None:
        longest, certain, read = source.mtu + 14, False, f"RTM_GETLINK IFLA_MTU of {case.name(source)}"
    else:
        return
    if longest <= limit:
        return
    yield case.find(
        TARGET_MTU,
        status_of(intent) if certain else Status.WARN,
        target,
        f"frames longer than {limit} bytes redirected to {case.name(target)} are lost: its MTU is {target.mtu}",
        errno="EMSGSIZE",
        shows_in=ENQUEUE,
        consequence=loses("EMSGSIZE", ENQUEUE),
        evidence=(
            Evidence(f"MTU {target.mtu}, so at most {limit} bytes are forwarded", "RTM_GETLINK IFLA_MTU"),
            Evidence(f"frames may be {longest} bytes long", read),
        ),
        fix=larger_mtu(case, target, longest - 14),
    )


def drops_generic(case: Case, target: Link) -> str | None:
    """Why a target's ndo_start_xmit drops every frame of a generic redirect, None where it doesn't."""
    if target.kind == "ifb":
        return "ifb takes only frames from `tc ... action mirred`"
    if target.kind == "bridge" and not case.lowers(target):
        return "the bridge has no ports"
    if target.driver == "netdevsim":
        return "netdevsim only plays hardware"
    return None


def generic_drop(case: Case, intent: Redirect) -> Iterator[Finding]:
    """Devices whose ndo_start_xmit drops what a generic redirect hands them."""
    target = case.link(intent.target)
    if target is None or intent.mode != "generic" or not target.up:
        return
    why = drops_generic(case, target)
    if why is None:
        return
    yield case.find(
        GENERIC_DROP,
        status_of(intent),
        target,
        f"frames redirected (generic) to {case.name(target)} are dropped: {why}",
        shows_in="skb:kfree_skb",
        consequence="xdp:xdp_redirect reports success, then the driver drops the frame",
        evidence=(Evidence(f"{target.name} is a {target.kind}", "RTM_GETLINK IFLA_LINKINFO"),),
    )


def empty_slot(case: Case, intent: EmptySlot) -> Iterator[Finding]:
    """bpf_redirect_map() of an empty slot returns the action that its flags name."""
    if intent.map_type == "cpumap":
        fill = "fill it: xdpctl map update, or the program's own loader"
    else:
        fill = f"fill it: bpftool map update name {intent.map_name} key ... value IFINDEX"
    action = {0: "XDP_ABORTED", 1: "XDP_DROP", 2: "XDP_PASS", 3: "XDP_TX"}.get(
        (intent.flags or 0) & 3, "XDP_ABORTED"
    )
    source = case.link(intent.source)
    slot = f"slot {intent.key}" if intent.key is not None else "every slot"
    lost = intent.flags is not None and not intent.flags & 3
    status = Status.FAIL if lost and intent.promised else Status.WARN
    if intent.flags is None:
        action = "the action in its flags (XDP_ABORTED for 0)"
    yield case.find(
        EMPTY_SLOT,
        status,
        source,
        f"{intent.program} redirects through {slot} of {intent.map_type} {intent.map_name}, which is empty",
        shows_in="xdp:xdp_exception" if lost else None,
        consequence=f"bpf_redirect_map() returns {action}; no redirect event",
        evidence=(Evidence(f"{slot} of {intent.map_name} is empty", intent.read_from),),
        alternatives=(fill,),
        **({} if source else {"interface": None}),
    )


def untold(case: Case, intent: UntoldTarget) -> Iterator[Finding]:
    """Where a redirect goes is known only to its runs."""
    source = case.link(intent.source)
    yield case.find(
        UNTOLD,
        Status.UNKNOWN,
        source,
        f"{intent.program} redirects to {intent.target}, which can't be told beforehand",
        evidence=(Evidence(f"target: {intent.target}", intent.read_from),),
        alternatives=(intent.look,),
        **({} if source else {"interface": None}),
    )


MISTAKES = (TARGET_MISSING, TARGET_DOWN, TARGET_MTU, EMPTY_SLOT, UNTOLD, GENERIC_DROP)

RULES = (
    Rule((Redirect,), missing),
    Rule((Redirect,), down),
    Rule((Redirect,), too_long),
    Rule((Redirect,), generic_drop),
    Rule((EmptySlot,), empty_slot),
    Rule((UntoldTarget,), untold),
)
