// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_qdisc (tracepoints): how long packets stay between net_dev_queue and net_dev_start_xmit, by device and tx
 * queue, and who sends them in the end. Reads only; `xdpctl trace qdisc` loads it.
 *
 * Globals
 *   only_wanted   false   count the devices in `wanted` alone
 * Maps
 *   wanted      devices to count: struct device_key -> anything
 *   packets     address of an skb -> when and where it was queued
 *   residence   struct queue_key -> struct residence
 *   blank       a residence of zeros
 *   gone        row 0: packets dropped before they were sent, 1: taken apart (GSO) or given up otherwise
 *   in_net_tx   whether this CPU is in net_tx_action()
 *   looked      what `look` saw of the queue it was run for
 *   devices     names of the devices (include/kernel_net.h)
 *   lost        row 0: packets that found `packets` full, 1: `residence` full (include/kernel_net.h)
 *
 * An entry of `packets` ends with the skb, sent or freed: an address is used again at once.
 *
 * Not for attaching to an interface: xdpctl attach build/bpf/trace_qdisc.bpf.o is refused.
 */
#include "kernel_net.h"

const volatile bool only_wanted = false;

#define NET_TX_SOFTIRQ 2

/* 8 buckets a power of two: a bucket is at most an eighth of its value wide. */
#define SUB_BITS 3
#define SUB (1 << SUB_BITS)
#define LAST_POWER 40 /* 2^40 ns are 18 minutes */
#define BUCKETS ((LAST_POWER - SUB_BITS + 2) * SUB)
#define BUCKET_ROOM 512 /* the next power of two, so that a mask bounds the index */

struct queued {
	__u64 at;
	__u32 cpu;
	__u32 netns;
	__u32 ifindex;
	__u32 queue;
};

struct queue_key {
	__u32 netns;
	__u32 ifindex;
	__u32 queue;
	__u32 other_cpu; /* 1: another CPU sent it than had queued it */
};

struct residence {
	__u64 packets;
	__u64 total_ns;
	__u64 most_ns;
	__u64 by_softirq; /* sent by net_tx_action() */
	__u64 bucket[BUCKET_ROOM];
};

struct look {
	__u32 found;
	__u32 flags; /* TCQ_F_* */
	__u64 state; /* __QDISC_STATE_* bits */
	__u64 queue_state; /* __QUEUE_STATE_* bits */
	__u32 qlen; /* of a lockless one: what the per-CPU counters do not hold */
	__u32 limit;
	__u32 handle;
	__u32 tx_queues;
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct device_key);
	__type(value, __u32);
} wanted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct queued);
} packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct queue_key);
	__type(value, struct residence);
} residence SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct residence);
} blank SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} gone SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} in_net_tx SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct look);
} looked SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct nsproxy {
	struct net *net_ns;
};

struct task_struct {
	struct nsproxy *nsproxy;
};

#pragma clang attribute pop

SEC("tp_btf/net_dev_queue")
int BPF_PROG(queue, struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct device_key key = { netns_of(dev), dev->ifindex };
	__u64 address = (__u64)skb;
	struct queued now;

	if (only_wanted && !bpf_map_lookup_elem(&wanted, &key))
		return 0;
	now.at = bpf_ktime_get_ns();
	now.cpu = bpf_get_smp_processor_id();
	now.netns = key.netns;
	now.ifindex = key.ifindex;
	now.queue = skb->queue_mapping;
	if (bpf_map_update_elem(&packets, &address, &now, BPF_ANY))
		count_lost(0);
	return 0;
}

static __always_inline __u32 log2_of(__u64 value)
{
	__u32 power = 0;

	if (value >> 32) {
		power += 32;
		value >>= 32;
	}
	if (value >> 16) {
		power += 16;
		value >>= 16;
	}
	if (value >> 8) {
		power += 8;
		value >>= 8;
	}
	if (value >> 4) {
		power += 4;
		value >>= 4;
	}
	if (value >> 2) {
		power += 2;
		value >>= 2;
	}
	return power + (value >> 1);
}

static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 power;

	if (ns < SUB)
		return ns;
	power = log2_of(ns);
	if (power > LAST_POWER)
		return BUCKETS - 1;
	return (power - SUB_BITS + 1) * SUB + ((ns >> (power - SUB_BITS)) & (SUB - 1));
}

