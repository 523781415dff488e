"""What ``xdpctl top`` shows of a tick: tables as text, sorted, for a screen of any width or a pipe. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.cli.top_layout import BAD, DIM, WARN, Cell, Column, Table, number
from xdpctl.trace.xdp_actions import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from xdpctl.trace.drops import Drop, Ring
    from xdpctl.trace.tick import Interface, Pool, Program, Route, Tick

SORTS = {
    "packets": "p",
    "bytes": "b",
    "lost": "l",
    "time": "t",
    "cost": "c",
    "name": "n",
    **{action: str(place) for place, action in enumerate(ACTIONS, 1)},
}
"""What to sort by -> its key. A table that has no such figure is sorted by packets."""


def rate(count: float | None, seconds: float, *, unknown: str = "?") -> Cell:
    """A count as one a second; unknown counts say so, none is quiet."""
    if count is None:
        return Cell(unknown, DIM)
    return Cell(number(count / seconds)) if count else Cell("0", DIM)


def lost(count: int, seconds: float) -> Cell:
    """A rate of losses: red if there are any."""
    return Cell(number(count / seconds), BAD) if count else Cell("0", DIM)


def tables(tick: Tick, sort: str, *, reverse: bool = False) -> list[Table]:
    """All sections, sorted; names are told as seen from the namespace that is watched, if it is one."""
    tick = replace(tick, labels=seen_from(tick))
    return [
        _interfaces(tick, sort, reverse),
        _programs(tick, sort, reverse),
        _routes(tick, sort, reverse),
        _pools(tick, sort, reverse),
        _drops(tick, sort, reverse),
        *([_rings(tick)] if tick.drops is not None and tick.drops.rings else []),
    ]


def home(tick: Tick) -> int | None:
    """The one namespace that all interfaces are in; None: there are several, or no interfaces."""
    spaces = {one.facts.netns for one in tick.interfaces}
    return spaces.pop() if len(spaces) == 1 else None


def seen_from(tick: Tick) -> dict[int, str]:
    """Labels of namespaces, "" for the one that is watched."""
    labels, where = dict(tick.labels), home(tick)
    if where is not None and labels.get(where) != "":
        labels = {inode: name or "(caller)" for inode, name in labels.items()} | {where: ""}
    return labels


def _sorted(
    rows: Iterable[Any], keys: dict[str, Callable[[Any], Any]], sort: str, reverse: bool
) -> list[Any]:
    """Most first, names forwards; equal ones by name."""
    named = sorted(rows, key=keys["name"])
    if sort == "name":
        return named[::-1] if reverse else named
    return sorted(named, key=keys.get(sort, keys["packets"]), reverse=not reverse)


def _label(tick: Tick, netns: int, name: str) -> str:
    where = tick.labels.get(netns, f"net:[{netns}]")
    return f"{where}/{name}" if where else name


def _interfaces(tick: Tick, sort: str, reverse: bool) -> Table:
    def verdict(action: str) -> Callable[[Interface], int]:
        return lambda one: -1 if one.verdicts is None else one.verdicts.get(action) or 0

    keys: dict[str, Callable[[Interface], Any]] = {
        "packets": lambda one: one.packets,
        "bytes": lambda one: one.counts.rx_bytes + one.counts.tx_bytes,
        "lost": lambda one: one.counts.dropped + one.counts.errors,
        "name": lambda one: (tick.labels.get(one.facts.netns, "~"), _natural(one.facts.name)),
        **{action: verdict(action) for action in ACTIONS},
    }
    chosen: list[Interface] = _sorted(tick.interfaces, keys, sort, reverse)
    with_xdp = any(one.verdicts is not None for one in chosen)
    columns = (
        Column("INTERFACE", right=False),
        *((Column("XDP", right=False, rank=4), Column("PROGRAM", right=False, rank=7)) if with_xdp else ()),
        Column("RX/s"),
        Column("TX/s", rank=2),
        Column("RX BIT/s", rank=8),
        Column("TX BIT/s", rank=9),
        Column("LOST/s", rank=1),
        *((Column(_head(action), rank=3) for action in ACTIONS) if with_xdp else ()),
    )
    seconds = tick.seconds

    def row(place: int) -> list[Cell]:
        one = chosen[place]
        name = Cell(_label(tick, one.facts.netns, one.facts.name), "" if one.facts.up else DIM)
        counts = one.counts
        cells = [name]
        if with_xdp:
            cells += [Cell(one.facts.mode or "", WARN if one.facts.mode == "generic" else "")]
            cells += [Cell(one.program or (f"id {one.facts.program_id}" if one.facts.program_id else ""))]
        cells += [
            rate(counts.rx_packets, seconds),
            rate(counts.tx_packets, seconds),
            rate(counts.rx_bytes * 8, seconds),
            rate(counts.tx_bytes * 8, seconds),
            lost(counts.dropped + counts.errors, seconds),
        ]
        if with_xdp:
            for action in ACTIONS:
                if one.verdicts is None:
                    cells.append(Cell(""))
                elif action == "aborted" and one.verdicts[action]:
                    cells.append(lost(one.verdicts[action] or 0, seconds))
                else:
                    cells.append(rate(one.verdicts[action], seconds))
        return cells

    return Table("INTERFACES", columns, len(chosen), row, "none")


def _head(action: str) -> str:
    return "XDP_TX/s" if action == "tx" else f"{action.upper()}/s"


def _natural(name: str) -> tuple[str, int, str]:
    """eth2 before eth10."""
    head = name.rstrip("0123456789")
    tail = name[len(head) :]
    return head, int(tail or 0), tail


def _programs(tick: Tick, sort: str, reverse: bool) -> Table:
    columns = (
        Column("PROGRAM", right=False),
        Column("ID", rank=5),
        Column("TYPE", right=False, rank=4),
        Column("RUNS/s"),
        Column("NS/RUN"),
        Column("CPU", rank=1),
        Column("WHERE", right=False, rank=3),
    )
    if tick.programs is None:
        return Table("PROGRAMS", columns, 0, lambda _: [], "not told")
    keys: dict[str, Callable[[Program], Any]] = {
        "packets": lambda one: one.runs,
        "time": lambda one: one.run_ns,
        "cost": lambda one: one.cost_ns or 0,
        "name": lambda one: (one.name or "", one.id),
    }
    chosen: list[Program] = _sorted(
        (one for one in tick.programs if one.runs or one.where),
        keys,
        "time" if sort in ("bytes", "lost") else sort,
        reverse,
    )
    seconds = tick.counted_seconds

    def row(place: int) -> list[Cell]:
        one = chosen[place]
        cost = one.cost_ns
        counted = seconds > 0
        return [
            Cell(one.name or f"id {one.id}"),
            Cell(str(one.id), DIM),
            Cell(one.type),
            rate(one.runs if counted else None, seconds),
            Cell(f"{cost:,.0f}" if cost is not None else "", ""),
            Cell(f"{one.run_ns / seconds / 1e7:.1f}%" if counted and one.runs else "", ""),
            Cell(_some(one.where)),
        ]

    return Table("PROGRAMS", columns, len(chosen), row, "none")


def _some(where: Sequence[str]) -> str:
    return ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")


def _routes(tick: Tick, sort: str, reverse: bool) -> Table:
    columns = (
        Column("FROM", right=False),
        Column("TO", right=False),
        Column("PROGRAM", right=False, rank=3),
        Column("SENT/s", rank=1),
        Column("LOST/s"),
        Column("ERRORS"),
        Column("ERRNO", right=False, rank=2),
    )
    if tick.routes is None:
        return Table("REDIRECTS", columns, 0, lambda _: [], "not told")
    keys: dict[str, Callable[[Route], Any]] = {
        "packets": lambda one: one.sent + one.lost,
        "lost": lambda one: one.lost,
        "name": lambda one: (_source(one, tick), _target(one, tick)),
    }
    chosen: list[Route] = _sorted(tick.routes, keys, sort, reverse)

    def row(place: int) -> list[Cell]:
        one = chosen[place]
        style = BAD if one.lost else ""
        share = one.error_rate
        errors = "0" if not one.lost else "<0.1%" if share < 0.001 else f"{share:.1%}"
        return [
            Cell(_source(one, tick), style),
            Cell(_target(one, tick), style),
            Cell(one.program or (f"id {one.program_id}" if one.program_id else "")),
            rate(one.sent, tick.seconds),
            lost(one.lost, tick.seconds),
            Cell(errors, style or DIM),
            Cell(", ".join(name for name in one.errnos if name != "none"), style),
        ]

    return Table("REDIRECTS", columns, len(chosen), row, "none")


def _source(one: Route, tick: Tick) -> str:
    return one.source.label(tick.labels) if one.source else "cpumap" if one.way == "cpumap-out" else ""


def _target(one: Route, tick: Tick) -> str:
    if one.way == "tx":
        return "back (XDP_TX)"
    if one.way == "exception":
        return one.verdict or "exception"
    if one.way == "cpumap-out":
        return f"stack, CPU {one.slot}"
    if one.target is not None:
        return one.target.label(tick.labels)
    slot = "" if one.slot is None else f"[{one.slot}]"
    return f"{one.map_name or one.map_type or 'nowhere'}{slot}"


def _pools(tick: Tick, sort: str, reverse: bool) -> Table:
    columns = (
        Column("INTERFACE", right=False),
        Column("QUEUE", rank=3),
        Column("POOL", rank=4),
        Column("INFLIGHT"),
        Column("BYTES", rank=2),
        Column("NEW PAGES/s", rank=1),
        Column("RECYCLED", rank=1),
        Column("STATE", right=False),
    )
    if tick.pools is None:
        return Table("POOLS", columns, 0, lambda _: [], "not listed by this kernel (before 6.8)")
    keys: dict[str, Callable[[Pool], Any]] = {
        "packets": lambda one: one.pool.inflight or 0,
        "bytes": lambda one: one.pool.inflight_bytes or 0,
        "time": lambda one: one.closing_seconds or 0,
        "name": lambda one: (one.interface or "~", one.pool.queue or 0, one.pool.id),
    }
    chosen: list[Pool] = _sorted(tick.pools, keys, sort, reverse)

    def row(place: int) -> list[Cell]:
        one = chosen[place]
        pool, closing = one.pool, one.closing_seconds
        style = "" if closing is None else BAD if closing > 60 else WARN
        state = "in use" if closing is None else f"closing for {closing:,.0f} s"
        name = one.interface or ("gone" if pool.ifindex is None else f"ifindex {pool.ifindex}")
        where = tick.labels.get(pool.netns, f"net:[{pool.netns}]")
        fresh, recycled = _recycling(one)
        return [
            Cell(f"{where}/{name}" if where else name, style),
            Cell("" if pool.queue is None else str(pool.queue)),
            Cell(str(pool.id), DIM),
            Cell("?" if pool.inflight is None else f"{pool.inflight:,}", style),
            Cell("?" if pool.inflight_bytes is None else number(pool.inflight_bytes)),
            rate(fresh, tick.seconds),
            Cell("?" if recycled is None else f"{recycled:.0%}"),
            Cell(state, style),
        ]

    return Table("POOLS", columns, len(chosen), row, "none listed by drivers")


def _recycling(one: Pool) -> tuple[int | None, float | None]:
    """Pages newly allocated, and the share of returned pages that stayed in the pool; None: not known."""
    said = one.statistics
    if said is None:
        return None, None
    fresh = said.get("alloc_slow", 0) + said.get("alloc_slow_high_order", 0)
    kept = said.get("recycle_cached", 0) + said.get("recycle_ring", 0)
    gone = said.get("recycle_ring_full", 0) + said.get("recycle_released_refcnt", 0)
    return fresh, kept / (kept + gone) if kept + gone else None


def _drops(tick: Tick, sort: str, reverse: bool) -> Table:
    columns = (
        Column("DEVICE", right=False),
        Column("REASON", right=False),
        Column("PLACE", right=False, rank=2),
        Column("PROGRAM", right=False, rank=3),
        Column("LOST/s"),
        Column("PACKETS", rank=1),
    )
    if tick.drops is None:
        return Table("DROPS", columns, 0, lambda _: [], "not told")
    keys: dict[str, Callable[[Drop], Any]] = {
        "packets": lambda one: one.packets,
        "bytes": lambda one: one.bytes,
        "name": lambda one: (one.device.label(tick.labels) if one.device else "~", one.reason or ""),
    }
    chosen: list[Drop] = _sorted(tick.drops.drops, keys, sort, reverse)

    def row(place: int) -> list[Cell]:
        one = chosen[place]
        return [
            Cell(one.device.label(tick.labels) if one.device else "no device"),
            Cell(one.reason or "?"),
            Cell(one.place.name if one.place else ""),
            Cell(one.program or ""),
            lost(one.packets, tick.seconds),
            Cell(f"{one.packets:,}"),
        ]

    return Table("DROPS", columns, len(chosen), row, "none")


def _rings(tick: Tick) -> Table:
    columns = (
        Column("RING", right=False),
        Column("QUEUE"),
        Column("LOST/s"),
        Column("NOT FULL"),
        Column("TAKEN", rank=1),
        Column("SIZE", rank=1),
    )
    rings: tuple[Ring, ...] = tick.drops.rings if tick.drops is not None else ()

    def row(place: int) -> list[Cell]:
        one = rings[place]
        device = one.device.label(tick.labels) if one.device else f"map {one.map_id}"
        return [
            Cell(f"{one.qdisc or one.kind} of {device}"),
            Cell(str(one.queue)),
            lost(one.drops, tick.seconds),
            Cell(f"{one.not_full:,}", BAD if one.not_full else DIM),
            Cell("?" if one.taken is None else f"{one.taken.least} to {one.taken.most}"),
            Cell("?" if not one.size else str(one.size)),
        ]

    return Table("RINGS", columns, len(rings), row)
