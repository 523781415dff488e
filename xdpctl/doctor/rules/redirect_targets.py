"""Redirect to any device: the checks that the core makes of a target, and what each driver needs to take a frame.

Mirrors kernel/bpf/devmap.c __xdp_enqueue() and dev_map_generic_redirect(), include/linux/filter.h
xdp_ok_fwd_dev(), net/core/filter.c xdp_do_redirect() and xdp_do_generic_redirect(), net/core/dev.c
generic_xdp_tx(). A veth's peer is redirect_veth's business, a bond's slaves bond's, a tap's reader tun's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Fix, Status
from xdpctl.doctor.intent import EmptySlot, Redirect, UntoldTarget
from xdpctl.doctor.rules.case import (
    NDO_XMIT,
    NDO_XMIT_SG,
    Case,
    Mistake,
    Rule,
    driver_of,
    forward_limit,
    has_native,
)
from xdpctl.doctor.rules.commands import channels, larger_mtu, pass_program, up
from xdpctl.doctor.rules.geometry import XDP_PACKET_HEADROOM, geometry
from xdpctl.doctor.rules.target_drivers import NEVER, PROGRAM, TARGETS

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
NEEDS_PROGRAM = Mistake(
    "redirect.target-needs-program",
    "The target's driver transmits redirected frames only while the target has a native program of its own.",
    "EOPNOTSUPP in xdp_redirect_err from 6.3; ENXIO (bnxt: EINVAL) in xdp_devmap_xmit before",
    ("kernel/bpf/devmap.c __xdp_enqueue()", "the driver's ndo_xdp_xmit"),
)
NO_XMIT = Mistake(
    "redirect.target-no-xmit",
    "The target can't transmit frames redirected natively: its driver has no ndo_xdp_xmit.",
    "EOPNOTSUPP in xdp_redirect_err",
    ("kernel/bpf/devmap.c __xdp_enqueue()",),
)
NO_SG = Mistake(
    "redirect.target-no-sg",
    "The target can't transmit frames of several buffers.",
    "EOPNOTSUPP in xdp_redirect_err from 6.3; no event at all from 5.18 to 6.2",
    ("kernel/bpf/devmap.c __xdp_enqueue() (6.3)",),
)
CPU_QUEUES = Mistake(
    "redirect.target-cpu-queues",
    "The target's driver picks a transmit queue by CPU number, and there are more CPUs than queues.",
    "ENXIO (sfc: EINVAL) in xdp_devmap_xmit, on the CPUs beyond",
    (
        "drivers/net/ethernet/mellanox/mlx5/core/en/xdp.c mlx5e_xdp_xmit()",
        "i40e_xdp_xmit()",
        "efx_xdp_tx_buffers()",
    ),
)
EMPTY_SLOT = Mistake(
    "redirect.empty-slot",
    "A program redirects through a map slot that nothing fills.",
    "none: bpf_redirect_map() returns the action in its flags, XDP_ABORTED for 0 (xdp_exception)",
    ("include/linux/filter.h __bpf_xdp_redirect_map()",),
)
UNKNOWN_DRIVER = Mistake(
    "redirect.target-unknown",
    "Whether the target's driver takes redirected frames is not known here.",
    "not known",
    ("kernel/bpf/devmap.c __xdp_enqueue()",),
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
MISTAKES = (
    TARGET_MISSING,
    NEEDS_PROGRAM,
    NO_XMIT,
    NO_SG,
    TARGET_DOWN,
    TARGET_MTU,
    CPU_QUEUES,
    EMPTY_SLOT,
    UNKNOWN_DRIVER,
    UNTOLD,
    GENERIC_DROP,
)

ENQUEUE, BULK = "xdp:xdp_redirect_err", "xdp:xdp_devmap_xmit"
GENERIC = "attach the redirecting program in generic mode (--mode generic): slower, but this device takes it"
OWN_RULE = ("veth", "bond")
"""Drivers whose readiness another file judges."""


def _status(intent: Redirect) -> Status:
    return Status.FAIL if intent.promised else Status.WARN


def _loses(errno: str | None, place: str) -> str:
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
        _status(intent),
        source,
        f"there is no ifindex {ifindex} in the network namespace{where}, so frames redirected to it are lost",
        errno="EINVAL",
        shows_in="bpf(BPF_MAP_UPDATE_ELEM)" if intent.via_map else ENQUEUE,
        consequence="the devmap slot can't be filled: EINVAL"
        if intent.via_map
        else _loses("EINVAL", ENQUEUE),
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
        _status(intent),
        target,
        f"frames redirected to {case.name(target)} are lost: it is down",
        errno="ENETDOWN",
        shows_in=ENQUEUE,
        consequence=_loses("ENETDOWN", ENQUEUE),
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
        _status(intent) if certain else Status.WARN,
        target,
        f"frames longer than {limit} bytes redirected to {case.name(target)} are lost: its MTU is {target.mtu}",
        errno="EMSGSIZE",
        shows_in=ENQUEUE,
        consequence=_loses("EMSGSIZE", ENQUEUE),
        evidence=(
            Evidence(f"MTU {target.mtu}, so at most {limit} bytes are forwarded", "RTM_GETLINK IFLA_MTU"),
            Evidence(f"frames may be {longest} bytes long", read),
        ),
        fix=larger_mtu(case, target, longest - 14),
    )


def not_ready(case: Case, intent: Redirect) -> Iterator[Finding]:
    """Native: the target's ndo_xdp_xmit and what it wants, from xdp-features (6.3) or the driver table."""
    target = case.link(intent.target)
    if target is None or intent.mode != "native" or driver_of(target) in OWN_RULE:
        return
    driver = driver_of(target)
    row = TARGETS.get(driver or "")
    features = target.xdp_features
    evidence = _evidence(case, target, driver)
    if features is not None and features & NDO_XMIT:
        return
    if row is None:
        if features is None:
            yield _unknown(case, target, driver, evidence)
        else:
            yield _no_xmit(case, intent, target, driver, evidence)
    elif row.xmit == NEVER:
        yield _no_xmit(case, intent, target, driver, evidence)
    elif row.xmit == PROGRAM and not has_native(target):
        if features is None and not case.since(6, 3) and row.bare_worked:
            return
        yield _needs_program(case, intent, target, row.bare, evidence)
    elif features is not None:  # the table says it should, the kernel says it doesn't
        yield _no_xmit(case, intent, target, driver, evidence)


