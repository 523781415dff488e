// SPDX-License-Identifier: GPL-2.0-only
/*
 * tc_mark (TC, ingress or egress): sets the mark of every packet, for `ip rule fwmark`, nftables or another program.
 *
 * Globals
 *   mark     0            the bits to set
 *   mask     0xffffffff   which bits of the old mark to replace
 * Maps
 *   marked   packets and bytes, one row (include/counters.h)
 *
 * It answers TC_ACT_UNSPEC: the next program or filter decides, else the packet passes.
 *
 *   xdpctl attach --hook ingress --set mark=0x10 --set mask=0xf0 eth0 build/bpf/tc_mark.bpf.o
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "counters.h"

const volatile __u32 mark = 0;
const volatile __u32 mask = 0xffffffff;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} marked SEC(".maps");

SEC("tc")
int tc_mark(struct __sk_buff *skb)
{
	skb->mark = (skb->mark & ~mask) | (mark & mask);
	count_packet(&marked, 0, skb->len);
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
