// SPDX-License-Identifier: GPL-2.0-only
/*
 * redirect (XDP): sends every frame out of one other interface, unchanged.
 *
 * Globals
 *   target_ifindex   0   interface to send to; an ifindex, or a name that xdpctl looks up
 * Maps
 *   actions          packets and bytes by XDP action (include/actions.h)
 *
 * The kernel drops each frame without a word when there is no such interface (0 is none), or the target takes no
 * redirected frames (a veth needs a program or GRO on its peer): `xdpctl doctor` tells before. The frame keeps
 * its MAC addresses, so an IP stack behind the target only takes it if it listens to them.
 * redirect.frags.bpf.c is the same for jumbo MTU.
 *
 *   xdpctl attach --set target_ifindex=veth1 eth0 build/bpf/redirect.bpf.o
 */
#include "actions.h"
#include "xdp.h"

const volatile __u32 target_ifindex = 0;

SEC(XDP_SECTION)
int xdp_redirect(struct xdp_md *ctx)
{
	return counted(frame_length(ctx), bpf_redirect(target_ifindex, 0));
}

char LICENSE[] SEC("license") = "GPL";
