"""What an ELF relocatable holds: sections, symbols and relocations, as elf(5) lays them out.

Our own reader of the hundred lines that BPF objects need, because pyelftools costs 35 to 50 ms of import, a
quarter of what `xdpctl attach` may take in all, and lets OverflowError out of mutated files. ``e_machine``
EM_BPF (247) or 0, as early LLVM wrote; ELFCLASS64; both byte orders. The only exception is `ObjectError`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import NotFoundError, ObjectError, PrivilegeError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE = 64 << 20
"""Bytes; objects of the largest public projects have 2 MB."""
MAX_SYMBOLS = 1 << 20
EM_BPF = 247
ET_REL = 1

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = 0, 1, 2, 3
SHN_UNDEF = 0

_MACHINES = {
    3: "i386",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "s390",
    40: "ARM",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}
_FILE_TYPES = {0: "no file type", 2: "an executable", 3: "a shared object", 4: "a core dump"}


class ElfSection(NamedTuple):
    """One section header with its data (empty for NOBITS)."""

    number: int
    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    data: bytes

    @property
    def is_code(self) -> bool:
        """It holds instructions."""
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


class ElfSymbol(NamedTuple):
    """One symbol."""

    name: str
    type: int
    binding: int
    visibility: int
    section: int
    """Section index; 0 is undefined (extern)."""
    value: int
    size: int


class Elf(NamedTuple):
    """A relocatable ELF file of the BPF machine."""

    order: str
    """Byte order as struct has it: ``<`` or ``>``."""
    sections: tuple[ElfSection, ...]
    symbols: tuple[ElfSymbol, ...]
    relocations: dict[int, dict[int, tuple[int, int]]]
    """Section index -> byte offset -> (symbol index, type)."""
    by_name: dict[str, ElfSection]
    """The first section of each name."""
    by_section: dict[int, list[ElfSymbol]]
    """The symbols of each section; those of section 0 are extern."""

    def section(self, name: str) -> ElfSection | None:
        """The first section of a name."""
        return self.by_name.get(name)

    def symbols_of(self, section: ElfSection) -> list[ElfSymbol]:
        """The symbols defined in a section."""
        return self.by_section.get(section.number, [])


def load(path: Path) -> bytes:
    """The bytes of a file, if it may be an object.

    Raises:
        NotFoundError: there is no such file.
        PrivilegeError: it may not be read.
        ObjectError: it is a directory, a device or too large.
    """
    try:
        if not path.exists():
            names = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
            raise NotFoundError("file", str(path), known=names if len(names) < 1000 else ())
        if not path.is_file():
            raise ObjectError(f"{path} is not a file", hint="give a BPF object, as `xdpctl build` makes them")
        size = path.stat().st_size
        if size > MAX_FILE:
            raise ObjectError(f"{path} has {size} bytes, more than an object may ({MAX_FILE})")
        return path.read_bytes()
    except PermissionError as why:
        raise PrivilegeError(f"reading {path}", capability="read permission on it", errno=why.errno) from why
    except (OSError, ValueError) as why:  # a name with NUL, too long, I/O error
        raise ObjectError(f"{path} can't be read: {getattr(why, 'strerror', None) or why}") from why


def parse(data: bytes, name: str) -> Elf:
    """Sections, symbols and relocations; `name` is what errors call the file.

    Raises:
        ObjectError: not an ELF file, not of the BPF machine, not relocatable, truncated or inconsistent.
    """
    order, shoff, shentsize, shnum, shstrndx = _header(data, name)
    headers = _headers(data, name, order, shoff, shentsize, shnum)
    if shstrndx == 0xFFFF:  # SHN_XINDEX
        shstrndx = headers[0][6]
    if shstrndx >= len(headers):
        raise ObjectError(f"{name} names section {shstrndx} as that of section names, it has {len(headers)}")
    names = _contents(data, name, headers[shstrndx])
    sections = tuple(
        ElfSection(
            index,
            _string(names, one[0]),
            one[1],
            one[2],
            one[5],
            one[6],
            one[7],
            b"" if index == 0 else _contents(data, name, one),
        )
        for index, one in enumerate(headers)
    )
    symbols = _symbols(sections, order, name)
    by_section: dict[int, list[ElfSymbol]] = {}
    for symbol in symbols:
        by_section.setdefault(symbol.section, []).append(symbol)
    by_name = {one.name: one for one in reversed(sections)}
    return Elf(order, sections, symbols, _relocations(sections, symbols, order, name), by_name, by_section)


def _header(data: bytes, name: str) -> tuple[str, int, int, int, int]:
    if data[:4] != b"\x7fELF":
        kind = "empty" if not data else "not an ELF file"
        hint = "give an object made by clang -target bpf, as `xdpctl build` does"
        if data[:4] in (b"BC\xc0\xde", b"\xde\xc0\x17\x0b"):
            kind = "LLVM bitcode, not an ELF file"
        elif name.endswith(".c"):
            hint = f"it is a source: `xdpctl build {name}` compiles it"
        raise ObjectError(f"{name} is {kind}", hint=hint)
    if len(data) < 64:
        raise ObjectError(f"{name} is truncated: {len(data)} bytes, the ELF header alone has 64")
    if data[4] != 2 or data[5] not in (1, 2):
        what = "a 32-bit ELF file" if data[4] == 1 else "an ELF file of no known class and byte order"
        raise ObjectError(f"{name} is {what}, not a BPF object", hint="compile it with clang -target bpf")
    order = "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    if machine not in (EM_BPF, 0):
        what = _MACHINES.get(machine, f"machine {machine}")
        raise ObjectError(
            f"{name} is an ELF file for {what}, not for BPF", hint="compile it with clang -target bpf -g -O2"
        )
    if kind != ET_REL:
        raise ObjectError(
            f"{name} is {_FILE_TYPES.get(kind, f'ELF type {kind}')}, not a relocatable object",
            hint="compile it with clang -c, without linking",
        )
    (shoff,) = struct.unpack_from(order + "Q", data, 40)
    shentsize, shnum, shstrndx = struct.unpack_from(order + "3H", data, 58)
    return order, shoff, shentsize, shnum, shstrndx


def _headers(
    data: bytes, name: str, order: str, shoff: int, shentsize: int, shnum: int
) -> list[tuple[int, ...]]:
    """Section headers: name, type, flags, addr, offset, size, link, info, addralign, entsize."""
    if shoff == 0 or shentsize != 64:
        raise ObjectError(
            f"{name} has no section headers", hint="a BPF object may be stripped with llvm-strip -g"
        )
    if shoff + 64 > len(data):
        raise ObjectError(
            f"{name} is truncated: its section headers start at byte {shoff}, the file has {len(data)}"
        )
    row = struct.Struct(order + "IIQQQQIIQQ")
    if shnum == 0:  # more than 65279 sections: the count is in the first header
        shnum = row.unpack_from(data, shoff)[5]
    if shoff + 64 * shnum > len(data):
        raise ObjectError(
            f"{name} is truncated: its section headers end at byte {shoff + 64 * shnum}, the file has {len(data)}"
        )
    return [row.unpack_from(data, shoff + 64 * index) for index in range(shnum)]


def _contents(data: bytes, name: str, header: tuple[int, ...]) -> bytes:
    kind, offset, size = header[1], header[4], header[5]
    if kind in (0, SHT_NOBITS) or size == 0:
        return b""
    if offset + size > len(data):
        raise ObjectError(
            f"{name} is truncated: a section ends at byte {offset + size}, the file has {len(data)}"
        )
    return data[offset : offset + size]


def _string(table: bytes, offset: int) -> str:
    if offset >= len(table):
        return ""
    end = table.find(b"\0", offset)
    return table[offset : end if end >= 0 else len(table)].decode("utf-8", "replace")


def _symbols(sections: tuple[ElfSection, ...], order: str, name: str) -> tuple[ElfSymbol, ...]:
    tables = [one for one in sections if one.type == SHT_SYMTAB]
    if not tables:
        raise ObjectError(
            f"{name} has no symbol table", hint="it was stripped; use llvm-strip -g, or don't strip"
        )
    if len(tables) > 1:
        raise ObjectError(f"{name} has {len(tables)} symbol tables")
    table = tables[0]
    if table.link >= len(sections) or sections[table.link].type != SHT_STRTAB:
        raise ObjectError(f"{name} has a symbol table without names")
    if len(table.data) // 24 > MAX_SYMBOLS:
        raise ObjectError(f"{name} has {len(table.data) // 24} symbols")
    names = sections[table.link].data
    whole = len(table.data) - len(table.data) % 24
    return tuple(
        ElfSymbol(_string(names, at), info & 0xF, info >> 4, other & 3, section, value, size)
        for at, info, other, section, value, size in struct.iter_unpack(order + "IBBHQQ", table.data[:whole])
    )


def _relocations(
    sections: tuple[ElfSection, ...], symbols: tuple[ElfSymbol, ...], order: str, name: str
) -> dict[int, dict[int, tuple[int, int]]]:
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for one in sections:
        if one.type not in (SHT_REL, SHT_RELA):
            continue
        if one.info >= len(sections):
            raise ObjectError(f"{name} has relocations for section {one.info}, it has {len(sections)}")
        if sections[one.info].name.startswith((".debug", ".BTF", ".eh_frame")):
            continue
        # RELA comes from gcc only; its addend is also in the instruction
        row = struct.Struct(order + ("QQ" if one.type == SHT_REL else "QQq"))
        into = found.setdefault(one.info, {})
        for fields in row.iter_unpack(one.data[: len(one.data) - len(one.data) % row.size]):
            offset, info = fields[0], fields[1]
            if info >> 32 >= len(symbols):
                raise ObjectError(
                    f"{name} has a relocation against symbol {info >> 32}, it has {len(symbols)}"
                )
            into[offset] = (info >> 32, info & 0xFFFFFFFF)
    return found
