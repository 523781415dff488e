"""Taps as targets: frames wait in the ring of whoever reads the tap, and without a reader there is no ring.

Mirrors drivers/net/tun.c tun_xdp_xmit() and tun_net_xmit(). A tap's IFLA_TUN_NUM_QUEUES is only told for
multi-queue taps; otherwise the carrier tells whether somebody holds its descriptor (tun_detach).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import Redirect
from xdpctl.doctor.rules.case import Case, Mistake, Rule, carrier, is_tap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link

NO_READER = Mistake(
    "redirect.tap-no-reader",
    "Nobody reads the tap: no process holds a queue of it.",
    "ENXIO in xdp_devmap_xmit; generic: dropped, tx_dropped counts",
    ("drivers/net/tun.c tun_xdp_xmit()", "drivers/net/tun.c tun_net_xmit()"),
)
L3_FRAMES = Mistake(
    "redirect.tun-gets-ethernet",
    "A tun (L3) takes generic redirects, but its reader gets frames with an Ethernet header where it expects IP.",
    "none",
    ("drivers/net/tun.c tun_net_xmit()",),
)
MISTAKES = (NO_READER, L3_FRAMES)


def has_reader(link: Link) -> bool:
    """A queue is attached: by the count where the kernel tells it, else by the carrier."""
    if link.tun is not None and link.tun.queues is not None:
        return link.tun.queues > 0
    return carrier(link)


def redirect(case: Case, intent: Redirect) -> Iterator[Finding]:
    """Into a tap, in either mode; into a tun in generic mode (native is impossible, see redirect.target-no-xmit)."""
    link = case.link(intent.target)
    if link is None or link.kind != "tun" or not link.up:
        return
    tap = is_tap(link)
    if not tap and intent.mode == "native":
        return
    if not has_reader(link):
        native = intent.mode == "native"
        counted = link.tun is not None and link.tun.queues is not None
        yield case.find(
            NO_READER,
            Status.FAIL if intent.promised else Status.WARN,
            link,
            f"frames redirected to {case.name(link)} are lost: nobody reads it",
            errno="ENXIO" if native else None,
            shows_in="xdp:xdp_devmap_xmit" if native else f"tx_dropped of {link.name}",
            consequence="the bulk is dropped with ENXIO in xdp:xdp_devmap_xmit, while xdp_redirect reports success"
            if native
            else "xdp:xdp_redirect reports success, then the driver drops the frame",
            evidence=(
                Evidence("0 queues attached", "RTM_GETLINK IFLA_TUN_NUM_QUEUES")
                if counted
                else Evidence(f"{link.name} has no carrier", "RTM_GETLINK flags: no LOWER_UP"),
            ),
            alternatives=(f"start what reads {link.name} (the virtual machine, the VPN daemon)",),
        )
    elif not tap:
        yield case.find(
            L3_FRAMES,
            Status.WARN,
            link,
            f"frames redirected to {case.name(link)}, a tun, reach its reader with their Ethernet header on",
            consequence="the reader expects IP packets and will drop or misread them",
            evidence=(Evidence(f"{link.name} is a tun (L3)", "RTM_GETLINK IFLA_TUN_TYPE"),),
            alternatives=("use a tap",),
        )


RULES = (Rule((Redirect,), redirect),)
