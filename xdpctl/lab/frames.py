"""The name under which the labs know `xdpctl.trace.frames`, which lies below doctor so that --probe can use it."""

from xdpctl.trace.frames import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_LOCAL,
    ETHERTYPE_VLAN,
    MIN_LENGTH,
    Port,
    ethernet,
    mac,
    udp4,
)

__all__ = [
    "BROADCAST",
    "ETHERTYPE_ARP",
    "ETHERTYPE_IPV4",
    "ETHERTYPE_IPV6",
    "ETHERTYPE_LOCAL",
    "ETHERTYPE_VLAN",
    "MIN_LENGTH",
    "Port",
    "ethernet",
    "mac",
    "udp4",
]
