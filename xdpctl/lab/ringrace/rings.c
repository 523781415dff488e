/* Two rings under real threads, each with the race and without it: how often does one call itself full?
 *
 *   rings MODE SECONDS	prints one JSON object
 *
 * Every thread puts one item in and takes one out before the next: with two threads at most two items are ever
 * in a ring of SIZE slots, so every "full" is spurious by construction.
 *
 * MODE     ring                                                        loads
 * plain    FreeBSD's buf_ring of 2013: prod_head, then cons_tail       plain (relaxed)
 * checked  the same, and both indices again before it gives up         acquire, stores release
 * early    a ptr_ring with tap's test of 4.15 before its lock          plain (relaxed)
 * locked   a ptr_ring, tested under its lock alone                     acquire, stores release
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIZE 64u
#define MASK (SIZE - 1)
#define THREADS 2
#define LINE _Alignas(64)

#define plain(p) atomic_load_explicit(&(p), memory_order_relaxed)
#define acquire(p) atomic_load_explicit(&(p), memory_order_acquire)
#define put_plain(p, v) atomic_store_explicit(&(p), v, memory_order_relaxed)
#define release(p, v) atomic_store_explicit(&(p), v, memory_order_release)

static LINE atomic_uint prod_head, prod_tail;
static LINE atomic_uint cons_head, cons_tail;
static LINE atomic_flag prod_lock = ATOMIC_FLAG_INIT, cons_lock = ATOMIC_FLAG_INIT;
static LINE _Atomic(void *) slot[SIZE];
static LINE atomic_bool stop;

/* while waiting for the other thread: whose CPU may be busy with something else */
static void relax(unsigned int *turns)
{
	if (++*turns % 4096 == 0)
		sched_yield();
}

static void spin(atomic_flag *lock)
{
	unsigned int turns = 0;

	while (atomic_flag_test_and_set_explicit(lock, memory_order_acquire))
		relax(&turns);
}

static void unspin(atomic_flag *lock)
{
	atomic_flag_clear_explicit(lock, memory_order_release);
}

static bool swap(atomic_uint *where, unsigned int from, unsigned int to)
{
	return atomic_compare_exchange_strong_explicit(where, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

/* sys/buf_ring.h, 2013 */
static bool enqueue_plain(void *item)
{
	unsigned int head, next, tail, turns = 0;

	do {
		head = plain(prod_head);
		tail = plain(cons_tail);
		next = (head + 1) & MASK;
		if (next == tail)
			return false;
	} while (!swap(&prod_head, head, next));
	put_plain(slot[head], item);
	while (plain(prod_tail) != head && !plain(stop))
		relax(&turns);
	release(prod_tail, next);
	return true;
}

/* sys/buf_ring.h between 2013 and 2024 */
static bool enqueue_checked(void *item)
{
	unsigned int head, next, tail, turns = 0;

	for (;;) {
		head = acquire(prod_head);
		next = (head + 1) & MASK;
		tail = acquire(cons_tail);
		if (next == tail) {
			if (head == acquire(prod_head) && tail == acquire(cons_tail))
				return false;
			continue;
		}
		if (swap(&prod_head, head, next))
			break;
	}
	put_plain(slot[head], item);
	while (acquire(prod_tail) != head && !plain(stop))
		relax(&turns);
	release(prod_tail, next);
	return true;
}

static bool dequeue(void)
{
	unsigned int head, next, turns = 0;

	do {
		head = acquire(cons_head);
		if (head == acquire(prod_tail))
			return false;
		next = (head + 1) & MASK;
	} while (!swap(&cons_head, head, next));
	while (acquire(cons_tail) != head && !plain(stop))
		relax(&turns);
	release(cons_tail, next);
	return true;
}

/* include/linux/ptr_ring.h; prod_head is its producer, cons_head its consumer_head */
static bool produce(void *item)
{
	unsigned int at;
	bool done = false;

	spin(&prod_lock);
	at = plain(prod_head);
	if (!acquire(slot[at])) {
		put_plain(prod_head, (at + 1) & MASK);
		release(slot[at], item);
		done = true;
	}
	unspin(&prod_lock);
	return done;
}

/* drivers/net/tap.c of 4.15: __skb_array_full() and then skb_array_produce() */
static bool produce_early(void *item)
{
	if (plain(slot[plain(prod_head)]))
		return false;
	return produce(item);
}

static bool consume(void)
{
	unsigned int at;
	bool done = false;

	spin(&cons_lock);
	at = plain(cons_head);
	if (acquire(slot[at])) {
		release(slot[at], NULL);
		put_plain(cons_head, (at + 1) & MASK);
		done = true;
	}
	unspin(&cons_lock);
	return done;
}

static const struct mode {
	const char *name;
	bool (*put)(void *);
	bool (*get)(void);
} modes[] = {
	{ "plain", enqueue_plain, dequeue },
	{ "checked", enqueue_checked, dequeue },
	{ "early", produce_early, consume },
	{ "locked", produce, consume },
};

static const struct mode *mode;

struct thread {
	pthread_t id;
	int cpu;
	bool pinned;
	LINE unsigned long calls, full;
};

static void *run(void *argument)
{
	struct thread *self = argument;
	cpu_set_t allowed;
	int item, nth = self->cpu;

	if (!sched_getaffinity(0, sizeof(allowed), &allowed) && CPU_COUNT(&allowed) > nth) {
		for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
			if (CPU_ISSET(cpu, &allowed) && nth-- == 0) {
				CPU_ZERO(&allowed);
				CPU_SET(cpu, &allowed);
				break;
			}
		self->pinned = !pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
	}
	while (!plain(stop)) {
		self->calls++;
		if (!mode->put(&item)) {
			self->full++;
			continue;
		}
		while (!mode->get() && !plain(stop))
			; /* a stale cons_head can meet a prod_tail that has wrapped: "empty" may be a lie, too */
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct thread threads[THREADS] = { 0 };
	unsigned long calls = 0, full = 0;
	double seconds = argc == 3 ? atof(argv[2]) : 0;
	bool pinned = true;

	for (size_t one = 0; argc == 3 && one < sizeof(modes) / sizeof(*modes); one++)
		if (!strcmp(modes[one].name, argv[1]))
			mode = &modes[one];
	if (!mode || seconds <= 0 || seconds > 60) {
		fprintf(stderr, "usage: rings plain|checked|early|locked SECONDS\n");
		return 2;
	}
	for (int one = 0; one < THREADS; one++) {
		threads[one].cpu = one;
		if (pthread_create(&threads[one].id, NULL, run, &threads[one]))
			return 1;
	}
	struct timespec time = { (time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) };
	nanosleep(&time, NULL);
	release(stop, true);
	for (int one = 0; one < THREADS; one++) {
		pthread_join(threads[one].id, NULL);
		calls += threads[one].calls;
		full += threads[one].full;
		pinned = pinned && threads[one].pinned;
	}
	printf("{\"mode\": \"%s\", \"seconds\": %.3f, \"threads\": %d, \"slots\": %u, \"pinned\": %s,"
	       " \"calls\": %lu, \"full\": %lu}\n",
	       mode->name, seconds, THREADS, SIZE, pinned ? "true" : "false", calls, full);
	return 0;
}
