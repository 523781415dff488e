// SPDX-License-Identifier: GPL-2.0-only
/*
 * drop (XDP): drops every frame, and counts nothing: the cheapest thing a driver can be asked to do.
 *
 * It also drops what you are logged in by. drop.frags.bpf.c is the same for jumbo MTU.
 *
 * Globals: none. Maps: none.
 *
 *   xdpctl attach eth1 build/bpf/drop.bpf.o
 */
#include "xdp.h"

SEC(XDP_SECTION)
int xdp_drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
