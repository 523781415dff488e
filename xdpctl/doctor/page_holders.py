"""Who may hold the pages that a page pool waits for: places where frames wait, as a Snapshot tells them.

A page says whose pool it is, but nothing says where a page is: so these are candidates, the likeliest first. A
frame is in a socket's receive queue, a qdisc, a cpumap's queue, or the ring of a device it was redirected to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.page_pools import Pool
    from xdpctl.host.model import Link, RedirectEntry, Snapshot

SHOWN = 8
"""Candidates told for a pool."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One place where pages of a pool may be."""

    kind: str
    """socket, qdisc, cpumap, or device (its ring)."""
    what: str
    """Names it: ``udp 192.0.2.2:902 of python3 (1234)``."""
    waiting: str
    """How much waits there, in words; "" where that can't be read."""
    look: str
    """A command that shows more of it."""

    def to_json(self) -> dict[str, Any]:
        """``{"kind", "what", "waiting", "look"}``."""
        return {"kind": self.kind, "what": self.what, "waiting": self.waiting, "look": self.look}

    def __str__(self) -> str:
        return f"{self.what}: {self.waiting}" if self.waiting else self.what


def holders(snapshot: Snapshot, pool: Pool) -> tuple[Holder, ...]:
    """Candidates for the pages that `pool` waits for; none: unknown."""
    # one namespace's frames may be forwarded into another's socket: its own are only the likeliest
    found = [*_sockets(snapshot, pool), *_qdiscs(snapshot, pool), *_maps(snapshot, pool)]
    return tuple(found[:SHOWN])


def _sockets(snapshot: Snapshot, pool: Pool) -> Iterator[Holder]:
    state = snapshot.pool_state
    if state is None or not state.unread:
        return
    for one in sorted(state.unread, key=lambda each: (each.netns != pool.netns_inode, -each.unread_bytes)):
        label = _label(snapshot, one.netns)
        where = f" in netns {label}" if label else ""
        local = f" {one.local}" if one.local else f" inode {one.inode}"
        who = f" of {one.process}" if one.process else ""
        look = "ss -nape" if not label else f"ip netns exec {label} ss -nape"
        yield Holder(
            "socket", f"{one.protocol} socket{local}{who}{where}", f"{one.unread_bytes} bytes unread", look
        )


def _qdiscs(snapshot: Snapshot, pool: Pool) -> Iterator[Holder]:
    links = sorted(snapshot.links(), key=lambda one: one.netns != pool.netns_inode)
    for link in links:
        for qdisc in link.qdiscs or ():
            if qdisc.qlen:
                yield Holder(
                    "qdisc",
                    f"qdisc {qdisc.kind} of {_name(snapshot, link)}",
                    f"{qdisc.qlen} packets",
                    f"tc -s qdisc show dev {link.name}",
                )


def _maps(snapshot: Snapshot, pool: Pool) -> Iterator[Holder]:
    """Where the programs redirect to: those on the pool's own device first."""
    source = next(
        (one for one in snapshot.links() if (one.netns, one.ifindex) == (pool.netns_inode, pool.ifindex)),
        None,
    )
    own = {source.xdp.native, source.xdp.generic, source.xdp.offload} if source is not None else set()
    told: set[str] = set()
    for program, entries in sorted(snapshot.redirects.items(), key=lambda item: item[0] not in own):
        for entry in entries:
            holder = _redirected(snapshot, program, entry)
            if holder is not None and holder.what not in told:
                told.add(holder.what)
                yield holder
    state = snapshot.pool_state
    for name in (state.cpumaps if state else None) or ():
        what = f"queues of cpumap {name}"
        if what not in told:
            yield Holder("cpumap", what, "", "bpftool map dump id N; xdpctl trace redirect")


def _redirected(snapshot: Snapshot, program: int, entry: RedirectEntry) -> Holder | None:
    if entry.map_type == "cpumap":
        name = f"{entry.map_name} (id {entry.map_id})"
        return Holder("cpumap", f"queues of cpumap {name}", "", f"bpftool map dump id {entry.map_id}")
    if not entry.map_type.startswith("devmap") or entry.ifindex is None:
        return None
    target = next(
        (
            link
            for link in snapshot.links()
            if link.ifindex == entry.ifindex
            and program in {holder for one in _in_namespace(snapshot, link) for holder in _programs(one)}
        ),
        None,
    )
    if target is None:
        return None
    peer = snapshot.peer(target)
    if target.kind == "veth" and peer is not None:
        return Holder(
            "device", f"receive ring of {_name(snapshot, peer)}, redirected to {target.name}", "up to 256 frames",
            f"ethtool -S {target.name}",
        )  # fmt: skip
    if target.kind == "tun":
        reader = " (nobody reads it)" if target.tun is not None and target.tun.queues == 0 else ""
        return Holder(
            "device", f"ring of {_name(snapshot, target)}{reader}", "", f"ip -s link show {target.name}"
        )
    return Holder(
        "device", f"transmit ring of {_name(snapshot, target)}", "", f"ip -s link show {target.name}"
    )


def _in_namespace(snapshot: Snapshot, link: Link) -> tuple[Link, ...]:
    space = snapshot.namespace(link.netns)
    return space.links if space is not None else ()


def _programs(link: Link) -> tuple[int | None, ...]:
    return (link.xdp.native, link.xdp.generic, link.xdp.offload)


def _label(snapshot: Snapshot, inode: int) -> str | None:
    space = snapshot.namespace(inode)
    return None if space is None or space.current else space.label


def _name(snapshot: Snapshot, link: Link) -> str:
    label = _label(snapshot, link.netns)
    return f"{link.name} (netns {label})" if label else link.name
