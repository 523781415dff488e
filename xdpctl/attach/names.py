"""What is a loaded program's function called in full? (bpf_prog_info.func_info, and the BTF it points into)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xdpctl.bpf import query
from xdpctl.errors import XdpctlError
from xdpctl.libbpf import info as kernel
from xdpctl.libbpf import memory
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from xdpctl.bpf.query import ProgramInfo

_RECORD = 8
"""sizeof(struct bpf_func_info): insn_off, type_id."""


def function_name(program: ProgramInfo) -> str | None:
    """Name of the program's first function in its BTF; None where that can't be told."""
    try:
        fd = query.open_id("program", program.id)
    except (XdpctlError, CallError):
        return None
    try:
        room = memory.u32s(2)
        kernel.ask(
            fd, kernel.ProgInfo(nr_func_info=1, func_info_rec_size=_RECORD, func_info=memory.address(room))
        )
        type_id = room[1]
        name = _name_of(program.btf_id, type_id)
    except (XdpctlError, CallError):
        return None
    finally:
        os.close(fd)
    # what does not begin like the kernel's 15 characters is another function
    return name if name and name.startswith(program.name) else None


def _name_of(btf_id: int, type_id: int) -> str | None:
    from xdpctl.btf.parse import parse

    pointer = lib().btf__load_from_kernel_by_id(btf_id)
    try:
        size = memory.U32(0)
        where = lib().btf__raw_data(pointer, size)
        found = parse(memory.read(where, size.value)).type(type_id)
    finally:
        lib().btf__free(pointer)
    return getattr(found, "name", None)
