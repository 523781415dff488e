"""BTF that the kernel keeps with programs and maps, by its id (BPF_BTF_GET_FD_BY_ID, ``struct bpf_btf_info``)."""

from __future__ import annotations

import os

from xdpctl.bpf import query
from xdpctl.libbpf import info, memory

MOST = 1 << 28
"""Bytes of BTF that we are willing to read; the kernel's own has some 10 million."""


def blob(btf_id: int) -> bytes:
    """The bytes of a BTF object.

    Raises:
        NotFoundError: there is none of this id.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    fd = query.open_id("btf", btf_id)
    try:
        size = info.ask(fd, info.BtfInfo()).info.btf_size
        data = memory.buffer(min(size, MOST))
        info.ask(fd, info.BtfInfo(btf=memory.address(data), btf_size=len(data)))
        return data.raw[:size]
    finally:
        os.close(fd)
