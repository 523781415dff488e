"""Attaching XDP: what the core asks of the program once it knows the driver can, and what offload and generic mode do.

Mirrors net/core/dev.c dev_xdp_install() and generic_xdp_install(), and XDP_SETUP_PROG_HW of drivers' ndo_bpf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules.attach_load import HARDWARE
from xdpctl.doctor.rules.case import HW_OFFLOAD, Case, Mistake, Rule, driver_of
from xdpctl.doctor.rules.commands import detach, detach_link, ring
from xdpctl.doctor.rules.refusal import program_name, refuse, slot
from xdpctl.doctor.rules.target_drivers import HAS_NDO_BPF

if TYPE_CHECKING:
    from collections.abc import Iterator


ATTACH, INSTALL = "net/core/dev.c dev_xdp_attach()", "net/core/dev.c dev_xdp_install()"
MODE_CONFLICT = Mistake(
    "attach.mode-conflict",
    "A program is active in the other mode: native and generic exclude each other.",
    "EEXIST, `Native and generic XDP can't be active at the same time` (5.4)",
    (INSTALL,),
)
OFFLOADED_PROGRAM = Mistake(
    "attach.offloaded-program",
    "The program was loaded for hardware, but is attached in another mode.",
    "EINVAL, `Using offloaded program without HW_MODE flag is not supported` (6.3; before: `device-bound`)",
    (INSTALL,),
)
BOUND_ELSEWHERE = Mistake(
    "attach.bound-elsewhere",
    "The program is bound to another device.",
    "EINVAL, `Program bound to different device` (6.3)",
    (INSTALL,),
)
BOUND_GENERIC = Mistake(
    "attach.bound-generic",
    "A device-bound program can't be attached in generic mode.",
    "EINVAL, `Can't attach device-bound programs in generic mode` (6.12.13, 6.14)",
    (INSTALL,),
)
MAP_PROGRAM = Mistake(
    "attach.map-program",
    "A program of SEC(xdp/devmap) or SEC(xdp/cpumap) belongs into a map entry, not on a device.",
    "EINVAL, `BPF_XDP_DEVMAP programs can not be attached to a device` (5.10)",
    (INSTALL,),
)
DATA_SPLIT = Mistake(
    "attach.tcp-data-split",
    "tcp-data-split is on and the program is not frags-aware.",
    "EBUSY, `unable to install XDP to device using tcp-data-split` (6.14)",
    (INSTALL,),
)
OFFLOAD_UNSUPPORTED = Mistake(
    "attach.no-offload",
    "The driver has native XDP but can't run programs in hardware.",
    "EINVAL, no words",
    ("the driver's ndo_bpf: XDP_SETUP_PROG_HW",),
)
GENERIC_ENTRIES = Mistake(
    "attach.generic-entry-programs",
    "The program uses a devmap or cpumap whose entries can have programs, and generic mode doesn't know these.",
    "EINVAL, no words, before 5.15",
    ("net/core/dev.c generic_xdp_install()",),
)
GENERIC_SLOW = Mistake(
    "attach.generic-side-effects",
    "A generic attach silently turns LRO and hardware GRO off.",
    "none",
    ("net/core/dev.c generic_xdp_install()",),
)


def other_mode(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Native against generic."""
    link = case.link(intent.link)
    other = {"native": "generic", "generic": "native"}.get(intent.mode)
    if link is None or other is None:
        return
    program, link_id = slot(link, other)
    if not program:
        return
    fix = detach_link(case, link, link_id) if link_id else detach(case, link, other)
    yield refuse(
        case,
        MODE_CONFLICT,
        link,
        f"{case.name(link)} runs {program_name(case, program)} in {other} mode, which excludes {intent.mode} mode",
        errno="EEXIST",
        extack="Native and generic XDP can't be active at the same time",
        evidence=(Evidence(f"{other}: {program_name(case, program)}", "RTM_GETLINK IFLA_XDP"),),
        fix=(fix,),
        alternatives=(f"attach in {other} mode too, replacing what is there",),
    )


