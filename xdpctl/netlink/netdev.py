"""XDP features, queues, NAPIs and page pools of links (the generic netlink family netdev, 6.3 and later).

Tables as in include/uapi/linux/netdev.h (Documentation/netlink/specs/netdev.yaml). ``uint`` attributes are
4 or 8 bytes long, whichever the value needs.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.errors import NetlinkError, PrivilegeError
from xdpctl.netlink import genl
from xdpctl.netlink.attributes import RAW, U32, UINT, Kind, attr_u32, attr_uint, attributes, nest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.netlink import wire

FAMILY = "netdev"
DEV_GET = 1
PAGE_POOL_GET = 5
PAGE_POOL_STATS_GET = 9
QUEUE_GET = 10
NAPI_GET = 11
QSTATS_GET = 12
NAPI_SET = 14

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
    """0 disabled, 1 enabled, 2 busy-poll (after 6.18, which refuses it)."""


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


THREADED = ("disabled", "enabled", "busy-poll")
"""enum netdev_napi_threaded."""


def set_napi(napi: int, values: Mapping[str, int], opened: wire.Socket | None = None) -> None:
    """Change a NAPI's settings (napi-set, 6.13); what is not named stays.

    Args:
        napi: its id.
        values: defer-hard-irqs, gro-flush-timeout (ns), irq-suspend-timeout (ns), threaded (`THREADED`, 6.17).
        opened: a NETLINK_GENERIC socket to use.

    Raises:
        PrivilegeError: CAP_NET_ADMIN is missing.
        UnsupportedError: before 6.3.
        NetlinkError: refused, in the kernel's words; EOPNOTSUPP: before 6.13.
    """
    places = {name.removesuffix("_ns").replace("_", "-"): number for number, (name, _kind) in _NAPI.items()}
    attrs = b"".join(
        (attr_u32 if name == "defer-hard-irqs" else attr_uint)(places[name], value)
        for name, value in values.items()
    )
    action = f"setting NAPI {napi}"
    try:
        genl.request(opened, FAMILY, NAPI_SET, attr_u32(2, napi) + attrs, action, names=_NAPI)
    except NetlinkError as error:
        if error.errno == errno.EPERM:
            raise PrivilegeError(action, capability="CAP_NET_ADMIN", errno=error.errno) from error
        raise


QSTATS = (
    *("rx-packets", "rx-bytes", "tx-packets", "tx-bytes", "rx-alloc-fail", "rx-hw-drops"),
    *("rx-hw-drop-overruns", "rx-csum-complete", "rx-csum-unnecessary", "rx-csum-none", "rx-csum-bad"),
    *("rx-hw-gro-packets", "rx-hw-gro-bytes", "rx-hw-gro-wire-packets", "rx-hw-gro-wire-bytes"),
    *("rx-hw-drop-ratelimits", "tx-hw-drops", "tx-hw-drop-errors", "tx-csum-none", "tx-needs-csum"),
    *("tx-hw-gso-packets", "tx-hw-gso-bytes", "tx-hw-gso-wire-packets", "tx-hw-gso-wire-bytes"),
    *("tx-hw-drop-ratelimits", "tx-stop", "tx-wake"),
)
"""NETDEV_A_QSTATS_*, from number 8 on."""
_QSTATS = {
    1: ("ifindex", U32),
    2: ("type", U32),
    3: ("queue", U32),
    **{number: (name, UINT) for number, name in enumerate(QSTATS, 8)},
}


def queue_stats(
    opened: wire.Socket | None = None, *, ifindex: int | None = None
) -> dict[int, dict[tuple[str, int], dict[str, int]]]:
    """Counters of each queue (qstats-get, 6.12): ifindex -> (rx or tx, queue) -> counter by the specification's name.

    Raises:
        UnsupportedError: before 6.3.
        NetlinkError: EOPNOTSUPP: before 6.12, or (with `ifindex`) a driver without them.
    """
    asked = (b"" if ifindex is None else attr_u32(1, ifindex)) + attr_uint(4, 1)  # scope: queue
    found: dict[int, dict[tuple[str, int], dict[str, int]]] = {}
    for one in _dump(opened, QSTATS_GET, _QSTATS, "queue statistics", asked):
        device, queue = one.pop("ifindex", None), one.pop("queue", None)
        way = "tx" if one.pop("type", 0) else "rx"
        if device is not None and queue is not None:
            found.setdefault(device, {})[way, queue] = one
    return found


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


def decode_pool(data: bytes, start: int, end: int) -> PagePool | None:
    """A page pool out of a notification's attributes; None where it has no id."""
    one = attributes(data, start, end, _POOL)
    return _pool(one) if "id" in one else None


def decode_device(data: bytes, start: int, end: int) -> Device | None:
    """A device out of a notification's attributes."""
    one = attributes(data, start, end, _DEVICE)
    return _device(one) if "ifindex" in one else None


def _pool(one: dict[str, Any]) -> PagePool:
    get = one.get
    return PagePool(
        one["id"], get("ifindex"), get("napi"), get("inflight"), get("inflight_mem"), get("detach_time")
    )
