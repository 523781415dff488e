// SPDX-License-Identifier: GPL-2.0-only
/* redirect_map for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See redirect_map.bpf.c. */
#define XDP_FRAGS
#include "redirect_map.bpf.c"
