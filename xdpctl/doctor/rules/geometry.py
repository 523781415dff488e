"""Sizes that the kernel computes from its page size, cache line and configuration: formulas, not numbers.

Mirrors SKB_DATA_ALIGN, struct skb_shared_info, NET_IP_ALIGN and XDP_PACKET_HEADROOM; on x86-64 with 4 KiB pages
`shared_info` is 320 bytes and `headroom` 256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from xdpctl.host.model import Kernel

XDP_PACKET_HEADROOM = 256
ETH_HLEN, VLAN_HLEN, VLAN_ETH_HLEN, ETH_FCS_LEN = 14, 4, 18, 4

_CACHELINE = {
    "x86_64": 64,
    "i686": 64,
    "aarch64": 64,
    "armv7l": 64,
    "riscv64": 64,
    "loongarch64": 64,
    "ppc64le": 128,
    "ppc64": 128,
    "s390x": 256,
}
"""SMP_CACHE_BYTES by machine (arch/*/include/asm/cache.h)."""
_NO_IP_ALIGN = ("x86_64", "i686", "aarch64", "ppc64le", "ppc64")
"""Machines that define NET_IP_ALIGN as 0; elsewhere it is 2 (include/linux/skbuff.h)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Buffer arithmetic of one kernel, all in bytes."""

    page_size: int
    cacheline: int
    max_frags: int
    """MAX_SKB_FRAGS."""
    net_ip_align: int

    def align(self, size: int) -> int:
        """SKB_DATA_ALIGN: rounded up to cache lines."""
        return -(-size // self.cacheline) * self.cacheline

    @property
    def shared_info(self) -> int:
        """SKB_DATA_ALIGN(sizeof(struct skb_shared_info)): 48 bytes and 16 a fragment on 64-bit machines."""
        return self.align(48 + 16 * self.max_frags)

    def with_overhead(self, size: int) -> int:
        """SKB_WITH_OVERHEAD: what is left of a buffer for data."""
        return size - self.shared_info


def geometry(kernel: Kernel) -> Geometry | None:
    """The kernel's buffer arithmetic; None for machines whose cache line is not in the table."""
    cacheline = _CACHELINE.get(kernel.machine)
    if cacheline is None or kernel.page_size < 4096:
        return None
    configured = (kernel.config or {}).get("CONFIG_MAX_SKB_FRAGS", "")
    if configured.isdecimal():  # 6.4: a choice at build time
        frags = int(configured)
    elif kernel.at_least(6, 4):
        frags = 17
    else:
        frags = max(65536 // kernel.page_size + 1, 16)
    return Geometry(kernel.page_size, cacheline, frags, 0 if kernel.machine in _NO_IP_ALIGN else 2)
