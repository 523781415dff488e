"""Attaching XDP: what the core refuses before any driver is asked.

Mirrors net/core/dev.c dev_xdp_attach(). A bpf_link attach answers with the bare errno; the same sentence comes as
extack through rtnetlink, and in tracepoint xdp:bpf_xdp_link_attach_failed (6.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules.case import Case, Mistake, Rule, driver_of
from xdpctl.doctor.rules.commands import detach, detach_link
from xdpctl.doctor.rules.refusal import REFUSED, program_name, refuse, slot
from xdpctl.doctor.rules.target_drivers import HAS_NDO_BPF, NATIVE_SINCE, NO_NDO_BPF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link

ATTACH, INSTALL = "net/core/dev.c dev_xdp_attach()", "net/core/dev.c dev_xdp_install()"
UNFORESEEN = Mistake(
    "attach.unforeseen",
    "The kernel refused an attach, and no rule foresaw it.",
    "whatever it was",
    ("xdpctl/doctor/preflight.py why()",),
)
NO_DEVICE = Mistake(
    "attach.no-device",
    "The device is not there.",
    "ENODEV through rtnetlink, EINVAL of bpf(BPF_LINK_CREATE)",
    ("net/core/dev.c bpf_xdp_link_attach()",),
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


def occupied(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Somebody holds the wanted mode already: dev_xdp_link(), cur_prog."""
    link = case.link(intent.link)
    if link is None:
        return
    program, link_id = slot(link, intent.mode)
    if not program:
        return
    read = Evidence(f"{intent.mode}: {program_name(case, program)}", "RTM_GETLINK IFLA_XDP")
    if link_id:
        if intent.replace and intent.via == "link":
            return  # one atomic link update
        held = Evidence(f"bpf_link id {link_id} holds it", "bpf link info")
        own = "or update it in place: xdpctl attach --replace (if xdpctl made the link)"
        yield refuse(
            case,
            LINK_HOLDS,
            link,
            f"bpf_link {link_id} holds {intent.mode} XDP of {case.name(link)} with {program_name(case, program)}",
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
            f"{program_name(case, program)} holds {intent.mode} XDP of {case.name(link)}, attached without a link",
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
            f"{program_name(case, program)} holds {intent.mode} XDP of {case.name(link)}",
            errno="EBUSY",
            extack="XDP program already attached",
            evidence=(read,),
            fix=(detach(case, link, intent.mode),),
            alternatives=("replace it: --replace",),
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
        program, link_id = slot(upper, mode)
        fix = detach_link(case, upper, link_id) if link_id else detach(case, upper, mode)
        yield refuse(
            case,
            UPPER_PROGRAM,
            link,
            f"{case.name(upper)}, above {case.name(link)}, has {program_name(case, program or 0)}:"
            " the lower device must get its program first",
            errno="EEXIST",
            extack="Cannot attach when an upper device already has a program",
            evidence=(
                Evidence(f"{upper.name} is an upper of {link.name}", "RTM_GETLINK IFLA_MASTER, IFLA_LINK"),
                Evidence(f"{upper.name}, {mode}: {program_name(case, program or 0)}", "RTM_GETLINK IFLA_XDP"),
            ),
            fix=(fix,),
            alternatives=(f"detach from {upper.name}, attach here, then attach to {upper.name} again",),
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
    if driver in NO_NDO_BPF or (too_old and not case.takes_newer_drivers):
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


def _features_evidence(case: Case, link: Link) -> tuple[Evidence, ...]:
    if link.xdp_features is None:
        return ()
    return (Evidence(f"xdp-features are {link.xdp_features:#x}", f"netdev dev-get of {case.name(link)}"),)


MISTAKES = (UNFORESEEN, NO_DEVICE, LINK_HOLDS, PROGRAM_HOLDS, UPPER_PROGRAM, NO_NATIVE, NATIVE_UNKNOWN)

RULES = tuple(Rule((AttachXdp,), function) for function in (device, occupied, uppers, native))
