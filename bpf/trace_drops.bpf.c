// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_drops (tracepoints): counts every lost packet by reason and place, and at rings how full the ring was right
 * then. Reads only; `xdpctl trace drops` loads it.
 *
 * Globals
 *   code        0   where (first, behind last) veth drops what its ring did not take, and generic XDP what a program
 *                   drops; 0: not known
 * Maps
 *   drops       per-CPU hash: struct drop_key -> struct drop
 *   rings       hash: struct ring_key -> struct ring_state
 *   producers   hash: struct producer -> packets it lost at that ring
 *   readers     hash: cpumap's id and CPU -> the entry that its thread serves
 *   devices     names of the devices in them (include/kernel_net.h)
 *   lost        rows: 0 `drops` was full, 1 `rings`, 2 `producers` (include/kernel_net.h)
 *   scratch     room for counting slots (include/ring_state.h)
 *
 * Not for attaching to an interface: xdpctl attach build/bpf/trace_drops.bpf.o is refused.
 */
#include "kernel_net.h"
#include "ring_state.h"

#define NO_QUEUE 0xffffffff

enum via {
	KFREE_SKB = 0,
	REDIRECT_ERR = 1,
	DEVMAP_XMIT = 2,
	BULK_TX = 3,
	EXCEPTION = 4,
	CPUMAP_ENQUEUE = 5,
	CPUMAP_KTHREAD = 6,
};

enum ring_kind {
	NO_RING = 0,
	TUN = 1,
	TAP = 2, /* macvtap, ipvtap */
	VETH = 3,
	CPUMAP = 4, /* ifindex is the map's id, queue the CPU */
	XSK_RX = 5,
	XSK_FILL = 6, /* one that ran empty */
	QDISC_RING = 7, /* a band of pfifo_fast; queue is 4 * tx queue + band */
	QDISC = 8, /* any other: packets against its limit */
};

struct drop_key {
	__u32 netns;
	__u32 ifindex;
	__u32 queue;
	__u32 reason; /* enum skb_drop_reason; errno where an XDP event told; verdict of EXCEPTION */
	__u64 location;
	__u32 program;
	__u32 via;
};

struct drop {
	__u64 packets;
	__u64 bytes; /* 0 for XDP events, which do not say */
};

struct ring_key {
	__u32 netns;
	__u32 ifindex;
	__u32 queue;
	__u32 kind;
};

struct ring_state {
	__u64 drops;
	__u64 full; /* no slot was free */
	__u64 freeing; /* fewer than a batch were: a reader may have freed them since */
	__u64 not_full;
	__u64 unreadable;
	__u32 size;
	__u32 batch;
	__u32 taken_least;
	__u32 taken_most;
	__u32 taken_last;
	__u32 unread_least;
	__u32 unread_most;
	__u32 unread_last;
	char name[16]; /* of a qdisc */
};

struct producer {
	struct ring_key ring;
	__u32 cpu;
	__u32 source; /* ifindex that the packet came in on, 0: sent from here */
	__u32 source_queue; /* rx queue there, NO_QUEUE: not recorded */
	__u32 unused;
};

struct reader_key {
	__u32 map_id;
	__u32 cpu;
};

struct range {
	__u64 from;
	__u64 to;
};

#define PLACES 4
struct code {
	struct range veth[PLACES];
	struct range generic[PLACES];
};

const volatile struct code code = {};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct drop_key);
	__type(value, struct drop);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct ring_key);
	__type(value, struct ring_state);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct producer);
	__type(value, __u64);
} producers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct reader_key);
	__type(value, __u64);
} readers SEC(".maps");

enum skb_drop_reason {
	SKB_DROP_REASON_FULL_RING = 1,
	SKB_DROP_REASON_QDISC_DROP = 2,
	SKB_DROP_REASON_QDISC_OVERLIMIT = 3,
	SKB_DROP_REASON_QDISC_CONGESTED = 4,
	SKB_DROP_REASON_XDP = 5,
};

