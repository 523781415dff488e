"""The libbpf functions we call: kind of result, C types, and since when (libbpf.h, bpf.h, btf.h, libbpf.map).

Pointers are all ``c_void_p``: bytes, ctypes arrays, addresses, None, and our own structs (which pass their
address) fit.
"""

from __future__ import annotations

import enum
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any


class Result(enum.Enum):
    """How a result tells failure."""

    ERROR = "negative errno"
    """Also where a file descriptor or a count is the good result."""
    POINTER = "NULL, errno set"
    PLAIN = "never, or as the caller knows it"


_E, _P, _V = Result.ERROR, Result.POINTER, Result.PLAIN
_int, _u32, _u64, _size, _str, _ptr, _bool = c_int, c_uint32, c_uint64, c_size_t, c_char_p, c_void_p, c_bool

Prototype = tuple[Result, Any, tuple[Any, ...], str]

PROTOTYPES: dict[str, Prototype] = {
    # library
    "libbpf_version_string": (_V, _str, (), "1.0"),
    "libbpf_num_possible_cpus": (_E, _int, (), "1.0"),
    "libbpf_prog_type_by_name": (_E, _int, (_str, _ptr, _ptr), "1.0"),
    "libbpf_attach_type_by_name": (_E, _int, (_str, _ptr), "1.0"),
    "libbpf_find_vmlinux_btf_id": (_E, _int, (_str, _int), "1.0"),
    "libbpf_bpf_prog_type_str": (_V, _str, (_int,), "1.0"),
    "libbpf_bpf_map_type_str": (_V, _str, (_int,), "1.0"),
    "libbpf_bpf_attach_type_str": (_V, _str, (_int,), "1.0"),
    "libbpf_bpf_link_type_str": (_V, _str, (_int,), "1.0"),
    "libbpf_probe_bpf_prog_type": (_E, _int, (_int, _ptr), "1.0"),
    "libbpf_probe_bpf_map_type": (_E, _int, (_int, _ptr), "1.0"),
    "libbpf_probe_bpf_helper": (_E, _int, (_int, _int, _ptr), "1.0"),
    # object
    "bpf_object__open_file": (_P, _ptr, (_str, _ptr), "1.0"),
    "bpf_object__open_mem": (_P, _ptr, (_ptr, _size, _ptr), "1.0"),
    "bpf_object__load": (_E, _int, (_ptr,), "1.0"),
    "bpf_object__prepare": (_E, _int, (_ptr,), "1.6"),
    "bpf_object__close": (_V, None, (_ptr,), "1.0"),
    "bpf_object__name": (_V, _str, (_ptr,), "1.0"),
    "bpf_object__btf": (_V, _ptr, (_ptr,), "1.0"),
    "bpf_object__btf_fd": (_V, _int, (_ptr,), "1.0"),
    "bpf_object__next_program": (_V, _ptr, (_ptr, _ptr), "1.0"),
    "bpf_object__next_map": (_V, _ptr, (_ptr, _ptr), "1.0"),
    # program of an object
    "bpf_program__name": (_V, _str, (_ptr,), "1.0"),
    "bpf_program__section_name": (_V, _str, (_ptr,), "1.0"),
    "bpf_program__fd": (_V, _int, (_ptr,), "1.0"),
    "bpf_program__insns": (_V, _ptr, (_ptr,), "1.0"),
    "bpf_program__insn_cnt": (_V, _size, (_ptr,), "1.0"),
    "bpf_program__type": (_V, _int, (_ptr,), "1.0"),
    "bpf_program__set_type": (_E, _int, (_ptr, _int), "1.0"),
    "bpf_program__expected_attach_type": (_V, _int, (_ptr,), "1.0"),
    "bpf_program__set_expected_attach_type": (_E, _int, (_ptr, _int), "1.0"),
    "bpf_program__flags": (_V, _u32, (_ptr,), "1.0"),
    "bpf_program__set_flags": (_E, _int, (_ptr, _u32), "1.0"),
    "bpf_program__autoload": (_V, _bool, (_ptr,), "1.0"),
    "bpf_program__set_autoload": (_E, _int, (_ptr, _bool), "1.0"),
    "bpf_program__set_ifindex": (_V, None, (_ptr, _u32), "1.0"),
    "bpf_program__set_attach_target": (_E, _int, (_ptr, _int, _str), "1.0"),
    "bpf_program__set_log_buf": (_E, _int, (_ptr, _ptr, _size), "1.0"),
    "bpf_program__set_log_level": (_E, _int, (_ptr, _u32), "1.0"),
    "bpf_program__attach": (_P, _ptr, (_ptr,), "1.0"),
    "bpf_program__attach_trace_opts": (_P, _ptr, (_ptr, _ptr), "1.0"),
    "bpf_program__attach_tracepoint": (_P, _ptr, (_ptr, _str, _str), "1.0"),
    "bpf_program__attach_raw_tracepoint": (_P, _ptr, (_ptr, _str), "1.0"),
    "bpf_program__attach_freplace": (_P, _ptr, (_ptr, _int, _str), "1.0"),
    "bpf_program__attach_tcx": (_P, _ptr, (_ptr, _int, _ptr), "1.3"),
    "bpf_program__attach_netkit": (_P, _ptr, (_ptr, _int, _ptr), "1.3"),
    # map of an object
    "bpf_map__name": (_V, _str, (_ptr,), "1.0"),
    "bpf_map__fd": (_V, _int, (_ptr,), "1.0"),
    "bpf_map__type": (_V, _int, (_ptr,), "1.0"),
    "bpf_map__set_type": (_E, _int, (_ptr, _int), "1.0"),
    "bpf_map__key_size": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__value_size": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__set_value_size": (_E, _int, (_ptr, _u32), "1.0"),
    "bpf_map__max_entries": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__set_max_entries": (_E, _int, (_ptr, _u32), "1.0"),
    "bpf_map__map_flags": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__ifindex": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__set_ifindex": (_E, _int, (_ptr, _u32), "1.0"),
    "bpf_map__btf_key_type_id": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__btf_value_type_id": (_V, _u32, (_ptr,), "1.0"),
    "bpf_map__autocreate": (_V, _bool, (_ptr,), "1.0"),
    "bpf_map__set_autocreate": (_E, _int, (_ptr, _bool), "1.0"),
    "bpf_map__reuse_fd": (_E, _int, (_ptr, _int), "1.0"),
    "bpf_map__set_inner_map_fd": (_E, _int, (_ptr, _int), "1.0"),
    "bpf_map__pin_path": (_V, _str, (_ptr,), "1.0"),
    "bpf_map__set_pin_path": (_E, _int, (_ptr, _str), "1.0"),
    "bpf_map__is_internal": (_V, _bool, (_ptr,), "1.0"),
    "bpf_map__initial_value": (_V, _ptr, (_ptr, _ptr), "1.0"),
    "bpf_map__set_initial_value": (_E, _int, (_ptr, _ptr, _size), "1.0"),
    # link of libbpf's own making (bpf_program__attach_*)
    "bpf_link__fd": (_V, _int, (_ptr,), "1.0"),
    "bpf_link__destroy": (_E, _int, (_ptr,), "1.0"),
    "bpf_link__disconnect": (_V, None, (_ptr,), "1.0"),
    # bpf(2), nearly raw
    "bpf_prog_load": (_E, _int, (_int, _str, _str, _ptr, _size, _ptr), "1.0"),
    "bpf_btf_load": (_E, _int, (_ptr, _size, _ptr), "1.0"),
    "bpf_map_create": (_E, _int, (_int, _str, _u32, _u32, _u32, _ptr), "1.0"),
    "bpf_map_lookup_elem": (_E, _int, (_int, _ptr, _ptr), "1.0"),
    "bpf_map_lookup_elem_flags": (_E, _int, (_int, _ptr, _ptr, _u64), "1.0"),
    "bpf_map_lookup_and_delete_elem": (_E, _int, (_int, _ptr, _ptr), "1.0"),
    "bpf_map_update_elem": (_E, _int, (_int, _ptr, _ptr, _u64), "1.0"),
    "bpf_map_delete_elem": (_E, _int, (_int, _ptr), "1.0"),
    "bpf_map_get_next_key": (_E, _int, (_int, _ptr, _ptr), "1.0"),
    "bpf_map_freeze": (_E, _int, (_int,), "1.0"),
    "bpf_map_lookup_batch": (_E, _int, (_int, _ptr, _ptr, _ptr, _ptr, _ptr, _ptr), "1.0"),
    "bpf_map_lookup_and_delete_batch": (_E, _int, (_int, _ptr, _ptr, _ptr, _ptr, _ptr, _ptr), "1.0"),
    "bpf_map_update_batch": (_E, _int, (_int, _ptr, _ptr, _ptr, _ptr), "1.0"),
    "bpf_map_delete_batch": (_E, _int, (_int, _ptr, _ptr, _ptr), "1.0"),
    "bpf_obj_pin": (_E, _int, (_int, _str), "1.0"),
    "bpf_obj_get": (_E, _int, (_str,), "1.0"),
    "bpf_obj_get_opts": (_E, _int, (_str, _ptr), "1.0"),
    "bpf_prog_attach_opts": (_E, _int, (_int, _int, _int, _ptr), "1.0"),
    "bpf_prog_detach_opts": (_E, _int, (_int, _int, _int, _ptr), "1.3"),
    "bpf_prog_query_opts": (_E, _int, (_int, _int, _ptr), "1.0"),
    "bpf_prog_test_run_opts": (_E, _int, (_int, _ptr), "1.0"),
    "bpf_prog_bind_map": (_E, _int, (_int, _int, _ptr), "1.0"),
    "bpf_link_create": (_E, _int, (_int, _int, _int, _ptr), "1.0"),
    "bpf_link_update": (_E, _int, (_int, _int, _ptr), "1.0"),
    "bpf_link_detach": (_E, _int, (_int,), "1.0"),
    "bpf_raw_tracepoint_open": (_E, _int, (_str, _int), "1.0"),
    "bpf_enable_stats": (_E, _int, (_int,), "1.0"),
    "bpf_iter_create": (_E, _int, (_int,), "1.0"),
    "bpf_task_fd_query": (_E, _int, (_int, _int, _u32, _ptr, _ptr, _ptr, _ptr, _ptr, _ptr), "1.0"),
    "bpf_obj_get_info_by_fd": (_E, _int, (_int, _ptr, _ptr), "1.0"),
    "bpf_prog_get_info_by_fd": (_E, _int, (_int, _ptr, _ptr), "1.2"),
    "bpf_map_get_info_by_fd": (_E, _int, (_int, _ptr, _ptr), "1.2"),
    "bpf_link_get_info_by_fd": (_E, _int, (_int, _ptr, _ptr), "1.2"),
    "bpf_btf_get_info_by_fd": (_E, _int, (_int, _ptr, _ptr), "1.2"),
    "bpf_prog_get_next_id": (_E, _int, (_u32, _ptr), "1.0"),
    "bpf_map_get_next_id": (_E, _int, (_u32, _ptr), "1.0"),
    "bpf_link_get_next_id": (_E, _int, (_u32, _ptr), "1.0"),
    "bpf_btf_get_next_id": (_E, _int, (_u32, _ptr), "1.0"),
    "bpf_prog_get_fd_by_id": (_E, _int, (_u32,), "1.0"),
    "bpf_map_get_fd_by_id": (_E, _int, (_u32,), "1.0"),
    "bpf_map_get_fd_by_id_opts": (_E, _int, (_u32, _ptr), "1.1"),
    "bpf_link_get_fd_by_id": (_E, _int, (_u32,), "1.0"),
    "bpf_btf_get_fd_by_id": (_E, _int, (_u32,), "1.0"),
    "bpf_prog_stream_read": (_E, _int, (_int, _u32, _ptr, _u32, _ptr), "1.6"),
    # network devices (netlink)
    "bpf_xdp_attach": (_E, _int, (_int, _int, _u32, _ptr), "1.0"),
    "bpf_xdp_detach": (_E, _int, (_int, _u32, _ptr), "1.0"),
    "bpf_xdp_query": (_E, _int, (_int, _int, _ptr), "1.0"),
    "bpf_tc_hook_create": (_E, _int, (_ptr,), "1.0"),
    "bpf_tc_hook_destroy": (_E, _int, (_ptr,), "1.0"),
    "bpf_tc_attach": (_E, _int, (_ptr, _ptr), "1.0"),
    "bpf_tc_detach": (_E, _int, (_ptr, _ptr), "1.0"),
    "bpf_tc_query": (_E, _int, (_ptr, _ptr), "1.0"),
    # BTF
    "btf__parse": (_P, _ptr, (_str, _ptr), "1.0"),
    "btf__parse_elf": (_P, _ptr, (_str, _ptr), "1.0"),
    "btf__parse_raw": (_P, _ptr, (_str,), "1.0"),
    "btf__parse_split": (_P, _ptr, (_str, _ptr), "1.0"),
    "btf__load_vmlinux_btf": (_P, _ptr, (), "1.0"),
    "btf__load_from_kernel_by_id": (_P, _ptr, (_u32,), "1.0"),
    "btf__free": (_V, None, (_ptr,), "1.0"),
    "btf__type_cnt": (_V, _u32, (_ptr,), "1.0"),
    "btf__raw_data": (_P, _ptr, (_ptr, _ptr), "1.0"),
    "btf__name_by_offset": (_V, _str, (_ptr, _u32), "1.0"),
    "btf__find_by_name": (_E, _int, (_ptr, _str), "1.0"),
    "btf__find_by_name_kind": (_E, _int, (_ptr, _str, _u32), "1.0"),
    "btf_ext__free": (_V, None, (_ptr,), "1.0"),
    "btf_ext__get_raw_data": (_V, _ptr, (_ptr, _ptr), "1.0"),
    "btf_dump__new": (_P, _ptr, (_ptr, _ptr, _ptr, _ptr), "1.0"),
    "btf_dump__dump_type": (_E, _int, (_ptr, _u32), "1.0"),
    "btf_dump__free": (_V, None, (_ptr,), "1.0"),
    # ring and perf buffers
    "ring_buffer__new": (_P, _ptr, (_int, _ptr, _ptr, _ptr), "1.0"),
    "ring_buffer__add": (_E, _int, (_ptr, _int, _ptr, _ptr), "1.0"),
    "ring_buffer__poll": (_E, _int, (_ptr, _int), "1.0"),
    "ring_buffer__consume": (_E, _int, (_ptr,), "1.0"),
    "ring_buffer__epoll_fd": (_V, _int, (_ptr,), "1.0"),
    "ring_buffer__free": (_V, None, (_ptr,), "1.0"),
    "perf_buffer__new": (_P, _ptr, (_int, _size, _ptr, _ptr, _ptr, _ptr), "1.0"),
    "perf_buffer__poll": (_E, _int, (_ptr, _int), "1.0"),
    "perf_buffer__consume": (_E, _int, (_ptr,), "1.0"),
    "perf_buffer__epoll_fd": (_V, _int, (_ptr,), "1.0"),
    "perf_buffer__free": (_V, None, (_ptr,), "1.0"),
}
