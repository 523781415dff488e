/* SPDX-License-Identifier: GPL-2.0-only */
/* Walking Ethernet, VLAN and IP headers within bounds that the verifier of Linux 5.10 follows. */
#ifndef XDPCTL_HEADERS_H
#define XDPCTL_HEADERS_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 4

/* What follows a tag's own ethertype (IEEE 802.1Q): tag control information, then the next ethertype. */
struct vlan_tag {
	__be16 tci;
	__be16 type;
};

static __always_inline int is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* IPv6 headers that stand before the transport and share the layout "next header, length in 8 bytes - 1". */
static __always_inline int is_ipv6_extension(__u8 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_DSTOPTS;
}

/*
 * The header behind Ethernet and its VLAN tags, and its ethertype (network order) in *type.
 * A null pointer when the buffer ends before. Tags that the NIC took off are not there to be seen.
 */
static __always_inline void *network_header(void *data, void *end, __be16 *type)
{
	struct ethhdr *eth = data;
	void *next = eth + 1;

	if (next > end)
		return 0;
	*type = eth->h_proto;
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_tag *tag = next;

		if (!is_vlan(*type))
			break;
		next = tag + 1;
		if (next > end)
			return 0;
		*type = tag->type;
	}
	return next;
}

#endif
