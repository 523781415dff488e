// SPDX-License-Identifier: GPL-2.0-only
/*
 * blocklist (XDP): drops frames from (or to) listed IPv4 and IPv6 prefixes, counting each prefix's hits.
 *
 * Globals
 *   match_source        true    look up the source address
 *   match_destination   false   look up the destination address, if the source did not match
 * Maps
 *   blocked4   lpm_trie of struct ipv4_prefix {length, address} -> struct counter; longest prefix wins
 *   blocked6   lpm_trie of struct ipv6_prefix {length, address} -> struct counter; longest prefix wins
 *   actions    packets and bytes by XDP action (include/actions.h)
 *
 * A prefix is put in with a counter of zeros; lists can be changed while it runs. Addresses stand in network order.
 * Behind VLAN tags too; everything that is not IP passes. The hit counters are one for all CPUs (atomic adds).
 * blocklist.frags.bpf.c is the same for jumbo MTU.
 *
 *   xdpctl attach eth0 build/bpf/blocklist.bpf.o
 *   bpftool map update name blocked4 key 24 0 0 0 192 0 2 0 value 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
 */
#include <stdbool.h>

#include "actions.h"
#include "headers.h"
#include "xdp.h"

/* struct bpf_lpm_trie_key with a typed address: length in bits, 0 to 32 or 128. */
struct ipv4_prefix {
	__u32 length;
	struct in_addr address;
};

struct ipv6_prefix {
	__u32 length;
	struct in6_addr address;
};

const volatile bool match_source = true;
const volatile bool match_destination = false;

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipv4_prefix);
	__type(value, struct counter);
} blocked4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipv6_prefix);
	__type(value, struct counter);
} blocked6 SEC(".maps");

static __always_inline bool listed4(__be32 address, __u64 bytes)
{
	struct ipv4_prefix prefix = { .length = 32, .address.s_addr = address };
	struct counter *hits = bpf_map_lookup_elem(&blocked4, &prefix);

	if (!hits)
		return false;
	__sync_fetch_and_add(&hits->packets, 1);
	__sync_fetch_and_add(&hits->bytes, bytes);
	return true;
}

static __always_inline bool listed6(struct in6_addr *address, __u64 bytes)
{
	struct ipv6_prefix prefix = { .length = 128, .address = *address };
	struct counter *hits = bpf_map_lookup_elem(&blocked6, &prefix);

	if (!hits)
		return false;
	__sync_fetch_and_add(&hits->packets, 1);
	__sync_fetch_and_add(&hits->bytes, bytes);
	return true;
}

static __always_inline bool listed(struct xdp_md *ctx, __u64 bytes)
{
	void *end = (void *)(long)ctx->data_end;
	__be16 type;
	void *next = network_header((void *)(long)ctx->data, end, &type);

	if (!next)
		return false;
	if (type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = next;

		if ((void *)(ip + 1) > end)
			return false;
		return (match_source && listed4(ip->saddr, bytes)) || (match_destination && listed4(ip->daddr, bytes));
	}
	if (type == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = next;

		if ((void *)(ip + 1) > end)
			return false;
		return (match_source && listed6(&ip->saddr, bytes)) || (match_destination && listed6(&ip->daddr, bytes));
	}
	return false;
}

SEC(XDP_SECTION)
int xdp_blocklist(struct xdp_md *ctx)
{
	__u64 bytes = frame_length(ctx);

	return counted(bytes, listed(ctx, bytes) ? XDP_DROP : XDP_PASS);
}

char LICENSE[] SEC("license") = "GPL";
