// SPDX-License-Identifier: GPL-2.0-only
/*
 * tc_count (TC, ingress or egress): counts packets and bytes by protocol, on each CPU for itself.
 *
 * Globals
 *   verdict     -1   what to answer: -1 TC_ACT_UNSPEC (the next program or filter decides, else it passes), 0 TC_ACT_OK,
 *                    2 TC_ACT_SHOT (drop)
 * Maps
 *   protocols   packets and bytes by ARP, and IPv4 and IPv6 by TCP, UDP, ICMP (include/protocols.h)
 *
 * A packet is an skb: with GRO or GSO it stands for several frames on the wire. Works on interfaces without
 * Ethernet headers (tun, wireguard) too.
 *
 *   xdpctl attach --hook egress eth0 build/bpf/tc_count.bpf.o
 *   bpftool map dump name protocols
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "headers.h"
#include "protocols.h"

const volatile int verdict = TC_ACT_UNSPEC;

/* Read from the network header on: unlike direct access, this reaches bytes in pages and needs no Ethernet. */
static __always_inline int read(struct __sk_buff *skb, __u32 offset, void *to, __u32 size)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, size, BPF_HDR_START_NET);
}

static __always_inline __u32 ipv6_row_at(struct __sk_buff *skb, __u32 offset)
{
	struct ipv6_opt_hdr extension;
	__u8 next;

	if (read(skb, offset + __builtin_offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next)))
		return PROTOCOL_IPV6_OTHER;
	offset += sizeof(struct ipv6hdr);
#pragma unroll
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (!is_ipv6_extension(next))
			break;
		if (read(skb, offset, &extension, sizeof(extension)))
			return PROTOCOL_IPV6_OTHER;
		next = extension.nexthdr;
		offset += (extension.hdrlen + 1) * 8;
	}
	return ipv6_row(next);
}

static __always_inline __u32 row_of(struct __sk_buff *skb)
{
	__be16 type = skb->protocol;
	__u32 offset = 0;
	struct vlan_tag tag;
	__u8 transport;

	/* tags that are not in skb->vlan_tci still stand before the network header's own bytes */
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (!is_vlan(type))
			break;
		if (read(skb, offset, &tag, sizeof(tag)))
			return PROTOCOL_OTHER;
		type = tag.type;
		offset += sizeof(tag);
	}
	switch (type) {
	case bpf_htons(ETH_P_ARP):
		return PROTOCOL_ARP;
	case bpf_htons(ETH_P_IP):
		if (read(skb, offset + __builtin_offsetof(struct iphdr, protocol), &transport, sizeof(transport)))
			return PROTOCOL_IPV4_OTHER;
		return ipv4_row(transport);
	case bpf_htons(ETH_P_IPV6):
		return ipv6_row_at(skb, offset);
	default:
		return PROTOCOL_OTHER;
	}
}

SEC("tc")
int tc_count(struct __sk_buff *skb)
{
	count_packet(&protocols, row_of(skb), skb->len);
	return verdict;
}

char LICENSE[] SEC("license") = "GPL";
