"""The option structs of libbpf, in the layout of its version 1.7 (libbpf.h, bpf.h; LIBBPF_OPTS in libbpf_common.h).

``sz`` says how much of a struct the caller knows. An older libbpf takes a longer one as long as what it does not
know is zero, so the newest layout serves all; an output field that the present libbpf does not know stays as it was.
Unlike bare ctypes structs these refuse a misspelt field and a number that does not fit.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any, ClassVar

from xdpctl.errors import UnsupportedError

_RANGES: dict[Any, tuple[int, int]] = {
    c_uint8: (0, 2**8 - 1),
    c_uint32: (0, 2**32 - 1),
    c_uint64: (0, 2**64 - 1),
    c_int: (-(2**31), 2**31 - 1),
    c_int32: (-(2**31), 2**31 - 1),
    c_size_t: (0, 2 ** (8 * ctypes.sizeof(c_size_t)) - 1),
}


@cache
def _range(struct: Any, name: str) -> tuple[int, int | None]:
    """Least and most of a field; (0, None): any number."""
    return _RANGES.get(dict(one[:2] for one in struct._fields_).get(name), (0, None))


class Checked(ctypes.Structure):
    """A C struct that refuses unknown fields (AttributeError) and numbers out of range (ValueError)."""

    __slots__ = ()

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        for name, value in fields.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, int):
            low, high = _range(type(self), name)
            if high is not None and not low <= value <= high:
                raise ValueError(f"{type(self).__name__}.{name} = {value} does not fit, {low} to {high} do")
        super().__setattr__(name, value)

    @property
    def _as_parameter_(self) -> Any:
        return ctypes.byref(self)


class Opts(Checked):
    """An option struct: ``sz`` is set, fields are given by name.

    Attributes:
        since: fields that came after libbpf 1.0, and with which version.
    """

    __slots__ = ()
    since: ClassVar[dict[str, tuple[int, int]]] = {}

    def __init__(self, **fields: Any) -> None:
        super().__init__(sz=ctypes.sizeof(self), **fields)

    def checked(self, version: tuple[int, int]) -> Opts:
        """This struct, where a libbpf of `version` knows every field that is set.

        Raises:
            UnsupportedError: it does not (libbpf itself would only say EINVAL).
        """
        for name, needs in self.since.items():
            if version < needs and getattr(self, name):
                raise UnsupportedError(
                    f"{name} of {type(self).c_name()}",
                    needs="libbpf {}.{}".format(*needs),
                    has="libbpf {}.{}".format(*version),
                )
        return self

    @classmethod
    def c_name(cls) -> str:
        """The struct's name in C."""
        return C_NAMES[cls]


class ObjectOpenOpts(Opts):
    """For bpf_object__open_file and bpf_object__open_mem."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", c_bool),
        ("pin_root_path", c_char_p),
        ("_removed", c_uint32),
        ("kconfig", c_char_p),
        ("btf_custom_path", c_char_p),
        ("kernel_log_buf", c_void_p),
        ("kernel_log_size", c_size_t),
        ("kernel_log_level", c_uint32),
        ("bpf_token_path", c_char_p),
    ]
    since: ClassVar = {"bpf_token_path": (1, 4)}


class MapCreateOpts(Opts):
    """For bpf_map_create."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
        ("value_type_btf_obj_fd", c_int32),
        ("token_fd", c_uint32),
        ("excl_prog_hash", c_void_p),
        ("excl_prog_hash_size", c_uint32),
    ]
    since: ClassVar = {
        "value_type_btf_obj_fd": (1, 4),
        "token_fd": (1, 4),
        "excl_prog_hash": (1, 7),
        "excl_prog_hash_size": (1, 7),
    }


class ProgLoadOpts(Opts):
    """For bpf_prog_load."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_uint32),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_void_p),
        ("log_true_size", c_uint32),
        ("token_fd", c_uint32),
        ("fd_array_cnt", c_uint32),
    ]
    since: ClassVar = {"log_true_size": (1, 2), "token_fd": (1, 4), "fd_array_cnt": (1, 6)}


class BtfLoadOpts(Opts):
    """For bpf_btf_load."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("log_buf", c_void_p),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_true_size", c_uint32),
        ("btf_flags", c_uint32),
        ("token_fd", c_uint32),
    ]
    since: ClassVar = {"log_true_size": (1, 2), "btf_flags": (1, 4), "token_fd": (1, 4)}


class MapBatchOpts(Opts):
    """For bpf_map_*_batch."""

    __slots__ = ()
    _fields_: ClassVar = [("sz", c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64)]


class ObjGetOpts(Opts):
    """For bpf_obj_get_opts."""

    __slots__ = ()
    _fields_: ClassVar = [("sz", c_size_t), ("file_flags", c_uint32), ("path_fd", c_int)]
    since: ClassVar = {"path_fd": (1, 3)}


class ProgAttachOpts(Opts):
    """For bpf_prog_attach_opts."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("replace_prog_fd", c_int),
        ("relative_fd", c_int),
        ("relative_id", c_uint32),
        ("expected_revision", c_uint64),
    ]
    since: ClassVar = {"relative_fd": (1, 3), "relative_id": (1, 3), "expected_revision": (1, 3)}


class ProgDetachOpts(Opts):
    """For bpf_prog_detach_opts (libbpf 1.3)."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("relative_fd", c_int),
        ("relative_id", c_uint32),
        ("expected_revision", c_uint64),
    ]


