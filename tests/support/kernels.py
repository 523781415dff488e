"""What the running kernel has, where an expectation differs by kernel: the same test asserts the one or the other."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

from xdpctl.bpf import features

RELEASE = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))

TCX = features.probe("tcx")
"""Linux 6.6; before it TC programs go to clsact."""
NETDEV = features.probe("netdev_genl")
"""The netdev family and xdp-features (Linux 6.3)."""
LIVE_FRAMES = features.probe("live_frames")
"""Linux 5.18; without them nothing can be proved by a probe."""
GRO_STARTS_NAPI = RELEASE >= (5, 13)
"""Before it only a native program gives a veth its NAPI."""

LOST = ("EOPNOTSUPP", "xdp:xdp_redirect_err") if NETDEV else ("ENXIO", "xdp:xdp_devmap_xmit")
"""How a native redirect into a veth whose peer has no NAPI fails: refused at the call, or lost in the bulk."""

CHANNELS_OF_VETH = RELEASE >= (5, 15)
"""ethtool -l and -L on a veth."""
SYSCALL_PROGRAMS = RELEASE >= (5, 14)
CONFIG = Path("/proc/config.gz").exists() or Path(f"/boot/config-{os.uname().release}").exists()
"""The kernel's configuration can be read; Debian's newest kernels come without."""


def configuration() -> bytes | None:
    """The running kernel's configuration; None where it can't be read."""
    packed = Path("/proc/config.gz")
    if packed.exists():
        return gzip.decompress(packed.read_bytes())
    plain = Path(f"/boot/config-{os.uname().release}")
    return plain.read_bytes() if plain.exists() else None


FRAGS = features.probe("frags")
"""XDP programs for frames of several buffers (Linux 5.18)."""
VARIANTS = ("", ".frags") if FRAGS else ("",)
"""Of the shipped programs: which this kernel takes."""

EMULATED = "XDPCTL_GUEST" in os.environ
"""An instruction takes a guest of the matrix as long as twenty here: fewer frames, elements, rounds show the same."""

NEEDS = {
    **{name: (lambda name=name: features.probe(name)) for name in features.FEATURES},
    "bpf_loop": lambda: RELEASE >= (5, 17),
    "drop_reasons": lambda: RELEASE >= (5, 17),
    "module_types": lambda: RELEASE >= (5, 11),
    "pages_in_sockets": lambda: RELEASE >= (6, 4),
}
"""What ``@pytest.mark.needs`` may name. On kernels without it a test is not collected; what xdpctl says and does there
is told by test_lacking.py. Beside xdpctl's own features: bpf_loop() to hold a CPU up; kfree_skb with a reason;
BTF of modules; skbs that keep the pages of their pool, so that an unread socket holds them."""
