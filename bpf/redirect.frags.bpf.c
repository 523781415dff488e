// SPDX-License-Identifier: GPL-2.0-only
/* redirect for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See redirect.bpf.c. */
#define XDP_FRAGS
#include "redirect.bpf.c"
