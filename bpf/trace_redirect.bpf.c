// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_redirect (tracepoints): counts what becomes of redirected and transmitted XDP frames, by program, from, to
 * and errno. Reads only; `xdpctl trace redirect` loads it.
 *
 * Globals: none.
 * Maps
 *   edges     per-CPU hash: struct edge -> struct outcome
 *   slots     per CPU: an edge by a few of its bits, with what it counted since it has the slot: half a hash look-up's time
 *   devices   names of the devices in it (include/kernel_net.h)
 *   lost      row 0: outcomes that found `edges` full
 *
 * xdp_redirect_err, xdp_exception and what concerns a bulk of up to 16 frames cost next to nothing and are always
 * counted; xdp_redirect fires once a frame, so its program is loaded only where it was asked for. The *_map*
 * variants of both never fire from Linux 5.6 on and are gone by 6.18.
 *
 * Not for attaching to an interface: xdpctl attach build/bpf/trace_redirect.bpf.o is refused.
 */
#include "kernel_net.h"

enum event {
	REDIRECT_ERR = 0,
	DEVMAP_XMIT = 1,
	BULK_TX = 2,
	EXCEPTION = 3,
	CPUMAP_ENQUEUE = 4,
	CPUMAP_KTHREAD = 5,
	REDIRECT = 6,
};

struct edge {
	__u16 event;
	__u16 map_type; /* enum bpf_map_type, 0: none (a plain bpf_redirect) */
	__u32 program;
	__u32 from_netns;
	__u32 from;
	__u32 to_netns;
	__u32 to; /* ifindex; CPU of a cpumap; slot of an xskmap; verdict of EXCEPTION; slot for REDIRECT by map */
	__u32 map_id;
	__s32 error;
};

struct outcome {
	__u64 events;
	__u64 sent;
	__u64 dropped;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct edge);
	__type(value, struct outcome);
} edges SEC(".maps");

#define SLOTS 32

