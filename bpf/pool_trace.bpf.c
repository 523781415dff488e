// SPDX-License-Identifier: GPL-2.0-only
/*
 * pool_trace (raw tracepoints): every page pool that allocates, frees or shuts down, kept by pool.
 *
 * The pool itself counts the pages it took from the allocator (hold) and gave back (release), in 32 bits that wrap
 * around; the tracepoints tell the new count, and recycled pages touch neither. So nothing is counted here: each CPU
 * notes the latest count it was told, and the newest of them (by serial arithmetic) is the pool's. An event
 * that is missed is made good by the next one.
 *
 * Globals
 *   generation  pools that were freed so far: what a slot of an older one holds may be of a pool that is gone
 * Maps
 *   slots       percpu_array  by the pool's address, some bits of it: struct slot, the last counts that this CPU was told
 *   counts      percpu_hash   pool's address -> struct latest, the same for pools whose slot is another's
 *   pools       hash          pool's address -> struct pool, who it is and how its shutdown goes
 *   events      ringbuf       struct event: connected, disconnected, an attempt to shut down
 *   lost        array         by enum loss: what found no room
 *   scratch     percpu_array  struct pool by enum place, while one is made
 *   found       array         struct pool: what the last run of find_veth_pool read
 *
 * find_veth_pool is run by BPF_PROG_TEST_RUN, not attached: it reads a veth queue's pool as it lies, for pools that
 * recycle everything trace nothing.
 *
 *   xdpctl pool watch
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* The kernel's types, as far as they are read; found by name in the running kernel's BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct kobject {
	const char *name;
};

struct class {
	const char *name;
};

struct device_driver {
	const char *name;
};

struct device {
	struct kobject kobj;
	struct class *class;
	struct device_driver *driver;
};

struct ns_common {
	unsigned int inum;
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

struct net_device {
	char name[16];
	int ifindex;
	possible_net_t nd_net;
	struct hlist_node index_hlist;
	struct device dev;
	unsigned char priv[]; /* by 6.12 */
};

struct napi_struct {
	struct net_device *dev;
	unsigned int napi_id;
};

/* page_pool_params_fast from 6.8 on: members are matched by name, their struct's name does not matter */
struct page_pool_params {
	unsigned int order;
	unsigned int pool_size;
	int nid;
	struct device *dev;
	struct napi_struct *napi; /* 6.3 */
};

struct page_pool_params_slow { /* 6.8 */
	struct net_device *netdev;
	unsigned int queue_idx; /* by 6.12 */
	void *init_callback;
};

struct page_pool {
	struct page_pool_params p;
	int cpuid; /* 6.8 */
	__u32 pages_state_hold_cnt;
	atomic_t pages_state_release_cnt;
	__u32 xdp_mem_id; /* 5.18 */
	struct page_pool_params_slow slow;
	struct {
		__u64 detach_time;
		__u32 id;
	} user; /* 6.8 */
};

struct xdp_mem_info {
	__u32 type;
	__u32 id;
};

struct xdp_mem_allocator {
	struct xdp_mem_info mem;
	struct page_pool *page_pool;
};

struct xdp_rxq_info {
	struct net_device *dev;
	__u32 queue_index;
};

struct veth_rq {
	struct page_pool *page_pool; /* 6.6 */
};

struct veth_priv {
	struct veth_rq *rq;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct {
	struct nsproxy *nsproxy;
};

#pragma clang attribute pop

#define MEM_TYPE_PAGE_POOL 2 /* enum xdp_mem_type, 4.18 */
#define NETDEV_ALIGN 32
#define NO_QUEUE ((__u32)-1)
#define HASH_CHAIN 256 /* devices in one bucket of dev_index_head that we look at */

/* What user space is told; xdpctl/trace/pool_records.py unpacks these. */

struct latest {
	__u32 hold;
	__u32 release;
	__u32 told; /* HOLD, RELEASE: which of them this CPU knows */
};

enum told { HOLD = 1, RELEASE = 2 };

/* One pool's, by a few bits of its address: half the time that a look-up in a hash takes. The first to come keeps it. */
struct slot {
	__u64 address;
	__u64 seen_ns; /* the pool's: another one may get the same address */
	__u32 generation;
	struct latest latest;
};

struct pool {
	__u64 address;
	__u64 seen_ns; /* CLOCK_BOOTTIME, as all times here */
	__u64 shutdown_ns; /* the first attempt that found pages out, 0: none */
	__u64 attempt_ns; /* the last attempt, 0: none */
	__u64 detach_time; /* as the kernel keeps it: seconds up to 6.12, ns later; 0: live */
	__u64 init_callback; /* address of the function that fills a new page, 0: none */
	__u32 hold; /* as read when it was first seen, or told by the last attempt */
	__u32 release;
	__u32 attempts;
	__u32 stalls; /* attempts that found pages out */
	__u32 mem_id;
	__u32 id; /* as netlink and the kernel log name it (6.8), 0: not known */
	__u32 ifindex;
	__u32 netns; /* inode */
	__u32 napi;
	__u32 queue;
	__u32 order;
	__u32 size;
	__s32 node;
	__s32 cpu; /* of a per-CPU pool of the system (6.8), -1: none */
	char device[16]; /* the interface */
	char parent[32]; /* the device that DMA is mapped for: 0000:03:00.0 */
	char driver[16];
};

enum kind { CONNECTED = 1, DISCONNECTED = 2, ATTEMPT = 3 };

struct event {
	__u64 ns;
	__u32 kind;
	__s32 inflight; /* of an attempt */
	struct pool pool;
};

enum loss { LOST_POOLS = 0, LOST_EVENTS = 1, LOSSES };

__u32 generation;

#define SLOTS 64

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct latest);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct pool);
} pools SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pool);
} found SEC(".maps");

