"""The NICs that a guest of the matrix has on its bus: lent to one scenario at a time, and returned as they were.

They live in the guest's initial namespace, down; QEMU plugs those of a segment into one hub outside, so what one
sends the other receives. A scenario borrows a NIC into its own namespace and, where frames are to be seen, another
of the segment as the wire. Programs, MTU, channels, LRO, name and namespace are put back at its end.
netdevsim devices are made and deleted instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tests.matrix.guest import NICS
from tests.support import rtnetlink
from xdpctl.libbpf import libc

from .ground import GROUP, HERE, THERE, Ground, Nic

_GFLAGS, _SFLAGS, _LRO = 0x25, 0x26, 1 << 15
_GCHANNELS, _SCHANNELS = 0x3C, 0x3D
NETDEVSIM = Path("/sys/bus/netdevsim")

NAMES = {nic.mac: nic.name.replace("-", "_") for nic in NICS}
"""MAC address -> what a scenario calls it (a word, as advice names devices by words)."""
SEGMENTS = {nic.name.replace("-", "_"): nic.segment for nic in NICS}
WIRES = {
    "igb_a": "igb_b",
    "igb_b": "igb_a",
    "virtio_mq": "virtio_sq",
    "virtio_sq": "virtio_mq",
    "virtio_fixed": "virtio_sq",
    "vmxnet3": "e1000e",
    "e1000e": "vmxnet3",
}
"""NIC -> the other end of its wire."""


def present() -> frozenset[str]:
    """The NICs of `NAMES` that this machine has."""
    found = set()
    for path in Path("/sys/class/net").glob("*/address"):
        with contextlib.suppress(OSError):
            found.add(NAMES.get(path.read_text().strip()))
    return frozenset(found - {None})


@functools.cache
def _home(pid: int) -> tuple[IPRoute, socket.socket, int]:
    """The initial namespace: sockets there and its descriptor, for this process."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    home = os.open("/proc/1/ns/net", os.O_RDONLY)
    libc.setns(home, libc.CLONE_NEWNET)
    try:
        return IPRoute(), rtnetlink.open_socket(), home
    finally:
        libc.setns(before, libc.CLONE_NEWNET)
        os.close(before)


@functools.cache
def _at_home(pid: int, name: str) -> tuple[int, str, int]:
    """(ifindex, name, MTU) of a NIC while it is where it belongs; it keeps its ifindex wherever it goes."""
    mac = next(mac for mac, known in NAMES.items() if known == name)
    link = next(one for one in _home(pid)[0].get_links() if one.get("address") == mac)
    return link["index"], link.get("ifname"), link.get("mtu")


def _take_segment(ground: Ground, name: str) -> None:
    """Wait for a segment's NICs, kept until the scenario ends."""
    place = Path(tempfile.gettempdir(), f"xdpctl-oracle-{SEGMENTS[name]}.lock")
    handle = place.open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    ground.at_end(handle.close)


def borrow(
    ground: Ground, *names: str, wired: bool = True, up: bool = True, mtu: int = 1500, wire_mtu: int = 1500
) -> None:
    """Bring NICs here, and (`wired`) the other ends of their wires there.

    Their segments are taken in one order by everybody, so nobody waits for a neighbour who waits.
    """
    ends = {WIRES[name] for name in names} - set(names) if wired else set()
    by_segment = {SEGMENTS[name]: name for name in (*names, *ends)}
    for segment in sorted(by_segment):
        _take_segment(ground, by_segment[segment])
    for name in names:
        _bring(ground, name, HERE, mtu=mtu, up=up)
        ground.nics[name].wire = WIRES[name] if wired and WIRES[name] in ends else None
    for name in sorted(ends):
        _bring(ground, name, THERE, mtu=wire_mtu, up=True, promiscuous=True)


def _bring(ground: Ground, name: str, space: str, *, mtu: int, up: bool, promiscuous: bool = False) -> None:
    index, own_name, own_mtu = _at_home(os.getpid(), name)
    rtnetlink.set_link(_home(os.getpid())[1], index, net_ns_fd=ground.spaces[space].fd)
    ground.nics[name] = Nic(own_name, space, index, settles=True)
    ground.at_end(lambda: _return(ground, name, own_name))
    ground.set(name, ifname=name)
    ground.nics[name].name = name
    flags = ground._ethtool(name, [_GFLAGS, 0])[1]
    with contextlib.suppress(Exception):  # a NIC without channels to set
        channels = ground._ethtool(name, [_GCHANNELS, *[0] * 8])
        ground.at_end(lambda: _restore_channels(ground, name, channels))
    ground.at_end(lambda: _restore(ground, name, flags, own_mtu))
    if mtu != own_mtu:
        ground.set(name, mtu=mtu)
    if promiscuous:
        ground.set(name, flags=rtnetlink.IFF_PROMISC, change=rtnetlink.IFF_PROMISC)
    if up:
        ground.up(name)


def _restore(ground: Ground, name: str, flags: int, mtu: int) -> None:
    """MTU and LRO (which an attach may have switched off), after what is stacked on the NIC is gone."""
    for space in ground.spaces.values():
        with contextlib.suppress(NetlinkError):
            rtnetlink.delete_group(space.quick, GROUP)
    ground.down(name)
    ground.set(name, mtu=mtu, change=rtnetlink.IFF_PROMISC)
    if ground._ethtool(name, [_GFLAGS, 0])[1] != flags:
        with contextlib.suppress(OSError):
            ground._ethtool(name, [_SFLAGS, flags])


def _restore_channels(ground: Ground, name: str, before: list[int]) -> None:
    if ground._ethtool(name, [_GCHANNELS, *[0] * 8])[5:] != before[5:]:
        ground._ethtool(name, [_SCHANNELS, *before[1:]])


def _return(ground: Ground, name: str, own_name: str) -> None:
    *_, home = _home(os.getpid())
    ground.set(name, ifname=own_name)
    ground.set(name, net_ns_fd=home)


def netdevsim(ground: Ground, *, queues: int = 4) -> None:
    """A new netdevsim with one port, called nsim."""
    number = random.randrange(1 << 10, 1 << 31)  # noqa: S311 - only to keep apart
    route = ground.spaces[HERE].route
    before = {one["index"] for one in route.get_links()}
    with ground.inside(HERE):
        (NETDEVSIM / "new_device").write_text(f"{number} 1 {queues}")
    ground.at_end(lambda: (NETDEVSIM / "del_device").write_text(str(number)))
    index = next(one["index"] for one in route.get_links() if one["index"] not in before)
    ground.nics["nsim"] = Nic("nsim", HERE, index)
    ground.set("nsim", ifname="nsim")
    ground.up("nsim")
