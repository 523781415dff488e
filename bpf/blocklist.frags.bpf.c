// SPDX-License-Identifier: GPL-2.0-only
/* blocklist for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See blocklist.bpf.c. */
#define XDP_FRAGS
#include "blocklist.bpf.c"
