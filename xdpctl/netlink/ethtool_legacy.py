"""Device settings by the SIOCETHTOOL ioctl, for kernels before 5.7 (include/uapi/linux/ethtool.h).

The same names as the netlink modules have, whose functions come here when the kernel has no ethtool family. An
ioctl gives an errno and never a reason.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from xdpctl.errors import ConfigError, NetlinkError, PrivilegeError, UnsupportedError
from xdpctl.netlink.ethtool_ioctl import ETH_GSTRING_LEN, ETHTOOL_GSSET_INFO, ETHTOOL_GSTRINGS, ioctl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GCOALESCE, SCOALESCE = 0x0E, 0x0F
GRINGPARAM, SRINGPARAM = 0x10, 0x11
GPAUSEPARAM, SPAUSEPARAM = 0x12, 0x13
GPFLAGS, SPFLAGS = 0x27, 0x28
GFEATURES, SFEATURES = 0x3A, 0x3B
GCHANNELS, SCHANNELS = 0x3C, 0x3D
ETH_SS_PRIV_FLAGS, ETH_SS_FEATURES = 2, 4

RINGS = ("rx_max", "rx_mini_max", "rx_jumbo_max", "tx_max", "rx", "rx_mini", "rx_jumbo", "tx")
"""struct ethtool_ringparam after cmd; all of these are __u32."""
CHANNELS = ("rx_max", "tx_max", "other_max", "combined_max", "rx", "tx", "other", "combined")
"""struct ethtool_channels after cmd."""
PAUSE = ("autoneg", "rx", "tx")
"""struct ethtool_pauseparam after cmd."""
COALESCE = (
    *("rx_usecs", "rx_frames", "rx_usecs_irq", "rx_frames_irq", "tx_usecs", "tx_frames", "tx_usecs_irq"),
    *("tx_frames_irq", "stats_block_usecs", "adaptive_rx", "adaptive_tx", "pkt_rate_low", "rx_usecs_low"),
    *("rx_frames_low", "tx_usecs_low", "tx_frames_low", "pkt_rate_high", "rx_usecs_high", "rx_frames_high"),
    *("tx_usecs_high", "tx_frames_high", "sample_interval"),
)
"""struct ethtool_coalesce after cmd."""


def _name(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except (OSError, OverflowError) as error:
        raise NetlinkError(f"there is no link {ifindex}", errno=errno.ENODEV) from error


def _get(ifindex: int, command: int, members: Sequence[str], what: str) -> dict[str, int]:
    layout = struct.Struct(f"={len(members) + 1}I")
    buffer = array.array("B", layout.pack(command, *[0] * len(members)))
    ioctl(_name(ifindex), buffer, f"reading the {what}")
    return dict(zip(members, layout.unpack(buffer.tobytes())[1:], strict=True))


def _set(
    ifindex: int, commands: tuple[int, int], members: Sequence[str], values: Mapping[str, int], what: str
) -> None:
    """Read, change, write: the ioctl takes the whole struct."""
    wanted = {name.replace("-", "_"): int(value) for name, value in values.items()}
    lacking = [name for name in values if name.replace("-", "_") not in members]
    if lacking:
        raise UnsupportedError(f"setting {', '.join(lacking)}", needs="Linux 5.7", has="an older kernel")
    whole = {**_get(ifindex, commands[0], members, what), **wanted}
    buffer = array.array("B", struct.pack(f"={len(members) + 1}I", commands[1], *whole.values()))
    _change(ifindex, buffer, what)


def _change(ifindex: int, buffer: array.array[int], what: str) -> None:
    name = _name(ifindex)
    try:
        ioctl(name, buffer, f"setting the {what}")
    except NetlinkError as error:
        if error.errno == errno.EPERM:
            raise PrivilegeError(
                f"setting the {what} of {name}", capability="CAP_NET_ADMIN", errno=error.errno
            ) from error
        raise


def rings_of(ifindex: int) -> dict[str, Any]:
    """As netlink.rings.RawRings' fields; a ring that the driver doesn't have is left out."""
    found = _get(ifindex, GRINGPARAM, RINGS, "rings")
    return {name: value for name, value in found.items() if found[f"{name.removesuffix('_max')}_max"]}


def set_rings(ifindex: int, values: Mapping[str, int]) -> None:
    """As netlink.rings.set_rings, for ring sizes."""
    _set(ifindex, (GRINGPARAM, SRINGPARAM), RINGS, values, "rings")


def channels_of(ifindex: int) -> dict[str, int]:
    """As netlink.channels.RawChannels' fields."""
    return _get(ifindex, GCHANNELS, CHANNELS, "channels")


