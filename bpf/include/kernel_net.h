/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tracers read of the kernel's networking structs: only the members they need.
 *
 * Each access is relocated when the object is loaded (CO-RE), so offsets and sizes here mean nothing, and a member
 * that a kernel lacks must be asked for with bpf_core_field_exists(). The types of veth, tun, tap and macvtap are
 * described by their modules' BTF: on kernels before 5.11, and while the module is not loaded, they are not there.
 */
#ifndef XDPCTL_KERNEL_NET_H
#define XDPCTL_KERNEL_NET_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#define DEVICE_NAME 16 /* IFNAMSIZ */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum; /* what /proc/PID/ns/net shows */
};

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct net {
	struct ns_common ns;
	struct hlist_head *dev_index_head;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct bpf_prog_aux {
	__u32 id;
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_link {
	struct bpf_prog *prog;
};

struct bpf_xdp_link {
	struct bpf_link link;
};

struct bpf_xdp_entity {
	struct bpf_prog *prog;
	struct bpf_xdp_link *link;
};

struct bpf_map {
	enum bpf_map_type map_type;
	__u32 id;
};

struct rtnl_link_ops {
	const char *kind;
};

struct netdev_queue;

struct net_device {
	int ifindex;
	char name[DEVICE_NAME];
	possible_net_t nd_net;
	const struct rtnl_link_ops *rtnl_link_ops;
	unsigned int real_num_rx_queues;
	unsigned int real_num_tx_queues;
	struct netdev_queue *_tx;
	unsigned int num_tx_queues;
	struct hlist_node index_hlist;
	struct bpf_prog *xdp_prog; /* generic mode's */
	struct bpf_xdp_entity xdp_state[3];
	__u8 priv[0]; /* Linux 6.12 */
};

/* linux/netdevice.h, enum bpf_xdp_mode */
#define XDP_MODE_SKB 0
#define XDP_MODE_DRV 1

struct sock_common {
	possible_net_t skc_net;
};

struct sock {
	struct sock_common __sk_common;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned int len;
	__u16 queue_mapping;
	__u32 priority;
	__u32 hash;
	int skb_iif;
};

struct ptr_ring {
	int producer;
	int consumer_head;
	int consumer_tail;
	int size;
	int batch;
	void **queue;
};

struct qdisc_skb_head {
	__u32 qlen;
};

struct Qdisc_ops {
	char id[16];
};

struct gnet_stats_queue {
	__u32 qlen;
};

struct Qdisc {
	unsigned int flags;
	__u32 limit;
	const struct Qdisc_ops *ops;
	__u32 handle;
	__u32 parent;
	struct netdev_queue *dev_queue;
	struct gnet_stats_queue *cpu_qstats; /* __percpu */
	struct qdisc_skb_head q;
	unsigned long state;
	long privdata[0];
};

struct netdev_queue {
	struct net_device *dev;
	struct Qdisc *qdisc;
	unsigned long state;
};

#pragma clang attribute pop

/*
 * Argument `number` of a tp_btf program. Kernels before 6.13 or so refuse a plain access where the tracepoint's type is
 * const void *, so it is read as memory.
 */
static __always_inline const void *untyped_argument(unsigned long long *ctx, int number)
{
	const void *argument = 0;

	bpf_probe_read_kernel(&argument, sizeof(argument), ctx + number);
	return argument;
}

/* A value that clang may not know the bounds of: else it takes out the mask that Linux 5.10's verifier needs to see. */
#define BOUNDED(value, mask)      \
	({                         \
		barrier_var(value); \
		(value) & (mask);   \
	})

/* Inode of the device's network namespace. Arguments of tp_btf programs and what they point to can be read directly. */
static __always_inline __u32 netns_of(const struct net_device *dev)
{
	return dev->nd_net.net->ns.inum;
}

/* The same for a pointer that the verifier knows nothing of. */
static __always_inline __u32 read_netns(const struct net_device *dev)
{
	return BPF_CORE_READ(dev, nd_net.net, ns.inum);
}

/* Id of the program that runs natively on the device, 0 for none. */
static __always_inline __u32 native_program(const struct net_device *dev)
{
	struct bpf_xdp_link *link = dev->xdp_state[XDP_MODE_DRV].link;
	struct bpf_prog *prog = link ? link->link.prog : dev->xdp_state[XDP_MODE_DRV].prog;

	return prog ? prog->aux->id : 0;
}

/*
 * Map `devices`: names of the devices that figures are about, by namespace and ifindex. Kept where it happened, since
 * a device may be gone, or in a namespace out of reach, when somebody asks.
 */
struct device_key {
	__u32 netns;
	__u32 ifindex;
};

struct device {
	char name[DEVICE_NAME];
	char kind[DEVICE_NAME]; /* rtnl's, empty for hardware */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct device_key);
	__type(value, struct device);
} devices SEC(".maps");

static __always_inline void remember(const struct net_device *dev, __u32 netns)
{
	struct device_key key = { .netns = netns };
	struct device one = {};
	const char *kind;

	if (!dev)
		return;
	key.ifindex = BPF_CORE_READ(dev, ifindex);
	bpf_probe_read_kernel_str(one.name, sizeof(one.name), (const void *)dev + bpf_core_field_offset(dev->name));
	kind = BPF_CORE_READ(dev, rtnl_link_ops, kind);
	if (kind)
		bpf_probe_read_kernel_str(one.kind, sizeof(one.kind), kind);
	bpf_map_update_elem(&devices, &key, &one, BPF_ANY);
}

#define INDEX_BUCKETS 256 /* NETDEV_HASHENTRIES */
#define INDEX_CHAIN 256

/* The device with this ifindex in a network namespace. */
static __always_inline struct net_device *device_in(const struct net *net, __u32 ifindex)
{
	struct hlist_head *heads = BPF_CORE_READ(net, dev_index_head);
	struct hlist_node *node = 0;

	bpf_probe_read_kernel(&node, sizeof(node), (void *)heads + (ifindex & (INDEX_BUCKETS - 1)) * sizeof(void *));
	for (int i = 0; i < INDEX_CHAIN && node; i++) {
		struct net_device *dev = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (BPF_CORE_READ(dev, ifindex) == ifindex)
			return dev;
		node = BPF_CORE_READ(node, next);
	}
	return 0;
}

/* Map `lost`: what could not be counted, because a map was full. One row a kind of figure, each tracer names its own. */
#define LOST_ROWS 4
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOST_ROWS);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void count_lost(__u32 row)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &row);

	if (count)
		(*count)++;
}

#endif
