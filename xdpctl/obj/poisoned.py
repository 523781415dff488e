"""Which fields and enumerators that the kernel lacks a program would reach, so that the verifier refuses it.

libbpf turns a CO-RE relocation that it can't satisfy into an invalid instruction; behind a branch that is never
taken (``bpf_core_field_exists``, a constant of .rodata) the verifier does not look.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xdpctl.errors import ObjectError
from xdpctl.obj import code, core, flow

if TYPE_CHECKING:
    from typing import Literal

    from xdpctl.btf.parse import Btf
    from xdpctl.obj.model import ObjFile, ObjProgram


def poisoned(obj: ObjFile, wanted: list[ObjProgram], kernel: Btf | None) -> dict[str, tuple[str, ...]]:
    """What each program misses, among the instructions that the verifier would reach."""
    if kernel is None or obj.btf is None or obj.ext is None or not obj.core_relocations:
        return {}
    rows = [(section, one) for section, many in obj.ext.relocations.items() for one in many]
    try:
        candidates = kernel.find_many(core.named((one for _, one in rows), obj.btf))
    except ObjectError:
        return {}
    bad: dict[str, dict[int, str]] = {}
    constants: dict[tuple[str, int], int] = {}
    for section, one in rows:
        try:
            answer = core.resolve(obj.btf, one, kernel, candidates)
        except ObjectError:
            continue
        if answer.poisoned:
            bad.setdefault(section, {})[one.instruction] = answer.what
        elif answer.constant is not None:
            constants[section, one.instruction] = answer.constant
    if not bad:
        return {}
    patched = _patched(obj.code, constants)
    found: dict[str, tuple[str, ...]] = {}
    for program in wanted:
        functions = code.reachable(patched, program.section, program.start)
        places = [(one.section, index) for one in functions for index in _within(bad, one)]
        if not places:
            continue
        followed = flow.analyse(patched, functions, frozen=_Frozen(obj).value)
        # what could not be followed is taken as reached
        reached = [
            bad[section][index]
            for section, index in places
            if (section, index) in followed.visited or not followed.complete
        ]
        if reached:
            found[program.name] = tuple(dict.fromkeys(reached))
    return found


def _within(bad: dict[str, dict[int, str]], function: code.Function) -> list[int]:
    """The poisoned instructions of a function."""
    return [index for index in bad.get(function.section, ()) if function.start <= index < function.end]


def _patched(
    sections: dict[str, code.Section], constants: dict[tuple[str, int], int]
) -> dict[str, code.Section]:
    """The code with the answers to "does it exist?" put in, as libbpf does."""
    patched = {}
    for name, section in sections.items():
        instructions = list(section.instructions)
        for (where, index), value in constants.items():
            if where == name and index < len(instructions):
                instructions[index] = instructions[index]._replace(imm=value)
        patched[name] = code.Section(
            name, instructions, section.references, section.functions, section.by_start
        )
    return patched


class _Frozen:
    """Values that the verifier knows: those of .rodata, which libbpf freezes, and of .kconfig."""

    def __init__(self, obj: ObjFile) -> None:
        self._globals = [one for one in obj.globals if one.section.startswith(".rodata")]
        self._order: Literal["little", "big"] = "little" if obj.byte_order == "little" else "big"

    def value(self, section: str, offset: int, size: int) -> int | None:
        """The integer at a place; None: not known."""
        if section == "extern LINUX_KERNEL_VERSION" and offset == 0:
            return _version_code()
        for one in self._globals:
            start = offset - one.offset
            if one.section == section and start >= 0 and start + size <= one.size:
                # no initial bytes: all are zero
                return int.from_bytes(one.initial[start : start + size], self._order)
        return None


def _version_code() -> int | None:
    """KERNEL_VERSION(a, b, c) of the running kernel, as libbpf's get_kernel_version."""
    numbers = os.uname().release.split("-")[0].split("+")[0].split(".")
    if len(numbers) < 3 or not all(one.isdigit() for one in numbers[:3]):
        return None
    major, minor, patch = (int(one) for one in numbers[:3])
    return (major << 16) + (minor << 8) + min(patch, 255)