#define REASON_IS(reason, NAME)                                                       \
	(bpf_core_enum_value_exists(enum skb_drop_reason, SKB_DROP_REASON_##NAME) &&  \
	 (reason) == bpf_core_enum_value(enum skb_drop_reason, SKB_DROP_REASON_##NAME))

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct tap_queue {
	struct ptr_ring ring;
};

struct tap_dev {
	struct tap_queue *taps[256];
	int numvtaps;
};

struct macvlan_dev {
	struct net_device *lowerdev;
};

struct macvtap_dev {
	struct macvlan_dev vlan;
	struct tap_dev tap;
};

struct ipvtap_dev {
	struct tap_dev tap;
};

struct tun_file {
	struct ptr_ring tx_ring;
};

struct tun_struct {
	struct tun_file *tfiles[256];
	unsigned int numqueues;
};

struct veth_rq {
	struct ptr_ring xdp_ring;
};

struct veth_priv {
	struct net_device *peer;
	struct veth_rq *rq;
};

struct skb_array {
	struct ptr_ring ring;
};

struct pfifo_fast_priv {
	struct skb_array q[3];
};

struct bpf_cpu_map_entry {
	__u32 cpu;
	int map_id;
	struct ptr_ring *queue;
};

struct kthread {
	void *data;
};

struct task_struct {
	int *set_child_tid; /* where a kthread's own struct hung before Linux 5.17 */
	void *worker_private;
};

struct xdp_ring {
	__u32 producer;
	__u32 consumer;
};

struct xsk_queue {
	__u32 nentries;
	__u32 cached_prod;
	__u32 cached_cons;
	struct xdp_ring *ring;
};

struct xsk_buff_pool {
	struct xsk_queue *fq;
};

struct xdp_sock {
	struct xsk_queue *rx;
	struct net_device *dev;
	struct xsk_buff_pool *pool;
	__u16 queue_id;
};

#pragma clang attribute pop

/* A queue that dropped something. */
struct place {
	struct ring_key key;
	struct ptr_ring *ring;
	struct sight sight;
};

static __always_inline void see(struct place *place)
{
	struct scratch *room = scratch_room();

	look_at_ring((__u64)place->ring);
	if (room)
		place->sight = room->sight;
}

static __always_inline void count_drop(struct drop_key *key, __u64 packets, __u64 bytes, const struct net_device *dev)
{
	struct drop *drop = bpf_map_lookup_elem(&drops, key);
	struct drop first = { packets, bytes };

	if (drop) {
		drop->packets += packets;
		drop->bytes += bytes;
		return;
	}
	if (bpf_map_update_elem(&drops, key, &first, BPF_ANY))
		count_lost(0);
	else
		remember(dev, key->netns);
}

/* What stood in the ring when `packets` found no room. */
static __noinline int count_ring(struct place *place, __u64 packets, struct producer *producer, const char *name)
{
	struct ring_state *state;
	struct sight *sight = &place->sight;
	__u64 *lost_there;

	state = bpf_map_lookup_elem(&rings, &place->key);
	if (!state) {
		struct ring_state first = { .taken_least = 0xffffffff, .unread_least = 0xffffffff };

		if (name)
			__builtin_memcpy(first.name, name, sizeof(first.name));
		bpf_map_update_elem(&rings, &place->key, &first, BPF_NOEXIST); /* another CPU may have been first */
		state = bpf_map_lookup_elem(&rings, &place->key);
		if (!state) {
			count_lost(1);
			return 0;
		}
	}
	__sync_fetch_and_add(&state->drops, packets);
	if (!sight->size) {
		__sync_fetch_and_add(&state->unreadable, packets);
	} else {
		__u32 room = sight->size > sight->taken ? sight->size - sight->taken : 0;

		if (place->key.kind == XSK_FILL)
			room = sight->taken; /* what is missing there is an entry, not room */
		if (!room)
			__sync_fetch_and_add(&state->full, packets);
		else if (room <= sight->batch)
			__sync_fetch_and_add(&state->freeing, packets);
		else
			__sync_fetch_and_add(&state->not_full, packets);
		state->size = sight->size;
		state->batch = sight->batch;
		state->taken_last = sight->taken;
		state->unread_last = sight->unread;
		if (sight->taken < state->taken_least)
			state->taken_least = sight->taken;
		if (sight->taken > state->taken_most)
			state->taken_most = sight->taken;
		if (sight->unread < state->unread_least)
			state->unread_least = sight->unread;
		if (sight->unread > state->unread_most)
			state->unread_most = sight->unread;
	}
	producer->ring = place->key;
	producer->cpu = bpf_get_smp_processor_id();
	lost_there = bpf_map_lookup_elem(&producers, producer);
	if (lost_there)
		__sync_fetch_and_add(lost_there, packets);
	else if (bpf_map_update_elem(&producers, producer, &packets, BPF_NOEXIST))
		count_lost(2);
	return 0;
}

/* A driver's own struct behind a net_device. */
static __always_inline void *private_of(const struct net_device *dev)
{
	if (bpf_core_field_exists(dev->priv))
		return (void *)dev + bpf_core_field_offset(dev->priv);
	return (void *)dev + ((bpf_core_type_size(struct net_device) + 31) & ~31UL);
}

static __always_inline void read_kind(const struct net_device *dev, char kind[8])
{
	const char *text = BPF_CORE_READ(dev, rtnl_link_ops, kind);

	if (text)
		bpf_probe_read_kernel_str(kind, 8, text);
}

static __always_inline int same(const char *one, const char *other, __u32 size)
{
#pragma unroll
	for (__u32 i = 0; i < size; i++)
		if (one[i] != other[i])
			return 0;
	return 1;
}

#define KIND_IS(kind, text) same(kind, text, sizeof(text))

/* tap_get_queue(): by flow hash, else by the rx queue recorded, else the first. */
static __always_inline struct ptr_ring *tap_ring(struct tap_dev *tap, __u32 hash, __u32 mapping, __u32 *queue)
{
	struct tap_queue *chosen = 0;
	__u32 many = BPF_CORE_READ(tap, numvtaps);

	if (!many || many > 256)
		return 0;
	*queue = many == 1 ? 0 : hash ? hash % many : mapping ? (mapping - 1) % many : 0;
	bpf_probe_read_kernel(&chosen, sizeof(chosen),
			      (void *)tap + bpf_core_field_offset(tap->taps) + (*queue & 255) * sizeof(void *));
	return chosen ? (void *)chosen + bpf_core_field_offset(chosen->ring) : 0;
}

static __always_inline struct ptr_ring *macvtap_ring(const struct net_device *dev, const char *kind, __u32 hash,
						     __u32 mapping, __u32 *queue)
{
	void *private = private_of(dev);

	if (KIND_IS(kind, "macvtap")) {
		struct macvtap_dev *macvtap = private;

		if (bpf_core_field_exists(macvtap->tap) && bpf_core_type_exists(struct tap_queue))
			return tap_ring(private + bpf_core_field_offset(macvtap->tap), hash, mapping, queue);
	} else {
		struct ipvtap_dev *ipvtap = private;

		if (bpf_core_field_exists(ipvtap->tap) && bpf_core_type_exists(struct tap_queue))
			return tap_ring(private + bpf_core_field_offset(ipvtap->tap), hash, mapping, queue);
	}
	return 0;
}

/* The device that a macvtap sits on, whose frames it gets: skb_iif is the macvtap itself by now. */
static __always_inline __u32 lower_of(const struct net_device *dev, const char *kind, __u32 netns)
{
	struct macvtap_dev *macvtap = private_of(dev);
	struct net_device *lower;

	if (!KIND_IS(kind, "macvtap") || !bpf_core_field_exists(macvtap->vlan) || !bpf_core_type_exists(struct macvlan_dev))
		return 0;
	lower = BPF_CORE_READ(macvtap, vlan.lowerdev);
	return lower && read_netns(lower) == netns ? BPF_CORE_READ(lower, ifindex) : 0;
}

static __always_inline struct ptr_ring *tun_ring(const struct net_device *dev, __u32 *queue, __u32 by_cpu)
{
	struct tun_struct *tun = private_of(dev);
	struct tun_file *chosen = 0;

	if (!bpf_core_type_exists(struct tun_struct) || !bpf_core_type_exists(struct tun_file))
		return 0;
	if (by_cpu) {
		__u32 many = BPF_CORE_READ(tun, numqueues);

		*queue = many ? bpf_get_smp_processor_id() % many : 0;
	}
	bpf_probe_read_kernel(&chosen, sizeof(chosen),
			      (void *)tun + bpf_core_field_offset(tun->tfiles) + (*queue & 255) * sizeof(void *));
	return chosen ? (void *)chosen + bpf_core_field_offset(chosen->tx_ring) : 0;
}

/* The ring of a receive queue of the veth end that receives. */
static __always_inline struct ptr_ring *veth_ring(const struct net_device *receiver, __u32 queue)
{
	struct veth_priv *private = private_of(receiver);
	struct veth_rq *rq;

	if (!bpf_core_type_exists(struct veth_priv) || !bpf_core_type_exists(struct veth_rq))
		return 0;
	if (queue >= BPF_CORE_READ(receiver, real_num_rx_queues))
		return 0;
	rq = BPF_CORE_READ(private, rq);
	if (!rq)
		return 0;
	return (void *)rq + (queue & 4095) * bpf_core_type_size(struct veth_rq) + bpf_core_field_offset(rq->xdp_ring);
}

static __always_inline int within(__u64 location, const volatile struct range *places)
{
#pragma unroll
	for (int i = 0; i < PLACES; i++)
		if (location >= places[i].from && location < places[i].to)
			return 1;
	return 0;
}

/* pfifo_fast's prio2band (net/sched/sch_generic.c), two bits a priority, the lowest first. */
#define PRIO2BAND 0x555509a9UL

static __always_inline __u32 band_of(__u32 priority)
{
	return PRIO2BAND >> (2 * (priority & 15)) & 3;
}

/* The queue of a qdisc that dropped; its name to `name`. */
static __always_inline int look_at_qdisc(const struct net_device *dev, __u32 tx_queue, __u32 priority,
					 struct place *place, char name[16])
{
	struct netdev_queue *queue;
	struct Qdisc *qdisc;

	if (tx_queue >= BPF_CORE_READ(dev, num_tx_queues))
		return 0;
	queue = (void *)BPF_CORE_READ(dev, _tx) + tx_queue * bpf_core_type_size(struct netdev_queue);
	qdisc = BPF_CORE_READ(queue, qdisc);
	if (!qdisc)
		return 0;
	bpf_probe_read_kernel_str(name, 16, (void *)BPF_CORE_READ(qdisc, ops) +
						    bpf_core_field_offset(struct Qdisc_ops, id));
	place->key.queue = tx_queue;
	place->key.kind = QDISC;
	if (KIND_IS(name, "pfifo_fast") && bpf_core_type_exists(struct pfifo_fast_priv)) {
		struct pfifo_fast_priv *private = (void *)qdisc + bpf_core_field_offset(qdisc->privdata);
		__u32 band = band_of(priority);

		place->key.queue = 4 * tx_queue + band;
		place->key.kind = QDISC_RING;
		place->ring = (void *)private + bpf_core_field_offset(private->q) +
			      band * bpf_core_type_size(struct skb_array) +
			      bpf_core_field_offset(struct skb_array, ring);
		return 1;
	}
	place->sight.taken = BPF_CORE_READ(qdisc, q.qlen);
	place->sight.unread = place->sight.taken;
	place->sight.size = BPF_CORE_READ(qdisc, limit);
	place->sight.batch = 1; /* one may have left between the drop and its report */
	return 1;
}

/* From Linux 7.x on qdiscs' reasons are a subsystem of their own, in the upper half. */
enum skb_drop_reason_subsys {
	SKB_DROP_REASON_SUBSYS_QDISC = 3,
};

static __always_inline int is_qdisc(__u32 reason)
{
	if (bpf_core_enum_value_exists(enum skb_drop_reason_subsys, SKB_DROP_REASON_SUBSYS_QDISC) &&
	    reason >> 16 == bpf_core_enum_value(enum skb_drop_reason_subsys, SKB_DROP_REASON_SUBSYS_QDISC))
		return 1;
	return REASON_IS(reason, QDISC_DROP) || REASON_IS(reason, QDISC_OVERLIMIT) || REASON_IS(reason, QDISC_CONGESTED);
}

static __always_inline int dropped(struct sk_buff *skb, void *location, __u32 reason)
{
	struct drop_key key = { .reason = reason, .location = (__u64)location, .via = KFREE_SKB };
	struct net_device *dev = skb->dev;
	__u32 mapping = skb->queue_mapping;
	struct producer producer = { .source = skb->skb_iif, .source_queue = NO_QUEUE };
	struct place place = {};
	char kind[8] = {}, name[16] = {};
	int generic;

	key.queue = mapping;
	if (dev) { /* in a socket's queue it may be no pointer: then what it leads to reads as zeros */
		key.ifindex = dev->ifindex;
		key.netns = netns_of(dev);
	}
	if (!key.ifindex) {
		struct sock *sk = skb->sk;

		dev = 0;
		key.ifindex = skb->skb_iif;
		if (sk)
			key.netns = sk->__sk_common.skc_net.net->ns.inum;
	}
	generic = REASON_IS(reason, XDP) || within(key.location, code.generic);
	if (dev && generic) {
		struct bpf_prog *prog = dev->xdp_prog;

		key.program = prog ? prog->aux->id : 0;
	}
	if (dev && !generic) {
		place.key.netns = key.netns;
		place.key.ifindex = key.ifindex;
		read_kind(dev, kind);
		if (REASON_IS(reason, FULL_RING)) {
			if (KIND_IS(kind, "tun")) {
				place.key.kind = TUN;
				place.key.queue = mapping;
				place.ring = tun_ring(dev, &place.key.queue, 0);
			} else if (KIND_IS(kind, "macvtap") || KIND_IS(kind, "ipvtap")) {
				place.key.kind = TAP;
				if (mapping)
					producer.source_queue = mapping - 1;
				place.ring = macvtap_ring(dev, kind, skb->hash, mapping, &place.key.queue);
				producer.source = lower_of(dev, kind, key.netns);
			}
		} else if (is_qdisc(reason)) {
			look_at_qdisc(dev, mapping, skb->priority, &place, name);
		} else if (KIND_IS(kind, "veth") && (!code.veth[0].from || within(key.location, code.veth))) {
			place.key.kind = VETH;
			place.key.queue = mapping;
			place.ring = veth_ring(dev, mapping);
			if (!place.ring && mapping) { /* older ones have recorded it as rx queue already: plus 1 */
				place.key.queue = mapping - 1;
				place.ring = veth_ring(dev, mapping - 1);
			}
		}
		if (place.key.kind) {
			key.queue = place.key.queue;
			if (place.ring)
				see(&place);
			count_ring(&place, 1, &producer, name);
		}
	}
	count_drop(&key, 1, skb->len, dev);
	return 0;
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb_2, struct sk_buff *skb, void *location)
{
	return dropped(skb, location, 0);
}

/* Linux 5.17 gave it a reason, 6.11 a socket as well. */
SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb_3, struct sk_buff *skb, void *location, __u32 reason)
{
	return dropped(skb, location, reason);
}

/* What xskmap's redirect says about the socket's rings (xsk_rcv() in net/xdp/xsk.c). */
static __always_inline void look_at_socket(const struct xdp_sock *socket, int error, struct place *place)
{
	struct net_device *dev = BPF_CORE_READ(socket, dev);
	struct xsk_queue *queue;
	__u32 there, read;

	if (!dev)
		return;
	if (error == -105) { /* ENOBUFS */
		queue = BPF_CORE_READ(socket, rx);
		there = BPF_CORE_READ(queue, cached_prod);
		read = BPF_CORE_READ(queue, ring, consumer);
		place->key.kind = XSK_RX;
	} else if (error == -12) { /* ENOMEM */
		queue = BPF_CORE_READ(socket, pool, fq);
		there = BPF_CORE_READ(queue, ring, producer);
		read = BPF_CORE_READ(queue, cached_cons);
		place->key.kind = XSK_FILL;
	} else {
		return;
	}
	place->key.netns = read_netns(dev);
	place->key.ifindex = BPF_CORE_READ(dev, ifindex);
	place->key.queue = BPF_CORE_READ(socket, queue_id);
	place->sight.size = BPF_CORE_READ(queue, nentries);
	place->sight.taken = place->sight.unread = there - read;
	place->sight.batch = 0;
}

static __always_inline int not_redirected(const struct net_device *dev, const struct bpf_prog *prog, const void *target,
					  int error, __u32 map_type)
{
	struct drop_key key = {
		.netns = netns_of(dev),
		.ifindex = dev->ifindex,
		.queue = NO_QUEUE,
		.reason = error,
		.program = prog->aux->id,
		.via = REDIRECT_ERR,
	};

	if (map_type == BPF_MAP_TYPE_XSKMAP && target) {
		struct place place = {};
		struct producer producer = { .source = key.ifindex, .source_queue = NO_QUEUE };

		look_at_socket(target, error, &place);
		if (place.key.kind) {
			key.queue = place.key.queue;
			count_ring(&place, 1, &producer, 0);
		}
	}
	count_drop(&key, 1, 0, dev);
	return 0;
}

SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(redirect_err, const struct net_device *dev, const struct bpf_prog *prog, const void *target, int error,
	     __u32 map_type)
{
	return not_redirected(dev, prog, untyped_argument(ctx, 2), error, map_type);
}

/* Before Linux 5.13 the event carried the map itself. */
SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(redirect_err_m, const struct net_device *dev, const struct bpf_prog *prog, const void *target, int error,
	     const struct bpf_map *map)
{
	return not_redirected(dev, prog, untyped_argument(ctx, 2), error, map ? map->map_type : 0);
}

/* Which ring ndo_xdp_xmit() of a veth or tun takes on this CPU (veth_select_rxq(), tun_xdp_xmit()). */
static __always_inline void look_at_xmit(const struct net_device *to, struct place *place)
{
	char kind[8] = {};

	read_kind(to, kind);
	place->key.netns = read_netns(to);
	place->key.ifindex = BPF_CORE_READ(to, ifindex);
	if (KIND_IS(kind, "tun")) {
		place->key.kind = TUN;
		place->ring = tun_ring(to, &place->key.queue, 1);
	} else if (KIND_IS(kind, "veth") && bpf_core_type_exists(struct veth_priv)) {
		struct veth_priv *private = private_of(to);
		struct net_device *peer = BPF_CORE_READ(private, peer);
		__u32 many = BPF_CORE_READ(peer, real_num_rx_queues);

		if (!peer || !many)
			return;
		place->key.kind = VETH;
		place->key.netns = read_netns(peer);
		place->key.ifindex = BPF_CORE_READ(peer, ifindex);
		place->key.queue = bpf_get_smp_processor_id() % many;
		place->ring = veth_ring(peer, place->key.queue);
		remember(peer, place->key.netns);
	}
}

SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(devmap_xmit, const struct net_device *from, const struct net_device *to, int sent, int lost_ones, int error)
{
	struct drop_key key = { .queue = NO_QUEUE, .reason = error, .via = DEVMAP_XMIT };

	if (lost_ones <= 0)
		return 0;
	key.netns = netns_of(to);
	key.ifindex = to->ifindex;
	key.program = native_program(from);
	if (!error) { /* a short count: no room, or too long */
		struct place place = {};
		struct producer producer = { .source = from->ifindex, .source_queue = NO_QUEUE };

		look_at_xmit(to, &place);
		if (place.key.kind) {
			key.queue = place.key.queue;
			if (place.ring)
				see(&place);
			count_ring(&place, lost_ones, &producer, 0);
		}
	}
	count_drop(&key, lost_ones, 0, to);
	return 0;
}

SEC("tp_btf/xdp_bulk_tx")
int BPF_PROG(bulk_tx, const struct net_device *dev, int sent, int lost_ones, int error)
{
	struct drop_key key = { .queue = NO_QUEUE, .reason = error, .via = BULK_TX };

	if (lost_ones <= 0)
		return 0;
	key.netns = netns_of(dev);
	key.ifindex = dev->ifindex;
	key.program = native_program(dev);
	if (!error) {
		struct place place = {};
		struct producer producer = { .source = key.ifindex, .source_queue = NO_QUEUE };

		look_at_xmit(dev, &place);
		if (place.key.kind) {
			key.queue = place.key.queue;
			if (place.ring)
				see(&place);
			count_ring(&place, lost_ones, &producer, 0);
		}
	}
	count_drop(&key, lost_ones, 0, dev);
	return 0;
}

SEC("tp_btf/xdp_exception")
int BPF_PROG(exception, const struct net_device *dev, const struct bpf_prog *prog, __u32 verdict)
{
	struct drop_key key = {
		.netns = netns_of(dev),
		.ifindex = dev->ifindex,
		.queue = NO_QUEUE,
		.reason = verdict,
		.program = prog->aux->id,
		.via = EXCEPTION,
	};

	count_drop(&key, 1, 0, dev);
	return 0;
}

SEC("tp_btf/xdp_cpumap_enqueue")
int BPF_PROG(cpumap_enqueue, int map_id, __u32 processed, __u32 lost_ones, int to_cpu)
{
	struct drop_key key = { .queue = to_cpu, .program = 0, .via = CPUMAP_ENQUEUE, .location = map_id };
	struct reader_key reader = { map_id, to_cpu };
	struct producer producer = { .source_queue = NO_QUEUE };
	struct place place = { .key = { .ifindex = map_id, .queue = to_cpu, .kind = CPUMAP } };
	struct bpf_cpu_map_entry *entry;
	__u64 *served;

	if (!lost_ones)
		return 0;
	served = bpf_map_lookup_elem(&readers, &reader);
	entry = served ? (void *)*served : 0;
	/* the entry may have been freed and its memory be somebody else's by now */
	if (entry && BPF_CORE_READ(entry, map_id) == map_id && BPF_CORE_READ(entry, cpu) == to_cpu)
		place.ring = BPF_CORE_READ(entry, queue);
	if (place.ring)
		see(&place);
	count_ring(&place, lost_ones, &producer, 0);
	count_drop(&key, lost_ones, 0, 0);
	return 0;
}

/* The thread of a cpumap's entry is the one place that leads to its ring: it was started with the entry. */
SEC("tp_btf/xdp_cpumap_kthread")
int BPF_PROG(cpumap_kthread, int map_id, __u32 processed, __u32 lost_ones)
{
	struct reader_key reader = { map_id, bpf_get_smp_processor_id() };
	struct task_struct *task = (void *)bpf_get_current_task();
	struct kthread *thread;
	__u64 *served, entry;

	if (bpf_core_field_exists(task->worker_private))
		thread = BPF_CORE_READ(task, worker_private);
	else
		thread = (void *)BPF_CORE_READ(task, set_child_tid);
	entry = (__u64)BPF_CORE_READ(thread, data);
	served = bpf_map_lookup_elem(&readers, &reader);
	if (!served || *served != entry)
		bpf_map_update_elem(&readers, &reader, &entry, BPF_ANY);
	if (lost_ones) {
		struct drop_key key = { .queue = reader.cpu, .via = CPUMAP_KTHREAD, .location = map_id };

		count_drop(&key, lost_ones, 0, 0);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
