/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one shape that every counter in bpf/ has.
 *
 * All tables of counters are maps whose value is `struct counter`: packets first, bytes second, both unsigned
 * 64 bit in host order. In a per-CPU map the value repeats once a possible CPU; the sum over them is the figure.
 *
 *   actions     percpu_array[5]    by enum xdp_action                   actions.h
 *   protocols   percpu_array[10]   by enum protocol                     protocols.h
 *   blocked4/6  lpm_trie           by prefix, one value for all CPUs    blocklist.bpf.c
 *   marked      percpu_array[1]    one row, key 0                       tc_mark.bpf.c
 *   redirected  percpu_array[1]    one row, key 0                       tc_redirect.bpf.c
 *
 * A packet is what the hook sees: at XDP one frame, at TC one skb (with GRO or GSO: several frames on the wire).
 * Bytes include the Ethernet header and leave the FCS out, as interface statistics do.
 */
#ifndef XDPCTL_COUNTERS_H
#define XDPCTL_COUNTERS_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* One more packet in a per-CPU table: no atomics, a hook does not interrupt itself on one CPU. */
static __always_inline void count_packet(void *table, __u32 key, __u64 bytes)
{
	struct counter *counter = bpf_map_lookup_elem(table, &key);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

#endif
