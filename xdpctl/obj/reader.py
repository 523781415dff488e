"""What an object file says without loading it: `read` puts sections, BTF and instructions into an `ObjFile`.

Nothing here needs root or asks the kernel; whether the kernel would take the object is `obj.verdict`'s question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.btf import ext as btf_ext
from xdpctl.btf import parse as btf_parse
from xdpctl.errors import ObjectError
from xdpctl.obj import code, elf, maps, redirects, variables
from xdpctl.obj.helpers import helper
from xdpctl.obj.model import ObjFile, ObjProgram, Problem
from xdpctl.obj.sections import SectionMeaning, alias, lookup

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.btf.ext import BtfExt, LineInfo
    from xdpctl.obj.code import Function

_ADJUSTS = {
    "bpf_xdp_adjust_head": "head",
    "bpf_xdp_adjust_tail": "tail",
    "bpf_xdp_adjust_meta": "meta",
}


def read(path: Path) -> ObjFile:
    """Read an object file.

    Raises:
        NotFoundError: there is no such file.
        PrivilegeError: it may not be read.
        ObjectError: not an ELF file, of another machine, truncated, inconsistent, or without a program.
    """
    data = elf.load(path)
    return parse(data, path)


def parse(data: bytes, path: Path) -> ObjFile:
    """The same for the bytes of an object; `path` only names it.

    Raises:
        ObjectError: as `read`.
    """
    name = str(path)
    try:
        return _parse(data, path, name)
    except ObjectError as error:
        if name in error.message:
            raise
        raise ObjectError(f"{name}: {error.message}", hint=error.hint) from error


def _parse(data: bytes, path: Path, name: str) -> ObjFile:
    file = elf.parse(data, name)
    section = file.section(".BTF")
    btf = btf_parse.parse(section.data) if section is not None and section.data else None
    section = file.section(".BTF.ext")
    ext = (
        btf_ext.parse(section.data, btf) if section is not None and section.data and btf is not None else None
    )
    table = maps.read(file, btf)
    sections = code.read(file, table.at)
    flaws = list(table.flaws)
    programs = _programs(sections, ext, flaws)
    if not programs:
        raise ObjectError(
            f"{name} has no program",
            hint='a program is a function that is not static, in a section of its own: SEC("xdp")',
        )
    found, kconfig, ksyms = variables.read(file, btf)
    defined = list(table.maps)
    for one in file.sections:
        if code.is_data(one.name) and one.size:
            defined.append(maps.internal(one.name, one.size, frozen=one.name.startswith(".rodata")))
    section = file.section("license")
    license_ = section.data.split(b"\0")[0].decode("utf-8", "replace") if section is not None else None
    return ObjFile(
        path=path,
        size=len(data),
        license=license_ or None,
        has_btf=btf is not None,
        has_btf_ext=ext is not None,
        has_line_info=ext is not None and any(ext.lines.values()),
        programs=tuple(programs),
        maps=tuple(defined),
        globals=tuple(found),
        kconfig=tuple(kconfig),
        ksyms=tuple(ksyms),
        byte_order="little" if file.order == "<" else "big",
        core_relocations=sum(len(rows) for rows in ext.relocations.values()) if ext is not None else 0,
        flaws=tuple(flaws),
        btf=btf,
    )


def _programs(
    sections: dict[str, code.Section], ext: BtfExt | None, flaws: list[Problem]
) -> list[ObjProgram]:
    """As bpf_object__add_programs: each function of a code section, but those of .text only if it stands alone."""
    entries = [
        (section, function)
        for section in sections.values()
        for function in section.functions
        if section.name != ".text" and function.end > function.start
    ]
    if not entries and ".text" in sections and len(sections[".text"].functions) == 1:
        entries = [(sections[".text"], sections[".text"].functions[0])]
    made = []
    for section, function in entries:
        if function.is_static and section.name != ".text":
            flaws.append(
                Problem(
                    "static-program",
                    "fail",
                    function.name,
                    f"{function.name} in section {section.name} is static: libbpf refuses the object",
                    "declare it without `static`, or as static __always_inline",
                )
            )
            continue
        made.append(_program(sections, section, function, ext, flaws))
    return made


def _program(
    sections: dict[str, code.Section],
    section: code.Section,
    function: Function,
    ext: BtfExt | None,
    flaws: list[Problem],
) -> ObjProgram:
    name = section.name.split("#")[0]
    known = lookup(name)
    means = known or alias(name) or SectionMeaning("", None, "none")
    functions = code.reachable(sections, section.name, function.start)
    helpers: dict[str, None] = {}
    kfuncs: dict[str, None] = {}
    used: dict[str, None] = {}
    instructions = core = 0
    for one in functions:
        body = sections[one.section]
        instructions += one.end - one.start
        for index in range(one.start, one.end):
            instruction = body.instructions[index]
            reference = body.references.get(index)
            if instruction.opcode == code.CALL and instruction.src == 0 and reference is None:
                helpers[helper(instruction.imm)] = None
            if reference is None:
                continue
            if reference.kind == "kfunc":
                kfuncs[reference.name] = None
            elif reference.kind in ("map", "data"):
                used[reference.name if reference.kind == "map" else reference.section] = None
            elif reference.kind == "bad":
                flaws.append(_bad_reference(function.name, reference))
        if ext is not None:
            core += sum(
                one.start <= row.instruction < one.end for row in ext.relocations.get(one.section, ())
            )
    flow = redirects.analyse(sections, section.name, function.start)
    return ObjProgram(
        name=function.name,
        section=name,
        type=means.type or None,
        attach_type=means.attach_type,
        type_from=means.origin,
        since_libbpf=means.since,
        frags=means.frags,
        sleepable=means.sleepable,
        instructions=instructions,
        source=_source(ext, section.name, function),
        helpers=tuple(sorted(helpers)),
        kfuncs=tuple(sorted(kfuncs)),
        subprograms=tuple(one.name for one in functions[1:]),
        maps=tuple(used),
        tail_calls=flow.tail_calls,
        redirects=flow.redirects,
        attach_target=means.target,
        returns_tx=flow.returns_tx,
        adjusts=tuple(word for call, word in _ADJUSTS.items() if call in helpers),
        autoload=not name.startswith("?"),
        hook=means.hook or _hook(means.attach_type),
        core_relocations=core,
        struct_ops=means.type == "struct_ops",
    )


def _hook(attach_type: str | None) -> str | None:
    return attach_type.removeprefix("tcx/") if attach_type in ("tcx/ingress", "tcx/egress") else None


def _bad_reference(program: str, reference: code.Reference) -> Problem:
    where = f" in section {reference.section}" if reference.section else ""
    return Problem(
        "bad-relocation",
        "fail",
        program,
        f"{program} refers to {reference.name or 'something'}{where}, which libbpf can't place: it refuses the object",
    )


def _source(ext: BtfExt | None, section: str, function: Function) -> str | None:
    line = first_line(ext, section, function)
    return line.file if line is not None else None


def first_line(ext: BtfExt | None, section: str, function: Function) -> LineInfo | None:
    """The line info of a function's first instruction."""
    if ext is None:
        return None
    rows = ext.lines.get(section, ())
    return next((row for row in rows if function.start <= row.instruction < function.end), None)
