"""Redirect and XDP_TX into a veth: frames land in the ring of its PEER, which must have NAPI.

Mirrors drivers/net/veth.c veth_xdp_xmit(), veth_set_xdp_features(), veth_open(), veth_set_features() and
kernel/bpf/devmap.c __xdp_enqueue(). The peer has NAPI while it is up and has a native program or, since 5.13,
GRO *wanted*. Since 6.3 the target's xdp-features carry the answer (ndo-xmit), except where the kernel forgets
to update them: GRO switched while the peer is down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Fix, Status
from xdpctl.doctor.rules.attach_veth import max_peer_mtu
from xdpctl.doctor.rules.case import (
    NDO_XMIT,
    Case,
    Mistake,
    carrier,
    flags_text,
    hard_header_len,
)
from xdpctl.doctor.rules.commands import channels, more_rx_queues, mtu, pass_program, up
from xdpctl.doctor.rules.geometry import geometry
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from xdpctl.host.model import Link

PEER_NAPI = Mistake(
    "redirect.veth-peer-napi",
    "Frames redirected natively into a veth are lost because its peer has no NAPI: GRO is off there and no"
    " native program is attached.",
    "EOPNOTSUPP in xdp_redirect_err from 6.3; ENXIO in xdp_devmap_xmit before",
    ("drivers/net/veth.c veth_xdp_xmit()", "drivers/net/veth.c veth_set_xdp_features() (6.3)"),
)
FEATURES_STALE = Mistake(
    "redirect.veth-stale-features",
    "A veth's xdp-features disagree with its peer's GRO, because GRO was switched while the peer was down.",
    "EOPNOTSUPP in xdp_redirect_err (switched on while down), ENXIO in xdp_devmap_xmit (off while down)",
    ("drivers/net/veth.c veth_set_features()", "drivers/net/veth.c veth_open()"),
)
PEER_DOWN = Mistake(
    "redirect.veth-peer-down",
    "Frames redirected into a veth are lost because its peer is down.",
    "ENXIO in xdp_devmap_xmit; generic: dropped by veth_xmit with no event",
    ("drivers/net/veth.c veth_xdp_xmit()", "drivers/net/veth.c veth_xmit()"),
)
PEER_QUEUES = Mistake(
    "redirect.veth-queues",
    "A veth with fewer receive queues than its peer has transmit queues loses all its XDP features.",
    "EOPNOTSUPP in xdp_redirect_err (6.3)",
    ("drivers/net/veth.c veth_set_xdp_features() (6.3)",),
)
PEER_UNSEEN = Mistake(
    "redirect.veth-peer-unseen",
    "Whether a veth can be redirected into depends on its peer, which was not observed.",
    "not known",
    ("drivers/net/veth.c veth_xdp_xmit()",),
)
GRO = "rx-gro"
GENERIC = "attach the redirecting program in generic mode (--mode generic): slower, but it needs no NAPI"
ENQUEUE, BULK = "xdp:xdp_redirect_err", "xdp:xdp_devmap_xmit"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why frames into `target` get lost, before anybody knows how much it matters."""

    mistake: Mistake
    status: Status
    reason: str
    errno: str | None = None
    shows_in: str | None = None
    evidence: tuple[Evidence, ...] = ()
    fix: tuple[Fix, ...] = ()
    alternatives: tuple[str, ...] = ()


def napi(case: Case, peer: Link) -> bool | None:
    """Whether a veth has NAPI: up, and a native program or (5.13) GRO wanted; None: GRO is not known."""
    if not peer.up:
        return False
    if case.runs_native(peer):
        return True
    if not case.since(5, 13):
        return False
    gro = peer.feature(GRO)
    return None if gro is None else gro.wanted


def napi_evidence(case: Case, peer: Link) -> tuple[Evidence, ...]:
    """The facts behind `napi`, each with where it was read."""
    facts = [Evidence(f"{case.name(peer)} is {flags_text(peer)}", "RTM_GETLINK IFLA flags")]
    program = peer.xdp.native
    facts.append(
        Evidence(
            f"{peer.name} has native program id {program}"
            if program
            else f"{peer.name} has no native program",
            "RTM_GETLINK IFLA_XDP",
        )
    )
    gro = peer.feature(GRO)
    if gro is not None:
        fixed = ", fixed" if gro.fixed else ""
        facts.append(
            Evidence(
                f"rx-gro is {'on' if gro.active else 'off'} (wanted {'on' if gro.wanted else 'off'}{fixed})",
                f"ethtool features of {case.name(peer)}",
            )
        )
    if not case.since(5, 13):
        facts.append(case.version_evidence())
    return tuple(facts)


