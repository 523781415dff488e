"""Does an object's BTF refer only to what is there? (btf_sanity_check in libbpf's btf.c, from version 1.3 on).

libbpf 1.0 to 1.2 follow references without looking: one byte of a damaged object ends the process with a
segmentation fault. Whatever else is wrong with an object they tell themselves.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ObjectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Layout(NamedTuple):
    """Where a kind of type holds references (linux/btf.h)."""

    tail: int = 0
    """Bytes after ``struct btf_type``."""
    each: int = 0
    """Bytes of each of its vlen members, after the tail."""
    names: tuple[int, ...] = ()
    """32-bit words of a member that are string offsets."""
    types: tuple[int, ...] = ()
    """32-bit words of a member, or of the tail where there are no members, that are type ids."""
    refers: bool = False
    """Whether its size_or_type is a type id."""


_REFERENCE = _Layout(refers=True)
_LAYOUTS = {
    1: _Layout(tail=4),  # INT
    2: _REFERENCE,  # PTR
    3: _Layout(tail=12, types=(0, 1)),  # ARRAY
    4: _Layout(each=12, names=(0,), types=(1,)),  # STRUCT
    5: _Layout(each=12, names=(0,), types=(1,)),  # UNION
    6: _Layout(each=8, names=(0,)),  # ENUM
    7: _Layout(),  # FWD
    8: _REFERENCE,  # TYPEDEF
    9: _REFERENCE,  # VOLATILE
    10: _REFERENCE,  # CONST
    11: _REFERENCE,  # RESTRICT
    12: _REFERENCE,  # FUNC
    13: _Layout(each=8, names=(0,), types=(1,), refers=True),  # FUNC_PROTO
    14: _Layout(tail=4, refers=True),  # VAR
    15: _Layout(each=12, types=(0,)),  # DATASEC
    16: _Layout(),  # FLOAT
    17: _Layout(tail=4, refers=True),  # DECL_TAG
    18: _REFERENCE,  # TYPE_TAG
    19: _Layout(each=12, names=(0,)),  # ENUM64
}
_FUNC, _FUNC_PROTO = 12, 13


def check(path: Path, data: bytes) -> None:
    """Check the ``.BTF`` section of an ELF file of this machine's byte order, if it has one that can be found.

    Args:
        path: names the file.
        data: its bytes.

    Raises:
        ObjectError: a type or a name refers to nowhere.
    """
    try:
        btf = _section(data, b".BTF")
    except (struct.error, IndexError, ValueError, OverflowError):
        return  # libelf tells what is wrong
    damage = None if btf is None else damaged(btf)
    if damage:
        raise ObjectError(f"{path} is damaged: its BTF has {damage}", hint="compile it anew")


def _section(elf: bytes, name: bytes) -> bytes | None:
    """Content of a section (Elf64_Ehdr, Elf64_Shdr)."""
    (start,) = struct.unpack_from("=Q", elf, 40)
    size, count, names = struct.unpack_from("=HHH", elf, 58)
    headers = [struct.unpack_from("=IIQQQQ", elf, start + number * size) for number in range(count)]
    strings = headers[names][4]
    for header in headers:
        at = strings + header[0]
        if elf[at : elf.index(b"\0", at)] == name:
            return elf[header[4] : header[4] + header[5]]
    return None


def damaged(btf: bytes) -> str | None:
    """The first reference to nowhere in raw BTF, in words; None: there is none, or libbpf sees that it is no BTF."""
    try:
        _magic, _version, _flags, header, types, length, _strings, room = struct.unpack_from("=HBBIIIII", btf)
        data = btf[header + types : header + types + length]
        kinds, names, ids = _references(data)
    except struct.error:
        return None
    for type_id, offset in names:
        if offset >= room:
            return f"type {type_id} with a name outside of the strings"
    for type_id, target in ids:
        if target >= len(kinds):
            return f"type {type_id} that refers to type {target}; there are {len(kinds) - 1}"
        if kinds[type_id] == _FUNC and kinds[target] != _FUNC_PROTO:
            return f"function {type_id} whose type {target} is no function's"
    return None


def _references(data: bytes) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, int]]]:
    """Kind of each type from 0 (void), and (type, string offset) and (type, type) for each reference."""
    kinds, names, ids, at = [0], [], [], 0
    while at < len(data):
        name, info, target = struct.unpack_from("=III", data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        layout = _LAYOUTS.get(kind)
        if layout is None:
            break  # libbpf says which kind it does not know
        type_id = len(kinds)
        kinds.append(kind)
        names.append((type_id, name))
        if layout.refers:
            ids.append((type_id, target))
        at += 12
        if layout.types and layout.tail:
            ids += ((type_id, word) for word in _words(data, at, layout.types))
        at += layout.tail
        for _ in range(count if layout.each else 0):
            names += ((type_id, word) for word in _words(data, at, layout.names))
            ids += ((type_id, word) for word in _words(data, at, layout.types))
            at += layout.each
    return kinds, names, ids


def _words(data: bytes, at: int, which: tuple[int, ...]) -> Iterator[int]:
    for word in which:
        yield struct.unpack_from("=I", data, at + 4 * word)[0]