def _evidence(case: Case, target: Link, driver: str | None) -> tuple[Evidence, ...]:
    facts = [
        Evidence(f"{target.name}'s driver is {driver or 'not known'}", "ethtool driver info, rtnl link kind")
    ]
    if target.xdp_features is not None:
        has = "have" if target.xdp_features & NDO_XMIT else "lack"
        facts.append(
            Evidence(
                f"xdp-features {target.xdp_features:#x} {has} ndo-xmit",
                f"netdev dev-get of {case.name(target)}",
            )
        )
    else:
        facts.append(case.version_evidence())
    if driver in TARGETS and TARGETS[driver].xmit == PROGRAM:
        word = f"has native program id {target.xdp.native}" if target.xdp.native else "has no native program"
        facts.append(Evidence(f"{target.name} {word}", "RTM_GETLINK IFLA_XDP"))
    return tuple(facts)


def _no_xmit(
    case: Case, intent: Redirect, target: Link, driver: str | None, evidence: tuple[Evidence, ...]
) -> Finding:
    row = TARGETS.get(driver or "")
    generic_works = _drops_generic(case, target) is None
    others = [GENERIC] if generic_works else []
    below = case.lowers(target)
    if below:
        others.append(f"redirect to the device below instead: {', '.join(one.name for one in below)}")
    fix: tuple[Fix, ...] = ()
    why = "it lacks ndo-xmit in its xdp-features"
    if row is not None and row.xmit == NEVER:
        why = f"{driver} has no ndo_xdp_xmit"
    lro = target.feature("rx-lro"), target.feature("rx-gro-hw")
    if driver == "mlx5_core" and any(one and one.active for one in lro):
        why = "mlx5 clears its xdp-features while LRO or HW-GRO is on"
        argv = ("ethtool", "-K", target.name, "lro", "off", "rx-gro-hw", "off")
        fix = (case.fix(target, *argv, inverse=None, flaps=True),)
    references = (*NO_XMIT.mirrors, row.function) if row else NO_XMIT.mirrors
    return case.find(
        NO_XMIT,
        _status(intent),
        target,
        f"frames redirected natively to {case.name(target)} are lost: {why}",
        errno="EOPNOTSUPP",
        shows_in=ENQUEUE,
        consequence=_loses("EOPNOTSUPP", ENQUEUE)
        + ("; the same program works in generic mode" if generic_works else ""),
        evidence=evidence,
        fix=fix,
        alternatives=tuple(others),
        references=references,
    )


def _needs_program(
    case: Case, intent: Redirect, target: Link, bare: str, evidence: tuple[Evidence, ...]
) -> Finding:
    driver = driver_of(target)
    if target.xdp_features is not None or case.since(6, 3):
        errno, place = "EOPNOTSUPP", ENQUEUE
    else:
        errno, place = bare, BULK if intent.via_map or case.since(5, 6) else ENQUEUE
    row = TARGETS.get(driver or "")
    fix, others = (pass_program(case, target),), (GENERIC,)
    if target.xdp.generic:  # in the way of a native one, and not ours to take away
        fix, others = (), (f"attach the program of {case.name(target)} in native mode instead of generic", GENERIC)
    return case.find(
        NEEDS_PROGRAM,
        _status(intent),
        target,
        f"frames redirected natively to {case.name(target)} are lost: {driver} transmits them only while"
        f" {target.name} has a native program of its own",
        errno=errno,
        shows_in=place,
        consequence=_loses(errno, place),
        evidence=evidence,
        fix=fix,
        alternatives=others,
        references=(*NEEDS_PROGRAM.mirrors[:1], row.function if row else "ndo_xdp_xmit"),
    )


