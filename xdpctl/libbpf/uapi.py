"""Numbers of the kernel's BPF interface and the names we print for them (linux/bpf.h, linux/if_link.h).

A name is the enumerator in lower case without its common prefix: ``BPF_PROG_TYPE_SCHED_CLS`` is ``sched_cls``.
"""

from __future__ import annotations

_PROG_TYPES = """
    unspec socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb cgroup_sock
    lwt_in lwt_out lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint cgroup_sock_addr
    lwt_seg6local lirc_mode2 sk_reuseport flow_dissector cgroup_sysctl raw_tracepoint_writable
    cgroup_sockopt tracing struct_ops ext lsm sk_lookup syscall netfilter
"""
PROG_TYPES = _PROG_TYPES.split()
"""enum bpf_prog_type, by number."""

_MAP_TYPES = """
    unspec hash array prog_array perf_event_array percpu_hash percpu_array stack_trace cgroup_array
    lru_hash lru_percpu_hash lpm_trie array_of_maps hash_of_maps devmap sockmap cpumap xskmap sockhash
    cgroup_storage reuseport_sockarray percpu_cgroup_storage queue stack sk_storage devmap_hash
    struct_ops ringbuf inode_storage task_storage bloom_filter user_ringbuf cgrp_storage arena
    insn_array
"""
MAP_TYPES = _MAP_TYPES.split()
"""enum bpf_map_type, by number."""

_ATTACH_TYPES = """
    cgroup_inet_ingress cgroup_inet_egress cgroup_inet_sock_create cgroup_sock_ops sk_skb_stream_parser
    sk_skb_stream_verdict cgroup_device sk_msg_verdict cgroup_inet4_bind cgroup_inet6_bind
    cgroup_inet4_connect cgroup_inet6_connect cgroup_inet4_post_bind cgroup_inet6_post_bind
    cgroup_udp4_sendmsg cgroup_udp6_sendmsg lirc_mode2 flow_dissector cgroup_sysctl cgroup_udp4_recvmsg
    cgroup_udp6_recvmsg cgroup_getsockopt cgroup_setsockopt trace_raw_tp trace_fentry trace_fexit
    modify_return lsm_mac trace_iter cgroup_inet4_getpeername cgroup_inet6_getpeername
    cgroup_inet4_getsockname cgroup_inet6_getsockname xdp_devmap cgroup_inet_sock_release xdp_cpumap
    sk_lookup xdp sk_skb_verdict sk_reuseport_select sk_reuseport_select_or_migrate perf_event
    trace_kprobe_multi lsm_cgroup struct_ops netfilter tcx_ingress tcx_egress trace_uprobe_multi
    cgroup_unix_connect cgroup_unix_sendmsg cgroup_unix_recvmsg cgroup_unix_getpeername
    cgroup_unix_getsockname netkit_primary netkit_peer trace_kprobe_session trace_uprobe_session
    trace_fsession
"""
ATTACH_TYPES = _ATTACH_TYPES.split()
"""enum bpf_attach_type, by number."""

_LINK_TYPES = """
    unspec raw_tracepoint tracing cgroup iter netns xdp perf_event kprobe_multi struct_ops netfilter tcx
    uprobe_multi netkit sockmap
"""
LINK_TYPES = _LINK_TYPES.split()
"""enum bpf_link_type, by number."""


def name_of(names: list[str], number: int) -> str:
    """The name of `number`, or the number itself where it is newer than these tables."""
    return names[number] if 0 <= number < len(names) else str(number)


PROG_TYPE_KPROBE = 2
PROG_TYPE_SCHED_CLS = 3
PROG_TYPE_XDP = 6
PROG_TYPE_RAW_TRACEPOINT = 17
PROG_TYPE_TRACING = 26
PROG_TYPE_EXT = 28
PROG_TYPE_SYSCALL = 31

MAP_TYPE_HASH = 1
MAP_TYPE_ARRAY = 2
PER_CPU_MAP_TYPES = frozenset({5, 6, 10, 21})
"""percpu_hash, percpu_array, lru_percpu_hash, percpu_cgroup_storage."""

TRACE_RAW_TP, TRACE_FENTRY = 23, 24
XDP = 37
XDP_DEVMAP, XDP_CPUMAP = 33, 35
TCX_INGRESS, TCX_EGRESS = 46, 47
NETKIT_PRIMARY, NETKIT_PEER = 54, 55

LINK_TYPE_XDP, LINK_TYPE_TCX, LINK_TYPE_NETKIT = 6, 11, 13

BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2

BPF_F_REPLACE = 1 << 2
BPF_F_BEFORE = 1 << 3
BPF_F_AFTER = 1 << 4
BPF_F_ID = 1 << 5
BPF_F_LINK = 1 << 13

BPF_F_SLEEPABLE = 1 << 4
BPF_F_XDP_HAS_FRAGS = 1 << 5
BPF_F_XDP_DEV_BOUND_ONLY = 1 << 6

BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1

XDP_FLAGS_UPDATE_IF_NOEXIST = 1 << 0
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
XDP_FLAGS_HW_MODE = 1 << 3
XDP_FLAGS_REPLACE = 1 << 4

XDP_MODE_FLAGS = {"generic": XDP_FLAGS_SKB_MODE, "native": XDP_FLAGS_DRV_MODE, "offload": XDP_FLAGS_HW_MODE}

XDP_ATTACHED = ("none", "native", "generic", "offload", "multi")
"""enum of IFLA_XDP_ATTACHED, by number."""

XDP_FEATURES = ("basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg")
"""enum netdev_xdp_act (linux/netdev.h), by bit."""

BPF_TC_INGRESS, BPF_TC_EGRESS = 1, 2
"""enum bpf_tc_attach_point (libbpf.h)."""
BPF_TC_F_REPLACE = 1

OBJ_NAME_LEN = 16
"""BPF_OBJ_NAME_LEN: names in the kernel have at most 15 characters."""