SEC("tp_btf/net_dev_start_xmit")
int BPF_PROG(start_xmit, const struct sk_buff *skb, const struct net_device *dev)
{
	__u64 address = (__u64)skb, ns;
	struct queued *queued = bpf_map_lookup_elem(&packets, &address);
	__u32 zero = 0, *softirq, bucket;
	struct residence *row, *empty;
	struct queue_key key;

	if (!queued)
		return 0;
	ns = bpf_ktime_get_ns() - queued->at;
	key.netns = queued->netns;
	key.ifindex = queued->ifindex;
	key.queue = queued->queue;
	key.other_cpu = queued->cpu != bpf_get_smp_processor_id();
	bpf_map_delete_elem(&packets, &address);
	row = bpf_map_lookup_elem(&residence, &key);
	if (!row) {
		empty = bpf_map_lookup_elem(&blank, &zero);
		if (!empty)
			return 0;
		bpf_map_update_elem(&residence, &key, empty, BPF_NOEXIST); /* another CPU may have been first */
		remember(dev, key.netns);
		row = bpf_map_lookup_elem(&residence, &key);
		if (!row) {
			count_lost(1);
			return 0;
		}
	}
	__sync_fetch_and_add(&row->packets, 1);
	__sync_fetch_and_add(&row->total_ns, ns);
	if (ns > row->most_ns)
		row->most_ns = ns;
	bucket = bucket_of(ns);
	bucket = BOUNDED(bucket, BUCKET_ROOM - 1);
	__sync_fetch_and_add(&row->bucket[bucket], 1);
	softirq = bpf_map_lookup_elem(&in_net_tx, &zero);
	if (softirq && *softirq)
		__sync_fetch_and_add(&row->by_softirq, 1);
	return 0;
}

static __always_inline void ended(const struct sk_buff *skb, __u32 how)
{
	__u64 address = (__u64)skb, *count;

	if (bpf_map_delete_elem(&packets, &address))
		return;
	count = bpf_map_lookup_elem(&gone, &how);
	if (count)
		(*count)++;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(freed, struct sk_buff *skb)
{
	ended(skb, 0);
	return 0;
}

SEC("tp_btf/consume_skb")
int BPF_PROG(consumed, struct sk_buff *skb)
{
	ended(skb, 1);
	return 0;
}

static __always_inline int net_tx(__u32 vector, __u32 inside)
{
	__u32 zero = 0, *flag;

	if (vector != NET_TX_SOFTIRQ)
		return 0;
	flag = bpf_map_lookup_elem(&in_net_tx, &zero);
	if (flag)
		*flag = inside;
	return 0;
}

SEC("tp_btf/softirq_entry")
int BPF_PROG(softirq_entry, __u32 vector)
{
	return net_tx(vector, 1);
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(softirq_exit, __u32 vector)
{
	return net_tx(vector, 0);
}

/* Run by user space (BPF_PROG_TEST_RUN) with an ifindex and a tx queue: the live qdisc behind it, into `looked`. */
SEC("raw_tp")
int look(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 ifindex = ctx->args[0], index = ctx->args[1], zero = 0;
	struct look *look = bpf_map_lookup_elem(&looked, &zero);
	struct task_struct *task = (void *)bpf_get_current_task();
	struct net_device *dev = device_in(BPF_CORE_READ(task, nsproxy, net_ns), ifindex);
	struct netdev_queue *queue;
	struct Qdisc *qdisc;

	if (!look)
		return 0;
	__builtin_memset(look, 0, sizeof(*look));
	if (!dev)
		return 0;
	look->tx_queues = BPF_CORE_READ(dev, real_num_tx_queues);
	if (index >= BPF_CORE_READ(dev, num_tx_queues))
		return 0;
	queue = (void *)BPF_CORE_READ(dev, _tx) + index * bpf_core_type_size(struct netdev_queue);
	qdisc = BPF_CORE_READ(queue, qdisc);
	look->queue_state = BPF_CORE_READ(queue, state);
	look->flags = BPF_CORE_READ(qdisc, flags);
	look->state = BPF_CORE_READ(qdisc, state);
	look->qlen = BPF_CORE_READ(qdisc, q.qlen);
	look->limit = BPF_CORE_READ(qdisc, limit);
	look->handle = BPF_CORE_READ(qdisc, handle);
	bpf_probe_read_kernel_str(look->name, sizeof(look->name),
				  (void *)BPF_CORE_READ(qdisc, ops) + bpf_core_field_offset(struct Qdisc_ops, id));
	look->found = qdisc != 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
