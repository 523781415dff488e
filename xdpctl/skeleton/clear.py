"""Emptying a map, in the way that its type has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.bpf import batch
from xdpctl.errors import MapError

if TYPE_CHECKING:
    from xdpctl.skeleton.typed_map import TypedMap

ROUNDS = 100
"""How often new entries may come while old ones are deleted."""


def clear(of: TypedMap) -> int:
    """See `TypedMap.clear`."""
    kind, elements = of.shape.kind, of.elements
    if "pop" in kind.can:
        taken = 0
        for _ in range(of.max_entries):
            if elements.pop() is None:
                break
            taken += 1
        return taken
    if kind.type in {"array", "percpu_array"}:
        zero = bytes(elements.value_bytes)
        for one in batch.read(elements):
            for _ in batch.write(elements, one.keys, zero * one.length):
                pass
        return of.max_entries
    if not {"walk", "delete"} <= kind.can:
        raise MapError(f"map {of.name}: a map of type {kind.type} can't be emptied", hint=kind.note or None)
    gone = 0
    for _ in range(ROUNDS):
        keys = (
            b"".join(one.keys for one in batch.read(elements))
            if "lookup" in kind.can
            else b"".join(elements.keys())
        )
        if keys:
            gone += batch.delete(elements, keys)
        if not keys or kind.keys == "index":
            return gone
    return gone
