"""XDP features, queues, NAPIs and page pools of links (the generic netlink family netdev, 6.3 and later).

Tables as in include/uapi/linux/netdev.h (Documentation/netlink/specs/netdev.yaml). ``uint`` attributes are
4 or 8 bytes long, whichever the value needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.netlink import genl
from xdpctl.netlink.attributes import RAW, U32, UINT, Kind, attr_nest, attr_u32, attributes, nest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

FAMILY = "netdev"
DEV_GET = 1
PAGE_POOL_GET = 5
PAGE_POOL_STATS_GET = 9
QUEUE_GET = 10
NAPI_GET = 11

XDP_FEATURES = {
    1: "basic",
    2: "redirect",
    4: "ndo-xmit",
    8: "xsk-zerocopy",
    16: "hw-offload",
    32: "rx-sg",
    64: "ndo-xmit-sg",
}
"""NETDEV_XDP_ACT_* as the specification names them."""


class Device(NamedTuple):
    """What dev-get says of a link (6.3); None: this kernel does not say."""

    ifindex: int
    xdp_features: int | None
    """NETDEV_XDP_ACT_*; 0 does not mean "no XDP" on 6.3..6.5, where some drivers never set it."""
    zc_max_segs: int | None = None
    """Most fragments of a zero-copy AF_XDP frame (6.6); only with zero-copy."""
    rx_metadata: int | None = None
    """NETDEV_XDP_RX_METADATA_*: 1 timestamp, 2 hash, 4 vlan-tag (6.8)."""
    xsk_features: int | None = None
    """NETDEV_XSK_FLAGS_*: 1 tx-timestamp, 2 tx-checksum, 4 launch-time (6.8)."""


class Queue(NamedTuple):
    """A queue in use (queue-get, 6.8); links that are down have none."""

    ifindex: int
    type: str
    """rx or tx."""
    id: int
    napi: int | None = None
    xsk: bool = False
    """An AF_XDP socket's pool is bound to it (6.14)."""
    memory_provider: str | None = None
    """dmabuf (6.12) or io_uring (6.15): no XDP beside it."""


class RawNapi(NamedTuple):
    """A NAPI instance (napi-get, 6.8)."""

    id: int
    ifindex: int
    irq: int | None = None
    pid: int | None = None
    """Its thread, when threaded."""
    defer_hard_irqs: int | None = None
    gro_flush_timeout_ns: int | None = None
    irq_suspend_timeout_ns: int | None = None
    threaded: int | None = None
    """0 disabled, 1 enabled, 2 busy-poll (6.17)."""


class PagePool(NamedTuple):
    """A page pool that its driver made listable (page-pool-get, 6.8)."""

    id: int
    ifindex: int | None
    """None: its link is gone, and pages are still out."""
    napi: int | None
    inflight: int | None
    """Pages handed out, by hold_cnt - release_cnt."""
    inflight_bytes: int | None
    detach_time: int | None
    """CLOCK_BOOTTIME seconds when it was destroyed with pages out; None: it is in use."""


_DEVICE = {
    1: ("ifindex", U32),
    3: ("xdp_features", UINT),
    4: ("zc_max_segs", U32),
    5: ("rx_metadata", UINT),
    6: ("xsk_features", UINT),
}
_PRESENT = Kind(decode=lambda _data, _start, _end: True)
_QUEUE = {
    1: ("id", U32),
    2: ("ifindex", U32),
    3: ("type", U32),
    4: ("napi", U32),
    5: ("dmabuf", U32),
    6: ("io_uring", _PRESENT),
    7: ("xsk", _PRESENT),
}
_NAPI = {
    1: ("ifindex", U32),
    2: ("id", U32),
    3: ("irq", U32),
    4: ("pid", U32),
    5: ("defer_hard_irqs", U32),
    6: ("gro_flush_timeout_ns", UINT),
    7: ("irq_suspend_timeout_ns", UINT),
    8: ("threaded", UINT),
}
_POOL = {
    1: ("id", UINT),
    2: ("ifindex", U32),
    3: ("napi", UINT),
    4: ("inflight", UINT),
    5: ("inflight_mem", UINT),
    6: ("detach_time", UINT),
    7: ("dmabuf", U32),
    8: ("io_uring", RAW),
}
_POOL_STATS = {
    1: ("info", nest(_POOL)),
    8: ("alloc_fast", UINT),
    9: ("alloc_slow", UINT),
    10: ("alloc_slow_high_order", UINT),
    11: ("alloc_empty", UINT),
    12: ("alloc_refill", UINT),
    13: ("alloc_waive", UINT),
    14: ("recycle_cached", UINT),
    15: ("recycle_cache_full", UINT),
    16: ("recycle_ring", UINT),
    17: ("recycle_ring_full", UINT),
    18: ("recycle_released_refcnt", UINT),
}


