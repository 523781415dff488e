// SPDX-License-Identifier: GPL-2.0-only
/*
 * lab_burner (raw tracepoints): burns time while one CPU sends, so that another CPU's packet is overtaken and waits;
 * `xdpctl lab run stuck-qdisc` loads it, for one device and marked packets alone.
 *
 * Maps (mmapable, so that senders know without a system call)
 *   control   struct control: what to burn for, and whether it burns right now
 *   victims   by the low 16 bits of the mark: when and where a packet was queued and sent, and during what
 *   devices, lost   of the tracers' shared header: interfaces named by the observer, and what found no room; unused here
 *
 * Time is burnt at two places: where the owner of the qdisc hands its packet to the driver (net_dev_start_xmit, inside
 * sch_direct_xmit()), and, once a round, where it has just found the queue empty and still holds the qdisc
 * (qdisc_dequeue without a packet). The second is the very place at which a packet was forgotten before Linux 5.13.
 * Either lasts until the other's packet has come, at most patience_ns, and burn_ns longer.
 *
 * Not for attaching to an interface: xdpctl attach build/bpf/lab_burner.bpf.o is refused.
 */
#include "kernel_net.h"

#define OWNER 0x4f000000
#define VICTIM 0x56000000
#define KIND 0xff000000
#define TURNS 8000 /* of one part; 28 ns each on a machine of today */
#define PARTS 256
#define VICTIMS 1024

#define IN_XMIT 1
#define AT_EMPTY 2

struct control {
	__u64 burning; /* IN_XMIT, AT_EMPTY, or 0 */
	__u64 burn_ns;
	__u64 patience_ns;
	__u64 armed; /* burn at the next empty dequeue */
	__u64 came;  /* a victim was queued during this burn */
	__u32 ifindex;
	__u32 unused;
};

struct victim {
	__u64 queued_ns;
	__u64 started_ns;
	__u32 queue_cpu;
	__u32 start_cpu;
	__u64 during; /* what the other CPU burnt for when it was queued: IN_XMIT, AT_EMPTY, or 0 */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, VICTIMS);
	__type(key, __u32);
	__type(value, struct victim);
} victims SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff___marked {
	__u32 mark;
};
#pragma clang attribute pop

static __always_inline struct control *ours(const struct net_device *dev)
{
	__u32 zero = 0;
	struct control *found = bpf_map_lookup_elem(&control, &zero);

	return found && found->ifindex == (__u32)BPF_CORE_READ(dev, ifindex) ? found : NULL;
}

static __always_inline __u32 mark_of(const struct sk_buff *skb)
{
	return BPF_CORE_READ((struct sk_buff___marked *)skb, mark);
}

/* Functions of their own, so that the verifier walks a loop once and not once a part; bpf_loop() needs Linux 5.17. */
__attribute__((noinline)) int burn_part(__u64 until)
{
	for (int turn = 0; turn < TURNS; turn++)
		if (bpf_ktime_get_ns() >= until)
			return 1;
	return 0;
}

__attribute__((noinline)) int await_part(__u64 until)
{
	__u32 zero = 0;
	struct control *found = bpf_map_lookup_elem(&control, &zero);

	if (!found)
		return 1;
	for (int turn = 0; turn < TURNS; turn++)
		if (*(volatile __u64 *)&found->came || bpf_ktime_get_ns() >= until)
			return 1;
	return 0;
}

static __always_inline void burn(struct control *found, __u64 where)
{
	__u64 until = bpf_ktime_get_ns() + found->patience_ns;

	*(volatile __u64 *)&found->came = 0;
	*(volatile __u64 *)&found->burning = where;
	for (int part = 0; part < PARTS; part++)
		if (await_part(until))
			break;
	until = bpf_ktime_get_ns() + found->burn_ns;
	for (int part = 0; part < PARTS; part++)
		if (burn_part(until))
			break;
	*(volatile __u64 *)&found->burning = 0;
}

SEC("raw_tp/net_dev_queue")
int queued(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sk_buff *skb = (const void *)ctx->args[0];
	__u32 mark = mark_of(skb), number = mark & 0xffff;
	struct control *found;
	struct victim *victim;

	if ((mark & KIND) != VICTIM)
		return 0;
	found = ours(BPF_CORE_READ(skb, dev));
	if (!found)
		return 0;
	victim = bpf_map_lookup_elem(&victims, &number);
	if (victim) {
		victim->queue_cpu = bpf_get_smp_processor_id();
		victim->during = *(volatile __u64 *)&found->burning;
		victim->queued_ns = bpf_ktime_get_ns();
		if (victim->during)
			*(volatile __u64 *)&found->came = 1;
	}
	return 0;
}

SEC("raw_tp/net_dev_start_xmit")
int start_xmit(struct bpf_raw_tracepoint_args *ctx)
{
	const struct sk_buff *skb = (const void *)ctx->args[0];
	struct control *found = ours((const void *)ctx->args[1]);
	__u32 mark, number;
	struct victim *victim;

	if (!found)
		return 0;
	mark = mark_of(skb);
	number = mark & 0xffff;
	if ((mark & KIND) == OWNER) {
		burn(found, IN_XMIT);
		return 0;
	}
	if ((mark & KIND) != VICTIM)
		return 0;
	victim = bpf_map_lookup_elem(&victims, &number);
	if (victim) {
		victim->start_cpu = bpf_get_smp_processor_id();
		victim->started_ns = bpf_ktime_get_ns();
	}
	return 0;
}

SEC("raw_tp/qdisc_dequeue")
int found_empty(struct bpf_raw_tracepoint_args *ctx)
{
	const struct netdev_queue *txq = (const void *)ctx->args[1];
	struct control *found;

	if (ctx->args[3]) /* a packet */
		return 0;
	found = ours(BPF_CORE_READ(txq, dev));
	if (!found || !found->armed)
		return 0;
	found->armed = 0;
	burn(found, AT_EMPTY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
