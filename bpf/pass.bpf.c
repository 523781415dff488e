// SPDX-License-Identifier: GPL-2.0-only
/*
 * pass (XDP): hands every frame to the stack.
 *
 * For an interface that must run some program: the far end of a veth that is a redirect's target, or a NIC whose
 * driver takes redirected frames only while a program is attached. pass.frags.bpf.c is the same for jumbo MTU.
 *
 * Globals: none. Maps: none.
 *
 *   xdpctl attach eth0 build/bpf/pass.bpf.o
 */
#include "xdp.h"

SEC(XDP_SECTION)
int xdp_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
