"""What a map is to hold: texts and numbers of TOML or CSV, as bytes by the map's BTF types."""

from __future__ import annotations

import csv
import ipaddress
import struct
from typing import TYPE_CHECKING, Any

from xdpctl.deploy.desired import Place, Wrong
from xdpctl.errors import ConfigError, NotFoundError, XdpctlError, near

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdpctl.deploy.desired import MapWish
    from xdpctl.obj.model import ObjFile, ObjMap

MOST_BYTES = 1 << 28
MOST_TOLD = 10
"""Bad lines of one file that are told; more are counted."""


def read_csv(path: Path, wrong: list[Wrong]) -> tuple[tuple[object, object], ...]:
    """(key, value) of each line: ``KEY,VALUE``, or ``KEY`` alone; ``#`` begins a comment line."""
    found: list[tuple[object, object]] = []
    bad = 0
    try:
        if path.stat().st_size > MOST_BYTES:
            wrong.append(Wrong(Place(str(path)), f"this file has more than {MOST_BYTES >> 20} MiB"))
            return ()
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, skipinitialspace=True)
            for row in rows:
                if not row or not row[0].strip() or row[0].lstrip().startswith("#"):
                    continue
                if rows.line_num == 1 and row[0].strip().lower() == "key":
                    continue  # names of the columns
                if len(row) > 2:
                    bad += 1
                    if bad <= MOST_TOLD:
                        wrong.append(
                            Wrong(Place(str(path), rows.line_num), f"{len(row)} columns: KEY,VALUE expected")
                        )
                    continue
                found.append((row[0].strip(), row[1].strip() if len(row) == 2 and row[1].strip() else None))
    except OSError as error:
        wrong.append(Wrong(Place(str(path)), f"can't read it: {(error.strerror or str(error)).lower()}"))
    except (UnicodeDecodeError, csv.Error) as error:
        wrong.append(Wrong(Place(str(path)), f"no CSV: {error}"))
    if bad > MOST_TOLD:
        wrong.append(Wrong(Place(str(path)), f"{bad - MOST_TOLD} more such lines"))
    return tuple(found)


def check(obj: ObjFile, wish: MapWish) -> list[Wrong]:
    """What is wrong with the wish for a map, as far as its object can tell."""
    found = obj.map(wish.name)
    if found is None or found.definition == "internal":
        known = [one.name for one in obj.maps if one.definition != "internal"]
        close = near(wish.name, known)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}" if known else None
        return [Wrong(wish.place, f"{obj.path.name} has no map {wish.name}", hint)]
    wrong = []
    for key, value in wish.entries:
        try:
            # a name is looked up in the namespace that is attached in, which is not known here
            encode(obj, found, key, value, lambda _name: 1)
        except XdpctlError as error:
            wrong.append(Wrong(wish.place, error.message, error.hint))
            if len(wrong) == MOST_TOLD:
                break
    room = wish.max_entries or found.max_entries
    if room and len(wish.entries) > room:
        wrong.append(
            Wrong(wish.place, f"{len(wish.entries)} entries don't fit: it has room for {room}", "max_entries")
        )
    return wrong


def encode(
    obj: ObjFile, found: ObjMap, key: object, value: object, ifindex: Callable[[str], int]
) -> tuple[bytes, bytes | None]:
    """(key, value) as bytes; value None where only the key's presence is asked for.

    Raises:
        ConfigError: it does not fit the type.
        NotFoundError: it names an interface, member or enumerator that is not there.
    """
    where = f"key of {found.name}"
    if found.type == "lpm_trie" and isinstance(key, str) and "/" in key:
        encoded = _prefix(key, found.key_size, where)
    else:
        encoded = _typed(obj, where, found.key_type_id, found.key_size, key, ifindex)
    if value is None:
        return encoded, None
    what = f"value of {found.name}[{key}]"
    return encoded, _typed(obj, what, found.value_type_id, found.value_size, value, ifindex)


def _typed(
    obj: ObjFile, what: str, type_id: int, size: int, value: object, ifindex: Callable[[str], int]
) -> bytes:
    if obj.btf is not None and type_id:
        from xdpctl.deploy.load import setting_text
        from xdpctl.obj.texts import Place as TypedPlace
        from xdpctl.obj.texts import encode_text

        # one number for a struct of counters means all of it, as 0 does in C's {0}
        if value in (0, "0") and size > 8:
            return bytes(size)
        return encode_text(TypedPlace(obj.btf, what, type_id, 0, ifindex), setting_text(value), 0)[0]
    return _plain(what, size, value, ifindex)


def _plain(what: str, size: int, value: Any, ifindex: Callable[[str], int]) -> bytes:
    """Where the object tells only a size: a number, an address, an interface's name."""
    text = str(int(value)) if isinstance(value, (bool, int)) else str(value)
    try:
        return int(text, 0).to_bytes(
            size, "little" if struct.pack("=H", 1)[0] else "big", signed=text.startswith("-")
        )
    except OverflowError:
        raise ConfigError(f"{text} does not fit {what}: it has {size} bytes") from None
    except ValueError:
        pass
    try:
        packed = ipaddress.ip_address(text).packed
        if len(packed) == size:
            return packed
    except ValueError:
        if size == 4:
            try:
                return struct.pack("=I", ifindex(text))
            except NotFoundError:
                pass
    raise ConfigError(f"{text!r} does not fit {what}: {size} bytes, whose type the object does not tell")


def _prefix(text: str, size: int, what: str) -> bytes:
    """``192.0.2.0/24`` as struct bpf_lpm_trie_key: length in bits, then the address in network order."""
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ConfigError(f"{text!r} does not fit {what}: {error}") from error
    packed = struct.pack("=I", network.prefixlen) + network.network_address.packed
    if len(packed) != size:
        raise ConfigError(
            f"{text} does not fit {what}: an IPv{network.version} prefix has {len(packed)} bytes, not {size}"
        )
    return packed
