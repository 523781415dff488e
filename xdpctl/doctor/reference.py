"""The reference behind `xdpctl explain`: what the kernel answers, why, how to tell, and what clears it.

One row a cause. Rows about drivers' limits are generated from the rules' own table (rules/driver_limits), so that
the prediction and the explanation cannot differ; the rest stand in causes_attach, _redirect, _load and _drivers.
"""

from __future__ import annotations

from functools import lru_cache

from xdpctl.doctor import causes_attach, causes_drivers, causes_load, causes_redirect
from xdpctl.doctor.cause import ATTACH, Cause

DOCTOR = "xdpctl doctor D"


@lru_cache(maxsize=1)
def causes() -> tuple[Cause, ...]:
    """Every row: the core's, drivers' own, and those of the rules' table of driver limits."""
    from xdpctl.doctor.rules.attach_drivers import BY_KEY, MTU
    from xdpctl.doctor.rules.driver_limits import MTU_LIMITS, REFUSALS

    generated = [
        Cause(
            ATTACH,
            (row.errno,),
            row.text,
            f"the MTU is over {row.largest.replace('_', ' ')} bytes"
            + (" without frags" if row.frags else ""),
            f"ip link show D; {DOCTOR} computes the limit for this kernel",
            "ip link set dev D mtu N" + (', or SEC("xdp.frags")' if row.frags else ""),
            row.drivers,
            MTU.id,
            row.heard,
            _versions(row.since, row.until),
            1,
        )
        for row in MTU_LIMITS
    ]
    generated += [
        Cause(
            ATTACH,
            (row.errno,) if row.errno else (),
            row.text,
            row.consequence or BY_KEY[row.mistake].what,
            f"{DOCTOR}; {_LOOK.get(row.mistake, 'ethtool -i D; dmesg | tail')}",
            _CLEAR.get(row.mistake, f"what {DOCTOR} proposes"),
            row.drivers,
            BY_KEY[row.mistake].id,
            row.heard,
            _versions(row.since, row.until),
            1,
        )
        for row in REFUSALS
    ]
    by_hand = (causes_attach, causes_redirect, causes_load, causes_drivers)
    return (*(one for table in by_hand for one in table.CAUSES), *generated)


_LOOK = {
    "receive-offload": "ethtool -k D | grep -e large-receive -e rx-gro-hw",
    "header-split": "ethtool -g D",
    "queues": "ethtool -l D",
    "striding-rq": "ethtool --show-priv-flags D",
    "sriov": "cat /sys/class/net/D/device/sriov_numvfs",
    "cpus": "nproc --all",
    "hypervisor": "cat /sys/class/net/D/device/features",
    "buffers": "ip link show D: it is down",
}
_CLEAR = {
    "receive-offload": "ethtool -K D lro off rx-gro-hw off; where they are [fixed], only the hypervisor can",
    "header-split": "ethtool -G D tcp-data-split off",
    "queues": "ethtool -L D combined N",
    "striding-rq": "ethtool --set-priv-flags D rx_striding_rq off",
    "sriov": "echo 0 > /sys/class/net/D/device/sriov_numvfs",
    "cpus": "boot with nr_cpus=N, or --mode generic",
    "hypervisor": "in the hypervisor: ctrl_guest_offloads=on; or --mode generic",
    "buffers": "ip link set dev D up, then attach",
}


def _versions(since: tuple[int, ...], until: tuple[int, ...]) -> str:
    first = ".".join(map(str, since)) if since != (0,) else ""
    last = f"before {'.'.join(map(str, until))}" if until != (99,) else ""
    return " ".join(filter(None, (f"from {first}" if first else "", last)))