def _unknown(case: Case, target: Link, driver: str | None, evidence: tuple[Evidence, ...]) -> Finding:
    return case.find(
        UNKNOWN_DRIVER,
        Status.UNKNOWN,
        target,
        f"whether {case.name(target)} takes frames redirected natively is not known: driver {driver or 'unknown'}",
        evidence=evidence,
        alternatives=("prove it with one frame: xdpctl doctor --probe", GENERIC),
    )


def core_refuses_frags(case: Case, target: Link) -> bool:
    """xdp_do_redirect() of 5.18 to 6.2: -EOPNOTSUPP for frames of several buffers before any target is asked."""
    return target.xdp_features is None and case.since(5, 18) and not case.since(6, 3)


def several_buffers(case: Case, intent: Redirect) -> Iterator[Finding]:
    """Frames with fragments need NETDEV_XDP_ACT_NDO_XMIT_SG."""
    target = case.link(intent.target)
    if target is None or intent.mode != "native" or not intent.multi_buffer:
        return
    sizes = geometry(case.kernel)
    if intent.frame_len is not None and sizes is not None:
        one_buffer = sizes.with_overhead(sizes.page_size - XDP_PACKET_HEADROOM)
        if intent.frame_len <= one_buffer:
            return
    driver = driver_of(target)
    row = TARGETS.get(driver or "")
    if core_refuses_frags(case, target):
        pass
    elif target.xdp_features is not None:
        if target.xdp_features & NDO_XMIT_SG or not target.xdp_features & NDO_XMIT:
            return  # fine, or lost already for want of NDO_XMIT
    elif driver in OWN_RULE or row is None or row.sg or row.xmit == NEVER:
        return
    traced = target.xdp_features is not None or case.since(6, 3)
    errno = "EOPNOTSUPP" if traced else None
    yield case.find(
        NO_SG,
        _status(intent) if intent.frame_len is not None else Status.WARN,
        target,
        f"frames of several buffers redirected natively to {case.name(target)} are lost:"
        + (" it takes single buffers only" if traced else " this kernel redirects single buffers only"),
        errno=errno,
        shows_in=ENQUEUE if traced else None,
        consequence=_loses("EOPNOTSUPP", ENQUEUE)
        if traced
        else "the frames are lost, and no tracepoint fires",
        evidence=_evidence(case, target, driver),
        alternatives=("keep frames in one buffer: lower the MTU of the source", GENERIC),
    )


def cpu_queues(case: Case, intent: Redirect) -> Iterator[Finding]:
    """Drivers that index transmit queues by CPU number."""
    target = case.link(intent.target)
    if target is None or intent.mode != "native":
        return
    driver = driver_of(target)
    row = TARGETS.get(driver or "")
    if row is None or row.cpu_errno is None or target.channels is None or not target.channels.combined:
        return
    queues, cpus = target.channels.combined, case.snapshot.cpus_possible
    if queues >= cpus:
        return
    fix: tuple[Fix, ...] = ()
    if target.channels.combined_max >= cpus:
        fix = (channels(case, target, combined=(queues, cpus)),)
    yield case.find(
        CPU_QUEUES,
        Status.WARN,
        target,
        f"frames redirected to {case.name(target)} on CPU {queues} and above are lost: {driver} has {queues} channels"
        f" for {cpus} CPUs",
        errno=row.cpu_errno,
        shows_in=BULK,
        consequence=_loses(row.cpu_errno, BULK),
        evidence=(
            Evidence(f"{queues} combined channels", f"ethtool channels of {case.name(target)}"),
            Evidence(f"{cpus} possible CPUs", "/sys/devices/system/cpu/possible"),
        ),
        fix=fix,
        alternatives=(f"steer the interrupts of the source to CPUs below {queues}",),
        references=(row.function,),
    )


def _drops_generic(case: Case, target: Link) -> str | None:
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
    why = _drops_generic(case, target)
    if why is None:
        return
    yield case.find(
        GENERIC_DROP,
        _status(intent),
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


RULES = (
    Rule((Redirect,), missing),
    Rule((Redirect,), not_ready),
    Rule((Redirect,), several_buffers),
    Rule((Redirect,), down),
    Rule((Redirect,), too_long),
    Rule((Redirect,), cpu_queues),
    Rule((Redirect,), generic_drop),
    Rule((EmptySlot,), empty_slot),
    Rule((UntoldTarget,), untold),
)
