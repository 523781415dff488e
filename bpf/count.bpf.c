// SPDX-License-Identifier: GPL-2.0-only
/*
 * count (XDP): counts packets and bytes by what it answers and by protocol, on each CPU for itself.
 *
 * Globals
 *   verdict     XDP_PASS   what to answer to every frame (0 ABORTED, 1 DROP, 2 PASS, 3 TX)
 * Maps
 *   actions     packets and bytes by XDP action (include/actions.h)
 *   protocols   packets and bytes by ARP, and IPv4 and IPv6 by TCP, UDP, ICMP (include/protocols.h)
 *
 * count.frags.bpf.c is the same for jumbo MTU, and counts the bytes of all fragments.
 *
 *   xdpctl attach eth0 build/bpf/count.bpf.o
 *   xdpctl attach --set verdict=XDP_DROP eth1 build/bpf/count.bpf.o
 *   bpftool map dump name actions
 */
#include "actions.h"
#include "headers.h"
#include "protocols.h"
#include "xdp.h"

const volatile enum xdp_action verdict = XDP_PASS;

/* The transport behind an IPv6 header and its extension headers; IPPROTO_NONE when the buffer ends before. */
static __always_inline __u8 ipv6_transport(struct ipv6hdr *ip, void *end)
{
	struct ipv6_opt_hdr *extension = (void *)(ip + 1);
	__u8 next = ip->nexthdr;

#pragma unroll
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (!is_ipv6_extension(next))
			break;
		if ((void *)(extension + 1) > end)
			return IPPROTO_NONE;
		next = extension->nexthdr;
		extension = (void *)extension + (extension->hdrlen + 1) * 8;
	}
	return next;
}

static __always_inline __u32 row_of(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	__be16 type;
	void *next = network_header((void *)(long)ctx->data, end, &type);

	if (!next)
		return PROTOCOL_OTHER;
	switch (type) {
	case bpf_htons(ETH_P_ARP):
		return PROTOCOL_ARP;
	case bpf_htons(ETH_P_IP):
		if (next + sizeof(struct iphdr) > end)
			return PROTOCOL_IPV4_OTHER;
		return ipv4_row(((struct iphdr *)next)->protocol);
	case bpf_htons(ETH_P_IPV6):
		if (next + sizeof(struct ipv6hdr) > end)
			return PROTOCOL_IPV6_OTHER;
		return ipv6_row(ipv6_transport(next, end));
	default:
		return PROTOCOL_OTHER;
	}
}

SEC(XDP_SECTION)
int xdp_count(struct xdp_md *ctx)
{
	__u64 bytes = frame_length(ctx);

	count_packet(&protocols, row_of(ctx), bytes);
	return counted(bytes, verdict);
}

char LICENSE[] SEC("license") = "GPL";
