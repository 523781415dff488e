"""Attaching XDP: what the core refuses before any driver is asked.

Mirrors net/core/dev.c dev_xdp_attach() and dev_xdp_install(), bpf_xdp_link_attach() and bpf_xdp_link_update(),
kernel/bpf/offload.c bpf_prog_dev_bound_init(). A bpf_link attach answers with the bare errno; the same
sentence comes as extack through rtnetlink, and in tracepoint xdp:bpf_xdp_link_attach_failed (6.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules.case import HW_OFFLOAD, Case, Mistake, Rule, driver_of
from xdpctl.doctor.rules.commands import detach, detach_link, ring
from xdpctl.doctor.rules.target_drivers import HAS_NDO_BPF, NATIVE_SINCE, NO_NDO_BPF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.finding import Fix
    from xdpctl.host.model import Link

ATTACH, INSTALL = "net/core/dev.c dev_xdp_attach()", "net/core/dev.c dev_xdp_install()"

NO_DEVICE = Mistake(
    "attach.no-device",
    "The device is not there.",
    "ENODEV through rtnetlink, EINVAL of bpf(BPF_LINK_CREATE)",
    ("net/core/dev.c bpf_xdp_link_attach()",),
)
NO_NATIVE = Mistake(
    "attach.no-native",
    "The driver has no native XDP (no ndo_bpf).",
    "EOPNOTSUPP, `Underlying driver does not support XDP in native mode`",
    (ATTACH,),
)
NATIVE_UNKNOWN = Mistake(
    "attach.native-unknown",
    "Whether the driver has native XDP is not known here.",
    "not known",
    (ATTACH,),
)
MODE_CONFLICT = Mistake(
    "attach.mode-conflict",
    "A program is active in the other mode: native and generic exclude each other.",
    "EEXIST, `Native and generic XDP can't be active at the same time` (5.4)",
    (INSTALL,),
)
LINK_HOLDS = Mistake(
    "attach.link-in-the-way",
    "A bpf_link holds that mode of the device.",
    "EBUSY, `Can't replace active BPF XDP link` (5.10)",
    (ATTACH,),
)
PROGRAM_HOLDS = Mistake(
    "attach.program-in-the-way",
    "A program without a link holds that mode of the device.",
    "EBUSY, `Can't replace active XDP program with BPF link` (link) or `XDP program already attached` (netlink)",
    (ATTACH,),
)
UPPER_PROGRAM = Mistake(
    "attach.upper-has-program",
    "A device above this one (bridge, bond, vlan, macvlan) has an XDP program, in whatever mode.",
    "EEXIST, `Cannot attach when an upper device already has a program` (5.15)",
    (ATTACH,),
)
OFFLOAD_UNSUPPORTED = Mistake(
    "attach.no-offload",
    "The driver has native XDP but can't run programs in hardware.",
    "EINVAL, no words",
    ("the driver's ndo_bpf: XDP_SETUP_PROG_HW",),
)
OFFLOADED_PROGRAM = Mistake(
    "attach.offloaded-program",
    "The program was loaded for hardware, but is attached in another mode.",
    "EINVAL, `Using offloaded program without HW_MODE flag is not supported` (6.3; before: `device-bound`)",
    (INSTALL,),
)
OFFLOAD_LOAD = Mistake(
    "attach.offload-load",
    "A program can't be loaded for a device that can't offload, or that has no native XDP to be bound to.",
    "EINVAL when the program is loaded",
    ("kernel/bpf/offload.c bpf_prog_dev_bound_init()",),
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
NO_LINKS = Mistake(
    "attach.no-xdp-link",
    "This kernel has no bpf_link for XDP.",
    "EINVAL of bpf(BPF_LINK_CREATE) before 5.9",
    ("net/core/dev.c bpf_xdp_link_attach() (5.9)",),
)
NO_FRAGS = Mistake(
    "attach.no-frags",
    "This kernel does not know frags-aware XDP programs.",
    "EINVAL when the program is loaded, before 5.18",
    ("kernel/bpf/syscall.c bpf_prog_load(): BPF_F_XDP_HAS_FRAGS (5.18)",),
)
GENERIC_SLOW = Mistake(
    "attach.generic-side-effects",
    "A generic attach silently turns LRO and hardware GRO off.",
    "none",
    ("net/core/dev.c generic_xdp_install()",),
)
UNFORESEEN = Mistake(
    "attach.unforeseen",
    "The kernel refused an attach, and no rule foresaw it.",
    "whatever it was",
    ("xdpctl/doctor/preflight.py why()",),
)
MISTAKES = (
    UNFORESEEN,
    NO_DEVICE,
    NO_FRAGS,
    OFFLOAD_LOAD,
    NO_LINKS,
    LINK_HOLDS,
    UPPER_PROGRAM,
    PROGRAM_HOLDS,
    NO_NATIVE,
    NATIVE_UNKNOWN,
    MODE_CONFLICT,
    OFFLOADED_PROGRAM,
    BOUND_ELSEWHERE,
    BOUND_GENERIC,
    MAP_PROGRAM,
    DATA_SPLIT,
    OFFLOAD_UNSUPPORTED,
    GENERIC_SLOW,
)

REFUSED, LOAD = "the attach", "the load"
HARDWARE = ("nfp", "netdevsim")
"""Drivers that run programs in hardware (or play it)."""


def refuse(
    case: Case,
    mistake: Mistake,
    link: Link,
    summary: str,
    *,
    errno: str,
    extack: str | None = None,
    evidence: tuple[Evidence, ...] = (),
    fix: tuple[Fix, ...] = (),
    alternatives: tuple[str, ...] = (),
    references: tuple[str, ...] = (),
    shows_in: str = REFUSED,
) -> Finding:
    """A finding that the kernel will refuse the attach with `errno` and say `extack`."""
    return case.find(
        mistake,
        Status.FAIL,
        link,
        summary,
        errno=errno,
        extack=extack,
        shows_in=shows_in,
        consequence=f"the kernel refuses {shows_in} with {errno}",
        evidence=evidence,
        fix=fix,
        alternatives=alternatives,
        references=references or mistake.mirrors,
    )


def _slot(link: Link, mode: str) -> tuple[int | None, int | None]:
    """(program id, link id) that hold a mode of the link."""
    xdp = link.xdp
    return {
        "native": (xdp.native, xdp.native_link_id),
        "generic": (xdp.generic, xdp.generic_link_id),
        "offload": (xdp.offload, xdp.offload_link_id),
    }.get(mode, (None, None))


def _program(case: Case, number: int) -> str:
    known = case.snapshot.programs.get(number)
    return f"program {known.name} (id {number})" if known and known.name else f"program id {number}"


def device(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """The device itself."""
    if case.link(intent.link) is not None:
        return
    errno = "EINVAL" if intent.via == "link" else "ENODEV"
    seen = case.observed(intent.link.netns)
    yield case.find(
        NO_DEVICE,
        Status.FAIL if seen else Status.UNKNOWN,
        None,
        f"there is no ifindex {intent.link.ifindex} to attach {intent.program} to"
        if seen
        else f"ifindex {intent.link.ifindex} is in a namespace that was not observed",
        interface=f"ifindex {intent.link.ifindex}",
        errno=errno if seen else None,
        shows_in=REFUSED,
    )


def loading(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """What fails already when the program is loaded for this attach."""
    link = case.link(intent.link)
    if link is None:
        return
    if intent.frags and case.kernel.features.get("frags") is False:
        yield refuse(
            case,
            NO_FRAGS,
            link,
            f"{intent.program} is a frags program (SEC xdp.frags), which kernel {case.kernel.release} does not know",
            errno="EINVAL",
            evidence=(Evidence("BPF_F_XDP_HAS_FRAGS is refused", "probe: load of a throwaway program"),),
            alternatives=("load it as SEC(xdp), with an MTU that fits one buffer", "Linux 5.18 or newer"),
            shows_in=LOAD,
        )
    bound = intent.bound_ifindex or (intent.link.ifindex if intent.offloaded else None)
    if bound is None:
        return
    if not intent.offloaded and not case.since(6, 3) and not case.kernel.features.get("netdev_genl"):
        yield refuse(
            case,
            OFFLOAD_LOAD,
            link,
            f"{intent.program} is to be bound to a device, which kernel {case.kernel.release} does not know",
            errno="EINVAL",
            evidence=(
                case.version_evidence(),
                Evidence("no netdev family, which came with BPF_F_XDP_DEV_BOUND_ONLY", "probe: genl netdev"),
            ),
            alternatives=("load it without binding it to a device", "Linux 6.3 or newer"),
            shows_in=LOAD,
        )
        return
    home = case.by_ref.get((link.netns, bound))
    if home is None:
        return
    driver = driver_of(home)
    if driver in NO_NDO_BPF:
        why = f"{driver} has no native XDP, so no program can be bound to it"
    elif intent.offloaded and driver not in HARDWARE and not (home.xdp_features or 0) & HW_OFFLOAD:
        why = f"{driver} can't run programs in hardware"
    else:
        return
    yield refuse(
        case,
        OFFLOAD_LOAD,
        home,
        f"{intent.program} can't be loaded for {case.name(home)}: {why}",
        errno="EINVAL",
        evidence=(Evidence(f"{home.name}'s driver is {driver}", "ethtool driver info, rtnl link kind"),),
        alternatives=("load it without binding it to a device, and attach natively",),
        shows_in=LOAD,
    )


def native(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """ndo_bpf of the device: asked for DRV and for HW mode."""
    link = case.link(intent.link)
    if link is None or intent.mode not in ("native", "offload"):
        return
    driver = driver_of(link)
    source = Evidence(
        f"{link.name}'s driver is {driver or 'not known'}", "ethtool driver info, rtnl link kind"
    )
    features = _features_evidence(case, link)
    since = NATIVE_SINCE.get(driver or "")
    too_old = since is not None and not case.since(*since) and not link.xdp_features
    if driver in NO_NDO_BPF or (too_old and not _takes_newer_drivers(case)):
        below = case.lowers(link)
        lower = f"attach to the device below instead: {', '.join(one.name for one in below)}"
        others = (f"attach in generic mode: --mode generic {link.name}", *((lower,) if below else ()))
        why = f"{driver} has no ndo_bpf"
        if too_old and since is not None:
            why = f"{driver} has it from {since[0]}.{since[1]}"
            features = (*features, case.version_evidence())
        yield refuse(
            case,
            NO_NATIVE,
            link,
            f"{case.name(link)} can't run XDP natively: {why}",
            errno="EOPNOTSUPP",
            extack="Underlying driver does not support XDP in native mode",
            evidence=(source, *features),
            alternatives=others,
        )
        return
    if too_old or (driver not in HAS_NDO_BPF and not link.xdp_features):
        # a distribution may have backported it, an out-of-tree driver may have it without saying so
        words = f"from {since[0]}.{since[1]}" if since else "not in the drivers that xdpctl knows"
        yield case.find(
            NATIVE_UNKNOWN,
            Status.UNKNOWN,
            link,
            f"whether {case.name(link)} can run XDP natively is not known: {driver or 'its driver'} is {words}",
            evidence=(source, *features, case.version_evidence()),
            alternatives=(
                "try it: the kernel answers EOPNOTSUPP if not",
                f"attach in generic mode: --mode generic {link.name}",
            ),
        )


def _takes_newer_drivers(case: Case) -> bool:
    """Enterprise kernels take whole drivers from newer ones: there a version says nothing about them."""
    return ".el" in case.kernel.release or ".amzn" in case.kernel.release


def _features_evidence(case: Case, link: Link) -> tuple[Evidence, ...]:
    if link.xdp_features is None:
        return ()
    return (Evidence(f"xdp-features are {link.xdp_features:#x}", f"netdev dev-get of {case.name(link)}"),)


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


def occupied(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Somebody holds the wanted mode already: dev_xdp_link(), cur_prog."""
    link = case.link(intent.link)
    if link is None:
        return
    program, link_id = _slot(link, intent.mode)
    if not program:
        return
    read = Evidence(f"{intent.mode}: {_program(case, program)}", "RTM_GETLINK IFLA_XDP")
    if link_id:
        if intent.replace and intent.via == "link":
            return  # one atomic link update
        held = Evidence(f"bpf_link id {link_id} holds it", "bpf link info")
        own = "or update it in place: xdpctl attach --replace (if xdpctl made the link)"
        yield refuse(
            case,
            LINK_HOLDS,
            link,
            f"bpf_link {link_id} holds {intent.mode} XDP of {case.name(link)} with {_program(case, program)}",
            errno="EBUSY",
            extack="Can't replace active BPF XDP link",
            evidence=(read, held),
            fix=(detach_link(case, link, link_id),),
            alternatives=(own,),
        )
    elif intent.via == "link":
        yield refuse(
            case,
            PROGRAM_HOLDS,
            link,
            f"{_program(case, program)} holds {intent.mode} XDP of {case.name(link)}, attached without a link",
            errno="EBUSY",
            extack="Can't replace active XDP program with BPF link",
            evidence=(read, Evidence("no bpf_link holds it", "bpf link info")),
            fix=(detach(case, link, intent.mode),),
            alternatives=("replace it through netlink: --via netlink --replace",),
        )
    elif not intent.replace:
        yield refuse(
            case,
            PROGRAM_HOLDS,
            link,
            f"{_program(case, program)} holds {intent.mode} XDP of {case.name(link)}",
            errno="EBUSY",
            extack="XDP program already attached",
            evidence=(read,),
            fix=(detach(case, link, intent.mode),),
            alternatives=("replace it: --replace",),
        )


