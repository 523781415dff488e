// SPDX-License-Identifier: GPL-2.0-only
/* tx-swap for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See tx-swap.bpf.c. */
#define XDP_FRAGS
#include "tx-swap.bpf.c"
