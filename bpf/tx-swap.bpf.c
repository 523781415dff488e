// SPDX-License-Identifier: GPL-2.0-only
/*
 * tx-swap (XDP): sends every frame back out of the interface it came in by, with the MAC addresses swapped.
 *
 * Globals
 *   swap_ip      false   swap the IPv4 or IPv6 addresses too
 *   swap_ports   false   swap the TCP or UDP ports too: with swap_ip, a UDP echo server
 * Maps
 *   actions      packets and bytes by XDP action (include/actions.h)
 *
 * Nothing else changes and no checksum has to: a sum does not care for the order of what it adds. Frames to a
 * group address (broadcast, multicast) are passed to the stack: a group can't be a sender. So ARP and
 * neighbour discovery keep working. Ports are swapped where the IPv4 header has no options, the packet is not a later
 * fragment, and IPv6 has no extension headers. tx-swap.frags.bpf.c is the same for jumbo MTU.
 *
 *   xdpctl attach eth0 build/bpf/tx-swap.bpf.o
 *   xdpctl attach --set swap_ip=true --set swap_ports=true eth0 build/bpf/tx-swap.bpf.o
 */
#include <stdbool.h>

#include "actions.h"
#include "headers.h"
#include "xdp.h"

#define FRAGMENT_OFFSET 0x1fff

const volatile bool swap_ip = false;
const volatile bool swap_ports = false;

/* TCP and UDP both begin with source and destination port. */
struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline void exchange_ports(struct ports *ports, void *end)
{
	__be16 source;

	if ((void *)(ports + 1) > end)
		return;
	source = ports->source;
	ports->source = ports->destination;
	ports->destination = source;
}

static __always_inline void exchange_ipv4(struct iphdr *ip, void *end)
{
	if ((void *)(ip + 1) > end)
		return;
	if (swap_ip) {
		__be32 source = ip->saddr;

		ip->saddr = ip->daddr;
		ip->daddr = source;
	}
	if (swap_ports && (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP) && ip->ihl == 5 &&
	    !(ip->frag_off & bpf_htons(FRAGMENT_OFFSET)))
		exchange_ports((void *)(ip + 1), end);
}

static __always_inline void exchange_ipv6(struct ipv6hdr *ip, void *end)
{
	if ((void *)(ip + 1) > end)
		return;
	if (swap_ip) {
		struct in6_addr source = ip->saddr;

		ip->saddr = ip->daddr;
		ip->daddr = source;
	}
	if (swap_ports && (ip->nexthdr == IPPROTO_TCP || ip->nexthdr == IPPROTO_UDP))
		exchange_ports((void *)(ip + 1), end);
}

static __always_inline int reflect(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u8 source[ETH_ALEN];
	__be16 type;
	void *next;

	if ((void *)(eth + 1) > end || eth->h_dest[0] & 1)
		return XDP_PASS;
	__builtin_memcpy(source, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, source, ETH_ALEN);

	next = network_header(data, end, &type);
	if (next && type == bpf_htons(ETH_P_IP))
		exchange_ipv4(next, end);
	else if (next && type == bpf_htons(ETH_P_IPV6))
		exchange_ipv6(next, end);
	return XDP_TX;
}

SEC(XDP_SECTION)
int xdp_tx_swap(struct xdp_md *ctx)
{
	return counted(frame_length(ctx), reflect(ctx));
}

char LICENSE[] SEC("license") = "GPL";