struct slot {
	struct edge edge;
	struct outcome since;
	__u64 claims; /* so that a reader sees that it changed hands */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

static __always_inline int is_same(const struct edge *one, const struct edge *other)
{
	const __u64 *left = (void *)one, *right = (void *)other;

	_Static_assert(sizeof(*one) == 32, "compared in four words");
	return !((left[0] ^ right[0]) | (left[1] ^ right[1]) | (left[2] ^ right[2]) | (left[3] ^ right[3]));
}

static __always_inline void add(struct outcome *outcome, __u64 events, __u64 sent, __u64 dropped)
{
	outcome->events += events;
	outcome->sent += sent;
	outcome->dropped += dropped;
}

/* The edge's row of `edges`, made where it is new; its slot is this edge's from now on. */
static __always_inline void claim(struct edge *edge, struct slot *slot)
{
	struct outcome *row, none = {};

	row = bpf_map_lookup_elem(&edges, &slot->edge);
	if (row)
		add(row, slot->since.events, slot->since.sent, slot->since.dropped);
	slot->claims++;
	slot->since = none;
	slot->edge = *edge;
}

static __always_inline void count(struct edge *edge, __u64 sent, __u64 dropped, const struct net_device *from,
				  const struct net_device *to)
{
	__u32 place = (edge->event ^ edge->from ^ edge->to << 2 ^ edge->map_id << 1) % SLOTS;
	struct slot *slot = bpf_map_lookup_elem(&slots, &place);
	struct outcome none = {};

	if (!slot)
		return;
	if (is_same(&slot->edge, edge) && slot->claims) {
		add(&slot->since, 1, sent, dropped);
		return;
	}
	if (!bpf_map_lookup_elem(&edges, edge)) {
		if (bpf_map_update_elem(&edges, edge, &none, BPF_NOEXIST) && !bpf_map_lookup_elem(&edges, edge)) {
			count_lost(0);
			return;
		}
		remember(from, edge->from_netns);
		if (!to && edge->event == REDIRECT_ERR && !edge->map_type) /* a plain bpf_redirect names but an ifindex */
			to = device_in(BPF_CORE_READ(from, nd_net.net), edge->to);
		remember(to, edge->to_netns);
	}
	claim(edge, slot);
	add(&slot->since, 1, sent, dropped);
}

/* xdp_redirect_err: one frame that was not redirected; `target` is what the map's kind makes of it. */
static __always_inline int redirect_failed(const struct net_device *dev, const struct bpf_prog *prog,
					   const void *target, int error, __u32 map_type, __u32 map_id, __u32 index)
{
	struct net_device *to = 0;
	struct edge edge = {
		.event = REDIRECT_ERR,
		.map_type = map_type,
		.program = prog->aux->id,
		.from_netns = netns_of(dev),
		.from = dev->ifindex,
		.to = index,
		.map_id = map_type ? map_id : 0,
		.error = error,
	};

	if (map_type == BPF_MAP_TYPE_DEVMAP || map_type == BPF_MAP_TYPE_DEVMAP_HASH) {
		/* struct bpf_dtab_netdev begins with its device; a broadcast has none */
		edge.to = 0;
		if (target && !bpf_probe_read_kernel(&to, sizeof(to), target) && to) {
			edge.to = BPF_CORE_READ(to, ifindex);
			edge.to_netns = read_netns(to);
		}
	} else if (!map_type) {
		edge.to_netns = edge.from_netns;
	}
	count(&edge, 0, 1, dev, to);
	return 0;
}

SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(redirect_err, const struct net_device *dev, const struct bpf_prog *prog, const void *target, int error,
	     __u32 map_type, __u32 map_id, __u32 index)
{
	return redirect_failed(dev, prog, untyped_argument(ctx, 2), error, map_type, map_id, index);
}

/* Before Linux 5.13 the event carried the map itself. */
SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(redirect_err_m, const struct net_device *dev, const struct bpf_prog *prog, const void *target, int error,
	     const struct bpf_map *map, __u32 index)
{
	return redirect_failed(dev, prog, untyped_argument(ctx, 2), error, map ? map->map_type : 0, map ? map->id : 0, index);
}

/* Once a frame: the slot stands for the target, which costs a quarter of what looking it up would. */
static __always_inline int redirected(const struct net_device *dev, const struct bpf_prog *prog, __u32 map_type,
				      __u32 map_id, __u32 index)
{
	struct edge edge = {
		.event = REDIRECT,
		.map_type = map_type,
		.program = prog->aux->id,
		.from_netns = netns_of(dev),
		.from = dev->ifindex,
		.to = index,
		.map_id = map_type ? map_id : 0,
	};

	if (!map_type)
		edge.to_netns = edge.from_netns;
	count(&edge, 1, 0, dev, 0);
	return 0;
}

SEC("tp_btf/xdp_redirect")
int BPF_PROG(redirect_ok, const struct net_device *dev, const struct bpf_prog *prog, const void *target, int error,
	     __u32 map_type, __u32 map_id, __u32 index)
{
	return redirected(dev, prog, map_type, map_id, index);
}

SEC("tp_btf/xdp_redirect")
int BPF_PROG(redirect_ok_m, const struct net_device *dev, const struct bpf_prog *prog, const void *target, int error,
	     const struct bpf_map *map, __u32 index)
{
	return redirected(dev, prog, map ? map->map_type : 0, map ? map->id : 0, index);
}

/* A bulk handed to a device's ndo_xdp_xmit(). The program is the one that runs where the frames came from. */
SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(devmap_xmit, const struct net_device *from, const struct net_device *to, int sent, int drops, int error)
{
	struct edge edge = {
		.event = DEVMAP_XMIT,
		.program = native_program(from),
		.from_netns = netns_of(from),
		.from = from->ifindex,
		.to_netns = netns_of(to),
		.to = to->ifindex,
		.error = error,
	};

	count(&edge, sent, drops, from, to);
	return 0;
}

/* A bulk of XDP_TX of the drivers that gather one (veth, mlx5 not): out of the device it came in on. */
SEC("tp_btf/xdp_bulk_tx")
int BPF_PROG(bulk_tx, const struct net_device *dev, int sent, int drops, int error)
{
	__u32 netns = netns_of(dev);
	struct edge edge = {
		.event = BULK_TX,
		.program = native_program(dev),
		.from_netns = netns,
		.from = dev->ifindex,
		.to_netns = netns,
		.to = dev->ifindex,
		.error = error,
	};

	count(&edge, sent, drops, dev, 0);
	return 0;
}

SEC("tp_btf/xdp_exception")
int BPF_PROG(exception, const struct net_device *dev, const struct bpf_prog *prog, __u32 verdict)
{
	struct edge edge = {
		.event = EXCEPTION,
		.program = prog->aux->id,
		.from_netns = netns_of(dev),
		.from = dev->ifindex,
		.to = verdict,
	};

	count(&edge, 0, 1, dev, 0);
	return 0;
}

/* A bulk of up to 8 frames put into a cpumap's ring; `processed` includes what did not fit. */
SEC("tp_btf/xdp_cpumap_enqueue")
int BPF_PROG(cpumap_enqueue, int map_id, __u32 processed, __u32 drops, int to_cpu)
{
	struct edge edge = {
		.event = CPUMAP_ENQUEUE,
		.map_type = BPF_MAP_TYPE_CPUMAP,
		.to = to_cpu,
		.map_id = map_id,
	};

	count(&edge, processed - drops, drops, 0, 0);
	return 0;
}

/* What a cpumap's thread took out; its drops are frames for which there was no skb. */
SEC("tp_btf/xdp_cpumap_kthread")
int BPF_PROG(cpumap_kthread, int map_id, __u32 processed, __u32 drops)
{
	struct edge edge = {
		.event = CPUMAP_KTHREAD,
		.map_type = BPF_MAP_TYPE_CPUMAP,
		.to = bpf_get_smp_processor_id(),
		.map_id = map_id,
	};

	if (!processed && !drops)
		return 0; /* woken for nothing */
	count(&edge, processed, drops, 0, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
