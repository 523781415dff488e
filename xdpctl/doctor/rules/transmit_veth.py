"""XDP_TX on a veth goes back into the ring of its peer, which must be polled.

Mirrors drivers/net/veth.c veth_xdp_tx(), veth_xdp_flush_bq() and veth_xdp_flush().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Fix, Status
from xdpctl.doctor.intent import Transmit
from xdpctl.doctor.rules.attach_veth import max_peer_mtu
from xdpctl.doctor.rules.case import (
    Case,
    Mistake,
    Rule,
    hard_header_len,
)
from xdpctl.doctor.rules.commands import pass_program, up
from xdpctl.doctor.rules.geometry import geometry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link
from xdpctl.doctor.rules.veth_napi import PEER_UNSEEN, napi, napi_evidence

TX_PEER_NAPI = Mistake(
    "transmit.veth-peer-napi",
    "XDP_TX on a veth is lost because its peer has no NAPI.",
    "ENXIO in xdp_bulk_tx",
    ("drivers/net/veth.c veth_xdp_flush_bq()", "drivers/net/veth.c veth_xdp_xmit()"),
)
TX_PEER_PROGRAM = Mistake(
    "transmit.veth-peer-program",
    "XDP_TX on a veth is never delivered: its peer has NAPI by GRO alone, and only a native program there gets it"
    " polled.",
    "none: xdp_bulk_tx says sent; once the peer's ring of 256 is full, a short count (err=0, drops>0)",
    ("drivers/net/veth.c veth_xdp_flush()",),
)
TX_GENERIC = "attach the program in generic mode (--mode generic): slower, but it needs nothing of the peer"


def transmit(case: Case, intent: Transmit) -> Iterator[Finding]:
    """XDP_TX on a veth goes back to the peer's ring, whatever the xdp-features say."""
    link = case.link(intent.link)
    if link is None or link.kind != "veth" or intent.mode != "native":
        return
    peer = case.peer(link)
    if peer is None:
        if link.peer is not None:
            yield case.find(
                PEER_UNSEEN,
                Status.UNKNOWN,
                link,
                f"whether XDP_TX on {case.name(link)} arrives is not known: its peer was not observed",
                evidence=(Evidence(f"the peer is ifindex {link.peer.ifindex}", "RTM_GETLINK IFLA_LINK"),),
                alternatives=("look at GRO and programs of the peer, in its own namespace",),
            )
        return
    if peer.up and case.runs_native(peer):
        return
    steps: tuple[Fix, ...] = () if peer.up else (up(case, peer),)
    others: tuple[str, ...] = (TX_GENERIC,)
    if peer.xdp.generic:  # in the way of a native one, and not ours to take away
        steps = ()
        others = (f"attach the program of {case.name(peer)} in native mode instead of generic", *others)
    elif not case.runs_native(peer):
        steps += (_passing(case, peer, link),)
    who, owner = case.name(link), case.name(peer)
    if napi(case, peer) is False:
        yield case.find(
            TX_PEER_NAPI,
            Status.FAIL,
            link,
            f"XDP_TX on {who} loses its frames: its peer {owner} has no NAPI",
            errno="ENXIO",
            shows_in="xdp:xdp_bulk_tx",
            consequence="the bulk is dropped with ENXIO in xdp:xdp_bulk_tx; no redirect event",
            evidence=napi_evidence(case, peer),
            fix=steps,
            alternatives=others,
        )
        return
    # whatever GRO is: veth_xdp_flush() looks for the peer's program, not for its NAPI, before it wakes anybody
    yield case.find(
        TX_PEER_PROGRAM,
        Status.FAIL,
        link,
        f"XDP_TX on {who} is never delivered: its peer {owner} has no native program, and GRO is not enough",
        shows_in="rx_packets of the peer",
        consequence="xdp:xdp_bulk_tx reports success, the frames stay in the peer's ring; when it is full they are"
        " dropped with err=0",
        evidence=napi_evidence(case, peer),
        fix=steps,
        alternatives=others,
    )


def _passing(case: Case, peer: Link, link: Link) -> Fix:
    """A native program for the peer, which has to take frames as long as `link` sends them."""
    sizes = geometry(case.kernel)
    linear = None if sizes is None else max_peer_mtu(sizes, hard_header_len(link), frags=False)
    return pass_program(case, peer, frags=linear is not None and link.mtu > linear)


MISTAKES = (TX_PEER_NAPI, TX_PEER_PROGRAM)

RULES = (Rule((Transmit,), transmit),)
