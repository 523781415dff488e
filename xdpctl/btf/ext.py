"""What ``.BTF.ext`` says of instructions: source lines, functions and CO-RE relocations, by section.

Mirrors ``struct btf_ext_header`` and ``bpf_line_info``, ``bpf_func_info``, ``bpf_core_relo`` of
include/uapi/linux/bpf.h. Instruction offsets in an object file are bytes within the section; here they are
instruction indices (8 bytes each). The only exception is `ObjectError`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ObjectError

if TYPE_CHECKING:
    from xdpctl.btf.parse import Btf

MAGIC = 0xEB9F

CORE_KINDS = (
    "field_byte_offset",
    "field_byte_size",
    "field_exists",
    "field_signed",
    "field_lshift_u64",
    "field_rshift_u64",
    "type_id_local",
    "type_id_target",
    "type_exists",
    "type_size",
    "enumval_exists",
    "enumval_value",
    "type_matches",
)
"""``enum bpf_core_relo_kind``."""


class LineInfo(NamedTuple):
    """One source line."""

    instruction: int
    file: str
    text: str
    line: int
    column: int


class FunctionInfo(NamedTuple):
    """Where a function starts."""

    instruction: int
    type: int
    """Id of its `btf.types.Function`."""


class CoreRelocation(NamedTuple):
    """A field, type or enumerator looked for in the kernel's BTF at load."""

    instruction: int
    type: int
    access: str
    kind: str


class BtfExt(NamedTuple):
    """By section name."""

    functions: dict[str, tuple[FunctionInfo, ...]]
    lines: dict[str, tuple[LineInfo, ...]]
    relocations: dict[str, tuple[CoreRelocation, ...]]


def parse(data: bytes, btf: Btf) -> BtfExt:
    """Read a ``.BTF.ext`` blob, whose strings and types are those of `btf`.

    Raises:
        ObjectError: it is not valid.
    """
    if len(data) < 24 or struct.unpack_from(btf.order + "H", data)[0] != MAGIC:
        raise ObjectError(".BTF.ext is truncated or lacks its magic 0xeb9f")
    header, *words = struct.unpack_from(btf.order + "5I", data, 4)
    if header >= 32 and len(data) >= 32:
        words += struct.unpack_from(btf.order + "2I", data, 24)
    else:
        words += [0, 0]
    functions, lines, relocations = (
        _records(data, btf, header + words[at], words[at + 1], least, what)
        for at, least, what in ((0, 8, "func_info"), (2, 16, "line_info"), (4, 16, "core_relo"))
    )
    return BtfExt(
        {name: tuple(FunctionInfo(one[0] // 8, one[1]) for one in rows) for name, rows in functions.items()},
        {
            name: tuple(
                LineInfo(at // 8, btf.string(file), btf.string(text).strip(), column >> 10, column & 0x3FF)
                for at, file, text, column in rows
            )
            for name, rows in lines.items()
        },
        {
            name: tuple(
                CoreRelocation(
                    at // 8,
                    of,
                    btf.string(access),
                    CORE_KINDS[kind] if kind < len(CORE_KINDS) else f"kind {kind}",
                )
                for at, of, access, kind in rows
            )
            for name, rows in relocations.items()
        },
    )


def _records(
    data: bytes, btf: Btf, start: int, length: int, least: int, what: str
) -> dict[str, list[tuple[int, ...]]]:
    """Rows of one table by section: record size, then (section name, count, records) until the end."""
    if length == 0:
        return {}
    stop = start + length
    if stop > len(data) or length < 4:
        raise ObjectError(f".BTF.ext {what} goes beyond the end of its section")
    (size,) = struct.unpack_from(btf.order + "I", data, start)
    if size < least or size % 4:
        raise ObjectError(f".BTF.ext {what} has records of {size} bytes")
    row = struct.Struct(f"{btf.order}{least // 4}I")
    found: dict[str, list[tuple[int, ...]]] = {}
    position = start + 4
    while position < stop:
        if position + 8 > stop:
            raise ObjectError(f".BTF.ext {what} is truncated")
        name, count = struct.unpack_from(btf.order + "II", data, position)
        position += 8
        if position + count * size > stop:
            raise ObjectError(f".BTF.ext {what} promises {count} records, more than there are")
        rows = found.setdefault(btf.string(name), [])
        rows.extend(row.unpack_from(data, position + index * size) for index in range(count))
        position += count * size
    return found
