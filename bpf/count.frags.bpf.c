// SPDX-License-Identifier: GPL-2.0-only
/* count for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See count.bpf.c. */
#define XDP_FRAGS
#include "count.bpf.c"
