// SPDX-License-Identifier: GPL-2.0-only
/* pass for frames of several buffers (jumbo MTU): needs Linux 5.18 and a driver that has them. See pass.bpf.c. */
#define XDP_FRAGS
#include "pass.bpf.c"