/* A struct pool is too large for the stack: each program makes its own here, for one may interrupt another. */
enum place { ON_HOLD, ON_RELEASE, ON_ATTEMPT, ON_CONNECT, ON_DISCONNECT, PLACES };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PLACES);
	__type(key, __u32);
	__type(value, struct pool);
} scratch SEC(".maps");

static __always_inline void lose(__u32 what)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &what);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline void describe_netdev(struct pool *pool, struct net_device *dev)
{
	if (!dev)
		return;
	pool->ifindex = BPF_CORE_READ(dev, ifindex);
	pool->netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	BPF_CORE_READ_STR_INTO(&pool->device, dev, name);
}

static __always_inline int is_net(struct device *dev)
{
	const char *name = BPF_CORE_READ(dev, class, name);
	char word[4] = {};

	return name && bpf_probe_read_kernel_str(word, sizeof(word), name) == 4 && word[0] == 'n' &&
	       word[1] == 'e' && word[2] == 't';
}

/* The device that the pool was made for: its interface where that can be told, or the bus device. */
static __always_inline void describe_device(struct pool *pool, struct page_pool *pp)
{
	struct device *dev = BPF_CORE_READ(pp, p.dev);
	struct net_device *netdev = 0;

	if (bpf_core_field_exists(pp->slow.netdev))
		netdev = BPF_CORE_READ(pp, slow.netdev);
	if (!netdev && bpf_core_field_exists(pp->p.napi)) {
		struct napi_struct *napi = BPF_CORE_READ(pp, p.napi);

		if (napi)
			netdev = BPF_CORE_READ(napi, dev);
	}
	if (dev) {
		const char *name = BPF_CORE_READ(dev, kobj.name);

		if (is_net(dev)) { /* a virtual one maps no DMA: the interface's own struct device */
			if (!netdev)
				netdev = (void *)dev - bpf_core_field_offset(struct net_device, dev);
		} else {
			if (name)
				bpf_probe_read_kernel_str(pool->parent, sizeof(pool->parent), name);
			name = BPF_CORE_READ(dev, driver, name);
			if (name)
				bpf_probe_read_kernel_str(pool->driver, sizeof(pool->driver), name);
		}
	}
	describe_netdev(pool, netdev);
}

/* Read a pool as it lies. Whatever a kernel lacks stays 0. */
static __always_inline void describe(struct pool *pool, struct page_pool *pp)
{
	__builtin_memset(pool, 0, sizeof(*pool));
	pool->address = (__u64)pp;
	pool->seen_ns = bpf_ktime_get_boot_ns();
	pool->hold = BPF_CORE_READ(pp, pages_state_hold_cnt);
	pool->release = BPF_CORE_READ(pp, pages_state_release_cnt.counter);
	pool->order = BPF_CORE_READ(pp, p.order);
	pool->size = BPF_CORE_READ(pp, p.pool_size);
	pool->node = BPF_CORE_READ(pp, p.nid);
	pool->queue = NO_QUEUE;
	pool->cpu = -1;
	if (bpf_core_field_exists(pp->cpuid))
		pool->cpu = BPF_CORE_READ(pp, cpuid);
	if (bpf_core_field_exists(pp->xdp_mem_id))
		pool->mem_id = BPF_CORE_READ(pp, xdp_mem_id);
	if (bpf_core_field_exists(pp->slow.init_callback))
		pool->init_callback = (__u64)BPF_CORE_READ(pp, slow.init_callback);
	if (bpf_core_field_exists(pp->user)) {
		pool->id = BPF_CORE_READ(pp, user.id);
		pool->detach_time = BPF_CORE_READ(pp, user.detach_time);
	}
	if (bpf_core_field_exists(pp->p.napi)) {
		struct napi_struct *napi = BPF_CORE_READ(pp, p.napi);

		if (napi)
			pool->napi = BPF_CORE_READ(napi, napi_id);
	}
	describe_device(pool, pp);
	/* queue_idx is 0 where the driver did not say: only with its netdev does it mean anything */
	if (bpf_core_field_exists(pp->slow.queue_idx) && BPF_CORE_READ(pp, slow.netdev))
		pool->queue = BPF_CORE_READ(pp, slow.queue_idx);
}

