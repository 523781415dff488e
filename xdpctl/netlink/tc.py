"""Qdiscs with their counters, and the BPF filters on clsact (rtnetlink's RTM_GETQDISC and RTM_GETTFILTER).

Tables as in include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls,gen_stats}.h, reduced to what is used.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import NetlinkError
from xdpctl.netlink.attributes import (
    LITTLE_ENDIAN,
    RAW,
    TEXT,
    U32,
    U64,
    attributes,
    malformed,
    nest,
    record,
    value_of,
    walk,
)
from xdpctl.netlink.rtnl import route_socket

if TYPE_CHECKING:
    from xdpctl.netlink import wire

RTM_GETQDISC = 38
RTM_GETTFILTER = 46

TC_H_ROOT = 0xFFFFFFFF
TC_H_CLSACT_INGRESS = 0xFFFFFFF2
TC_H_CLSACT_EGRESS = 0xFFFFFFF3
TC_H_INGRESS = 0xFFFFFFF1
"""Parent of the clsact or ingress qdisc itself (TC_H_CLSACT is the same number)."""

_TC = struct.Struct("=BxxxiIII")
_unpack_tc = _TC.unpack_from


class RawQdisc(NamedTuple):
    """One RTM_NEWQDISC message; counters None where the qdisc keeps none."""

    ifindex: int
    kind: str
    handle: int
    parent: int
    """TC_H_ROOT, TC_H_INGRESS, or the handle of the class it hangs on."""
    bytes: int | None = None
    packets: int | None = None
    qlen: int | None = None
    """Packets waiting."""
    backlog: int | None = None
    """Bytes waiting."""
    drops: int | None = None
    requeues: int | None = None
    overlimits: int | None = None


class RawFilter(NamedTuple):
    """One bpf filter (RTM_NEWTFILTER, cls_bpf) on a clsact or ingress qdisc."""

    ifindex: int
    hook: str
    """ingress or egress."""
    priority: int
    """tc's pref."""
    handle: int
    protocol: int
    """ETH_P_*, 3 for all."""
    prog_id: int
    name: str | None
    """As given by who attached it: ``file.o:[section]``, or the program's."""
    tag: str | None
    direct_action: bool
    chain: int = 0


_QDISC = {
    1: ("kind", TEXT),
    7: (
        "stats",
        nest({1: ("basic", record("QI")), 3: ("queue", record("IIIII")), 8: ("packets64", U64)}),
    ),
}


def qdiscs(opened: wire.Socket | None = None) -> list[RawQdisc]:
    """Every qdisc of every link: one RTM_GETQDISC dump.

    Raises:
        NetlinkError: the kernel refused.
    """
    with route_socket(opened) as sock:
        return [
            decode_qdisc(*one)
            for one in sock.dump(RTM_GETQDISC, _TC.pack(0, 0, 0, 0, 0), what="listing qdiscs")
        ]


def decode_qdisc(data: bytes, start: int, end: int) -> RawQdisc:
    """An RTM_NEWQDISC payload (struct tcmsg and TCA_*).

    Raises:
        NetlinkError: malformed.
    """
    if end - start < _TC.size:
        raise malformed("a short tcmsg")
    _family, ifindex, handle, parent, _info = _unpack_tc(data, start)
    found = attributes(data, start + _TC.size, end, _QDISC)
    stats = found.get("stats") or {}
    octets, packets = stats.get("basic", (None, None))
    qlen, backlog, drops, requeues, overlimits = stats.get("queue", (None,) * 5)
    return RawQdisc(
        ifindex,
        found.get("kind", ""),
        handle,
        parent,
        octets,
        stats.get("packets64", packets),
        qlen,
        backlog,
        drops,
        requeues,
        overlimits,
    )


_FILTER_BPF = {
    7: ("name", TEXT),
    8: ("flags", U32),
    10: ("tag", RAW),
    11: ("id", U32),
}
_HOOKS = {"ingress": TC_H_CLSACT_INGRESS, "egress": TC_H_CLSACT_EGRESS}


def has_clsact(qdisc: RawQdisc) -> bool:
    """Whether this qdisc is one that carries clsact filters (clsact itself, or the older ingress)."""
    return qdisc.kind in ("clsact", "ingress")


def bpf_filters(ifindex: int, hook: str, opened: wire.Socket | None = None) -> list[RawFilter]:
    """The bpf filters on one link's clsact hook; none where it has no clsact or ingress qdisc.

    Args:
        ifindex: the link.
        hook: ingress or egress.
        opened: a NETLINK_ROUTE socket to use.

    Raises:
        NetlinkError: the kernel refused.
    """
    payload = _TC.pack(0, ifindex, 0, _HOOKS[hook], 0)
    with route_socket(opened) as sock:
        try:
            answers = sock.dump(RTM_GETTFILTER, payload, what=f"listing {hook} filters of link {ifindex}")
        except NetlinkError as error:
            if error.errno in (22, 2):  # EINVAL, ENOENT: no qdisc to hang filters on
                return []
            raise
        decoded = (decode_filter(*one, hook) for one in answers)
        return [one for one in decoded if one is not None]


def decode_filter(data: bytes, start: int, end: int, hook: str) -> RawFilter | None:
    """An RTM_NEWTFILTER payload; None when it is no bpf filter, or only the head of a priority (no handle).

    Raises:
        NetlinkError: malformed.
    """
    if end - start < _TC.size:
        raise malformed("a short tcmsg")
    _family, ifindex, handle, _parent, info = _unpack_tc(data, start)
    kind = chain = None
    options: dict[str, Any] | None = None
    for number, at, stop in walk(data, start + _TC.size, end):
        if number == 1:
            kind = value_of(TEXT, data, at, stop)
        elif number == 2 and kind == "bpf":
            options = attributes(data, at, stop, _FILTER_BPF)
        elif number == 11:
            chain = value_of(U32, data, at, stop)
    if kind != "bpf" or options is None or "id" not in options:
        return None  # another classifier, or classic BPF, which has no program id
    tag = options.get("tag")
    return RawFilter(
        ifindex,
        hook,
        info >> 16,
        handle,
        int.from_bytes((info & 0xFFFF).to_bytes(2, "little" if LITTLE_ENDIAN else "big"), "big"),
        options["id"],
        options.get("name"),
        tag.hex() if tag else None,
        bool(options.get("flags", 0) & 1),
        chain or 0,
    )
