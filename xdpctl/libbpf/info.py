"""The kernel's info structs, in the layout of Linux 6.18 (linux/bpf.h), as BPF_OBJ_GET_INFO_BY_FD fills them.

An older kernel fills less of a struct and says how much; a newer one fills no more than it was given. Fields
that it did not fill are unknown, not zero: ask `Filled.knows`.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint8, c_uint32, c_uint64
from typing import ClassVar, Generic, TypeVar

from xdpctl.libbpf.library import lib
from xdpctl.libbpf.memory import U32
from xdpctl.libbpf.opts import Checked


class ProgInfo(Checked):
    """``struct bpf_prog_info``."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("bits", c_uint32),  # gpl_compatible:1
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
        ("attach_btf_id", c_uint32),
        ("_pad", c_uint32),
    ]


class MapInfo(Checked):
    """``struct bpf_map_info``."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("btf_id", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_id", c_uint32),
        ("map_extra", c_uint64),
        ("hash", c_uint64),
        ("hash_size", c_uint32),
        ("_pad", c_uint32),
    ]


class _XdpLink(ctypes.Structure):
    _fields_: ClassVar = [("ifindex", c_uint32)]


class _DeviceLink(ctypes.Structure):
    _fields_: ClassVar = [("ifindex", c_uint32), ("attach_type", c_uint32)]


class _NetnsLink(ctypes.Structure):
    _fields_: ClassVar = [("netns_ino", c_uint32), ("attach_type", c_uint32)]


class _TracingLink(ctypes.Structure):
    _fields_: ClassVar = [("attach_type", c_uint32), ("target_obj_id", c_uint32), ("target_btf_id", c_uint32)]


class _RawTracepointLink(ctypes.Structure):
    _fields_: ClassVar = [("tp_name", c_uint64), ("tp_name_len", c_uint32)]


class _LinkKind(ctypes.Union):
    _fields_: ClassVar = [
        ("xdp", _XdpLink),
        ("tcx", _DeviceLink),
        ("netkit", _DeviceLink),
        ("netns", _NetnsLink),
        ("tracing", _TracingLink),
        ("raw_tracepoint", _RawTracepointLink),
        ("_longest", c_uint64 * 6),
    ]


class LinkInfo(Checked):
    """``struct bpf_link_info``; the union holds only the kinds we read."""

    __slots__ = ()
    _anonymous_: ClassVar = ("kind",)
    _fields_: ClassVar = [("type", c_uint32), ("id", c_uint32), ("prog_id", c_uint32), ("kind", _LinkKind)]


class BtfInfo(Checked):
    """``struct bpf_btf_info``."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("btf", c_uint64),
        ("btf_size", c_uint32),
        ("id", c_uint32),
        ("name", c_uint64),
        ("name_len", c_uint32),
        ("kernel_btf", c_uint32),
    ]


C_NAMES: dict[type[Checked], str] = {
    ProgInfo: "bpf_prog_info",
    MapInfo: "bpf_map_info",
    LinkInfo: "bpf_link_info",
    BtfInfo: "bpf_btf_info",
}

_T = TypeVar("_T", bound=Checked)


class Filled(Generic[_T]):
    """An info struct and how many bytes of it the kernel filled."""

    __slots__ = ("info", "length")

    def __init__(self, info: _T, length: int) -> None:
        self.info: _T = info
        self.length = length

    def knows(self, field: str) -> bool:
        """Whether the kernel filled `field`."""
        where = getattr(type(self.info), field)
        return bool(where.offset + where.size <= self.length)


def ask(fd: int, info: _T) -> Filled[_T]:
    """Fill `info` about the BPF object behind `fd` (BPF_OBJ_GET_INFO_BY_FD).

    Pointer fields that are set must point to memory of the counts beside them.

    Raises:
        CallError: the kernel refused; E2BIG where it is older than a field that was set.
    """
    length = U32(ctypes.sizeof(info))
    lib().bpf_obj_get_info_by_fd(fd, info, length)
    return Filled(info, length.value)
