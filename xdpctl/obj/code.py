"""What an object's instructions are and refer to: decoded code, its functions, and what relocations point at.

Mirrors ``struct bpf_insn`` (include/uapi/linux/bpf.h) and what libbpf's bpf_program__record_reloc makes of
R_BPF_64_64 and R_BPF_64_32.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ObjectError
from xdpctl.obj.elf import SHN_UNDEF, STB_LOCAL, STT_FUNC, STT_NOTYPE, STT_SECTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.obj.elf import Elf, ElfSection, ElfSymbol

CALL = 0x85
"""BPF_JMP | BPF_CALL."""
EXIT = 0x95
LD_IMM64 = 0x18
PSEUDO_CALL, PSEUDO_KFUNC_CALL = 1, 2
"""src_reg of a call: to a function of the object, to a kfunc; 0 is a helper."""
MAX_INSTRUCTIONS = 1_000_000
"""In an object: as many as the verifier would look at in one program (BPF_COMPLEXITY_LIMIT_INSNS)."""
MAX_FUNCTIONS = 20_000


class Instruction(NamedTuple):
    """``struct bpf_insn``; the second slot of a 64-bit load is an instruction of opcode 0."""

    opcode: int
    dst: int
    src: int
    offset: int
    imm: int


class Reference(NamedTuple):
    """What a relocation of an instruction points at."""

    kind: str
    """map, data, function, kfunc, extern (a .kconfig or .ksyms variable), or bad: libbpf refuses it."""
    name: str
    section: str = ""
    """Section of the data or function."""
    offset: int = 0
    """Byte offset in the section of data; instruction index of a function."""


class Function(NamedTuple):
    """One STT_FUNC symbol."""

    name: str
    section: str
    start: int
    """Instruction index in the section."""
    end: int
    is_static: bool
    is_typed: bool = True
    """Its symbol is an STT_FUNC; clang before 9 left that out, and libbpf then does not see the function."""


class Summary(NamedTuple):
    """What one function refers to, without what it calls."""

    helpers: tuple[int, ...]
    """Numbers of the helpers that it calls."""
    callees: tuple[tuple[str, int], ...]
    """Section and first instruction of the object's functions that it calls, or gives to helpers as callbacks."""
    references: tuple[Reference, ...]


@dataclass(eq=False, repr=False)
class Section:
    """One code section."""

    name: str
    instructions: list[Instruction]
    references: dict[int, Reference]
    """By instruction index."""
    functions: list[Function] = field(default_factory=list)
    """In the order of their addresses."""
    by_start: dict[int, Function] = field(default_factory=dict)
    """The function (the longest, where several share it) that starts at an instruction."""
    starts: list[int] = field(default_factory=list)
    """Where functions start, in order."""
    summaries: dict[Function, Summary] = field(default_factory=dict)
    """Made on first use, by `summary`."""

    def call_target(self, index: int, opcode_imm: int) -> tuple[str, int]:
        """Section and instruction that a BPF-to-BPF call goes to."""
        found = self.references.get(index)
        if found is not None and found.kind == "function":
            return found.section, found.offset
        return self.name, index + 1 + opcode_imm


def decode(data: bytes, order: str, name: str) -> list[Instruction]:
    """Instructions of a code section.

    Raises:
        ObjectError: its size is not a multiple of 8.
    """
    if len(data) % 8:
        raise ObjectError(f"section {name} has {len(data)} bytes, instructions have 8")
    if len(data) // 8 > MAX_INSTRUCTIONS:
        raise ObjectError(
            f"section {name} has {len(data) // 8} instructions, the kernel takes {MAX_INSTRUCTIONS}"
        )
    if order == "<":
        return [
            Instruction(opcode, registers & 0xF, registers >> 4, offset, imm)
            for opcode, registers, offset, imm in struct.iter_unpack("<BBhi", data)
        ]
    return [
        Instruction(opcode, registers >> 4, registers & 0xF, offset, imm)
        for opcode, registers, offset, imm in struct.iter_unpack(">BBhi", data)
    ]


def read(elf: Elf, map_at: Callable[[int, int], str | None]) -> dict[str, Section]:
    """The code sections by name.

    Args:
        elf: the file.
        map_at: (section index, byte offset) -> name of the map defined there.

    Raises:
        ObjectError: a function or section of impossible extent, or two code sections of one name.
    """
    found: dict[str, Section] = {}
    indices: dict[int, Section] = {}
    total = 0
    for one in elf.sections:
        if not one.is_code or not one.data:
            continue
        # two sections of one name (comdat): the second would hide the first
        name = one.name if one.name not in found else f"{one.name}#{one.number}"
        total += len(one.data) // 8
        if total > MAX_INSTRUCTIONS:
            raise ObjectError(f"it has more than {MAX_INSTRUCTIONS} instructions")
        section = Section(name, decode(one.data, elf.order, one.name), {})
        found[name] = indices[one.number] = section
    for index, section in indices.items():
        for symbol in elf.by_section.get(index, ()):
            if symbol.type == STT_FUNC:
                _add_function(section, symbol)
    if sum(len(section.functions) for section in indices.values()) > MAX_FUNCTIONS:
        raise ObjectError(f"it has more than {MAX_FUNCTIONS} functions")
    for index, section in indices.items():
        if not section.functions:
            section.functions = _untyped(elf, index, section)
        section.functions.sort(key=lambda one: (one.start, -one.end))
        if sum(one.end - one.start for one in section.functions) > 4 * len(section.instructions):
            raise ObjectError(f"the functions of section {section.name} overlap")
        section.by_start = {one.start: one for one in reversed(section.functions)}
        section.starts = sorted(section.by_start)
    for index, section in indices.items():
        for offset, (symbol_index, _) in elf.relocations.get(index, {}).items():
            at = offset // 8
            if at < len(section.instructions):
                section.references[at] = _refer(
                    elf, indices, map_at, section.instructions[at], elf.symbols[symbol_index]
                )
    return found


