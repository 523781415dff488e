"""What a counter's name means in plain words.

Names are those of struct rtnl_link_stats64, of qstats (Documentation/netlink/specs/netdev.yaml), of veth, of the page
pool (net/core/page_pool.c) and of mlx5's page cache.
"""

from __future__ import annotations

WORDS = {
    "rx_packets": "frames received",
    "tx_packets": "frames sent",
    "rx_bytes": "bytes received",
    "tx_bytes": "bytes sent",
    "rx_dropped": "received, then dropped for want of memory or by the driver",
    "tx_dropped": "not sent: dropped by the driver or a full ring",
    "rx_errors": "bad frames received",
    "tx_errors": "frames that could not be sent",
    "rx_missed_errors": "dropped by the device: the host did not give it buffers in time",
    "rx_over_errors": "received while no buffer was free",
    "rx_fifo_errors": "the device's queue overflowed",
    "rx_length_errors": "frames of a length that can't be",
    "rx_crc_errors": "frames whose checksum is wrong: cable or transceiver",
    "rx_nohandler": "received, but no protocol wanted it, or the port is inactive",
    "rx_alloc_fail": "no memory for a receive buffer",
    "rx_hw_drops": "dropped by the device before the host saw it",
    "rx_hw_drop_overruns": "dropped by the device: no buffers on the ring",
    "tx_stop": "the stack was told to stop: the ring was full",
    "tx_wake": "the stack was told to go on: the ring has room again",
    "rx_xdp_packets": "frames that met XDP's receive path",
    "rx_xdp_bytes": "their bytes",
    "rx_xdp_drops": "dropped by XDP: XDP_DROP, XDP_ABORTED or an unknown verdict",
    "rx_xdp_redirect": "redirected by XDP",
    "rx_xdp_tx": "sent back by XDP_TX",
    "rx_xdp_tx_errors": "XDP_TX that failed: the other end's ring was full or has no NAPI",
    "tx_xdp_xmit": "frames redirected to this device",
    "tx_xdp_xmit_errors": "frames redirected to this device, refused: ring full, too long, or no NAPI at the peer",
    "rx_drops": "dropped: the ring of the queue was full",
    "rx_pp_alloc_fast": "pages from the pool's own cache",
    "rx_pp_alloc_slow": "pages from the page allocator: costs an allocation and a DMA mapping",
    "rx_pp_alloc_slow_high_order": "larger pages from the page allocator",
    "rx_pp_alloc_empty": "the pool's ring was empty, so that the page allocator was asked",
    "rx_pp_alloc_refill": "the cache was filled from the ring",
    "rx_pp_alloc_waive": "pages given up: they belong to another NUMA node",
    "rx_pp_recycle_cached": "pages back into the pool's cache",
    "rx_pp_recycle_cache_full": "the cache was full: the page went to the ring",
    "rx_pp_recycle_ring": "pages back into the pool's ring",
    "rx_pp_recycle_ring_full": "the ring was full: the page was freed",
    "rx_pp_recycle_released_ref": "pages freed since someone else still held them",
    "rx_cache_reuse": "pages taken from the page cache",
    "rx_cache_full": "pages freed: the page cache was full",
    "rx_cache_empty": "the page cache was empty",
    "rx_cache_busy": "the page cache's next page is still held by a socket or a device",
    "rx_cache_waive": "pages not cached: they belong to another NUMA node",
}
"""By name without the queue; dashes are read as underscores."""


def meaning(name: str) -> str | None:
    """The words for a counter, None where nothing is known of it."""
    return WORDS.get(name.replace("-", "_"))
