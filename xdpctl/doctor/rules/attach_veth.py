"""Attaching native XDP to a veth: its peer's MTU and queues decide.

Mirrors drivers/net/veth.c veth_xdp_set() and veth_set_channels().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules.case import Case, Mistake, Rule, hard_header_len
from xdpctl.doctor.rules.commands import channels, more_rx_queues, mtu
from xdpctl.doctor.rules.geometry import XDP_PACKET_HEADROOM, Geometry, geometry
from xdpctl.doctor.rules.refusal import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link

SET = "drivers/net/veth.c veth_xdp_set()"

PEER_GONE = Mistake("attach.veth-peer-gone", "The veth's peer is gone.", "ENOTCONN", (SET,))
PEER_MTU = Mistake(
    "attach.veth-peer-mtu",
    "The MTU of the veth's peer is larger than one page holds (frags programs: 17 pages more).",
    "ERANGE, `Peer MTU is too large to set XDP`",
    (SET,),
)
PEER_QUEUES = Mistake(
    "attach.veth-queues",
    "The veth has fewer receive queues than its peer has transmit queues.",
    "ENOSPC, `XDP expects number of rx queues not less than peer tx queues`",
    (SET,),
)
PEER_UNSEEN = Mistake(
    "attach.veth-peer-unseen",
    "Whether the veth takes native XDP depends on its peer's MTU and queues, which were not observed.",
    "not known",
    (SET,),
)
MISTAKES = (PEER_GONE, PEER_MTU, PEER_QUEUES, PEER_UNSEEN)


def max_peer_mtu(sizes: Geometry, header: int, *, frags: bool) -> int:
    """Largest MTU of the peer in bytes: SKB_WITH_OVERHEAD(PAGE_SIZE - VETH_XDP_HEADROOM) - hard_header_len."""
    linear = sizes.with_overhead(sizes.page_size - XDP_PACKET_HEADROOM - sizes.net_ip_align) - header
    return linear + (sizes.page_size * sizes.max_frags if frags else 0)


def attach(case: Case, intent: AttachXdp) -> Iterator[Finding]:
    """A native attach to a veth."""
    link = case.link(intent.link)
    if link is None or link.kind != "veth" or intent.mode != "native":
        return
    if link.peer is None:
        yield refuse(
            case,
            PEER_GONE,
            link,
            f"the peer of {case.name(link)} is gone",
            errno="ENOTCONN",
            extack="veth: Cannot set XDP when peer is detached",
            evidence=(Evidence(f"{link.name} names no peer", "RTM_GETLINK IFLA_LINK"),),
            alternatives=("delete the veth and make the pair anew",),
        )
        return
    peer = case.peer(link)
    if peer is None:
        yield from _unseen(case, link)
        return
    yield from _mtu(case, intent, link, peer)
    yield from _queues(case, link, peer)


def _unseen(case: Case, link: Link) -> Iterator[Finding]:
    where = link.peer
    nsid = f", link-netnsid {where.nsid}" if where is not None and where.nsid is not None else ""
    number = where.ifindex if where is not None else 0
    yield case.find(
        PEER_UNSEEN,
        Status.UNKNOWN,
        link,
        f"whether {case.name(link)} takes native XDP depends on its peer, in a namespace that was not observed",
        evidence=(Evidence(f"the peer is ifindex {number}{nsid}", "RTM_GETLINK IFLA_LINK"),),
        alternatives=(
            f"look at MTU and tx queues of ifindex {number} in its own namespace: `ip -d link`, `ethtool -l`",
            "run xdpctl as root, so that every namespace can be observed",
            "attach in generic mode: --mode generic",
        ),
    )


def _mtu(case: Case, intent: AttachXdp, link: Link, peer: Link) -> Iterator[Finding]:
    sizes = geometry(case.kernel)
    if sizes is None:
        return
    frags_known = case.since(6, 1)
    limit = max_peer_mtu(sizes, hard_header_len(peer), frags=intent.frags and frags_known)
    if peer.mtu <= limit:
        return
    linear = max_peer_mtu(sizes, hard_header_len(peer), frags=False)
    formula = (
        f"page {sizes.page_size} - headroom {XDP_PACKET_HEADROOM + sizes.net_ip_align}"
        f" - skb_shared_info {sizes.shared_info} - header {hard_header_len(peer)}"
        f"{f' + {sizes.max_frags} pages' if limit != linear else ''} = {limit}"
    )
    others = () if intent.frags else ('make the program frags-aware: SEC("xdp.frags")',)
    yield refuse(
        case,
        PEER_MTU,
        link,
        f"{case.name(peer)}, the peer of {case.name(link)}, has MTU {peer.mtu}; native XDP here allows at most {limit}",
        errno="ERANGE",
        extack="veth: Peer MTU is too large to set XDP",
        evidence=(
            Evidence(f"MTU of {case.name(peer)} is {peer.mtu}", "RTM_GETLINK IFLA_MTU"),
            Evidence(f"limit: {formula}", "page size, cache line and fragments of this kernel"),
        ),
        fix=(mtu(case, peer, limit),),
        alternatives=(*others, "attach in generic mode: --mode generic"),
    )


def _queues(case: Case, link: Link, peer: Link) -> Iterator[Finding]:
    rx, tx = link.real_rx_queues, peer.real_tx_queues
    settable = case.since(5, 15)
    if not settable:  # before veth_set_channels() all that were made are in use
        rx, tx = rx or link.num_rx_queues, tx or peer.num_tx_queues
    if rx is None or tx is None:
        if max(peer.num_tx_queues or 1, 1) > 1:
            yield case.find(
                PEER_UNSEEN,
                Status.UNKNOWN,
                link,
                f"whether {case.name(link)} has as many rx queues as its peer {case.name(peer)} has tx queues is"
                " not known",
                alternatives=(f"look at `ethtool -l {link.name}` and `ethtool -l {peer.name}`",),
            )
        return
    if rx >= tx:
        return
    read = "ethtool channels of" if settable else "RTM_GETLINK IFLA_NUM_{}_QUEUES of"
    anew = f"make the pair anew, {link.name} with numrxqueues {tx} (`ethtool -L` works from 5.15)"
    yield refuse(
        case,
        PEER_QUEUES,
        link,
        f"{case.name(link)} has {rx} rx queue{'s' if rx != 1 else ''}, and its peer {case.name(peer)} sends on {tx}",
        errno="ENOSPC",
        extack="veth: XDP expects number of rx queues not less than peer tx queues",
        evidence=(
            Evidence(f"{rx} rx queues in use", f"{read.format('RX')} {case.name(link)}"),
            Evidence(f"{tx} tx queues in use", f"{read.format('TX')} {case.name(peer)}"),
        ),
        fix=(channels(case, peer, tx=(tx, rx)),) if settable else (),
        alternatives=more_rx_queues(case, link, tx) if settable else (anew,),
    )


RULES = (Rule((AttachXdp,), attach),)