def program(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """What the program was loaded as, against where it is to go."""
    link = case.link(intent.link)
    if link is None:
        return
    if intent.offloaded and intent.mode != "offload":
        words = "offloaded" if case.since(6, 3) else "device-bound"
        yield refuse(
            case,
            OFFLOADED_PROGRAM,
            link,
            f"{intent.program} was loaded for hardware, and {case.name(link)} is to run it in {intent.mode} mode",
            errno="EINVAL",
            extack=f"Using {words} program without HW_MODE flag is not supported",
            alternatives=("attach with --mode offload, or load it without a device",),
        )
    if intent.bound_ifindex is not None and intent.bound_ifindex != link.ifindex and case.since(6, 3):
        yield refuse(
            case,
            BOUND_ELSEWHERE,
            link,
            f"{intent.program} is bound to ifindex {intent.bound_ifindex}, not to {case.name(link)}"
            f" (ifindex {link.ifindex})",
            errno="EINVAL",
            extack="Program bound to different device",
            alternatives=(f"load it for {link.name}",),
        )
    refused = case.since(6, 14) or (case.since(6, 12, 13) and not case.since(6, 13))
    if intent.bound_ifindex is not None and intent.mode == "generic" and not intent.offloaded and refused:
        yield refuse(
            case,
            BOUND_GENERIC,
            link,
            f"{intent.program} is bound to a device, so {case.name(link)} can't run it in generic mode",
            errno="EINVAL",
            extack="Can't attach device-bound programs in generic mode",
            evidence=(case.version_evidence(),),
            alternatives=("attach with --mode native",) if driver_of(link) != "netdevsim" else (),
        )
    kind = {"xdp/devmap": "BPF_XDP_DEVMAP", "xdp/cpumap": "BPF_XDP_CPUMAP"}.get(intent.attach_type)
    if kind is not None:
        yield refuse(
            case,
            MAP_PROGRAM,
            link,
            f"{intent.program} is a {intent.attach_type} program: it belongs into a map, not on {case.name(link)}",
            errno="EINVAL",
            extack=f"{kind} programs can not be attached to a device",
            evidence=(Evidence(f"attach type {intent.attach_type}", "section name of the program"),),
            alternatives=('give it SEC("xdp")', "put its fd into the entry's bpf_prog.fd"),
        )


def data_split(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """dev->cfg->hds_config == ETHTOOL_TCP_DATA_SPLIT_ENABLED and a single-buffer program, in any mode."""
    link = case.link(intent.link)
    if link is None or intent.frags or link.rings is None or link.rings.tcp_data_split != "on":
        return
    if not case.since(6, 14):
        return
    yield refuse(
        case,
        DATA_SPLIT,
        link,
        f"{case.name(link)} splits TCP headers from data, and {intent.program} takes single buffers only",
        errno="EBUSY",
        extack="unable to install XDP to device using tcp-data-split",
        evidence=(
            Evidence("tcp-data-split is on", f"ethtool rings of {case.name(link)}"),
            case.version_evidence(),
        ),
        fix=(ring(case, link, "tcp-data-split", "off", "on"),),
        alternatives=('make it frags-aware: SEC("xdp.frags")',),
    )


def offload(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """HW mode on a driver that has ndo_bpf without XDP_SETUP_PROG_HW, or with a program that was not loaded for it."""
    link = case.link(intent.link)
    if link is None or intent.mode != "offload":
        return
    driver = driver_of(link)
    if driver not in HAS_NDO_BPF:
        return
    able = driver in HARDWARE or bool((link.xdp_features or 0) & HW_OFFLOAD)
    if able and intent.offloaded:
        return
    if able:
        why = f"{intent.program} was not loaded for its hardware"
        extack = "netdevsim: xdpoffload of non-bound program" if driver == "netdevsim" else None
    else:
        why, extack = f"{driver} can't run programs in hardware", None
    yield refuse(
        case,
        OFFLOAD_UNSUPPORTED,
        link,
        f"{case.name(link)} won't take {intent.program} in offload mode: {why}",
        errno="EINVAL",
        extack=extack,
        evidence=(Evidence(f"{link.name}'s driver is {driver}", "ethtool driver info, rtnl link kind"),),
        alternatives=("attach in native mode: --mode native",),
    )


def entry_programs(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """dev_map_can_have_prog() and cpu_map_prog_allowed() of any map of the program, asked before 5.15."""
    link = case.link(intent.link)
    if link is None or intent.mode != "generic" or not intent.entry_programs or case.since(5, 15):
        return
    yield refuse(
        case,
        GENERIC_ENTRIES,
        link,
        f"{intent.program} uses a map whose entries can have programs, which generic mode takes from 5.15",
        errno="EINVAL",
        evidence=(
            Evidence("values of 8 bytes in a devmap or cpumap", "the object's maps"),
            case.version_evidence(),
        ),
        alternatives=("attach with --mode native", "make the map's values 4 bytes, without a program"),
    )


def side_effects(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """dev_disable_lro() and dev_disable_gro_hw() of a generic attach."""
    link = case.link(intent.link)
    if link is None or intent.mode != "generic":
        return
    lost = [
        name for name in ("rx-lro", "rx-gro-hw") if (one := link.feature(name)) is not None and one.active
    ]
    if lost:
        yield case.find(
            GENERIC_SLOW,
            Status.WARN,
            link,
            f"attaching to {case.name(link)} in generic mode turns {' and '.join(lost)} off, and says nothing",
            consequence="receive offloads stay off after a detach, until they are switched on again",
            evidence=tuple(
                Evidence(f"{name} is on", f"ethtool features of {case.name(link)}") for name in lost
            ),
        )


MISTAKES = (
    MODE_CONFLICT,
    OFFLOADED_PROGRAM,
    BOUND_ELSEWHERE,
    BOUND_GENERIC,
    MAP_PROGRAM,
    DATA_SPLIT,
    OFFLOAD_UNSUPPORTED,
    GENERIC_SLOW,
)

RULES = tuple(
    Rule((AttachXdp,), function)
    for function in (other_mode, program, data_split, entry_programs, offload, side_effects)
)
