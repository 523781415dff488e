/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Map `actions`: what an XDP program answered.
 *
 * percpu_array of 5 `struct counter`, the key is enum xdp_action: 0 ABORTED, 1 DROP, 2 PASS, 3 TX, 4 REDIRECT.
 * It counts verdicts. A redirect that fails later (no such interface, a target that takes none) stays counted
 * as REDIRECT: that loss shows in the tracepoint xdp:xdp_redirect_err or xdp:xdp_devmap_xmit alone.
 */
#ifndef XDPCTL_ACTIONS_H
#define XDPCTL_ACTIONS_H

#include "counters.h"
#include "xdp.h"

#define XDP_ACTIONS (XDP_REDIRECT + 1)

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XDP_ACTIONS);
	__type(key, __u32);
	__type(value, struct counter);
} actions SEC(".maps");

/* Count the frame under `action` and hand the action on; one that the kernel does not know becomes XDP_ABORTED. */
static __always_inline int counted(__u64 bytes, __u32 action)
{
	if (action >= XDP_ACTIONS)
		action = XDP_ABORTED;
	count_packet(&actions, action, bytes);
	return action;
}

#endif
