"""Two senders on two CPUs: one is held up inside the kernel (bpf/lab_burner.bpf.c) while the other's packet comes.

No timing is guessed: the program's memory says when it burns, the other sender sends just then, and the program goes
on until that packet has come. Each packet tells what it came during.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf import tracepoint
from xdpctl.bpf.object import Object
from xdpctl.errors import UnsupportedError
from xdpctl.lab import frames
from xdpctl.lab.sandbox import LabError
from xdpctl.netlink import interfaces, netns
from xdpctl.obj.shipped import resolve
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

OWNER, VICTIM = 0x4F000000, 0x56000000
"""Marks (SO_MARK) of the two senders' packets; a victim's number is in the low 16 bits."""
IN_XMIT, AT_EMPTY = 1, 2
"""Where time is burnt: inside sch_direct_xmit(), or behind the dequeue that found nothing."""
HOOKS = {"queued": "net_dev_queue", "start_xmit": "net_dev_start_xmit", "found_empty": "qdisc_dequeue"}
MOST = 1024
TRIES = 4
PATIENCE = 0.2
"""Seconds after which a packet that was not sent is stuck."""
GLANCE = 0.00005
"""Seconds between two looks. Who is first in line must sleep: what is left to ksoftirqd waits behind it otherwise."""
HELD_NS = 40_000_000
"""The longest that a CPU is held up for a packet that does not come: the other may have to wait for a CPU itself."""
_CONTROL = struct.Struct("=QQQQQI")
_VICTIM = struct.Struct("=QQIIQ")


@dataclass(frozen=True, slots=True)
class Victim:
    """A packet that came while the other CPU was held up, or at a quiet moment."""

    where: int
    """IN_XMIT, AT_EMPTY; 0: nobody was held up."""
    residence_ns: int | None
    """From net_dev_queue to net_dev_start_xmit; None: stuck."""
    by_other: bool
    """The other CPU sent it."""


class Burner:
    """The program at work on one device, and a sender a CPU.

    Args:
        space: full name of the namespace.
        interface: whose qdisc is meant.
    """

    def __init__(self, space: str, interface: str) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            raise UnsupportedError("overtaking a packet", needs="two CPUs", has="a machine with one")
        self._cpus, self._before = cpus[:2], set(cpus)
        self._held = contextlib.ExitStack()
        try:
            with netns.enter(space):
                self._index = interfaces.ifindex(interface)
                self._senders = [self._sender(interface) for _ in range(3)]
            opened = self._held.enter_context(Object.open(resolve(Path("builtin:lab_burner"))))
            opened.load()
            self._control = self._held.enter_context(opened.map("control").mapped())
            self._victims = self._held.enter_context(opened.map("victims").mapped())
            for program, name in HOOKS.items():
                self._held.enter_context(tracepoint.attach(name, opened.program(program).fd))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach; safe to repeat."""
        self._held.close()
        os.sched_setaffinity(0, self._before)

    def _sender(self, interface: str) -> socket.socket:
        made = self._held.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        made.bind((interface, 0))
        return made

    def _burning(self) -> int:
        return int.from_bytes(self._control[0:8], "little")

    def _set(self, burn_ns: int, *, armed: bool) -> None:
        self._control[: _CONTROL.size] = _CONTROL.pack(0, burn_ns, HELD_NS, armed, 0, self._index)

    def quiet(self, count: int) -> list[Victim]:
        """Packets that nobody is in the way of."""
        self._set(0, armed=False)
        os.sched_setaffinity(0, {self._cpus[1]})
        return [self._outcome(self._send(self._senders[1], number)) for number in range(count)]

    def rounds(self, count: int, burn_ns: int) -> list[Victim]:
        """Rounds in which one CPU is held up twice and a packet comes each time, until so many came in time.

        A packet counts if it was queued while the other CPU was held up; where CPUs are shared the sender may be away
        for longer than that lasts, so there are up to `TRIES` times as many rounds.

        Raises:
            LabError: the sender that is to be held up ended, or did not answer.
        """
        found: list[Victim] = []
        with self._other_sender() as turn, _first_in_line():
            os.sched_setaffinity(0, {self._cpus[1]})
            for number in range(count * TRIES):
                if sum(one.where == IN_XMIT for one in found) == count:
                    break
                self._victims[:] = bytes(len(self._victims))
                self._set(burn_ns, armed=True)
                turn[0:4] = struct.pack("=I", number + 1)
                sent = [
                    self._send(self._senders[where], where)
                    for where in (IN_XMIT, AT_EMPTY)
                    if self._wait_for(where, turn, number + 1)
                ]
                _until(lambda expected=number + 1: _word(turn, 1) == expected, 10.0, "the held-up sender")  # type: ignore[misc]
                found += [one for one in map(self._outcome, sent) if one.where]
        return found

    def _wait_for(self, where: int, turn: mmap.mmap, number: int) -> bool:
        """Whether the other CPU is held up there now, before its round is over."""
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            if self._burning() == where:
                return True
            if _word(turn, 1) == number:
                return False
            time.sleep(GLANCE)
        return False

    def _send(self, sender: socket.socket, number: int) -> int:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, VICTIM | number)
        sender.send(frames.ethernet(b"xdpctl-lab"))
        return number

    def _outcome(self, number: int) -> Victim:
        end = time.monotonic() + PATIENCE
        while True:
            queued, started, here, there, where = _VICTIM.unpack_from(self._victims, number * _VICTIM.size)
            if started and started >= queued:
                return Victim(where, started - queued, here != there)
            if time.monotonic() > end:
                return Victim(where, None, by_other=False)
            time.sleep(GLANCE)

    @contextlib.contextmanager
    def _other_sender(self) -> Iterator[mmap.mmap]:
        """A process on the first CPU that sends a packet a turn: word 0 is the turn to take, word 1 the one it took."""
        turn = mmap.mmap(-1, mmap.PAGESIZE)
        parent, owner = os.getpid(), self._senders[0]
        owner.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OWNER)
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException), _first_in_line():
                os.sched_setaffinity(0, {self._cpus[0]})
                frame, taken = frames.ethernet(b"xdpctl-lab"), 0
                while os.getppid() == parent and _word(turn, 2) == 0:
                    if _word(turn, 0) != taken:
                        owner.send(frame)
                        taken += 1
                        turn[4:8] = struct.pack("=I", taken)
                    else:
                        time.sleep(GLANCE)
            os._exit(0)
        try:
            yield turn
        finally:
            turn[8:12] = struct.pack("=I", 1)
            os.waitpid(child, 0)
            turn.close()


def _word(turn: mmap.mmap, at: int) -> int:
    return int.from_bytes(turn[at * 4 : at * 4 + 4], "little")


def _until(held: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not held():
        time.sleep(GLANCE)
        if time.monotonic() > end:
            raise LabError(f"{what} did not answer within {seconds:.0f} s")


@contextlib.contextmanager
def _first_in_line() -> Iterator[None]:
    """SCHED_FIFO for a while, where that is allowed: other processes must not hold a sender up."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
