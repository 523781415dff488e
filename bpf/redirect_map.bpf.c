// SPDX-License-Identifier: GPL-2.0-only
/*
 * redirect_map (XDP): sends every frame out of the interface that a slot of a devmap names.
 *
 * As redirect, but the target can be changed while it runs, and the kernel sends in bulk.
 *
 * Globals
 *   slot       0             which slot of tx_ports
 *   if_empty   XDP_ABORTED   what to answer while the slot is empty (0 ABORTED, 1 DROP, 2 PASS, 3 TX)
 * Maps
 *   tx_ports   devmap, 64 slots: slot -> ifindex; empty at the start
 *   actions    packets and bytes by XDP action (include/actions.h)
 *
 * redirect_map.frags.bpf.c is the same for jumbo MTU.
 *
 *   xdpctl attach eth0 build/bpf/redirect_map.bpf.o
 *   bpftool map update name tx_ports key 0 0 0 0 value 7 0 0 0
 */
#include "actions.h"
#include "xdp.h"

const volatile __u32 slot = 0;
const volatile enum xdp_action if_empty = XDP_ABORTED;

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} tx_ports SEC(".maps");

SEC(XDP_SECTION)
int xdp_redir_map(struct xdp_md *ctx)
{
	return counted(frame_length(ctx), bpf_redirect_map(&tx_ports, slot, if_empty));
}

char LICENSE[] SEC("license") = "GPL";
