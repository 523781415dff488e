"""Every key of a map, one by one (BPF_MAP_GET_NEXT_KEY), where others add and delete at the same time.

A hash answers for a key that is gone with its first key again (htab_map_get_next_key, trie_get_next_key): a plain
loop then returns keys twice, or never ends. Here each key comes once, and the walk goes on behind the last key that
is still there. A trie whose nodes are exchanged during the call may pass over a subtree (trie_get_next_key compares
``child[0]`` with the node that it came by): tries are walked twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.bpf.refused import ARRAYS
from xdpctl.errors import MapError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.bpf.elements import Elements

RESTARTS = 1000
"""How often a walk may be thrown back before we say that the map changes faster than it can be read."""


def keys(elements: Elements) -> Iterator[bytes]:
    """Every key that is there from the start to the end of the walk, once; others at most once.

    Raises:
        MapError: this type of map has no keys, or it changes too fast.
    """
    key = elements.next_key(None)
    if elements.type in ARRAYS:
        while key is not None:
            yield key
            key = elements.next_key(key)
        return
    seen: dict[bytes, None] = {}
    yield from _unseen(elements, key, seen)
    if elements.type in PASSED_OVER:
        yield from _unseen(elements, elements.next_key(None), seen, again=True)


PASSED_OVER = frozenset({"lpm_trie"})
"""Types whose walk may miss what is there all the time."""


def _unseen(
    elements: Elements, key: bytes | None, seen: dict[bytes, None], *, again: bool = False
) -> Iterator[bytes]:
    restarts = 0
    if again:
        key = _first_unseen(elements, key, seen)
    while key is not None:
        if key not in seen:
            seen[key] = None
            yield key
            key = elements.next_key(key)
            continue
        restarts += 1
        if restarts > RESTARTS:
            raise MapError(
                f"walk of map {elements.label}: it changes faster than it can be read",
                hint="read it again when fewer entries come and go",
            )
        key = _behind(elements, seen)


def _behind(elements: Elements, seen: dict[bytes, None]) -> bytes | None:
    """The first key not seen yet, looked for behind the latest seen key that is still there; None: there is none.

    Without one that is still there, from the start of the map on.
    """
    for anchor in reversed(seen):
        if elements.lookup(anchor) is None:
            continue
        following = elements.next_key(anchor)
        if following is not None and following in seen and elements.lookup(anchor) is None:
            continue  # it went between the two calls
        if following is None or following not in seen:
            return following
        return _first_unseen(elements, following, seen)
    return _first_unseen(elements, elements.next_key(None), seen)


def _first_unseen(elements: Elements, key: bytes | None, seen: dict[bytes, None]) -> bytes | None:
    for _ in range(len(seen) + 1):
        if key is None or key not in seen:
            return key
        key = elements.next_key(key)
    return key