/* The pool's entry, made where it is new. */
static __always_inline struct pool *known(struct page_pool *pp, __u32 place)
{
	__u64 key = (__u64)pp;
	struct pool *pool = bpf_map_lookup_elem(&pools, &key);

	if (pool)
		return pool;
	pool = bpf_map_lookup_elem(&scratch, &place);
	if (!pool)
		return 0;
	describe(pool, pp);
	bpf_map_update_elem(&pools, &key, pool, BPF_NOEXIST);
	pool = bpf_map_lookup_elem(&pools, &key);
	if (!pool)
		lose(LOST_POOLS);
	return pool;
}

static __always_inline void note(struct latest *latest, __u32 count, __u32 which)
{
	if (which == HOLD)
		latest->hold = count;
	else
		latest->release = count;
	latest->told |= which;
}

/* The slot is nobody's, or of an older generation: make it this pool's unless another one that lives has it. */
static __always_inline int claim(struct page_pool *pp, struct slot *slot, __u32 count, __u32 which)
{
	struct latest latest = {}, *told;
	struct pool *pool = known(pp, which == HOLD ? ON_HOLD : ON_RELEASE), *owner;
	__u64 key = (__u64)pp;

	if (!pool)
		return 0;
	owner = slot->address ? bpf_map_lookup_elem(&pools, &slot->address) : 0;
	if (!owner || owner->seen_ns != slot->seen_ns) {
		slot->address = key;
		slot->seen_ns = pool->seen_ns;
		slot->latest = latest;
	}
	slot->generation = generation;
	if (slot->address == key) {
		note(&slot->latest, count, which);
		return 0;
	}
	note(&latest, count, which);
	told = bpf_map_lookup_elem(&counts, &key);
	if (told)
		note(told, count, which);
	else if (bpf_map_update_elem(&counts, &key, &latest, BPF_ANY))
		lose(LOST_POOLS);
	return 0;
}

static __always_inline int told(struct bpf_raw_tracepoint_args *ctx, __u32 which)
{
	__u64 key = ctx->args[0];
	__u32 place = (key >> 11 ^ key >> 17) % SLOTS;
	struct slot *slot = bpf_map_lookup_elem(&slots, &place);
	struct latest *latest;

	if (!slot)
		return 0;
	if (slot->generation == generation && slot->address == key) {
		note(&slot->latest, ctx->args[2], which);
		return 0;
	}
	if (slot->generation == generation && slot->address) {
		latest = bpf_map_lookup_elem(&counts, &key);
		if (latest) {
			note(latest, ctx->args[2], which);
			return 0;
		}
	}
	return claim((void *)key, slot, ctx->args[2], which);
}

SEC("raw_tp/page_pool_state_hold")
int pool_hold(struct bpf_raw_tracepoint_args *ctx)
{
	return told(ctx, HOLD);
}

SEC("raw_tp/page_pool_state_release")
int pool_release(struct bpf_raw_tracepoint_args *ctx)
{
	return told(ctx, RELEASE);
}

static __always_inline void tell(__u32 kind, __s32 inflight, struct pool *pool)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		lose(LOST_EVENTS);
		return;
	}
	event->ns = bpf_ktime_get_boot_ns();
	event->kind = kind;
	event->inflight = inflight;
	__builtin_memcpy(&event->pool, pool, sizeof(*pool));
	bpf_ringbuf_submit(event, 0);
}

