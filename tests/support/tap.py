"""Queues of a tap or a macvtap, opened as a virtual machine would open them, read by nobody (linux/if_tun.h)."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from pathlib import Path

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x0100


def opened(name: str) -> int:
    """The queue of a tap of the current network namespace."""
    queue = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(queue, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
    return queue


class Taps:
    """`count` open queues of a macvtap; its character device is made in `folder`, for /dev may not have it."""

    def __init__(self, name: str, count: int, folder: Path) -> None:
        ifindex = int(Path(f"/sys/class/net/{name}/ifindex").read_text())
        major, minor = Path(f"/sys/class/net/{name}/tap{ifindex}/dev").read_text().strip().split(":")
        node = folder / f"tap-{name}"
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(int(major), int(minor)))
        self.queues = []
        for _ in range(count):
            queue = os.open(node, os.O_RDWR | os.O_NONBLOCK)
            self.queues.append(queue)
            fcntl.ioctl(queue, TUNSETIFF, struct.pack("16sH14x", b"", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE))

    def drain(self) -> list[int]:
        """Read every queue until it is empty: frames that were in each."""
        return [self._drain(queue) for queue in self.queues]

    @staticmethod
    def _drain(queue: int) -> int:
        count = 0
        while True:
            try:
                os.read(queue, 65536)
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        for queue in self.queues:
            os.close(queue)
        self.queues = []
