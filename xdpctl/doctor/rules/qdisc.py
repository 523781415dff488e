"""Qdiscs and rings that lose or hold packets on some kernels: known races, judged by version and state.

Mirrors net/sched/sch_generic.c qdisc_run_begin() and pfifo_fast (TCQ_F_NOLOCK), drivers/net/veth.c veth_xmit()
with back-pressure, drivers/net/tap.c tap_handle_frame().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import Health
from xdpctl.doctor.rules.case import Case, Mistake, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link

STUCK = Mistake(
    "qdisc.pfifo-fast-stuck",
    "pfifo_fast is lockless, and on this kernel a packet can be left in it until the next one is sent.",
    "none",
    ("net/sched/sch_generic.c qdisc_run_end(): STATE_MISSED (5.13, 5.12.9, 5.10.42, 5.4.188)",),
)
BACKPRESSURE = Mistake(
    "qdisc.veth-backpressure",
    "A veth with a real qdisc and unequal queue counts can stop a transmit queue for good on this kernel.",
    "none",
    ("drivers/net/veth.c veth_xmit(): netif_tx_stop_queue() (6.12.61 to 6.12.107)",),
)
MACVTAP = Mistake(
    "qdisc.macvtap-false-full",
    "On this kernel several senders make a macvtap drop frames though its ring has room.",
    "none",
    ("drivers/net/tap.c tap_handle_frame(): __skb_array_full() (4.15)",),
)
MISTAKES = (STUCK, BACKPRESSURE, MACVTAP)


def _stuck_fixed(case: Case) -> bool | None:
    """Whether qdisc_run_end() reschedules for a missed enqueue; None: somewhere in 5.4.y."""
    if not case.since(4, 16):
        return True  # pfifo_fast still had its lock
    if case.since(5, 13) or (case.since(5, 12, 9) and not case.since(5, 13)):
        return True
    if case.since(5, 10, 42) and not case.since(5, 11):
        return True
    if case.since(5, 4, 7) and not case.since(5, 5):
        return True if case.since(5, 4, 188) else None
    return False


def health(case: Case, intent: Health) -> Iterator[Finding]:
    """The qdiscs of one link."""
    link = case.link(intent.link)
    if link is None:
        return
    yield from _pfifo_fast(case, link)
    yield from _backpressure(case, link)
    if link.kind == "macvtap" and case.since(4, 15) and not case.since(4, 16):
        yield case.find(
            MACVTAP,
            Status.WARN,
            link,
            f"{case.name(link)}: several senders at once make this kernel drop frames though the ring has room",
            evidence=(case.version_evidence(),),
            alternatives=(
                "make the number of macvtap queues a multiple of the senders' queues",
                "Linux 4.16 or newer",
            ),
        )


def _pfifo_fast(case: Case, link: Link) -> Iterator[Finding]:
    lockless = [one for one in link.qdiscs or () if one.kind == "pfifo_fast"]
    if not lockless:
        return
    fixed = _stuck_fixed(case)
    if fixed:
        return
    command = ("tc", "qdisc", "replace", "dev", link.name, "root")
    yield case.find(
        STUCK,
        Status.UNKNOWN if fixed is None else Status.WARN,
        link,
        f"{case.name(link)} has pfifo_fast, in which this kernel can leave a packet until the next one is sent",
        consequence="single packets arrive late by as long as the link is idle: lost-looking requests, slow handshakes",
        evidence=(
            Evidence("qdisc pfifo_fast", f"RTM_GETQDISC of {case.name(link)}"),
            case.version_evidence(),
        ),
        fix=(case.fix(link, *command, "fq_codel", inverse=(*command, "pfifo_fast")),),
    )


def _backpressure(case: Case, link: Link) -> Iterator[Finding]:
    peer = case.peer(link) if link.kind == "veth" else None
    if peer is None or not case.since(6, 12, 61) or case.since(6, 12, 108):
        return
    real = [one for one in link.qdiscs or () if one.kind not in ("noqueue", "clsact", "ingress")]
    tx, rx = link.real_tx_queues, peer.real_rx_queues
    if not real or tx is None or rx is None or tx == rx:
        return
    command = ("tc", "qdisc", "replace", "dev", link.name, "root")
    yield case.find(
        BACKPRESSURE,
        Status.WARN,
        link,
        f"{case.name(link)} has qdisc {real[0].kind}, {tx} tx queues and a peer with {rx} rx queues: this kernel can"
        " stop one of its queues for good",
        evidence=(
            Evidence(f"qdisc {real[0].kind}", f"RTM_GETQDISC of {case.name(link)}"),
            Evidence(f"{tx} tx queues here, {rx} rx queues at {case.name(peer)}", "ethtool channels"),
            case.version_evidence(),
        ),
        fix=(case.fix(link, *command, "noqueue", inverse=(*command, real[0].kind)),),
    )


RULES = (Rule((Health,), health),)