/* page_pool_release(): at destruction, then each second until nothing is out. */
SEC("raw_tp/page_pool_release")
int pool_attempt(struct bpf_raw_tracepoint_args *ctx)
{
	struct page_pool *pp = (void *)ctx->args[0];
	struct pool *pool = known(pp, ON_ATTEMPT);
	__u64 key = (__u64)pp;
	__s32 inflight = ctx->args[1];
	__u64 now = bpf_ktime_get_boot_ns();

	if (!pool)
		return 0;
	pool->hold = ctx->args[2];
	pool->release = ctx->args[3];
	pool->attempts++;
	pool->attempt_ns = now;
	if (inflight) {
		pool->stalls++;
		if (!pool->shutdown_ns)
			pool->shutdown_ns = now;
		/* its interface may be gone by now, and so may be what describes it: only this is read again */
		if (bpf_core_field_exists(pp->user))
			pool->detach_time = BPF_CORE_READ(pp, user.detach_time);
	}
	tell(ATTEMPT, inflight, pool);
	if (!inflight) { /* __page_pool_destroy(): the next pool may get the same address */
		bpf_map_delete_elem(&counts, &key);
		bpf_map_delete_elem(&pools, &key);
		__sync_fetch_and_add(&generation, 1);
	}
	return 0;
}

SEC("raw_tp/mem_connect")
int pool_connect(struct bpf_raw_tracepoint_args *ctx)
{
	struct xdp_mem_allocator *xa = (void *)ctx->args[0];
	struct xdp_rxq_info *rxq = (void *)ctx->args[1];
	struct pool *pool;

	if (BPF_CORE_READ(xa, mem.type) != MEM_TYPE_PAGE_POOL)
		return 0;
	pool = known(BPF_CORE_READ(xa, page_pool), ON_CONNECT);
	if (!pool)
		return 0;
	pool->mem_id = BPF_CORE_READ(xa, mem.id);
	pool->queue = BPF_CORE_READ(rxq, queue_index);
	describe_netdev(pool, BPF_CORE_READ(rxq, dev));
	tell(CONNECTED, 0, pool);
	return 0;
}

/* The pool has told its last attempt by now, and is forgotten: what is left is its address and mem id. */
SEC("raw_tp/mem_disconnect")
int pool_disconnect(struct bpf_raw_tracepoint_args *ctx)
{
	struct xdp_mem_allocator *xa = (void *)ctx->args[0];
	__u32 place = ON_DISCONNECT;
	struct pool *pool = bpf_map_lookup_elem(&scratch, &place);

	if (!pool || BPF_CORE_READ(xa, mem.type) != MEM_TYPE_PAGE_POOL)
		return 0;
	__builtin_memset(pool, 0, sizeof(*pool));
	pool->address = (__u64)BPF_CORE_READ(xa, page_pool);
	pool->mem_id = BPF_CORE_READ(xa, mem.id);
	tell(DISCONNECTED, 0, pool);
	return 0;
}

/* net_device of an ifindex in the caller's network namespace (dev_get_by_index_rcu) */
static __always_inline struct net_device *device_of(__u32 ifindex)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct hlist_head *heads = BPF_CORE_READ(task, nsproxy, net_ns, dev_index_head);
	struct hlist_node *node = 0;

	if (!heads)
		return 0;
	bpf_probe_read_kernel(&node, sizeof(node), &heads[ifindex & 255]);
	for (int i = 0; i < HASH_CHAIN && node; i++) {
		struct net_device *dev = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (BPF_CORE_READ(dev, ifindex) == ifindex)
			return dev;
		node = BPF_CORE_READ(node, next);
	}
	return 0;
}

/* args[0]: ifindex of a veth, args[1]: its queue. Returns 1 where `found` holds that queue's pool. */
SEC("raw_tp/find")
int find_veth_pool(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0, ifindex = ctx->args[0], queue = ctx->args[1];
	struct pool *pool = bpf_map_lookup_elem(&found, &zero);
	struct net_device *dev = device_of(ifindex);
	struct page_pool *pp;
	struct veth_priv *priv;
	void *rq;

	if (!pool || !dev || !bpf_core_type_exists(struct veth_rq) || !bpf_core_field_exists(struct veth_rq, page_pool))
		return 0;
	if (bpf_core_field_exists(dev->priv))
		priv = (void *)dev + bpf_core_field_offset(struct net_device, priv);
	else
		priv = (void *)dev + ((bpf_core_type_size(struct net_device) + NETDEV_ALIGN - 1) & ~(NETDEV_ALIGN - 1));
	rq = BPF_CORE_READ(priv, rq);
	if (!rq)
		return 0;
	pp = BPF_CORE_READ((struct veth_rq *)(rq + queue * bpf_core_type_size(struct veth_rq)), page_pool);
	if (!pp)
		return 0;
	describe(pool, pp);
	pool->queue = queue;
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
