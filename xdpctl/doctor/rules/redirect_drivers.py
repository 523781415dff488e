"""Native redirect to hardware and virtual devices: what the target's driver needs to take a frame.

Mirrors kernel/bpf/devmap.c __xdp_enqueue() and the drivers' ndo_xdp_xmit, row by row as target_drivers has them.
A veth's peer is redirect_veth's business, a bond's slaves bond's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Fix, Status
from xdpctl.doctor.intent import Redirect
from xdpctl.doctor.rules.case import (
    NDO_XMIT,
    NDO_XMIT_SG,
    Case,
    Mistake,
    Rule,
    driver_of,
    has_native,
)
from xdpctl.doctor.rules.commands import channels, pass_program, up
from xdpctl.doctor.rules.geometry import XDP_PACKET_HEADROOM, geometry
from xdpctl.doctor.rules.target_drivers import NATIVE_SINCE, NEVER, PROGRAM, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link
from xdpctl.doctor.rules.redirect_targets import BULK, ENQUEUE, GENERIC, drops_generic, loses, status_of

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
UNKNOWN_DRIVER = Mistake(
    "redirect.target-unknown",
    "Whether the target's driver takes redirected frames is not known here.",
    "not known",
    ("kernel/bpf/devmap.c __xdp_enqueue()",),
)
OWN_RULE = ("veth", "bond")
"""Drivers whose readiness another file judges."""


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
    if row is not None and row.xmit == PROGRAM and case.is_to_run_native(target):
        return  # the attach sets ndo-xmit
    if row is None:
        if features is None:
            yield _unknown(case, target, driver, evidence)
        else:
            yield _no_xmit(case, intent, target, driver, evidence)
    elif row.xmit == NEVER or _younger(case, driver):
        yield _no_xmit(case, intent, target, driver, evidence)
    elif row.xmit == PROGRAM and not has_native(target):
        if features is None and not case.since(6, 3) and row.bare_worked:
            return
        yield _needs_program(case, intent, target, row.bare, evidence)
    elif features is not None:  # the table says it should, the kernel says it doesn't
        yield _no_xmit(case, intent, target, driver, evidence)


def _younger(case: Case, driver: str | None) -> bool:
    """Whether the driver got XDP, and with it ndo_xdp_xmit, only after this kernel."""
    since = NATIVE_SINCE.get(driver or "")
    return since is not None and not case.since(*since) and not case.takes_newer_drivers


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
    generic_works = drops_generic(case, target) is None
    others = [GENERIC] if generic_works else []
    below = case.lowers(target)
    if below:
        others.append(f"redirect to the device below instead: {', '.join(one.name for one in below)}")
    fix: tuple[Fix, ...] = ()
    why = "it lacks ndo-xmit in its xdp-features"
    if row is not None and row.xmit == NEVER:
        why = f"{driver} has no ndo_xdp_xmit"
    elif _younger(case, driver):
        since = NATIVE_SINCE[driver or ""]
        why = f"{driver} has ndo_xdp_xmit from {since[0]}.{since[1]}"
    elif row is not None and row.xmit == PROGRAM and has_native(target):
        why = f"{driver} tells ndo-xmit only when a program comes while it is up"
        others.insert(0, f"attach the program of {target.name} again now that it is up")
    lro = target.feature("rx-lro"), target.feature("rx-gro-hw")
    if driver == "mlx5_core" and any(one and one.active for one in lro):
        why = "mlx5 clears its xdp-features while LRO or HW-GRO is on"
        argv = ("ethtool", "-K", target.name, "lro", "off", "rx-gro-hw", "off")
        fix = (case.fix(target, *argv, inverse=None, flaps=True),)
    references = (*NO_XMIT.mirrors, row.function) if row else NO_XMIT.mirrors
    return case.find(
        NO_XMIT,
        status_of(intent),
        target,
        f"frames redirected natively to {case.name(target)} are lost: {why}",
        errno="EOPNOTSUPP",
        shows_in=ENQUEUE,
        consequence=loses("EOPNOTSUPP", ENQUEUE)
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
    # up first: some drivers tell ndo-xmit only of a program that comes while they are up
    raised = () if target.up else (up(case, target),)
    fix: tuple[Fix, ...] = (*raised, pass_program(case, target))
    others: tuple[str, ...] = (GENERIC,)
    if target.xdp.generic:  # in the way of a native one, and not ours to take away
        fix, others = (
            (),
            (f"attach the program of {case.name(target)} in native mode instead of generic", GENERIC),
        )
    return case.find(
        NEEDS_PROGRAM,
        status_of(intent),
        target,
        f"frames redirected natively to {case.name(target)} are lost: {driver} transmits them only while"
        f" {target.name} has a native program of its own",
        errno=errno,
        shows_in=place,
        consequence=loses(errno, place),
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
        status_of(intent) if intent.frame_len is not None else Status.WARN,
        target,
        f"frames of several buffers redirected natively to {case.name(target)} are lost:"
        + (" it takes single buffers only" if traced else " this kernel redirects single buffers only"),
        errno=errno,
        shows_in=ENQUEUE if traced else None,
        consequence=loses("EOPNOTSUPP", ENQUEUE)
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
        consequence=loses(row.cpu_errno, BULK),
        evidence=(
            Evidence(f"{queues} combined channels", f"ethtool channels of {case.name(target)}"),
            Evidence(f"{cpus} possible CPUs", "/sys/devices/system/cpu/possible"),
        ),
        fix=fix,
        alternatives=(f"steer the interrupts of the source to CPUs below {queues}",),
        references=(row.function,),
    )


MISTAKES = (NEEDS_PROGRAM, NO_XMIT, NO_SG, CPU_QUEUES, UNKNOWN_DRIVER)

RULES = (Rule((Redirect,), not_ready), Rule((Redirect,), several_buffers), Rule((Redirect,), cpu_queues))
