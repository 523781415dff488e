"""Attaching TC programs: which hook this kernel and this device have.

Mirrors kernel/bpf/tcx.c tcx_link_attach() (6.6), drivers/net/netkit.c netkit_link_attach() (6.7) and
net/sched/sch_ingress.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachTc
from xdpctl.doctor.rules.attach_core import NO_DEVICE
from xdpctl.doctor.rules.case import Case, Mistake, Rule
from xdpctl.doctor.rules.refusal import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_TCX = Mistake(
    "attach.no-tcx",
    "This kernel has no tcx.",
    "EINVAL of bpf(BPF_LINK_CREATE) before 6.6",
    ("kernel/bpf/tcx.c tcx_link_attach() (6.6)",),
)
NOT_NETKIT = Mistake(
    "attach.not-netkit",
    "netkit programs go on netkit devices only.",
    "EINVAL",
    ("drivers/net/netkit.c netkit_dev_fetch()",),
)
INGRESS_QDISC = Mistake(
    "attach.ingress-qdisc",
    "An ingress qdisc is there, which has no egress hook and keeps clsact out.",
    "EEXIST",
    ("net/sched/sch_api.c tc_modify_qdisc()", "net/sched/sch_ingress.c"),
)
MISTAKES = (NO_TCX, NOT_NETKIT, INGRESS_QDISC)


def attach(case: Case, intent: AttachTc) -> Iterator[Finding]:
    """A TC program on a link."""
    link = case.link(intent.link)
    if link is None:
        seen = case.observed(intent.link.netns)
        yield case.find(
            NO_DEVICE,
            Status.FAIL if seen else Status.UNKNOWN,
            None,
            f"there is no ifindex {intent.link.ifindex} to attach {intent.program} to",
            interface=f"ifindex {intent.link.ifindex}",
            errno="ENODEV" if seen else None,
        )
        return
    if intent.via == "tcx" and case.kernel.features.get("tcx") is False:
        yield refuse(
            case,
            NO_TCX,
            link,
            f"kernel {case.kernel.release} has no tcx",
            errno="EINVAL",
            evidence=(Evidence("tcx links are refused", "probe: BPF_LINK_CREATE"),),
            alternatives=("attach through a filter: --via clsact",),
        )
    if intent.via == "netkit" and link.kind != "netkit":
        yield refuse(
            case,
            NOT_NETKIT,
            link,
            f"{case.name(link)} is no netkit device",
            errno="EINVAL",
            evidence=(Evidence(f"kind {link.kind}", "RTM_GETLINK IFLA_LINKINFO"),),
            alternatives=("attach with --via tcx",),
        )
    ingress = any(one.kind == "ingress" for one in link.qdiscs or ())
    if intent.via == "clsact" and intent.hook == "egress" and ingress:
        command = ("tc", "qdisc")
        yield refuse(
            case,
            INGRESS_QDISC,
            link,
            f"{case.name(link)} has an ingress qdisc, which keeps clsact and its egress hook out",
            errno="EEXIST",
            evidence=(Evidence("qdisc ingress", f"RTM_GETQDISC of {case.name(link)}"),),
            fix=(
                case.fix(
                    link,
                    *(*command, "del", "dev", link.name, "ingress"),
                    inverse=(*command, "add", "dev", link.name, "ingress"),
                    note="its filters go with it",
                ),
            ),
            alternatives=("attach with --via tcx, which needs no qdisc",),
        )


RULES = (Rule((AttachTc,), attach),)