def other_mode(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Native against generic."""
    link = case.link(intent.link)
    other = {"native": "generic", "generic": "native"}.get(intent.mode)
    if link is None or other is None:
        return
    program, link_id = _slot(link, other)
    if not program:
        return
    fix = detach_link(case, link, link_id) if link_id else detach(case, link, other)
    yield refuse(
        case,
        MODE_CONFLICT,
        link,
        f"{case.name(link)} runs {_program(case, program)} in {other} mode, which excludes {intent.mode} mode",
        errno="EEXIST",
        extack="Native and generic XDP can't be active at the same time",
        evidence=(Evidence(f"{other}: {_program(case, program)}", "RTM_GETLINK IFLA_XDP"),),
        fix=(fix,),
        alternatives=(f"attach in {other} mode too, replacing what is there",),
    )


def uppers(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Any direct upper with a program, even a generic one (netdev_for_each_upper_dev_rcu)."""
    link = case.link(intent.link)
    if link is None or not case.since(5, 15):
        return
    for upper in case.uppers(link):
        if not upper.xdp:
            continue
        mode = "native" if upper.xdp.native else "generic" if upper.xdp.generic else "offload"
        program, link_id = _slot(upper, mode)
        fix = detach_link(case, upper, link_id) if link_id else detach(case, upper, mode)
        yield refuse(
            case,
            UPPER_PROGRAM,
            link,
            f"{case.name(upper)}, above {case.name(link)}, has {_program(case, program or 0)}:"
            " the lower device must get its program first",
            errno="EEXIST",
            extack="Cannot attach when an upper device already has a program",
            evidence=(
                Evidence(f"{upper.name} is an upper of {link.name}", "RTM_GETLINK IFLA_MASTER, IFLA_LINK"),
                Evidence(f"{upper.name}, {mode}: {_program(case, program or 0)}", "RTM_GETLINK IFLA_XDP"),
            ),
            fix=(fix,),
            alternatives=(f"detach from {upper.name}, attach here, then attach to {upper.name} again",),
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


def xdp_links(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """BPF_LINK_CREATE for XDP, 5.9."""
    link = case.link(intent.link)
    if link is None or intent.via != "link" or case.kernel.features.get("xdp_link") is not False:
        return
    yield refuse(
        case,
        NO_LINKS,
        link,
        f"kernel {case.kernel.release} has no bpf_link for XDP",
        errno="EINVAL",
        evidence=(Evidence("XDP links are refused", "probe: BPF_LINK_CREATE"),),
        alternatives=("attach through netlink: --via netlink",),
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


RULES = tuple(
    Rule((AttachXdp,), function)
    for function in (
        device,
        loading,
        xdp_links,
        occupied,
        uppers,
        native,
        other_mode,
        program,
        data_split,
        offload,
        side_effects,
    )
)
