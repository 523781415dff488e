"""Attaching native XDP to hardware and hypervisor devices: asks the table of driver_limits.

Mirrors each driver's ndo_bpf (XDP_SETUP_PROG); the rows name the functions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Fix, Status
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules.case import Case, Mistake, Rule, driver_of
from xdpctl.doctor.rules.commands import mtu
from xdpctl.doctor.rules.driver_conditions import CONDITIONS, GENERIC, Hit, Look
from xdpctl.doctor.rules.driver_limits import DMESG, EXTACK, MTU_LIMITS, REFUSALS, MtuLimit, Refusal
from xdpctl.doctor.rules.geometry import XDP_PACKET_HEADROOM, Geometry, geometry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link

MTU = Mistake(
    "attach.driver-mtu",
    "The MTU is larger than the driver's receive buffers hold with XDP.",
    "ERANGE, EINVAL or EOPNOTSUPP by driver; mlx4, mlx5, bnxt, otx2, gve, sfc explain only in dmesg",
    ("each driver's ndo_bpf: see the table of driver limits",),
)
BY_KEY = {
    "receive-offload": Mistake(
        "attach.driver-receive-offload",
        "LRO or hardware GRO is on, and the driver can't combine it with XDP.",
        "EINVAL or EOPNOTSUPP by driver; vmxnet3 and atlantic switch it off by themselves",
        ("each driver's ndo_bpf: see the table of driver limits",),
    ),
    "header-split": Mistake(
        "attach.driver-header-split",
        "Header-data split is on, and the driver can't combine it with XDP at all.",
        "EOPNOTSUPP",
        ("bnxt_xdp_set()", "gve verify_xdp_configuration()"),
    ),
    "queues": Mistake(
        "attach.driver-queues",
        "The driver lacks the queues that XDP needs, or has them in the wrong arrangement.",
        "EINVAL, EOPNOTSUPP, ENOSPC, EBUSY or ENOMEM by driver; virtio_net only gets slower from 5.13",
        ("each driver's ndo_bpf: see the table of driver limits",),
    ),
    "striding-rq": Mistake(
        "attach.driver-striding-rq",
        "mlx5's striding receive queue can't hold frames of this MTU for a frags program.",
        "EINVAL, dmesg only",
        ("drivers/net/ethernet/mellanox/mlx5/core/en_main.c mlx5e_params_validate_xdp()",),
    ),
    "buffers": Mistake(
        "attach.driver-buffers",
        "The device is down, and its receive buffers are still those of when it was last up, or of no time at all.",
        "EINVAL",
        ("drivers/net/ethernet/intel/igb/igb_main.c igb_xdp_setup(), igb_set_rx_buffer_len()",),
    ),
    "bound-program": Mistake(
        "attach.driver-bound-program",
        "The driver takes no program that is bound to a device without being loaded for its hardware.",
        "EINVAL",
        ("drivers/net/netdevsim/bpf.c nsim_setup_prog_checks()",),
    ),
    "sriov": Mistake(
        "attach.driver-sriov",
        "SR-IOV virtual functions are on, and the driver then refuses XDP.",
        "EINVAL, no words",
        ("drivers/net/ethernet/intel/ixgbe/ixgbe_main.c ixgbe_xdp_setup()",),
    ),
    "cpus": Mistake(
        "attach.driver-cpus",
        "The machine has more CPUs than the driver has XDP queues for.",
        "ENOMEM, no words",
        ("drivers/net/ethernet/intel/ixgbe/ixgbe_main.c ixgbe_xdp_setup()",),
    ),
    "hypervisor": Mistake(
        "attach.driver-hypervisor",
        "The hypervisor gave the virtio device features that rule XDP out, and only it can change them.",
        "EOPNOTSUPP or EINVAL",
        ("drivers/net/virtio_net.c virtnet_xdp_set()",),
    ),
}
MISTAKES = (MTU, *BY_KEY.values())


def sizes_of(sizes: Geometry, link: Link) -> dict[str, int | None]:
    """The names that formulas of driver_limits use, in bytes."""
    legacy = bool((link.private_flags or {}).get("legacy-rx"))
    small_page = sizes.page_size < 8192
    info = sizes.shared_info
    return {
        "page": sizes.page_size,
        "page_16k": min(sizes.page_size, 16384),  # ENA_PAGE_SIZE
        "shared_info": info,
        "ip_align": sizes.net_ip_align,
        "headroom_with_info": sizes.align(XDP_PACKET_HEADROOM + 48 + 16 * sizes.max_frags),
        "whole_lines_of_page_less_256_less_info": (sizes.page_size - 256 - info)
        // sizes.cacheline
        * sizes.cacheline,
        "intel_buffer": 3072 if small_page and not legacy else 2048,
        "i40e_buffer": sizes.with_overhead(2048) if legacy else 3072 if small_page else 2048,
        "ice_buffer": 1664 if legacy else 3072,
        "hds_thresh": link.rings.hds_thresh if link.rings else None,
    }


def largest_mtu(row: MtuLimit, sizes: Geometry, link: Link) -> int | None:
    """The row's formula computed: names and numbers joined by minus signs; None: a name is not known."""
    names = sizes_of(sizes, link)
    total: int | None = None
    for word in row.largest.split(" - "):
        value = int(word) if word.isdecimal() else names[word]
        if value is None:
            return None
        total = value if total is None else total - value
    return total


