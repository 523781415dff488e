"""Names of program, attach and map types by their numbers: ``enum bpf_prog_type`` and its like in linux/bpf.h.

Names are libbpf's (``libbpf_bpf_prog_type_str``), but attach types of network hooks are written as their section
names: ``xdp/devmap``, ``tcx/ingress``, ``netkit/peer``.
"""

from __future__ import annotations

# fmt: off
PROGRAM_TYPES = (
    "unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event",
    "cgroup_skb", "cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device",
    "sk_msg", "raw_tracepoint", "cgroup_sock_addr", "lwt_seg6local", "lirc_mode2", "sk_reuseport",
    "flow_dissector", "cgroup_sysctl", "raw_tracepoint_writable", "cgroup_sockopt", "tracing",
    "struct_ops", "ext", "lsm", "sk_lookup", "syscall", "netfilter",
)
# fmt: on
"""Index: ``BPF_PROG_TYPE_*``; netfilter since 6.4."""

# fmt: off
ATTACH_TYPES = (
    "cgroup_inet_ingress", "cgroup_inet_egress", "cgroup_inet_sock_create", "cgroup_sock_ops",
    "sk_skb_stream_parser", "sk_skb_stream_verdict", "cgroup_device", "sk_msg_verdict",
    "cgroup_inet4_bind", "cgroup_inet6_bind", "cgroup_inet4_connect", "cgroup_inet6_connect",
    "cgroup_inet4_post_bind", "cgroup_inet6_post_bind", "cgroup_udp4_sendmsg", "cgroup_udp6_sendmsg",
    "lirc_mode2", "flow_dissector", "cgroup_sysctl", "cgroup_udp4_recvmsg", "cgroup_udp6_recvmsg",
    "cgroup_getsockopt", "cgroup_setsockopt", "trace_raw_tp", "trace_fentry", "trace_fexit",
    "modify_return", "lsm_mac", "trace_iter", "cgroup_inet4_getpeername", "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname", "cgroup_inet6_getsockname", "xdp/devmap", "cgroup_inet_sock_release",
    "xdp/cpumap", "sk_lookup", "xdp", "sk_skb_verdict", "sk_reuseport_select",
    "sk_reuseport_select_or_migrate", "perf_event", "trace_kprobe_multi", "lsm_cgroup", "struct_ops",
    "netfilter", "tcx/ingress", "tcx/egress", "trace_uprobe_multi", "cgroup_unix_connect",
    "cgroup_unix_sendmsg", "cgroup_unix_recvmsg", "cgroup_unix_getpeername", "cgroup_unix_getsockname",
    "netkit/primary", "netkit/peer", "trace_kprobe_session", "trace_uprobe_session", "trace_fsession",
)
# fmt: on
"""Index: ``BPF_*`` of ``enum bpf_attach_type``; tcx since 6.6, netkit 6.7, trace_fsession 6.19."""

# fmt: off
MAP_TYPES = (
    "unspec", "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array",
    "stack_trace", "cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps",
    "hash_of_maps", "devmap", "sockmap", "cpumap", "xskmap", "sockhash", "cgroup_storage",
    "reuseport_sockarray", "percpu_cgroup_storage", "queue", "stack", "sk_storage", "devmap_hash",
    "struct_ops", "ringbuf", "inode_storage", "task_storage", "bloom_filter", "user_ringbuf",
    "cgrp_storage", "arena", "insn_array",
)
# fmt: on
"""Index: ``BPF_MAP_TYPE_*``; arena since 6.9, insn_array 6.19."""

PROGRAM_TYPE_NUMBERS = {name: number for number, name in enumerate(PROGRAM_TYPES)}
ATTACH_TYPE_NUMBERS = {name: number for number, name in enumerate(ATTACH_TYPES)}
MAP_TYPE_NUMBERS = {name: number for number, name in enumerate(MAP_TYPES)}


def map_type(number: int) -> str:
    """Name of a map type, or ``type N`` for one newer than this table."""
    return MAP_TYPES[number] if 0 <= number < len(MAP_TYPES) else f"type {number}"


MAP_FLAGS = (
    "no_prealloc",
    "no_common_lru",
    "numa_node",
    "rdonly",
    "wronly",
    "stack_build_id",
    "zero_seed",
    "rdonly_prog",
    "wronly_prog",
    "clone",
    "mmapable",
    "preserve_elems",
    "inner_map",
    "link",
    "path_fd",
    "vtype_btf_obj_fd",
    "token_fd",
    "segv_on_fault",
    "no_user_conv",
)
"""Index: the bit; ``BPF_F_*`` of BPF_MAP_CREATE."""


def map_flags(flags: int) -> list[str]:
    """Names of the flags that are set; a bit that has no name here as its number."""
    return [
        MAP_FLAGS[bit] if bit < len(MAP_FLAGS) else f"{1 << bit:#x}" for bit in range(32) if flags >> bit & 1
    ]