def set_channels(ifindex: int, values: Mapping[str, int]) -> None:
    """As netlink.channels.set_channels."""
    _set(ifindex, (GCHANNELS, SCHANNELS), CHANNELS, values, "channels")


def coalesce_of(ifindex: int) -> dict[str, int]:
    """By the names of `COALESCE`."""
    return _get(ifindex, GCOALESCE, COALESCE, "coalescing")


def set_coalesce(ifindex: int, values: Mapping[str, int]) -> None:
    """As netlink.coalesce.set_coalesce, but for CQE modes and aggregation."""
    _set(ifindex, (GCOALESCE, SCOALESCE), COALESCE, values, "coalescing")


def pause_of(ifindex: int) -> dict[str, int]:
    """By the names of `PAUSE`."""
    return _get(ifindex, GPAUSEPARAM, PAUSE, "pause settings")


def set_pause(ifindex: int, values: Mapping[str, bool]) -> None:
    """As netlink.pause.set_pause."""
    _set(ifindex, (GPAUSEPARAM, SPAUSEPARAM), PAUSE, values, "pause settings")


def strings(name: str, number: int, what: str) -> tuple[str, ...]:
    """A string set of a device (ETHTOOL_GSTRINGS)."""
    buffer = array.array("B", struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << number, 0))
    ioctl(name, buffer, f"counting the {what}")
    _command, _reserved, mask, count = struct.unpack("=IIQI", buffer.tobytes())
    if not mask or not count or count > 4096:
        return ()
    table = array.array("B", struct.pack("=III", ETHTOOL_GSTRINGS, number, count))
    table.frombytes(bytes(count * ETH_GSTRING_LEN))
    ioctl(name, table, f"reading the names of {what}")
    raw = table.tobytes()
    starts = (12 + place * ETH_GSTRING_LEN for place in range(count))
    return tuple(os.fsdecode(raw[at : at + ETH_GSTRING_LEN].split(b"\0")[0]) for at in starts)


def feature_names() -> tuple[str, ...]:
    """The kernel's feature names by bit; any device knows them."""
    return strings("lo", ETH_SS_FEATURES, "features")


def features_of(ifindex: int) -> tuple[int, int, int, int]:
    """Bits as netlink.features.FeatureBits has them: hw, wanted, active, nochange."""
    name = _name(ifindex)
    blocks = -(-len(strings(name, ETH_SS_FEATURES, "features")) // 32)
    buffer = array.array("B", struct.pack("=II", GFEATURES, blocks) + bytes(blocks * 16))
    ioctl(name, buffer, "reading the features")
    words = struct.unpack_from(f"={blocks * 4}I", buffer.tobytes(), 8)
    bits = [sum(words[4 * block + which] << (32 * block) for block in range(blocks)) for which in range(4)]
    return bits[0], bits[1], bits[2], bits[3]


def set_features(ifindex: int, wanted: Mapping[str, bool], names: Sequence[str]) -> None:
    """As netlink.features.set_features."""
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ConfigError(f"no such feature: {', '.join(unknown)}")
    blocks = -(-len(names) // 32)
    valid, requested = [0] * blocks, [0] * blocks
    for name, on in wanted.items():
        block, bit = divmod(names.index(name), 32)
        valid[block] |= 1 << bit
        requested[block] |= on << bit
    words = [word for pair in zip(valid, requested, strict=True) for word in pair]
    _change(
        ifindex, array.array("B", struct.pack(f"={2 + 2 * blocks}I", SFEATURES, blocks, *words)), "features"
    )


def private_flags_of(ifindex: int) -> dict[str, bool]:
    """As netlink.private_flags.private_flags_of."""
    name = _name(ifindex)
    names = strings(name, ETH_SS_PRIV_FLAGS, "private flags")
    if not names:
        return {}
    bits = _get(ifindex, GPFLAGS, ("data",), "private flags")["data"]
    return {one: bool(bits >> bit & 1) for bit, one in enumerate(names[:32])}


def set_private_flags(ifindex: int, flags: Mapping[str, bool]) -> None:
    """As netlink.private_flags.set_private_flags."""
    now = private_flags_of(ifindex)
    unknown = [name for name in flags if name not in now]
    if unknown:
        raise ConfigError(f"no such private flag: {', '.join(unknown)}")
    bits = sum(on << bit for bit, on in enumerate({**now, **flags}.values()))
    _change(ifindex, array.array("B", struct.pack("=II", SPFLAGS, bits)), "private flags")
