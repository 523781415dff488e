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
