"""One device on one sheet: what drives it, how it is set, at most what, and the room that XDP has on it. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xdpctl.doctor.rules.attach_drivers import largest_mtu
from xdpctl.doctor.rules.attach_veth import max_peer_mtu
from xdpctl.doctor.rules.case import driver_of, hard_header_len
from xdpctl.doctor.rules.driver_limits import MTU_LIMITS
from xdpctl.doctor.rules.geometry import geometry
from xdpctl.doctor.rules.page_pool import pool_size
from xdpctl.netlink.netdev import XDP_FEATURES

if TYPE_CHECKING:
    from xdpctl.host.model import Link, Snapshot

PAGE_CACHE = ("rx_cache_", "rx_pp_", "page_pool", "cache_reuse", "cache_full", "cache_busy", "cache_empty")
"""Parts of the names under which drivers count their page caches (mlx5 rx_cache_*, rx_pp_*, ...)."""


def mtu_limit(snapshot: Snapshot, link: Link) -> dict[str, Any] | None:
    """Largest MTU with native XDP as formula and bytes; None: no limit is known for this driver and kernel.

    ``of`` says whose MTU it is: a veth's limit is its peer's.
    """
    sizes = geometry(snapshot.kernel)
    if sizes is None:
        return None
    if link.kind == "veth":
        peer = snapshot.peer(link)
        most = max_peer_mtu(sizes, hard_header_len(link), frags=False)
        formula = "page - 256 - shared_info - header"
        now = None if peer is None else peer.mtu
        return {"formula": formula, "bytes": most, "of": "peer", "now": now, "frags_lift": True}
    driver = driver_of(link)
    for row in MTU_LIMITS:
        if driver in row.drivers and row.since <= snapshot.kernel.version < row.until:
            bytes_ = largest_mtu(row, sizes, link)
            lifted = row.frags is not None and snapshot.kernel.version >= row.frags
            return {
                "formula": row.largest,
                "bytes": bytes_,
                "of": "device",
                "now": link.mtu,
                "frags_lift": lifted,
            }
    return None


def sheet(snapshot: Snapshot, link: Link) -> dict[str, Any]:
    """Everything that `xdpctl driver show` tells of a link; absent facts are None."""
    space = snapshot.namespace(link.netns)
    features = link.xdp_features
    pools = link.page_pools
    modes = [mode for mode in ("native", "generic", "offload") if getattr(link.xdp, mode)]
    return {
        "interface": link.name,
        "netns": None if space is None else space.name,
        "ifindex": link.ifindex,
        "driver": link.driver,
        "firmware": link.firmware or None,
        "bus": link.bus_info or None,
        "numa_node": link.numa_node,
        "up": link.up,
        "mtu": {"now": link.mtu, "min": link.min_mtu, "max": link.max_mtu},
        "xdp_features": None
        if features is None
        else [name for bit, name in XDP_FEATURES.items() if features & bit],
        "xdp_mode": modes,
        "rings": None if link.rings is None else _present(asdict(link.rings)),
        "channels": None if link.channels is None else asdict(link.channels),
        "coalesce": None if link.coalesce is None else dict(link.coalesce),
        "pause": None if link.pause is None else asdict(link.pause),
        "private_flags": None if link.private_flags is None else dict(link.private_flags),
        "pool_size": pool_size(link, snapshot.kernel.page_size),
        "page_pools": None if pools is None else [asdict(one) for one in pools],
        "napis": None if link.napis is None else [asdict(one) for one in link.napis],
        "napi_defaults": link.napi_defaults,
        "page_cache": {
            name: value
            for name, value in (link.statistics or {}).items()
            if any(part in name for part in PAGE_CACHE)
        },
        "headroom": {
            "mtu": mtu_limit(snapshot, link),
            "rx_queues": link.real_rx_queues,
            "tx_queues": link.real_tx_queues,
            "cpus": snapshot.cpus_online,
        },
    }


def _present(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}
