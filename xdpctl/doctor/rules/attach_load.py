"""Attaching XDP: what fails already when the program is loaded for this attach, or its link made.

Mirrors kernel/bpf/syscall.c bpf_prog_load(), kernel/bpf/offload.c bpf_prog_dev_bound_init() and
net/core/dev.c bpf_xdp_link_attach().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules.case import HW_OFFLOAD, Case, Mistake, Rule, driver_of
from xdpctl.doctor.rules.refusal import LOAD, refuse
from xdpctl.doctor.rules.target_drivers import NO_NDO_BPF

if TYPE_CHECKING:
    from collections.abc import Iterator


NO_FRAGS = Mistake(
    "attach.no-frags",
    "This kernel does not know frags-aware XDP programs.",
    "EINVAL when the program is loaded, before 5.18",
    ("kernel/bpf/syscall.c bpf_prog_load(): BPF_F_XDP_HAS_FRAGS (5.18)",),
)
OFFLOAD_LOAD = Mistake(
    "attach.offload-load",
    "A program can't be loaded for a device that can't offload, or that has no native XDP to be bound to.",
    "EINVAL when the program is loaded",
    ("kernel/bpf/offload.c bpf_prog_dev_bound_init()",),
)
NO_LINKS = Mistake(
    "attach.no-xdp-link",
    "This kernel has no bpf_link for XDP.",
    "EINVAL of bpf(BPF_LINK_CREATE) before 5.9",
    ("net/core/dev.c bpf_xdp_link_attach() (5.9)",),
)
HARDWARE = ("nfp", "netdevsim")
"""Drivers that run programs in hardware (or play it)."""


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


MISTAKES = (NO_FRAGS, OFFLOAD_LOAD, NO_LINKS)

RULES = tuple(Rule((AttachXdp,), function) for function in (loading, xdp_links))