def features_evidence(case: Case, target: Link) -> tuple[Evidence, ...]:
    """The target's xdp-features, where the kernel tells them."""
    if target.xdp_features is None:
        return ()
    has = "have" if target.xdp_features & NDO_XMIT else "lack"
    fact = f"xdp-features {target.xdp_features:#x} {has} ndo-xmit"
    return (Evidence(fact, f"netdev dev-get of {case.name(target)}"),)


def give_napi(case: Case, peer: Link, *, retoggle: bool = False) -> tuple[tuple[Fix, ...], tuple[str, ...]]:
    """(steps that give the peer NAPI, other ways in words)."""
    program = (
        f"attach a native program to {case.name(peer)}; one that returns XDP_PASS for everything will do"
    )
    # a peer that is down takes nothing in generic mode either
    generic = (GENERIC,) if peer.up else ()
    steps: list[Fix] = []
    if not peer.up:
        steps.append(up(case, peer))
    if case.runs_native(peer) and not retoggle:
        return tuple(steps), ()
    gro = peer.feature(GRO)
    if not case.since(5, 13) or (gro is not None and gro.fixed and not gro.wanted):
        if peer.xdp.generic:  # in the way of a native one, and not ours to take away
            return (), (
                f"attach the program of {case.name(peer)} in native mode instead of generic",
                *generic,
            )
        return (*steps, *_passing(case, peer)), generic
    on, off = (("ethtool", "-K", peer.name, "gro", state) for state in ("on", "off"))
    if retoggle:
        note = "the kernel updates the other end's xdp-features only when GRO changes while the link is up"
        steps += [case.fix(peer, *off, inverse=on, note=note), case.fix(peer, *on, inverse=None)]
    elif gro is None or not gro.wanted or peer.up:
        steps.append(case.fix(peer, *on, inverse=off))
    return tuple(steps), (program, *generic)


def _passing(case: Case, peer: Link) -> tuple[Fix, ...]:
    """A native program for `peer`, which has to take frames as long as its other end sends them."""
    other, sizes = case.peer(peer), geometry(case.kernel)
    if other is None or sizes is None:
        return (pass_program(case, peer),)
    linear = max_peer_mtu(sizes, hard_header_len(other), frags=False)
    if other.mtu <= linear:
        return (pass_program(case, peer),)
    if case.kernel.features.get("frags"):
        return (pass_program(case, peer, frags=True),)
    return mtu(case, other, linear), pass_program(case, peer)


def enxio(case: Case, *, via_map: bool) -> tuple[str, str]:
    """Errno and place of a failed ndo_xdp_xmit: up to 5.5 a plain bpf_redirect() called it directly."""
    return "ENXIO", BULK if via_map or case.since(5, 6) else ENQUEUE


def trouble(case: Case, target: Link, *, via_map: bool = True) -> Trouble | None:
    """What loses frames that are redirected natively into veth `target`, None for nothing."""
    peer = case.peer(target)
    features = features_evidence(case, target)
    ready = None if target.xdp_features is None else bool(target.xdp_features & NDO_XMIT)
    if peer is None:
        return _unseen(case, target, ready, via_map=via_map)
    queues = _queue_trouble(case, target, peer)
    if queues is not None:
        return queues
    state = napi(case, peer)
    evidence = (*napi_evidence(case, peer), *features)
    gro = peer.feature(GRO)
    if case.is_to_run_native(peer) and ready is False:
        ready = True  # the attach sets ndo-xmit here
    armed = case.runs_native(peer) or (case.since(5, 13) and gro is not None and gro.wanted)
    if ready is None and case.since(6, 3) and (gro is not None or armed):
        ready = armed  # not readable, but this is what the kernel computes it from
    errno, place = ("EOPNOTSUPP", ENQUEUE) if ready is False else enxio(case, via_map=via_map)
    if state and ready is not False:
        return None
    if state and ready is False:
        steps, others = give_napi(case, peer, retoggle=not case.runs_native(peer))
        reason = (
            f"its peer {case.name(peer)} wants GRO, but the kernel missed it: it was switched on while down"
        )
        return Trouble(FEATURES_STALE, Status.FAIL, reason, errno, place, evidence, steps, others)
    if state is None:
        if ready:
            return None
        if ready is None:
            reason = f"GRO of its peer {case.name(peer)} is not known"
            look = (f"look at `ethtool -k {peer.name} | grep generic-receive-offload` where {peer.name} is",)
            return Trouble(PEER_NAPI, Status.UNKNOWN, reason, evidence=evidence, alternatives=look)
    missed = armed and ready is False and not case.runs_native(peer)
    steps, others = give_napi(case, peer, retoggle=missed)
    if not peer.up and armed:
        reason = f"its peer {case.name(peer)} is down"
        return Trouble(PEER_DOWN, Status.FAIL, reason, errno, place, evidence, steps, others)
    if ready and peer.up and gro is not None and not gro.wanted:
        reason = f"its peer {case.name(peer)} has no NAPI, whatever xdp-features say: GRO went off while it was down"
        return Trouble(FEATURES_STALE, Status.FAIL, reason, errno, place, evidence, steps, others)
    why = "GRO is off" if case.since(5, 13) else "GRO does nothing before 5.13"
    down = "" if peer.up else "is down and "
    reason = f"its peer {case.name(peer)} {down}has no NAPI ({why} and no native program is attached there)"
    return Trouble(PEER_NAPI, Status.FAIL, reason, errno, place, evidence, steps, others)


