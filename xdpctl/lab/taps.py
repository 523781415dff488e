"""Queues of a macvtap as a virtual machine would open them (linux/if_tun.h), and a producer a CPU that fills them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.lab import frames
from xdpctl.netlink import netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x0100
SO_SNDBUFFORCE = 32
BURST = 8
"""Frames of one producer before the next has its turn."""
PATIENCE = 10.0
"""Seconds after which a producer gives up."""


class Queues:
    """`count` open queues of a macvtap in a namespace, which nobody reads until `drain`.

    Args:
        space: full name of the namespace.
        name: of the macvtap.
        ifindex: its own.
        count: queues to open.
    """

    def __init__(self, space: str, name: str, ifindex: int, count: int) -> None:
        self._open: list[int] = []
        with tempfile.TemporaryDirectory(prefix="xdpctl-tap-") as folder, netns.enter(space):
            node = Path(folder) / "tap"
            os.mknod(node, stat.S_IFCHR | 0o600, _device(space, name, ifindex))
            try:
                for _ in range(count):
                    queue = os.open(node, os.O_RDWR | os.O_NONBLOCK)
                    self._open.append(queue)
                    flags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE
                    fcntl.ioctl(queue, TUNSETIFF, struct.pack("16sH14x", b"", flags))
            except BaseException:
                self.close()
                raise

    def drain(self) -> list[int]:
        """Read every queue until it is empty: frames that were in each."""
        return [_read(queue, 1 << 30) for queue in self._open]

    def read(self, most: int) -> int:
        """Read at most so many frames from each queue; how many there were."""
        return sum(_read(queue, most) for queue in self._open)

    def close(self) -> None:
        """Close them all."""
        while self._open:
            os.close(self._open.pop())


def _device(space: str, name: str, ifindex: int) -> int:
    """dev_t of its character device: sysfs shows a namespace's devices only from a mount of its own."""
    show = f"mount -t sysfs sysfs /sys && cat /sys/class/net/{name}/tap{ifindex}/dev"
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{space}", "unshare", "--mount", "sh", "-c", show],
        check=True, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    major, minor = done.stdout.strip().split(":")
    return os.makedev(int(major), int(minor))


def _read(queue: int, most: int) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while count < most:
            os.read(queue, 1 << 16)
            count += 1
    return count


@contextlib.contextmanager
def senders(space: str, interface: str, count: int) -> Iterator[list[socket.socket]]:
    """Packet sockets that don't block, with room for what lies in rings; closing one waits for RCU, so they are kept.

    Args:
        space: full name of the namespace.
        interface: to send from.
        count: how many.
    """
    with contextlib.ExitStack() as held, netns.enter(space):
        made = []
        for _ in range(count):
            one = held.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            one.bind((interface, 0))
            one.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 26)  # parked frames stay charged to it
            one.setblocking(False)
            made.append(one)
        yield made


def produce(producers: Sequence[socket.socket], mac: str, *, each: int, between: Callable[[], object]) -> int:
    """Send `each` frames from every producer, on CPUs in turn and in bursts; how many went out.

    A macvtap picks the queue by the flow's hash, so each frame of a producer is a flow of its own.

    Args:
        producers: see `senders`.
        mac: the macvtap's address.
        each: frames of each.
        between: called behind each round of bursts; a reader reads there.
    """
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    sent, end = 0, time.monotonic() + PATIENCE
    try:
        for first in range(0, each, BURST):
            for which, one in enumerate(producers):
                os.sched_setaffinity(0, {cpus[which % len(cpus)]})
                for number in range(first, min(each, first + BURST)):
                    port = 40000 + which * each + number
                    with contextlib.suppress(BlockingIOError):
                        one.send(frames.udp4(b"xdpctl-lab", destination=mac, ports=(port, 9)))
                        sent += 1
            between()
            if time.monotonic() > end:
                break
    finally:
        os.sched_setaffinity(0, before)
    return sent
