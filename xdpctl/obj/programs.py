"""What programs an object has, and what each calls, uses and may return.

A program is a function of a code section, as libbpf's bpf_object__add_programs finds them; functions of ``.text``
are subprograms, unless one stands there alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ObjectError
from xdpctl.obj import code, redirects
from xdpctl.obj.flow import Steps
from xdpctl.obj.helpers import helper
from xdpctl.obj.model import ObjProgram, Problem
from xdpctl.obj.sections import SectionMeaning, meaning
from xdpctl.obj.variables import path_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.btf.ext import BtfExt, LineInfo
    from xdpctl.btf.parse import Btf
    from xdpctl.obj.code import Function, Reference, Section
    from xdpctl.obj.model import ObjGlobal, RedirectCall

MAX_PROGRAMS = 2048
"""The largest public objects have some hundred."""
_ADJUSTS = {"bpf_xdp_adjust_head": "head", "bpf_xdp_adjust_tail": "tail", "bpf_xdp_adjust_meta": "meta"}
_NO_MEANING = SectionMeaning("", None, "none")


class _Object(NamedTuple):
    """What all programs of an object share."""

    sections: dict[str, Section]
    btf: Btf | None
    ext: BtfExt | None
    globals: dict[str, list[ObjGlobal]]
    """By section, then by offset."""
    core: dict[str, list[int]]
    """Instructions with CO-RE relocations, by section, in order."""
    steps: Steps
    """What is left to follow instructions with, of all programs together."""

    def variable(self, section: str, offset: int, size: int, indexed: bool) -> str | None:
        """Path of the global at a place."""
        return path_at(self.btf, self.globals.get(section, ()), offset, size, indexed=indexed)


def read(
    sections: dict[str, Section], btf: Btf | None, ext: BtfExt | None, variables: Sequence[ObjGlobal]
) -> tuple[list[ObjProgram], list[Problem]]:
    """The programs in the order of their sections, and what libbpf refuses in them whatever the kernel.

    Raises:
        ObjectError: there are more than any real object has.
    """
    by_section: dict[str, list[ObjGlobal]] = {}
    for one in variables:
        by_section.setdefault(one.section, []).append(one)
    relocations = ext.relocations if ext is not None else {}
    core = {name: sorted(row.instruction for row in rows) for name, rows in relocations.items()}
    shared = _Object(sections, btf, ext, by_section, core, Steps())
    entries = [
        function
        for section in sections.values()
        for function in section.functions
        if section.name != ".text" and function.end > function.start
    ]
    text = sections.get(".text")
    if not entries and text is not None and len(text.functions) == 1:
        entries = text.functions[:]
    if len(entries) > MAX_PROGRAMS:
        raise ObjectError(f"it has {len(entries)} programs, more than {MAX_PROGRAMS}")
    made: list[ObjProgram] = []
    flaws: list[Problem] = []
    for function in entries:
        if function.is_static and function.section != ".text":
            flaws.append(
                Problem(
                    "static-program",
                    "fail",
                    function.name,
                    f"{function.name} in section {function.section} is static: libbpf refuses the object",
                    "declare it without `static`, or as static __always_inline",
                )
            )
            continue
        if not function.is_typed:
            flaws.append(
                Problem(
                    "untyped-function",
                    "fail",
                    function.name,
                    f"the symbol {function.name} is not marked as a function: libbpf does not see the program",
                    "compile it with clang 9 or newer",
                )
            )
        made.append(_program(shared, function, flaws))
    return made, flaws


class _Uses(NamedTuple):
    """What a program's functions refer to, in the order of appearance."""

    helpers: dict[str, None]
    kfuncs: dict[str, None]
    maps: dict[str, None]
    bad: dict[tuple[str, str], Reference]


