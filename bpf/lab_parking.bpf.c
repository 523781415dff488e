// SPDX-License-Identifier: GPL-2.0-only
/*
 * lab_parking (XDP): sends frames where they stay for a while, so that their page pool has to wait for them;
 * `xdpctl lab run page-pool` runs it on live frames (BPF_F_TEST_XDP_LIVE_FRAMES).
 *
 * Globals
 *   cpu       0   slot of `cpus` that `aside` redirects to
 *   target    0   ifindex that `onto` redirects to
 *   burn_ns   0   what `slow` takes for each frame
 * Maps
 *   cpus      cpumap; its entry runs `slow`
 *
 * Not for attaching to an interface: xdpctl attach build/bpf/lab_parking.bpf.o is refused.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define TURNS (1 << 23) /* as many as bpf_loop() allows, 28 ns each on a machine of today */

const volatile __u32 cpu = 0;
const volatile __u32 target = 0;
const volatile __u64 burn_ns = 0;

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1); /* as many as the CPU asks for */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct bpf_cpumap_val));
} cpus SEC(".maps");

SEC("xdp")
int up(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int aside(struct xdp_md *ctx)
{
	return bpf_redirect_map(&cpus, cpu, 0);
}

SEC("xdp")
int onto(struct xdp_md *ctx)
{
	return bpf_redirect(target, 0);
}

static long over(__u32 turn, __u64 *end)
{
	return bpf_ktime_get_ns() >= *end;
}

SEC("xdp/cpumap")
int slow(struct xdp_md *ctx)
{
	__u64 end = bpf_ktime_get_ns() + burn_ns;

	bpf_loop(TURNS, over, &end, 0);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
