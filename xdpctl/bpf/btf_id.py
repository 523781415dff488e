"""Types that the kernel keeps with a program or map, by their id (BPF_BTF_GET_FD_BY_ID, struct bpf_btf_info; 4.18)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import query
from xdpctl.btf.kernel import vmlinux
from xdpctl.btf.parse import Btf, parse
from xdpctl.errors import ObjectError, errno_text
from xdpctl.libbpf import info, memory
from xdpctl.libbpf.library import CallError

if TYPE_CHECKING:
    from xdpctl.bpf.query import MapInfo

LARGEST = 256 * 2**20
"""Bytes of a blob; the kernel itself takes 16 MiB (BTF_MAX_SIZE)."""


class MapTypes(NamedTuple):
    """The types of a map's keys and values."""

    btf: Btf
    key_type_id: int
    """0: not told, only a size."""
    value_type_id: int


def by_id(btf_id: int) -> Btf:
    """The BTF with this id; that of a kernel module comes with the kernel's as its base.

    Raises:
        NotFoundError: there is none.
        PrivilegeError: CAP_SYS_ADMIN is missing.
        ObjectError: the kernel does not give it away.
    """
    fd = query.open_id("btf", btf_id)
    try:
        return by_fd(fd)
    finally:
        os.close(fd)


def by_fd(fd: int) -> Btf:
    """The BTF behind a file descriptor, as `by_id`."""
    name = memory.buffer(64)
    try:
        size = info.ask(fd, info.BtfInfo()).info.btf_size
        if size > LARGEST:
            raise ObjectError(f"the kernel has BTF of {size} bytes")
        room = memory.buffer(size)
        first = info.BtfInfo(btf=memory.address(room), btf_size=size)
        filled = info.ask(fd, first)
        if filled.knows("kernel_btf"):  # Linux 5.11, whose modules may have types
            info.ask(fd, info.BtfInfo(name=memory.address(name), name_len=len(name)))
    except CallError as why:
        raise ObjectError(f"the kernel does not tell its BTF: {errno_text(why.code)}") from why
    kernels = filled.knows("kernel_btf") and bool(filled.info.kernel_btf)
    base = vmlinux() if kernels and name.value != b"vmlinux" else None
    return parse(room.raw[:size], base=base)


def of_map(map_: MapInfo) -> MapTypes | None:
    """The types of a loaded map's keys and values; None: the kernel knows none.

    Raises:
        NotFoundError, PrivilegeError, ObjectError: as `by_id`.
    """
    if not map_.btf_id or not (map_.btf_key_type_id or map_.btf_value_type_id):
        return None
    return MapTypes(by_id(map_.btf_id), map_.btf_key_type_id, map_.btf_value_type_id)
