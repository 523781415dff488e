"""Redirects into a veth, and how fit one is for them: what veth_napi finds, told of an intent.

Mirrors drivers/net/veth.c veth_xdp_xmit() and veth_xmit().
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import Health, Redirect
from xdpctl.doctor.rules.case import (
    Case,
    Mistake,
    Rule,
    carrier,
    forward_limit,
)
from xdpctl.doctor.rules.commands import larger_mtu, up
from xdpctl.doctor.rules.redirect_drivers import core_refuses_frags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.host.model import Link
from xdpctl.doctor.rules.veth_napi import (
    BULK,
    ENQUEUE,
    FEATURES_STALE,
    PEER_DOWN,
    PEER_NAPI,
    PEER_QUEUES,
    PEER_UNSEEN,
    Trouble,
    trouble,
)

PEER_MTU = Mistake(
    "redirect.veth-peer-mtu",
    "Frames longer than the peer's MTU allows are dropped by the veth that they are redirected into.",
    "none: a short count in xdp_devmap_xmit (err=0, drops>0)",
    ("drivers/net/veth.c veth_xdp_xmit()",),
)


def _sentence(case: Case, target: Link, what: Trouble, source: Link | None = None) -> str:
    """One sentence from the target's point of view."""
    origin = f" from {case.name(source)}" if source else ""
    if what.status is Status.UNKNOWN:
        return f"whether frames redirected natively{origin} into {case.name(target)} arrive is not known: {what.reason}"
    return f"frames redirected natively{origin} into {case.name(target)} are lost: {what.reason}"


def _consequence(what: Trouble) -> str | None:
    if what.errno is None:
        return None
    if what.shows_in == ENQUEUE:
        return f"each redirect fails with {what.errno}: {ENQUEUE} fires, the program sees nothing"
    return (
        f"the whole bulk is dropped with {what.errno} in {what.shows_in}, while xdp_redirect reports success"
    )


def _finding(case: Case, about: Link, what: Trouble, summary: str, status: Status | None = None) -> Finding:
    return case.find(
        what.mistake,
        status or what.status,
        about,
        summary,
        errno=what.errno,
        shows_in=what.shows_in,
        consequence=_consequence(what),
        evidence=what.evidence,
        fix=what.fix,
        alternatives=what.alternatives,
    )


def redirect(case: Case, intent: Redirect) -> Iterator[Finding]:
    """Frames are to be redirected into a veth."""
    target = case.link(intent.target)
    if target is None or target.kind != "veth":
        return
    source = case.link(intent.source)
    if intent.mode == "native":
        if intent.multi_buffer and intent.frame_len is not None and core_refuses_frags(case, target):
            return  # no frame gets as far as the veth
        what = trouble(case, target, via_map=intent.via_map)
        if what is not None:
            status = what.status
            if status is Status.FAIL and not intent.promised:
                status = Status.WARN
            yield _finding(case, target, what, _sentence(case, target, what, source), status)
    else:
        yield from _generic_peer_down(case, intent, target)
    yield from _peer_mtu(case, intent, target, source)


def _generic_peer_down(case: Case, intent: Redirect, target: Link) -> Iterator[Finding]:
    """veth_xmit() drops what its peer, being down, can't take; the redirect itself reports success."""
    peer = case.peer(target)
    if not target.up or target.peer is None:
        return
    if peer is None and carrier(target):
        return
    if peer is not None and peer.up:
        return
    fix = (up(case, peer),) if peer is not None else ()
    who = case.name(peer) if peer is not None else "in a namespace that was not observed"
    yield case.find(
        PEER_DOWN,
        Status.FAIL if intent.promised else Status.WARN,
        target,
        f"frames redirected (generic) into {case.name(target)} are lost: its peer {who} is down",
        shows_in=f"tx_dropped of {target.name}",
        consequence="xdp:xdp_redirect reports success, then the driver drops the frame",
        evidence=(Evidence(f"peer {who} is down", "RTM_GETLINK flags"),),
        fix=fix,
    )


def _peer_mtu(case: Case, intent: Redirect, target: Link, source: Link | None) -> Iterator[Finding]:
    """veth_xdp_xmit() stops at a frame longer than the PEER's MTU; __dev_forward_skb() does the same for skbs."""
    peer = case.peer(target)
    if peer is None:
        return
    limit = forward_limit(peer)
    if limit >= forward_limit(target):
        return  # the target's own MTU is met first
    if intent.frame_len is not None:
        longest, certain = intent.frame_len, True
    elif source is not None:
        longest, certain = source.mtu + 14, False
    else:
        return
    if longest <= limit:
        return
    yield case.find(
        PEER_MTU,
        Status.FAIL if certain and intent.promised else Status.WARN,
        target,
        f"frames longer than {limit} bytes redirected into {case.name(target)} are dropped: its peer"
        f" {case.name(peer)} has MTU {peer.mtu}",
        shows_in=BULK if intent.mode == "native" else f"tx_dropped of {target.name}",
        consequence="a short count in xdp_devmap_xmit (err=0, drops>0)" if intent.mode == "native" else None,
        evidence=(
            Evidence(
                f"MTU of {case.name(peer)} is {peer.mtu}, so the limit is {limit} bytes",
                "RTM_GETLINK IFLA_MTU",
            ),
            Evidence(
                f"frames may be {longest} bytes long", "the intent" if certain else "the source's IFLA_MTU"
            ),
        ),
        fix=larger_mtu(case, peer, longest - 14),
    )


def health(case: Case, intent: Health) -> Iterator[Finding]:
    """A veth as it stands: can it be redirected into, and (when it was named) can its peer?"""
    link = case.link(intent.link)
    if link is None or link.kind != "veth":
        return
    peer = case.peer(link)
    other = trouble(case, peer) if intent.named and peer is not None else None
    if other is not None and peer is not None:  # what is wrong at this end comes first
        summary = _sentence(case, peer, _seen_from_peer(case, link, other))
        yield _finding(case, link, other, summary, _matters(case, intent, other, peer, link))
    what = trouble(case, link)
    if what is not None and (intent.named or what.status is Status.FAIL):
        yield _finding(
            case, link, what, _sentence(case, link, what), _matters(case, intent, what, link, peer)
        )


def _matters(case: Case, intent: Health, what: Trouble, target: Link, partner: Link | None) -> Status:
    """How much an unusable direction of a pair matters: what is redirected the other way round may not need it."""
    if what.status is not Status.FAIL:
        return what.status
    if not intent.named:
        return Status.WARN
    one_way = partner is not None and case.aimed_at(partner) and not case.aimed_at(target)
    return Status.WARN if one_way else Status.FAIL


def _seen_from_peer(case: Case, link: Link, what: Trouble) -> Trouble:
    """The same trouble told at the end whose GRO, state or queues cause it."""
    reason = what.reason.replace(f"its peer {case.name(link)}", f"{case.name(link)}, its peer,")
    return replace(what, reason=reason)


MISTAKES = (PEER_NAPI, FEATURES_STALE, PEER_DOWN, PEER_QUEUES, PEER_UNSEEN, PEER_MTU)

RULES = (Rule((Redirect,), redirect), Rule((Health,), health))
