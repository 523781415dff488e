"""Elements of pinned maps as a deployment says them, and from one shape of a map into the next (bpf(2))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.bpf.map import open_map
from xdpctl.deploy import holding, state
from xdpctl.errors import MapError, NotFoundError

if TYPE_CHECKING:
    from xdpctl.bpf.map import LoadedMap
    from xdpctl.deploy.change import Change, Context


def execute(change: Change, context: Context) -> None:
    """Write or remove elements, or copy them from an older map; see `change.execute`.

    Raises:
        MapError: the map is full, or refuses.
        NotFoundError: the map is not pinned any more.
    """
    after = holding.side(change, "after")
    if change.kind == "map.copy":
        _copy(change, after, context)
    elif change.kind == "map.entries":
        try:
            opened = open_map(state.pin(after["deployment"], change.target))
        except NotFoundError:
            if any(value is not None for value in after["entries"].values()):
                raise
            return  # gone, and what is to leave it with it
        with opened:
            _write(opened, after["entries"])


def _write(opened: LoadedMap, entries: dict[str, Any]) -> None:
    for done, (key_text, value_text) in enumerate(entries.items()):
        key = bytes.fromhex(key_text)
        try:
            if value_text is None:
                opened.delete(key)
                continue
            value = bytes.fromhex(value_text)
            if len(value) != opened.value_bytes:  # a per-CPU map: every CPU gets it
                slots = opened.value_bytes // (len(value) + 7 & ~7)
                value = value.ljust(len(value) + 7 & ~7, b"\0") * slots
            opened.update(key, value)
        except MapError as error:
            error.message += f"; {done} of {len(entries)} elements before it are written"
            raise


def _copy(change: Change, after: dict[str, Any], context: Context) -> None:
    """Elements of the older map go into the newer one, where those are bytes of the same size."""
    name = after["deployment"]
    with open_map(state.pin(name, after["from"])) as old, open_map(state.pin(name, change.target)) as new:
        if (old.key_bytes, old.value_bytes) != (new.key_bytes, new.value_bytes):
            raise MapError(f"{change.target}: keys or values of another size than those of {after['from']}")
        count = 0
        for key, value in old.items():
            new.update(key, value)
            count += 1
    context.tell(f"{change.target}: {count} elements copied")
