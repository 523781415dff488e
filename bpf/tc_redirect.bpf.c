// SPDX-License-Identifier: GPL-2.0-only
/*
 * tc_redirect (TC, ingress or egress): sends every packet out of, or in by, one other interface.
 *
 * Globals
 *   target_ifindex   0       interface to send to; an ifindex, or a name that xdpctl looks up
 *   to_ingress       false   let it arrive at the target instead of leaving by it
 * Maps
 *   redirected       packets and bytes, one row (include/counters.h)
 *
 * Unlike an XDP redirect this needs nothing of the target's driver. Without such an interface (0 is none) the
 * kernel drops each packet. MAC addresses stay as they are.
 *
 *   xdpctl attach --hook ingress --set target_ifindex=veth1 eth0 build/bpf/tc_redirect.bpf.o
 */
#include <stdbool.h>
#include <linux/bpf.h>

#include "counters.h"

const volatile __u32 target_ifindex = 0;
const volatile bool to_ingress = false;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} redirected SEC(".maps");

SEC("tc")
int tc_redirect(struct __sk_buff *skb)
{
	count_packet(&redirected, 0, skb->len);
	return bpf_redirect(target_ifindex, to_ingress ? BPF_F_INGRESS : 0);
}

char LICENSE[] SEC("license") = "GPL";
