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

/* A place in the packet: unlike direct access, reading there reaches bytes in pages and needs no Ethernet header. */
struct place {
	__u32 from; /* BPF_HDR_START_MAC or _NET */
	__u32 offset;
};

static __always_inline int read(struct __sk_buff *skb, struct place at, __u32 more, void *to, __u32 size)
{
	return bpf_skb_load_bytes_relative(skb, at.offset + more, to, size, at.from);
}

static __always_inline __u32 ipv6_row_at(struct __sk_buff *skb, struct place at)
{
	struct ipv6_opt_hdr extension;
	__u8 next;

	if (read(skb, at, __builtin_offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next)))
		return PROTOCOL_IPV6_OTHER;
	at.offset += sizeof(struct ipv6hdr);
#pragma unroll
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (!is_ipv6_extension(next))
			break;
		if (read(skb, at, 0, &extension, sizeof(extension)))
			return PROTOCOL_IPV6_OTHER;
		next = extension.nexthdr;
		at.offset += (extension.hdrlen + 1) * 8;
	}
	return ipv6_row(next);
}

static __always_inline __u32 row_of(struct __sk_buff *skb)
{
	struct place at = { .from = BPF_HDR_START_NET };
	__be16 type = skb->protocol;
	struct vlan_tag tag;
	__u8 transport;

	/* the network header may point to a tag (received) or behind it (sent): walk from the Ethernet header */
	if (is_vlan(type)) {
		at.from = BPF_HDR_START_MAC;
		at.offset = sizeof(struct ethhdr);
	}
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (!is_vlan(type))
			break;
		if (read(skb, at, 0, &tag, sizeof(tag)))
			return PROTOCOL_OTHER;
		type = tag.type;
		at.offset += sizeof(tag);
	}
	switch (type) {
	case bpf_htons(ETH_P_ARP):
		return PROTOCOL_ARP;
	case bpf_htons(ETH_P_IP):
		if (read(skb, at, __builtin_offsetof(struct iphdr, protocol), &transport, sizeof(transport)))
			return PROTOCOL_IPV4_OTHER;
		return ipv4_row(transport);
	case bpf_htons(ETH_P_IPV6):
		return ipv6_row_at(skb, at);
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
