"""What becomes of a ring size that is asked for? One row a driver, to be held against its ethtool_ops.set_ringparam.

Read off drivers/net at 5.10, 6.1, 6.12 and 7.2. A driver without a row takes what it is given, as far as is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xdpctl.host.model import Link


def _up_to(multiple: int) -> Callable[[int], int]:
    return lambda count: -(-count // multiple) * multiple


def up_to_power(count: int) -> int:
    """The power of two at or above."""
    return 1 << max(count - 1, 0).bit_length()


def down_to_power(count: int) -> int:
    """The power of two at or below."""
    return 1 << max(count.bit_length() - 1, 0)


def _as_given(count: int) -> int:
    return count


class RingSizes(NamedTuple):
    """How one driver takes the size of a receive or transmit ring."""

    made: Callable[[int], int]
    """What becomes of a size within its range."""
    function: str
    """Where it says so."""
    least: int = 1
    """A smaller one becomes this one."""
    refuses_less: bool = False
    """No: a smaller one is refused."""
    powers_only: bool = False
    """Anything but a power of two is refused."""


_PLAIN = RingSizes(_as_given, "net/ethtool/rings.c ethnl_set_rings()")
SIZES: Mapping[str, RingSizes] = {
    # Intel's round up to what a descriptor fetch takes, after bringing the size into range
    "e1000e": RingSizes(_up_to(8), "e1000_set_ringparam(): REQ_RX_DESCRIPTOR_MULTIPLE", 64),
    "igb": RingSizes(_up_to(8), "igb_set_ringparam(): IGB_MIN_RXD, REQ_RX_DESCRIPTOR_MULTIPLE", 64),
    "igc": RingSizes(_up_to(8), "igc_ethtool_set_ringparam(): IGC_MIN_RXD, REQ_RX_DESCRIPTOR_MULTIPLE", 64),
    "ixgbe": RingSizes(
        _up_to(8), "ixgbe_set_ringparam(): IXGBE_MIN_RXD, IXGBE_REQ_RX_DESCRIPTOR_MULTIPLE", 64
    ),
    "ixgbevf": RingSizes(
        _up_to(8), "ixgbevf_set_ringparam(): IXGBEVF_MIN_RXD, IXGBE_REQ_RX_DESCRIPTOR_MULTIPLE", 64
    ),
    "i40e": RingSizes(
        _up_to(32), "i40e_set_ringparam(): I40E_MIN_NUM_DESCRIPTORS, I40E_REQ_DESCRIPTOR_MULTIPLE", 64,
        refuses_less=True,
    ),
    "ice": RingSizes(
        _up_to(32), "ice_set_ringparam(): ICE_MIN_NUM_DESC, ICE_REQ_DESC_MULTIPLE", 64, refuses_less=True
    ),
    "iavf": RingSizes(
        _up_to(32), "iavf_set_ringparam(): IAVF_MIN_RXD, IAVF_REQ_DESCRIPTOR_MULTIPLE", 64, refuses_less=True
    ),
    "mlx5_core": RingSizes(up_to_power, "mlx5e_ethtool_set_ringparam(): order_base_2()"),
    # with one buffer a packet; version 7 of the device rounds on to the power of two below
    "vmxnet3": RingSizes(_up_to(32), "vmxnet3_set_ringparam(): VMXNET3_RING_SIZE_ALIGN"),
    "ena": RingSizes(down_to_power, "ena_set_ringparam(): ENA_MIN_RING_SIZE, rounddown_pow_of_two()", 256),
    "mana": RingSizes(up_to_power, "mana_set_ringparam()"),
    "nfp": RingSizes(up_to_power, "nfp_net_set_ringparam()"),
    "fbnic": RingSizes(up_to_power, "fbnic_set_ringparam()"),
    "hinic3": RingSizes(down_to_power, "hinic3_set_ringparam()"),
    # these refuse what is no power of two
    "virtio_net": RingSizes(
        _as_given, "virtnet_set_ringparam(), virtqueue_resize(), vring_alloc_queue_split()", powers_only=True
    ),
    "ionic": RingSizes(_as_given, "ionic_set_ringparam()", powers_only=True),
    "st_gmac": RingSizes(_as_given, "stmmac_set_ringparam()", powers_only=True),
    "st_xgmac": RingSizes(_as_given, "stmmac_set_ringparam()", powers_only=True),
    "gve": RingSizes(_as_given, "gve_validate_req_ring_size()", powers_only=True),
    "funeth": RingSizes(_as_given, "fun_set_ringparam()", powers_only=True),
    "eea": RingSizes(_as_given, "eea_set_ringparam()", powers_only=True),
}  # fmt: skip
"""By ethtool's driver name."""
VIRTIO_F_RING_PACKED = 34
"""Packed rings of virtio take any size (vring_alloc_queue_packed())."""


def rounded(link: Link, name: str, count: int) -> int:
    """The ring size that the driver will make of `count`."""
    if name not in ("rx", "tx"):
        return count
    row = SIZES.get(link.driver or "", _PLAIN)
    most = getattr(link.rings, f"{name}_max", None) if link.rings is not None else None
    made = row.made(max(count, row.least))
    return count if most is not None and made > most else made


def misfit(link: Link, name: str, count: int) -> str | None:
    """Why the driver would refuse a size within the range that the device tells, in words."""
    least = 0 if name == "hds-thresh" else 1
    if count < least:
        return f"at least {least}"
    row = SIZES.get(link.driver or "", _PLAIN)
    if name not in ("rx", "tx"):
        return None
    if row.refuses_less and count < row.least:
        return f"at least {row.least}"
    packed = (link.virtio_features or "")[VIRTIO_F_RING_PACKED : VIRTIO_F_RING_PACKED + 1] == "1"
    if row.powers_only and count & (count - 1) and not packed:
        return f"a power of two, as {down_to_power(count)} or {up_to_power(count)}"
    return None
