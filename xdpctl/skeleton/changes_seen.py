"""What changed between two looks at a map, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.skeleton.rows_write import read_value, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.skeleton.shape import Shape
    from xdpctl.skeleton.typed_map import TypedMap


class Changed(NamedTuple):
    """An entry that is not as it was."""

    key: Any
    value: Any
    """Of per-CPU maps the sum, where values can be added."""
    rates: dict[str, float]
    """Number that changed, by its path (empty for the value itself) -> how much a second."""


class Tick(NamedTuple):
    """One interval."""

    seconds: float
    entries: int
    added: int
    deleted: int
    changed: list[Changed]
    """New entries too; the fastest first."""


def look(of: TypedMap, keys: Sequence[bytes] | None) -> dict[bytes, bytes]:
    """Entries as bytes: all, or of these keys."""
    if keys is None:
        return {key: value for one in of.batches() for key, value in one.pairs()}
    found = ((key, of.elements.lookup(key)) for key in keys)
    return {key: value for key, value in found if value is not None}


def tick(shape: Shape, before: dict[bytes, bytes], now: dict[bytes, bytes], seconds: float) -> Tick:
    """What changed from one look to the next.

    Args:
        shape: of the map.
        before: as of `look`.
        now: the same, later.
        seconds: between them.
    """
    changed = []
    zero = bytes(len(next(iter(now.values()), b"")))
    for key, value in now.items():
        old = before.get(key)
        if old == value:
            continue
        readable, was = _value(shape, value), _value(shape, zero if old is None else old)
        rates: dict[str, float] = {}
        _rates("", was, readable, seconds, rates)
        changed.append(Changed(shape.key.read(key, 0) if shape.key else None, readable, rates))
    changed.sort(key=lambda one: -max(map(abs, one.rates.values()), default=0))
    return Tick(seconds, len(now), len(now.keys() - before.keys()), len(before.keys() - now.keys()), changed)


def _value(shape: Shape, raw: bytes) -> Any:
    found = read_value(shape, raw)
    if not shape.stride:
        return found
    added = summed(found)
    return found if added is None else added


def _rates(path: str, was: Any, now: Any, seconds: float, into: dict[str, float]) -> None:
    if isinstance(now, dict):
        for name, one in now.items():
            old = was.get(name) if isinstance(was, dict) else None
            _rates(f"{path}.{name}" if path else name, old, one, seconds, into)
    elif isinstance(now, int | float) and not isinstance(now, bool) and now != was:
        old = was if isinstance(was, int | float) else 0
        into[path] = round((now - old) / seconds, 6) if seconds else 0.0