class _Relative(Checked):
    __slots__ = ()
    _fields_: ClassVar = [
        ("relative_fd", c_uint32),
        ("relative_id", c_uint32),
        ("expected_revision", c_uint64),
    ]


class _UprobeMulti(Checked):
    """The longest member: with it the struct has its size."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("flags", c_uint32),
        ("cnt", c_uint32),
        ("path", c_char_p),
        ("offsets", c_void_p),
        ("ref_ctr_offsets", c_void_p),
        ("cookies", c_void_p),
        ("pid", c_uint32),
    ]


class _LinkKind(ctypes.Union):
    _fields_: ClassVar = [("tcx", _Relative), ("netkit", _Relative), ("uprobe_multi", _UprobeMulti)]


class LinkCreateOpts(Opts):
    """For bpf_link_create; what comes after `target_btf_id` depends on the attach type."""

    __slots__ = ()
    _anonymous_: ClassVar = ("kind",)
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
        ("kind", _LinkKind),
    ]


class LinkUpdateOpts(Opts):
    """For bpf_link_update."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("old_prog_fd", c_uint32),
        ("old_map_fd", c_uint32),
    ]
    since: ClassVar = {"old_map_fd": (1, 2)}


class GetFdByIdOpts(Opts):
    """For bpf_*_get_fd_by_id_opts (libbpf 1.1)."""

    __slots__ = ()
    _fields_: ClassVar = [("sz", c_size_t), ("open_flags", c_uint32), ("token_fd", c_uint32)]
    since: ClassVar = {"token_fd": (1, 6)}


class ProgQueryOpts(Opts):
    """For bpf_prog_query_opts."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("query_flags", c_uint32),
        ("attach_flags", c_uint32),
        ("prog_ids", c_void_p),
        ("prog_cnt", c_uint32),
        ("prog_attach_flags", c_void_p),
        ("link_ids", c_void_p),
        ("link_attach_flags", c_void_p),
        ("revision", c_uint64),
    ]
    since: ClassVar = {"link_ids": (1, 3), "link_attach_flags": (1, 3), "revision": (1, 3)}


class TestRunOpts(Opts):
    """For bpf_prog_test_run_opts."""

    __test__ = False  # not a test class, whatever pytest makes of its name
    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class XdpAttachOpts(Opts):
    """For bpf_xdp_attach and bpf_xdp_detach."""

    __slots__ = ()
    _fields_: ClassVar = [("sz", c_size_t), ("old_prog_fd", c_int)]


class XdpQueryOpts(Opts):
    """For bpf_xdp_query; all output."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("prog_id", c_uint32),
        ("drv_prog_id", c_uint32),
        ("hw_prog_id", c_uint32),
        ("skb_prog_id", c_uint32),
        ("attach_mode", c_uint8),
        ("feature_flags", c_uint64),
        ("xdp_zc_max_segs", c_uint32),
    ]
    since: ClassVar = {"feature_flags": (1, 2), "xdp_zc_max_segs": (1, 3)}


class TcHook(Opts):
    """``struct bpf_tc_hook``: where a classifier goes."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("ifindex", c_int),
        ("attach_point", c_uint32),
        ("parent", c_uint32),
        ("handle", c_uint32),
        ("qdisc", c_char_p),
    ]
    since: ClassVar = {"handle": (1, 6), "qdisc": (1, 6)}


class TcOpts(Opts):
    """``struct bpf_tc_opts``: which classifier; in and out."""

    __slots__ = ()
    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    ]


class TraceOpts(Opts):
    """For bpf_program__attach_trace_opts."""

    __slots__ = ()
    _fields_: ClassVar = [("sz", c_size_t), ("cookie", c_uint64)]


class PerfBufferOpts(Opts):
    """For perf_buffer__new."""

    __slots__ = ()
    _fields_: ClassVar = [("sz", c_size_t), ("sample_period", c_uint32)]
    since: ClassVar = {"sample_period": (1, 2)}


C_NAMES: dict[type[Opts], str] = {
    ObjectOpenOpts: "bpf_object_open_opts",
    MapCreateOpts: "bpf_map_create_opts",
    ProgLoadOpts: "bpf_prog_load_opts",
    BtfLoadOpts: "bpf_btf_load_opts",
    MapBatchOpts: "bpf_map_batch_opts",
    ObjGetOpts: "bpf_obj_get_opts",
    ProgAttachOpts: "bpf_prog_attach_opts",
    ProgDetachOpts: "bpf_prog_detach_opts",
    LinkCreateOpts: "bpf_link_create_opts",
    LinkUpdateOpts: "bpf_link_update_opts",
    GetFdByIdOpts: "bpf_get_fd_by_id_opts",
    ProgQueryOpts: "bpf_prog_query_opts",
    TestRunOpts: "bpf_test_run_opts",
    XdpAttachOpts: "bpf_xdp_attach_opts",
    XdpQueryOpts: "bpf_xdp_query_opts",
    TcHook: "bpf_tc_hook",
    TcOpts: "bpf_tc_opts",
    TraceOpts: "bpf_trace_opts",
    PerfBufferOpts: "perf_buffer_opts",
}
