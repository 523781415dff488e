/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What each XDP program of bpf/ is built twice with.
 *
 * NAME.bpf.c is the plain program, which loads from Linux 5.10 on. NAME.frags.bpf.c defines XDP_FRAGS and includes
 * it: the same code for frames of several buffers (jumbo MTU; Linux 5.18). They are two objects, not two
 * programs of one, because an object with one program needs no --program, and because the section
 * "xdp.frags" makes kernels before 5.18 refuse the load of the whole object.
 */
#ifndef XDPCTL_XDP_H
#define XDPCTL_XDP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifdef XDP_FRAGS
#define XDP_SECTION "xdp.frags"
#else
#define XDP_SECTION "xdp"
#endif

/* Bytes of the whole frame: with fragments, data_end ends only its first buffer. */
static __always_inline __u64 frame_length(struct xdp_md *ctx)
{
#ifdef XDP_FRAGS
	return bpf_xdp_get_buff_len(ctx);
#else
	return ctx->data_end - ctx->data;
#endif
}

#endif