def _add_function(section: Section, symbol: ElfSymbol) -> None:
    if symbol.value % 8 or (symbol.value + symbol.size) // 8 > len(section.instructions):
        raise ObjectError(f"function {symbol.name} lies outside of its section {section.name}")
    start = symbol.value // 8
    end = start + symbol.size // 8
    section.functions.append(Function(symbol.name, section.name, start, end, symbol.binding == STB_LOCAL))


def _untyped(elf: Elf, index: int, section: Section) -> list[Function]:
    """Functions of a section whose symbols have no type, each up to the next: what clang before 9 wrote."""
    starts = sorted(
        {
            symbol.value // 8: symbol.name
            for symbol in elf.by_section.get(index, ())
            if symbol.type == STT_NOTYPE
            and symbol.binding != STB_LOCAL
            and symbol.name
            and symbol.value % 8 == 0
            and symbol.value // 8 < len(section.instructions)
        }.items()
    )
    ends = [*(start for start, _ in starts[1:]), len(section.instructions)] if starts else []
    return [
        Function(name, section.name, start, end, False, is_typed=False)
        for (start, name), end in zip(starts, ends, strict=True)
    ]


def _refer(
    elf: Elf,
    code: dict[int, Section],
    map_at: Callable[[int, int], str | None],
    instruction: Instruction,
    symbol: ElfSymbol,
) -> Reference:
    """As bpf_program__record_reloc decides."""
    is_call = instruction.opcode == CALL
    if not is_call and instruction.opcode != LD_IMM64:
        return Reference("bad", symbol.name)
    if symbol.section == SHN_UNDEF:
        return Reference("kfunc" if is_call else "extern", symbol.name)
    if symbol.section >= len(elf.sections):
        return Reference("bad", symbol.name, "(common or absolute symbol)")
    section: ElfSection = elf.sections[symbol.section]
    if symbol.section in code:
        into = code[symbol.section]
        # a call counts instructions from the next one, an address bytes from the symbol
        at = symbol.value // 8 + instruction.imm + 1 if is_call else (symbol.value + instruction.imm) // 8
        target = into.by_start.get(at)
        return Reference("function", target.name if target else symbol.name, into.name, at)
    if is_call:
        return Reference("bad", symbol.name, section.name)
    name = map_at(symbol.section, symbol.value)
    if name is not None:
        return Reference("map", name, section.name, symbol.value)
    if is_data(section.name):
        label = "" if symbol.type == STT_SECTION else symbol.name
        # the addend of a section symbol stands in the instruction
        return Reference("data", label, section.name, symbol.value + (instruction.imm & 0xFFFFFFFF))
    return Reference("bad", symbol.name or section.name, section.name)


def is_data(name: str) -> bool:
    """Libbpf makes a map of its own of this section: .data, .rodata, .bss and what follows with a dot."""
    return name in (".data", ".rodata", ".bss") or name.startswith((".data.", ".rodata.", ".bss."))


def summary(code: Section, function: Function) -> Summary:
    """What a function refers to; looked through once."""
    known = code.summaries.get(function)
    if known is not None:
        return known
    helpers: dict[int, None] = {}
    callees: dict[tuple[str, int], None] = {}
    references: dict[Reference, None] = {}
    for index in range(function.start, function.end):
        one = code.instructions[index]
        if one.opcode not in (CALL, LD_IMM64) and index not in code.references:
            continue
        reference = code.references.get(index)
        if reference is not None:
            references[reference] = None
            if reference.kind == "function":
                callees[reference.section, reference.offset] = None
        elif one.opcode == CALL and one.src == PSEUDO_CALL:
            callees[code.call_target(index, one.imm)] = None
        elif one.opcode == CALL and one.src == 0:
            helpers[one.imm] = None
    made = code.summaries[function] = Summary(tuple(helpers), tuple(callees), tuple(references))
    return made


def reachable(sections: dict[str, Section], section: str, start: int) -> list[Function]:
    """The functions that a program may call, itself first, callbacks given to helpers included."""
    seen: dict[tuple[str, int], Function] = {}
    todo = [(section, start)]
    while todo:
        at = todo.pop()
        code = sections.get(at[0])
        if at in seen or code is None:
            continue
        function = code.by_start.get(at[1])
        if function is None:
            after = bisect_right(code.starts, at[1])
            end = code.starts[after] if after < len(code.starts) else len(code.instructions)
            if not 0 <= at[1] < end:
                continue
            function = Function(f"{at[0]}+{at[1]}", at[0], at[1], end, True)
        seen[at] = function
        todo += reversed(summary(code, function).callees)
    return list(seen.values())
