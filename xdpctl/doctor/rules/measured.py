"""What `doctor --probe` can find: not rules, but their table's rows for what was measured instead of inferred."""

from __future__ import annotations

from xdpctl.doctor.rules.case import Mistake, Rule

DELIVERED = Mistake(
    "probe.delivered",
    "A marked frame went through the program and the redirect, and the target took it.",
    "none",
    ("net/bpf/test_run.c bpf_test_run_xdp_live()", "include/trace/events/xdp.h"),
)
LOST = Mistake(
    "probe.lost",
    "A marked frame went through the program and was lost: the tracepoint says where.",
    "the errno of xdp_redirect_err, xdp_devmap_xmit or xdp_bulk_tx",
    ("include/trace/events/xdp.h",),
)
NOT_REDIRECTED = Mistake(
    "probe.not-redirected",
    "The program did not redirect the marked frame: it wants another kind of frame, or its map is empty.",
    "none",
    ("include/trace/events/xdp.h xdp_exception",),
)
NOT_PROVEN = Mistake(
    "probe.not-proven",
    "The path could not be proven: the kernel, the mode or the privileges don't allow a probe.",
    "none",
    ("net/bpf/test_run.c BPF_F_TEST_XDP_LIVE_FRAMES (5.18)",),
)
MISTAKES = (DELIVERED, LOST, NOT_REDIRECTED, NOT_PROVEN)
RULES: tuple[Rule, ...] = ()