def _unseen(case: Case, target: Link, ready: bool | None, *, via_map: bool) -> Trouble | None:
    """The peer was not observed, or there is none."""
    features = features_evidence(case, target)
    if target.peer is None:
        fact = Evidence(f"{target.name} names no peer", "RTM_GETLINK IFLA_LINK")
        errno, place = ("EOPNOTSUPP", ENQUEUE) if ready is False else enxio(case, via_map=via_map)
        return Trouble(PEER_DOWN, Status.FAIL, "its peer is gone", errno, place, (*features, fact))
    nsid = (
        f"link-netnsid {target.peer.nsid}"
        if target.peer.nsid is not None
        else "a namespace that was not observed"
    )
    fact = Evidence(f"the peer is ifindex {target.peer.ifindex} in {nsid}", "RTM_GETLINK IFLA_LINK")
    look = (
        f"run `ethtool -K PEER gro on` in the namespace that holds ifindex {target.peer.ifindex}",
        "run `xdpctl doctor --all-netns` as root, so that every namespace is observed",
        "attach the redirecting program in generic mode (--mode generic), which needs no NAPI",
    )
    if ready and not (target.up and not carrier(target)):
        return None
    if ready:
        errno, place = enxio(case, via_map=via_map)
        down = Evidence(f"{target.name} has no carrier", "RTM_GETLINK flags: no LOWER_UP")
        reason = "its peer, in a namespace that was not observed, is down"
        return Trouble(PEER_DOWN, Status.FAIL, reason, errno, place, (*features, fact, down), (), look)
    if ready is False:
        reason = "its peer, in a namespace that was not observed, has no NAPI (GRO off and no native program)"
        return Trouble(PEER_NAPI, Status.FAIL, reason, "EOPNOTSUPP", ENQUEUE, (*features, fact), (), look)
    reason = "its peer, on whose GRO or program it depends, was not observed"
    return Trouble(PEER_UNSEEN, Status.UNKNOWN, reason, evidence=(fact,), alternatives=look)


def _queue_trouble(case: Case, target: Link, peer: Link) -> Trouble | None:
    """From 6.3 the target's features are all 0 while its peer transmits on more queues than it receives on."""
    rx, tx = target.real_rx_queues, peer.real_tx_queues
    if rx is None or tx is None or tx <= rx or not case.since(6, 3):
        return None
    if target.xdp_features:  # the kernel says otherwise, and it is the judge
        return None
    evidence = (
        Evidence(f"{case.name(target)} receives on {rx} queues", "ethtool channels"),
        Evidence(f"its peer {case.name(peer)} transmits on {tx}", "ethtool channels"),
        *features_evidence(case, target),
    )
    reason = f"it has {rx} receive queues and its peer {case.name(peer)} {tx} transmit queues: no XDP features at all"
    fix = (channels(case, peer, tx=(tx, rx), flaps=True),)
    more = more_rx_queues(case, target, tx)
    return Trouble(PEER_QUEUES, Status.FAIL, reason, "EOPNOTSUPP", ENQUEUE, evidence, fix, more)
