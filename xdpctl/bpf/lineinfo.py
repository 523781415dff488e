"""Which file and line of C a verifier's source comment comes from, by the line info of the object (.BTF.ext).

Kernels before 6.9 print the code of a line, but not where it stands. Layouts: struct btf_ext_header and
btf_ext_info_sec (libbpf's btf.h), struct bpf_line_info (linux/bpf.h).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.libbpf import memory
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.log import capture

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("=HBBIIIII")
"""magic, version, flags, hdr_len, func_info_off, func_info_len, line_info_off, line_info_len."""
_RECORD = struct.Struct("=IIII")
"""insn_off, file_name_off, line_off, line_col: line << 10 | column."""


class Line(NamedTuple):
    """One line info record."""

    section: str
    file: str
    line: int
    text: str


def lines(path: Path) -> list[Line]:
    """Every record of an object's line info; none where it has no BTF or it is broken."""
    extension = memory.Pointer()
    with capture():
        try:
            btf = lib().btf__parse_elf(os.fsencode(path), extension)
        except CallError:
            return []
    try:
        if not extension.value:
            return []
        size = memory.U32(0)
        start = lib().btf_ext__get_raw_data(extension.value, size)
        return list(_records(memory.read(start, size.value), btf)) if start else []
    except (struct.error, CallError):
        return []
    finally:
        lib().btf_ext__free(extension.value)
        lib().btf__free(btf)


def _records(raw: bytes, btf: int) -> Iterator[Line]:
    def text(offset: int) -> str:
        return (lib().btf__name_by_offset(btf, offset) or b"").decode(errors="replace")

    *_, header, _func, _func_size, at, size = _HEADER.unpack_from(raw)
    at += header
    end = at + size
    (record_size,) = struct.unpack_from("=I", raw, at)
    at += 4
    while at < end:
        name, count = struct.unpack_from("=II", raw, at)
        at += 8
        for _ in range(count):
            _insn, file, code, line = _RECORD.unpack_from(raw, at)
            yield Line(text(name), text(file), line >> 10, text(code).strip())
            at += max(record_size, _RECORD.size)


def where(path: Path, section: str | None, code: str) -> str | None:
    """``file.c:12: code`` for a source comment, or None where its line is not to be told for sure.

    Args:
        path: the object.
        section: of the refused program; lines of it go before those of other sections (functions it calls).
        code: the comment's text.
    """
    found = [one for one in lines(path) if one.text == code]
    for some in ([one for one in found if one.section == section], found):
        places = {(one.file, one.line) for one in some}
        if len(places) == 1:
            file, line = places.pop()
            return f"{Path(file).name}:{line}: {code}"
    return None