def _applies(case: Case, row: MtuLimit | Refusal, driver: str) -> bool:
    return driver in row.drivers and row.since <= case.kernel.version < row.until


def mtu_limits(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Rows of MTU_LIMITS."""
    link = case.link(intent.link)
    driver = driver_of(link) if link else None
    sizes = geometry(case.kernel)
    if link is None or driver is None or sizes is None or intent.mode != "native":
        return
    for row in MTU_LIMITS:
        if not _applies(case, row, driver):
            continue
        lifted = row.frags is not None and case.kernel.version >= row.frags
        if intent.frags and lifted:
            continue
        largest = largest_mtu(row, sizes, link)
        if largest is None or link.mtu <= largest:
            continue
        fix: tuple[Fix, ...] = ()
        others: list[str] = []
        if (link.private_flags or {}).get("legacy-rx"):
            others.append(f"more fit without legacy-rx: ethtool --set-priv-flags {link.name} legacy-rx off")
        if lifted:
            others.append('make the program frags-aware: SEC("xdp.frags")')
        if largest >= (link.min_mtu or 68):
            fix = (mtu(case, link, largest),)
        yield _finding(
            case,
            MTU,
            row,
            link,
            f"{case.name(link)} has MTU {link.mtu}, and {driver} takes native XDP up to {largest}",
            Hit(
                "",
                (
                    Evidence(f"MTU is {link.mtu}", "RTM_GETLINK IFLA_MTU"),
                    Evidence(f"limit: {row.largest} = {largest}", f"{row.function} on this kernel"),
                ),
                fix,
                (*others, GENERIC),
            ),
        )


def refusals(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """Rows of REFUSALS."""
    link = case.link(intent.link)
    driver = driver_of(link) if link else None
    if link is None or driver is None or intent.mode != "native":
        return
    look = Look(case, link, intent)
    for row in REFUSALS:
        if not _applies(case, row, driver):
            continue
        hit = CONDITIONS[row.condition](look)
        if hit is None:
            continue
        if intent.bound_ifindex is not None:  # generic mode takes no bound program
            hit = replace(hit, others=tuple(one for one in hit.others if one != GENERIC))
        outcome = f", so {driver} refuses native XDP" if row.errno else ""
        if not hit.certain:
            outcome = f", so {driver} may refuse native XDP"
        yield _finding(case, BY_KEY[row.mistake], row, link, f"{case.name(link)} {hit.why}{outcome}", hit)


def _finding(
    case: Case, mistake: Mistake, row: MtuLimit | Refusal, link: Link, summary: str, hit: Hit
) -> Finding:
    refused = row.errno is not None and hit.certain
    status = Status.FAIL if refused else Status.WARN if row.errno is None else Status.UNKNOWN
    heard = {EXTACK: "", DMESG: f"; dmesg says: {row.text}"}.get(row.heard, "; the kernel says nothing more")
    consequence = (
        getattr(row, "consequence", None) or f"the kernel refuses the attach with {row.errno}{heard}"
    )
    return case.find(
        mistake,
        status,
        link,
        summary,
        errno=row.errno if refused else None,
        extack=row.text.replace("%u", str(link.mtu)) if row.heard == EXTACK and refused else None,
        shows_in="the attach"
        if row.heard == EXTACK
        else "the attach, dmesg"
        if row.heard == DMESG
        else "the attach",
        consequence=consequence if refused or row.errno is None else None,
        evidence=hit.evidence,
        fix=hit.fix,
        alternatives=hit.others,
        references=(row.function,),
    )


RULES = (Rule((AttachXdp,), mtu_limits), Rule((AttachXdp,), refusals))