def _dump(
    opened: wire.Socket | None, command: int, table: Any, what: str, attrs: bytes = b""
) -> list[dict[str, Any]]:
    return [attributes(*one, table) for one in genl.dump(opened, FAMILY, command, attrs, f"listing {what}")]


def devices(opened: wire.Socket | None = None) -> dict[int, Device]:
    """XDP features of every link of the namespace, by ifindex (dev-get).

    Raises:
        UnsupportedError: before 6.3.
        NetlinkError: the kernel refused.
    """
    found = _dump(opened, DEV_GET, _DEVICE, "XDP features")
    return {one["ifindex"]: _device(one) for one in found if "ifindex" in one}


def device(ifindex: int, opened: wire.Socket | None = None) -> Device:
    """XDP features of one link.

    Raises:
        UnsupportedError: before 6.3.
        NetlinkError: ENODEV: there is none.
    """
    answer = genl.request(
        opened, FAMILY, DEV_GET, attr_u32(1, ifindex), f"reading the XDP features of link {ifindex}"
    )
    return _device({"ifindex": ifindex, **(attributes(*answer, _DEVICE) if answer else {})})


def _device(found: dict[str, Any]) -> Device:
    get = found.get
    return Device(
        found["ifindex"], get("xdp_features"), get("zc_max_segs"), get("rx_metadata"), get("xsk_features")
    )


def queues(opened: wire.Socket | None = None) -> list[Queue]:
    """Every queue in use of every link that is up (queue-get).

    Raises:
        UnsupportedError, NetlinkError: before 6.8, or the kernel refused.
    """
    return [
        Queue(
            one["ifindex"],
            "tx" if one.get("type") else "rx",
            one.get("id", 0),
            one.get("napi"),
            one.get("xsk", False),
            "dmabuf" if "dmabuf" in one else "io_uring" if "io_uring" in one else None,
        )
        for one in _dump(opened, QUEUE_GET, _QUEUE, "queues")
        if "ifindex" in one
    ]


def napis(opened: wire.Socket | None = None) -> list[RawNapi]:
    """Every NAPI instance of every link that is up (napi-get).

    Raises:
        UnsupportedError, NetlinkError: before 6.8, or the kernel refused.
    """
    return [
        RawNapi(
            one["id"],
            one["ifindex"],
            one.get("irq"),
            one.get("pid"),
            one.get("defer_hard_irqs"),
            one.get("gro_flush_timeout_ns"),
            one.get("irq_suspend_timeout_ns"),
            one.get("threaded"),
        )
        for one in _dump(opened, NAPI_GET, _NAPI, "NAPIs")
        if "ifindex" in one and "id" in one
    ]


def page_pools(opened: wire.Socket | None = None) -> list[PagePool]:
    """Every page pool whose driver lists it (page-pool-get): none listed does not mean none there.

    Raises:
        UnsupportedError, NetlinkError: before 6.8, or the kernel refused.
    """
    return [_pool(one) for one in _dump(opened, PAGE_POOL_GET, _POOL, "page pools") if "id" in one]


def page_pool_stats(opened: wire.Socket | None = None) -> list[tuple[PagePool, Mapping[str, int]]]:
    """Counters of every listed page pool (page-pool-stats-get), by the specification's names.

    Raises:
        UnsupportedError, NetlinkError: before 6.8; EOPNOTSUPP: a kernel without CONFIG_PAGE_POOL_STATS.
    """
    found: list[tuple[PagePool, Mapping[str, int]]] = []
    for one in _dump(opened, PAGE_POOL_STATS_GET, _POOL_STATS, "page pool statistics"):
        info = one.pop("info", None)
        if info and "id" in info:
            found.append((_pool(info), one))
    return found


def page_pool_stats_of(pool: int, opened: wire.Socket | None = None) -> Mapping[str, int]:
    """Counters of one page pool by its id.

    Raises:
        UnsupportedError, NetlinkError: before 6.8; EOPNOTSUPP: a kernel without CONFIG_PAGE_POOL_STATS.
    """
    attrs = attr_nest(1, attr_u32(1, pool))
    answer = genl.request(
        opened, FAMILY, PAGE_POOL_STATS_GET, attrs, f"reading the statistics of page pool {pool}"
    )
    found = attributes(*answer, _POOL_STATS) if answer else {}
    found.pop("info", None)
    return found


def _pool(one: dict[str, Any]) -> PagePool:
    get = one.get
    return PagePool(
        one["id"], get("ifindex"), get("napi"), get("inflight"), get("inflight_mem"), get("detach_time")
    )
