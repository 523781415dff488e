/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Map `protocols`: what passed by.
 *
 * percpu_array of 10 `struct counter`, the key is enum protocol. A row of IPv4 or IPv6 is its first transport
 * header (IPv6: behind at most four extension headers); *_OTHER is any other transport, or a header cut short.
 */
#ifndef XDPCTL_PROTOCOLS_H
#define XDPCTL_PROTOCOLS_H

#include "counters.h"
#include "headers.h"

enum protocol {
	PROTOCOL_OTHER = 0,
	PROTOCOL_ARP = 1,
	PROTOCOL_IPV4_OTHER = 2,
	PROTOCOL_IPV4_TCP = 3,
	PROTOCOL_IPV4_UDP = 4,
	PROTOCOL_IPV4_ICMP = 5,
	PROTOCOL_IPV6_OTHER = 6,
	PROTOCOL_IPV6_TCP = 7,
	PROTOCOL_IPV6_UDP = 8,
	PROTOCOL_IPV6_ICMP = 9,
	PROTOCOLS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__type(key, __u32);
	__type(value, struct counter);
} protocols SEC(".maps");

/* The row of an IPv4 packet with this transport. */
static __always_inline __u32 ipv4_row(__u8 transport)
{
	switch (transport) {
	case IPPROTO_TCP:
		return PROTOCOL_IPV4_TCP;
	case IPPROTO_UDP:
		return PROTOCOL_IPV4_UDP;
	case IPPROTO_ICMP:
		return PROTOCOL_IPV4_ICMP;
	default:
		return PROTOCOL_IPV4_OTHER;
	}
}

/* The row of an IPv6 packet with this transport. */
static __always_inline __u32 ipv6_row(__u8 transport)
{
	switch (transport) {
	case IPPROTO_TCP:
		return PROTOCOL_IPV6_TCP;
	case IPPROTO_UDP:
		return PROTOCOL_IPV6_UDP;
	case IPPROTO_ICMPV6:
		return PROTOCOL_IPV6_ICMP;
	default:
		return PROTOCOL_IPV6_OTHER;
	}
}

#endif
