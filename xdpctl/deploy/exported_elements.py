"""Elements of a map, as a deployment declares them, with what they hold now."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import ConfigError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xdpctl.deploy.desired import MapWish, ProgramWish
    from xdpctl.deploy.exported_program import Copier, ProgramPart
    from xdpctl.deploy.resolve import Instance, MapUse
    from xdpctl.deploy.running import Held
    from xdpctl.obj.model import ObjFile, ObjMap

MOST_INLINE = 1000
"""Elements of a map that are written into the file itself, where there is another place for them."""
MOST_AT_ALL = 20_000
NOT_DUMPED = (
    "prog_array",
    "ringbuf",
    "perf_event_array",
    "queue",
    "stack",
    "bloom_filter",
    "xskmap",
    "sockmap",
)
"""Maps whose elements are made by programs and processes, or can't be read."""


def is_toml(value: Any) -> bool:
    """Whether TOML has such a value: it has no null."""
    if isinstance(value, dict):
        return all(is_toml(one) for one in value.values())
    if isinstance(value, list):
        return all(is_toml(one) for one in value)
    return value is not None


def elements(
    held: Held,
    obj: ObjFile,
    instances: list[Instance],
    wish: ProgramWish,
    leave_out: Callable[[str, str], None],
    *,
    everything: bool,
) -> dict[str, list[tuple[Any, Any]]]:
    """(key, value) by map: those that the deployment declares, or all."""
    found: dict[str, list[tuple[Any, Any]]] = {}
    for instance in instances[:1]:  # several differ by what names of interfaces mean: all fill theirs alike
        for use in instance.maps:
            one, asked = obj.map(use.name), next((each for each in wish.maps if each.name == use.name), None)
            if one is None:
                continue
            if asked is not None and asked.entries:
                found[use.name] = _declared(held, obj, one, use, asked, leave_out)
            if everything and use.type not in NOT_DUMPED and not use.type.startswith("percpu"):
                found.setdefault(use.name, []).extend(_undeclared(held, obj, one, use, leave_out))
    return {name: one for name, one in found.items() if one}


def _declared(
    held: Held,
    obj: ObjFile,
    one: ObjMap,
    use: MapUse,
    asked: MapWish,
    leave_out: Callable[[str, str], None],
) -> list[tuple[Any, Any]]:
    """Elements that the deployment declares, with what they hold now."""
    from xdpctl.deploy.plan import _differs

    pin = held.observed.maps.get(use.pin)
    now: Mapping[str, str] = (pin.elements or {}) if pin is not None else {}
    wanted = use.entries or {}
    if len(wanted) != len(asked.entries):
        return list(asked.entries)
    made: list[tuple[Any, Any]] = []
    gone = 0
    for (key, value), (raw_key, raw_value) in zip(asked.entries, wanted.items(), strict=True):
        is_now = now.get(raw_key)
        if is_now is None and pin is not None and pin.elements is not None:
            gone += 1
        elif is_now is None or raw_value is None or not _differs(use, is_now, raw_value):
            made.append((key, value))
        else:
            made.append((key, _spelled(obj, one, bytes.fromhex(raw_key), bytes.fromhex(is_now), value)))
    if gone:
        leave_out(f"{gone} elements of {use.name}", "applied, but not there now")
    return made


def _spelled(obj: ObjFile, one: ObjMap, key: bytes, value: bytes, otherwise: Any) -> Any:
    found = _pair(obj, one, key, value)
    return otherwise if found is None else found[1]


def _undeclared(
    held: Held, obj: ObjFile, one: ObjMap, use: MapUse, leave_out: Callable[[str, str], None]
) -> list[tuple[Any, Any]]:
    from xdpctl.bpf.map import open_map
    from xdpctl.deploy import state

    made, untold = [], 0
    try:
        with open_map(state.pin(held.stored.name, use.pin)) as opened:
            for key, value in opened.items():
                if key.hex() in (use.entries or {}) or (use.type == "array" and not any(value)):
                    continue  # told already, or what it begins with
                found = _pair(obj, one, key, value)
                if found is None:
                    untold += 1
                else:
                    made.append(found)
    except XdpctlError as error:
        leave_out(f"elements of {use.name}", error.message)
    if untold:
        leave_out(f"{untold} elements of {use.name}", "their types can't be written in TOML")
    return made


def _pair(obj: ObjFile, one: ObjMap, key: bytes, value: bytes) -> tuple[Any, Any] | None:
    """(key, value) as a file writes them, None where no text means these bytes."""
    from xdpctl.deploy import entries
    from xdpctl.netlink import interfaces
    from xdpctl.skeleton.shape import shape_of

    class Info(NamedTuple):
        type: str
        key_size: int
        value_size: int

    try:
        shape = shape_of(
            Info(one.type, one.key_size, one.value_size), obj.btf, one.key_type_id, one.value_type_id  # type: ignore[arg-type]  # what it looks at
        )  # fmt: skip
        if shape.key is None:
            return None
        made = (shape.key.read(key, 0), shape.value.read(value, 0))
        if not all(map(is_toml, made)):
            return None
        back = entries.encode(obj, one, *made, interfaces.ifindex)
    except (XdpctlError, TypeError, ValueError):
        return None
    return made if back == (key, value) else None


def put(part: ProgramPart, name: str, elements: list[tuple[Any, Any]], copier: Copier) -> None:
    """Put elements into a [[program]]: inline, or in a CSV file where they are many and files may be made.

    Raises:
        ConfigError: they are too many.
    """
    table = part.maps.setdefault(name, {})
    plain = all(isinstance(one, (str, int)) or one is None for pair in elements for one in pair)
    if copier.folder is not None and len(elements) > MOST_INLINE and plain:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("key", "value"))
        writer.writerows((key, "" if value is None else _csv(value)) for key, value in elements)
        table["entries_from"] = copier.write(f"{part.name}.{name}.csv", text.getvalue().encode())
        return
    if len(elements) > MOST_AT_ALL:
        raise ConfigError(
            f"map {name} of {part.name} has {len(elements)} elements, too many for a TOML file",
            hint="--copy-to FOLDER writes them as CSV beside it",
        )
    if all(
        isinstance(key, (int, str)) and not isinstance(key, bool) and value is None for key, value in elements
    ):
        table["entries"] = [key for key, _ in elements]
    elif all(isinstance(key, str) and value is not None for key, value in elements):
        table["entries"] = dict(elements)
    else:
        table["entries"] = [
            {"key": key, **({"value": value} if value is not None else {})} for key, value in elements
        ]


def _csv(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