def _uses(sections: dict[str, Section], functions: Sequence[Function]) -> _Uses:
    found = _Uses({}, {}, {}, {})
    for one in functions:
        of = code.summary(sections[one.section], one)
        found.helpers.update(dict.fromkeys(map(helper, of.helpers)))
        for reference in of.references:
            if reference.kind == "kfunc":
                found.kfuncs[reference.name] = None
            elif reference.kind in ("map", "data"):
                found.maps[reference.name if reference.kind == "map" else reference.section] = None
            elif reference.kind == "bad":
                found.bad[reference.name, reference.section] = reference
    return found


def _program(shared: _Object, function: Function, flaws: list[Problem]) -> ObjProgram:
    name = function.section.split("#")[0]
    means = meaning(name) or _NO_MEANING
    functions = code.reachable(shared.sections, function.section, function.start)
    uses = _uses(shared.sections, functions)
    flaws += [_bad_reference(function.name, one) for one in uses.bad.values()]
    flow = redirects.NOTHING
    # only what redirects, tail calls or may answer XDP_TX is worth following
    if means.type in ("xdp", "ext", "") or not redirects.HELPERS.isdisjoint(uses.helpers):
        flow = redirects.analyse(
            shared.sections,
            functions,
            program_type=means.type or None,
            variable=shared.variable,
            steps=shared.steps,
        )
    line = _source(shared.ext, function)
    return ObjProgram(
        name=function.name,
        section=name,
        type=means.type or None,
        attach_type=means.attach_type,
        type_from=means.origin,
        since_libbpf=means.since,
        frags=means.frags,
        sleepable=means.sleepable,
        instructions=sum(one.end - one.start for one in functions),
        source=line.file if line is not None else None,
        helpers=tuple(sorted(uses.helpers)),
        kfuncs=tuple(sorted(uses.kfuncs)),
        subprograms=tuple(one.name for one in functions[1:]),
        maps=tuple(uses.maps),
        tail_calls=flow.tail_calls,
        redirects=tuple(_with_line(shared.ext, one) for one in flow.calls),
        attach_target=means.target,
        returns_tx=flow.returns_tx if means.type in ("xdp", "ext", "") else False,
        adjusts=tuple(word for call, word in _ADJUSTS.items() if call in uses.helpers),
        autoload=not name.startswith("?"),
        hook=means.hook,
        core_relocations=_core_relocations(shared.core, functions),
        line=line.line if line is not None else None,
        start=function.start,
    )


def _core_relocations(core: dict[str, list[int]], functions: Sequence[Function]) -> int:
    return sum(
        bisect_left(core[one.section], one.end) - bisect_left(core[one.section], one.start)
        for one in functions
        if one.section in core
    )


def _bad_reference(program: str, reference: Reference) -> Problem:
    where = f" in section {reference.section}" if reference.section else ""
    return Problem(
        "bad-relocation",
        "fail",
        program,
        f"{program} refers to {reference.name or 'something'}{where}, which libbpf can't place",
        "compile without -fpic, and with inline functions or static ones in .text",
    )


def line_at(ext: BtfExt | None, section: str, index: int) -> LineInfo | None:
    """The source line of an instruction: the last line info at or before it."""
    if ext is None:
        return None
    rows = ext.lines.get(section, ())
    at = bisect_right(rows, index, key=lambda row: row.instruction) - 1
    return rows[at] if at >= 0 else None


def _source(ext: BtfExt | None, function: Function) -> LineInfo | None:
    """The function's first line that is not of an inlined one: the first outside of headers, if there is one."""
    rows = ext.lines.get(function.section, ()) if ext is not None else ()
    first = bisect_left(rows, function.start, key=lambda row: row.instruction)
    own = rows[first : bisect_left(rows, function.end, key=lambda row: row.instruction)]
    return next((row for row in own if not row.file.endswith(".h")), own[0] if own else None)


def _with_line(ext: BtfExt | None, call: RedirectCall) -> RedirectCall:
    row = line_at(ext, call.section, call.offset)
    return replace(call, line=row.line) if row is not None else call
