"""A `Tick` as the JSON document of ``xdpctl top --json`` (docs/json.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.trace.tick import Interface, Pool, Program, Route, Tick


def document(tick: Tick) -> dict[str, Any]:
    """Counts of the time between two looks, by stable keys."""
    labels = tick.labels
    return {
        "time": round(tick.time, 3),
        "seconds": round(tick.seconds, 4),
        "counted_seconds": round(tick.counted_seconds, 4),
        "interfaces": [_interface(one, labels) for one in tick.interfaces],
        "programs": None if tick.programs is None else [_program(one) for one in tick.programs],
        "redirects": None if tick.routes is None else [_route(one, labels) for one in tick.routes],
        "drops": None if tick.drops is None else [one.to_json(labels) for one in tick.drops.drops],
        "rings": None if tick.drops is None else [one.to_json(labels) for one in tick.drops.rings],
        "pools": None if tick.pools is None else [_pool(one, labels) for one in tick.pools],
        "lost": tick.lost,
        "notes": list(tick.notes),
    }


def _space(labels: Mapping[int, str], inode: int) -> str | None:
    return labels.get(inode, f"net:[{inode}]") or None


def _interface(one: Interface, labels: Mapping[int, str]) -> dict[str, Any]:
    facts = one.facts
    return {
        "interface": facts.name,
        "ifindex": facts.ifindex,
        "netns": _space(labels, facts.netns),
        "kind": facts.kind,
        "up": facts.up,
        "mode": facts.mode,
        "program": {"id": facts.program_id, "name": one.program} if facts.program_id else None,
        **one.counts._asdict(),
        "verdicts": None if one.verdicts is None else dict(one.verdicts),
    }


def _program(one: Program) -> dict[str, Any]:
    cost = one.cost_ns
    return {**one._asdict(), "where": list(one.where), "cost_ns": None if cost is None else round(cost, 1)}


def _route(one: Route, labels: Mapping[int, str]) -> dict[str, Any]:
    return {
        "way": one.way,
        "program": {"id": one.program_id, "name": one.program} if one.program_id else None,
        "from": one.source.to_json(labels) if one.source else None,
        "to": one.target.to_json(labels) if one.target else None,
        "map": {"id": one.map_id, "type": one.map_type, "name": one.map_name} if one.map_type else None,
        "slot": one.slot,
        "verdict": one.verdict,
        "sent": one.sent,
        "lost": one.lost,
        "error_rate": round(one.error_rate, 6),
        "errnos": dict(one.errnos),
    }


def _pool(one: Pool, labels: Mapping[int, str]) -> dict[str, Any]:
    listed = one.pool
    return {
        "id": listed.id,
        "interface": one.interface,
        "ifindex": listed.ifindex,
        "netns": _space(labels, listed.netns),
        "queue": listed.queue,
        "inflight": listed.inflight,
        "inflight_bytes": listed.inflight_bytes,
        "closing_seconds": None if one.closing_seconds is None else round(one.closing_seconds, 1),
        "statistics": None if one.statistics is None else dict(one.statistics),
    }
