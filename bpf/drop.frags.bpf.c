// SPDX-License-Identifier: GPL-2.0-only
/* drop for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See drop.bpf.c. */
#define XDP_FRAGS
#include "drop.bpf.c"
