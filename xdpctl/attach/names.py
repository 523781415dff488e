"""What is a loaded program's function called in full? (bpf_prog_info.func_info, and the BTF it points into)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xdpctl.bpf import btf_id, query
from xdpctl.errors import XdpctlError
from xdpctl.libbpf import info as kernel
from xdpctl.libbpf import memory
from xdpctl.libbpf.library import CallError

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
        name = getattr(btf_id.by_id(program.btf_id).type(room[1]), "name", None)
    except (XdpctlError, CallError):
        return None
    finally:
        os.close(fd)
    # what does not begin like the kernel's 15 characters is another function
    return name if name and name.startswith(program.name) else None
