/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How full a ptr_ring (include/linux/ptr_ring.h) is at this moment, seen from a tracer.
 *
 * Producers and consumers of a ptr_ring meet in its slots alone: a slot that holds a pointer is taken, one that holds
 * NULL is free. The indices are private to their sides, so they are no measure of fullness: at full, producer equals
 * consumer_head, and so it does at empty. The consumer frees slots a batch at a time, so slots may be taken though
 * what they held was read already: `taken` and `unread` differ by at most batch - 1.
 */
#ifndef XDPCTL_RING_STATE_H
#define XDPCTL_RING_STATE_H

#include "kernel_net.h"

#define SCAN_CHUNK 64 /* slots read at once */
#define SCAN_CHUNKS 16
#define SCAN_MOST (SCAN_CHUNK * SCAN_CHUNKS) /* slots; of larger rings the indices are taken for it */

struct sight {
	__u32 size; /* slots; 0: the ring could not be read */
	__u32 batch;
	__u32 taken;
	__u32 unread;
};

/* Map `scratch`: what look_at_ring() saw last on this CPU, and room for the slots being counted. */
struct scratch {
	struct sight sight;
	__u64 slot[2 * SCAN_CHUNK]; /* twice, so that a mask bounds what is read into it */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline struct scratch *scratch_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline __u32 is_taken(__u64 slot)
{
	return (slot | -slot) >> 63; /* without a branch: the verifier follows one path through the loop */
}

/*
 * How many of the slots in the scratch room are taken. Not static, as is look_at_ring(): the verifier then follows
 * each once, and not once more for every place it is called from.
 */
__noinline int taken_of(__u32 many)
{
	struct scratch *room = scratch_room();
	__u32 taken = 0;

	if (!room)
		return 0;
	for (__u32 i = 0; i < SCAN_CHUNK; i++) {
		if (i >= many)
			break;
		taken += is_taken(room->slot[i]);
	}
	return taken;
}

static __always_inline __u32 taken_slots(struct scratch *room, void **queue, __u32 size)
{
	__u32 taken = 0;

	for (__u32 chunk = 0; chunk < SCAN_CHUNKS; chunk++) {
		__u32 from = chunk * SCAN_CHUNK, many;

		if (from >= size)
			break;
		many = size - from;
		if (many > SCAN_CHUNK)
			many = SCAN_CHUNK;
		many = BOUNDED(many, 2 * SCAN_CHUNK - 1);
		if (bpf_probe_read_kernel(room->slot, many * sizeof(__u64), queue + from))
			break;
		taken += taken_of(many);
	}
	return taken;
}

static __always_inline void *slot_of(void **queue, __u32 index)
{
	void *pointer = 0;

	bpf_probe_read_kernel(&pointer, sizeof(pointer), queue + index);
	return pointer;
}

/* Look at the struct ptr_ring at this address; what it saw is in the scratch room, size 0 if nothing. */
__noinline int look_at_ring(__u64 address)
{
	const struct ptr_ring *ring = (void *)address;
	struct scratch *room = scratch_room();
	__u32 producer, head, tail, size;
	struct sight *sight;
	void **queue;

	if (!room)
		return 0;
	sight = &room->sight;
	sight->size = 0;
	size = BPF_CORE_READ(ring, size);
	queue = BPF_CORE_READ(ring, queue);
	producer = BPF_CORE_READ(ring, producer);
	head = BPF_CORE_READ(ring, consumer_head);
	tail = BPF_CORE_READ(ring, consumer_tail);
	if (!size || !queue || producer >= size || head > size || tail >= size)
		return 0; /* not a ring (any more) */
	if (head == size)
		head = 0;
	sight->unread = producer >= head ? producer - head : producer + size - head;
	if (!sight->unread && slot_of(queue, head))
		sight->unread = size;
	if (size <= SCAN_MOST)
		sight->taken = taken_slots(room, queue, size);
	else if (producer == tail)
		sight->taken = slot_of(queue, producer) ? size : 0;
	else
		sight->taken = producer > tail ? producer - tail : producer + size - tail;
	sight->batch = BPF_CORE_READ(ring, batch);
	sight->size = size;
	return 0;
}

#endif
