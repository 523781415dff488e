"""Where do the plain redirects of a loaded program lead? Its instructions as the kernel shows them, and its globals.

Mirrors bpf_insn_prepare_dump() (kernel/bpf/syscall.c), which puts map ids where addresses were, and jit_subprogs()
(kernel/bpf/verifier.c), which leaves the distance of a call between functions in its offset.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.errors import XdpctlError
from xdpctl.host.model import RedirectTarget
from xdpctl.obj import flow
from xdpctl.obj.code import CALL, LD_IMM64, PSEUDO_CALL, Function, Reference, Section, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.bpf.query import MapInfo
    from xdpctl.obj.registers import Known

MOST_STEPS = 30_000
"""Instructions followed in all programs of a machine together: some tenths of a second."""
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
_READ_ONLY = 1 << 7
"""BPF_F_RDONLY_PROG: constants, by which branches may be decided."""
_CODE = "code"
UNTOLD = RedirectTarget(None, "its instructions")


def budget() -> flow.Steps:
    """What following all programs of one observation may cost."""
    return flow.Steps(MOST_STEPS)


def targets(
    code: bytes, helpers: Mapping[bytes, int], steps: flow.Steps | None = None
) -> tuple[RedirectTarget, ...]:
    """Each different target of its redirects that use no map; one without an ifindex where any can't be told.

    Args:
        code: the instructions of a loaded program.
        helpers: how calls of redirect helpers look in them (`programs.helper_offsets`).
        steps: the budget that is left; when it is used up, nothing is told.
    """
    instructions = decode(code, "<" if sys.byteorder == "little" else ">", _CODE)
    references: dict[int, Reference] = {}
    for index, one in enumerate(instructions):
        if one.opcode == LD_IMM64 and one.src == _PSEUDO_MAP_FD:
            references[index] = Reference("map", str(one.imm))
        elif one.opcode == LD_IMM64 and one.src == _PSEUDO_MAP_VALUE and index + 1 < len(instructions):
            references[index] = Reference("data", "", str(one.imm), instructions[index + 1].imm)
        elif one.opcode == CALL and one.src == PSEUDO_CALL:
            references[index] = Reference("function", "", _CODE, index + 1 + one.offset)
        elif one.opcode == CALL:
            number = helpers.get(code[index * 8 + 4 : index * 8 + 8]) if one.src == 0 else None
            if number is None:
                references[index] = Reference("kfunc", "")  # some function of the kernel
            else:
                instructions[index] = one._replace(imm=number)
    data = _Data()
    found = flow.analyse(
        {_CODE: Section(_CODE, instructions, references)},
        [Function("", _CODE, 0, len(instructions), is_static=False)],
        frozen=data.constant,
        steps=steps or budget(),
    )
    told: dict[RedirectTarget, None] = {}
    for site in found.calls.values():
        helper = flow.REDIRECTS.get(site.helper, "bpf_redirect_map")
        if helper == "bpf_redirect_map":
            continue
        for known in site.arguments[1 if helper == "bpf_clone_redirect" else 0] or (None,):
            told[replace(data.target(known), helper=helper)] = None
    return tuple(told)


class _Data:
    """The globals of a program: maps of one element, read when they are asked for."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[MapInfo, bytes] | None] = {}

    def constant(self, section: str, offset: int, size: int) -> int | None:
        """The value of read-only data."""
        found = self._map(section)
        if found is None or not found[0].flags & _READ_ONLY:
            return None
        return self._number(found[1], offset, size)

    def target(self, known: Known | None) -> RedirectTarget:
        """What one alternative of a redirect's first argument names."""
        if known is None or known.shifted or known.indexed:
            return UNTOLD
        if known.kind == "const":
            return RedirectTarget(known.number & 0xFFFFFFFF, "its instructions and constants")
        found = self._map(known.name) if known.kind == "value" else None
        number = self._number(found[1], known.number, known.size) if found is not None else None
        if found is None or number is None:
            return UNTOLD
        where = f"{known.size} bytes at {known.number} of map {found[0].id} ({found[0].name})"
        return RedirectTarget(number & 0xFFFFFFFF, where)

    def _map(self, section: str) -> tuple[MapInfo, bytes] | None:
        from xdpctl.bpf.map import open_map

        number = int(section)
        if number not in self._read:
            self._read[number] = None
            try:
                with open_map(number) as opened:
                    value = opened.lookup(bytes(4))
                    if value is not None:
                        self._read[number] = opened.info(), value
            except (XdpctlError, OSError):  # gone, or not ours to read: then its content is not known
                pass
        return self._read[number]

    @staticmethod
    def _number(value: bytes, offset: int, size: int) -> int | None:
        part = value[offset : offset + size] if offset >= 0 else b""
        return int.from_bytes(part, sys.byteorder) if size and len(part) == size else None
