"""Frames sent to places where they stay: an unread socket, a slow cpumap, the ring of a tap that is down.

The frames are live ones (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18, net/bpf/test_run.c): such a run is a driver of its
own, whose page pool is made for it and destroyed with its rings at its end, on any machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf import features
from xdpctl.bpf.object import Object
from xdpctl.errors import UnsupportedError
from xdpctl.lab import frames
from xdpctl.lab.taps import IFF_NO_PI, IFF_TAP, SO_SNDBUFFORCE, TUNSETIFF
from xdpctl.netlink import interfaces, netns
from xdpctl.obj.shipped import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.trace.pool_records import PoolEvent
    from xdpctl.trace.pools import PoolTracer

SO_RCVBUFFORCE = 33  # Linux has it, Python does not name it
BURN_NS = 20_000_000
"""Of the CPU, for each frame in the cpumap."""
RING = 192
"""Frames that the cpumap's entry has room for."""
NETDEVSIM = Path("/sys/bus/netdevsim")
DEBUGFS = Path("/sys/kernel/debug")


@dataclass
class Parked:
    """Frames that were parked at one place, and what the tracer told of their pool since."""

    where: str
    frames: int
    key: tuple[int, float] | None = None
    """Address and first sight of their pool; None: not seen yet."""
    attempts: list[PoolEvent] = field(default_factory=list)
    """The kernel's attempts to free it, oldest first."""

    @property
    def first(self) -> int:
        """In flight when the pool was destroyed."""
        return self.attempts[0].inflight if self.attempts else 0

    @property
    def last(self) -> int:
        """In flight at the last attempt."""
        return self.attempts[-1].inflight if self.attempts else 0

    @property
    def over(self) -> bool:
        """The pool was freed."""
        return bool(self.attempts) and not self.last

    @property
    def waited(self) -> float:
        """Seconds from the first attempt to the last."""
        return self.attempts[-1].at - self.attempts[0].at if self.attempts else 0.0

    def follow(self, events: list[PoolEvent]) -> None:
        """Take those that are about it."""
        self.attempts += [
            one for one in events if one.kind == "attempt" and (one.pool.address, one.pool.seen) == self.key
        ]


@contextlib.contextmanager
def one_cpu() -> Iterator[int]:
    """This process on one CPU: a freed frame may wait for seconds on the list of the CPU that made it."""
    before = os.sched_getaffinity(0)
    chosen = max(before)
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


class Parking:
    """The programs of bpf/lab_parking.bpf.c, ready to send live frames from one interface.

    Args:
        space: full name of the namespace.
        interface: whose frames they shall be; `target` is where they are redirected to.
        cpu: of the cpumap's entry.

    Raises:
        UnsupportedError: no live frames before Linux 5.18.
    """

    def __init__(self, space: str, interface: str, target: str, cpu: int) -> None:
        if not features.probe("live_frames"):
            raise UnsupportedError(
                "holding a page pool's pages on any machine", needs="live frames (Linux 5.18)",
                has=f"Linux {os.uname().release}",
            )  # fmt: skip
        self._space, self._cpu = space, cpu
        with netns.enter(space):
            self._index, aim = interfaces.ifindex(interface), interfaces.ifindex(target)
        self._object = Object.open(resolve(Path("builtin:lab_parking")))
        try:
            rodata = next(one for name, one in self._object.maps.items() if name.endswith(".rodata"))
            rodata.patch_initial_value(0, struct.pack("=IIQ", cpu, aim, BURN_NS))
            self._object.map("cpus").set_max_entries(cpu + 1)
            self._object.load()
            self._object.map("cpus").update(
                struct.pack("=I", cpu), struct.pack("=Ii", RING, self._object.program("slow").fd)
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of programs and map: the cpumap's thread ends when it is through."""
        self._object.close()

    def send(self, program: str, frame: bytes, parked: Parked, tracer: PoolTracer) -> list[PoolEvent]:
        """Send live frames, whose pool is destroyed at the end; what was traced meanwhile."""
        with netns.enter(self._space):
            self._object.program(program).test_run(
                frame, repeat=parked.frames, batch_size=parked.frames, ifindex=self._index, live_frames=True
            )
        events = tracer.events()
        for one in events:  # a pool is made for the batch: its size tells ours from those of others
            if one.kind == "attempt" and one.pool.size == parked.frames:
                parked.key = (one.pool.address, one.pool.seen)
        return events


class Socket:
    """A UDP socket that nobody reads until `drain`."""

    def __init__(self, space: str, address: str, port: int) -> None:
        with netns.enter(space):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
            self._socket.bind((address, port))
        self._socket.setblocking(False)

    def drain(self) -> int:
        """Read it until it is empty: datagrams that were there."""
        got = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(2048)
                got += 1
        return got

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class Tap:
    """A tap of one queue that nobody reads until `drain`; it goes when it is closed."""

    def __init__(self, space: str, name: str) -> None:
        with netns.enter(space):
            self._queue = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(self._queue, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))

    def drain(self) -> int:
        """Read it until it is empty: frames that were there."""
        got = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                os.read(self._queue, 1 << 16)
                got += 1
        return got

    def close(self) -> None:
        """Close it, which frees what is in its ring."""
        os.close(self._queue)


def datagrams(space: str, interface: str, destination: str, port: int, count: int) -> None:
    """Send frames with UDP datagrams out of an interface, whatever becomes of them."""
    frame = frames.udp4(bytes(100), destination=destination, ports=(900, port))
    with netns.enter(space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 24)  # parked frames stay charged to it
        for _ in range(count):
            sender.send(frame)


@contextlib.contextmanager
def netdevsim(space: str) -> Iterator[tuple[str, Path] | None]:
    """A netdevsim in a namespace: its name and its switch that holds a page; None where there is no such driver."""
    if not (NETDEVSIM / "new_device").exists():
        yield None
        return
    number = 1000 + os.getpid() % (1 << 20)
    with netns.enter(space):
        before = set(interfaces.names().values())
        (NETDEVSIM / "new_device").write_text(f"{number} 1 1")
    try:
        switch = DEBUGFS / f"netdevsim/netdevsim{number}/ports/0/pp_hold"
        end = time.monotonic() + 2
        while True:
            with netns.enter(space):
                made = set(interfaces.names().values()) - before
            if made or time.monotonic() > end:
                break
        yield (made.pop(), switch) if made and switch.exists() else None
    finally:
        (NETDEVSIM / "del_device").write_text(str(number))
