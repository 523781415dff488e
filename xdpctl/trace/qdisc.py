"""How long packets wait in qdiscs, which CPU sends them in the end, and whether any are stuck.

Residence is the time from net:net_dev_queue to net:net_dev_start_xmit of the same skb (net/core/dev.c), counted by
bpf/trace_qdisc.bpf.c. What the live qdisc is (its flags, TCQ_F_NOLOCK among them) is read from struct Qdisc by BTF,
for netlink does not say.
"""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.bpf.raw_run import run_raw
from xdpctl.records import dataclass
from xdpctl.trace.devices import Device, read_devices
from xdpctl.trace.histogram import NOTHING, Histogram
from xdpctl.trace.redirect import lost
from xdpctl.trace.tracer import Missing, Tracer, hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from xdpctl.bpf.object import Object

HOOKS = (
    hook("queue", "net_dev_queue", "when packets are queued", 1),
    hook("start_xmit", "net_dev_start_xmit", "when packets are sent", 2),
    hook("freed", "kfree_skb", "packets dropped while they waited"),
    hook("consumed", "consume_skb", "packets taken apart (GSO) while they waited"),
    hook("softirq_entry", "softirq_entry", "whether net_tx_action() sent them", 1),
    hook("softirq_exit", "softirq_exit", "whether net_tx_action() sent them", 1),
)

TCQ_F_NOLOCK = 0x100
"""include/net/sch_generic.h: no lock around the qdisc, so its enqueue and its run may overtake each other."""
STATE_MISSED = 1 << 2
"""__QDISC_STATE_MISSED (Linux 5.13): somebody enqueued while another CPU was at the run."""
QUEUE_STOPPED = 0b111
"""__QUEUE_STATE_DRV_XOFF, STACK_XOFF, FROZEN."""

_QUEUED = struct.Struct("=QIIII")
_KEY = struct.Struct("=IIII")
_LOOK = struct.Struct("=IIQQIIII16s")
_HEAD = struct.Struct("=4Q")


@dataclass(frozen=True, slots=True)
class Residence:
    """How long the packets of one tx queue stayed."""

    device: Device
    queue: int
    own: Histogram
    """Packets that the CPU sent which had queued them."""
    other: Histogram
    """Packets that another CPU's later run sent."""
    by_softirq: int
    """Of all: sent by net_tx_action()."""

    @property
    def all(self) -> Histogram:
        """Both together."""
        return self.own.plus(self.other)

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys; see docs/json.md."""
        return {
            "device": self.device.to_json(labels),
            "queue": self.queue,
            "own_cpu": self.own.to_json(),
            "other_cpu": self.other.to_json(),
            "by_softirq": self.by_softirq,
        }


@dataclass(frozen=True, slots=True)
class Waiting:
    """Packets that were queued and not sent, as of a report."""

    device: Device
    queue: int
    packets: int
    oldest_ns: int
    """How long the first of them has been there."""

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys."""
        return {
            "device": self.device.to_json(labels),
            "queue": self.queue,
            "packets": self.packets,
            "oldest_ns": self.oldest_ns,
        }


@dataclass(frozen=True, slots=True)
class QdiscReport:
    """Everything counted up to one moment."""

    at: float
    """Seconds, time.monotonic()."""
    residences: tuple[Residence, ...]
    waiting: tuple[Waiting, ...]
    """Longest first."""
    dropped: int
    """Packets dropped while they waited."""
    taken_apart: int
    """Packets that went on as segments (GSO), which have no residence of their own."""
    lost: int
    """Packets that could not be followed: a map was full, or the tracer was running on that CPU already."""

    def minus(self, earlier: QdiscReport | None) -> QdiscReport:
        """What was counted since; queues on which nothing was sent are left out."""
        if earlier is None:
            return self
        before = {(one.device, one.queue): one for one in earlier.residences}
        since = []
        for one in self.residences:
            then = before.get((one.device, one.queue))
            grown = (
                one
                if then is None
                else replace(
                    one,
                    own=one.own.minus(then.own),
                    other=one.other.minus(then.other),
                    by_softirq=one.by_softirq - then.by_softirq,
                )
            )
            if grown.own.packets or grown.other.packets:
                since.append(grown)
        return replace(
            self,
            residences=tuple(since),
            dropped=self.dropped - earlier.dropped,
            taken_apart=self.taken_apart - earlier.taken_apart,
            lost=self.lost - earlier.lost,
        )


@dataclass(frozen=True, slots=True)
class LiveQdisc:
    """The qdisc behind one tx queue, as the kernel holds it right now."""

    ifindex: int
    queue: int
    kind: str
    """``pfifo_fast``, ``noqueue``, ``noop``, ..."""
    handle: int
    flags: int
    """TCQ_F_*."""
    state: int
    """__QDISC_STATE_* bits."""
    queue_state: int
    """__QUEUE_STATE_* bits of the tx queue."""
    qlen: int
    """Packets, without those that a lockless qdisc counts a CPU."""
    limit: int
    tx_queues: int
    """Of the device, in use."""

    @property
    def lockless(self) -> bool:
        """TCQ_F_NOLOCK."""
        return bool(self.flags & TCQ_F_NOLOCK)

    @property
    def stopped(self) -> bool:
        """The driver or the stack has stopped the queue: then waiting is as it should be."""
        return bool(self.queue_state & QUEUE_STOPPED)

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {
            "queue": self.queue,
            "kind": self.kind,
            "handle": f"{self.handle >> 16:x}:{self.handle & 0xFFFF:x}".removesuffix("0"),
            "lockless": self.lockless,
            "stopped": self.stopped,
            "flags": self.flags,
            "state": self.state,
            "qlen": self.qlen,
            "limit": self.limit,
        }


class QdiscTrace:
    """Follows packets through qdiscs while it is open.

    Args:
        devices: (namespace's inode, ifindex) to follow; None: all, in every namespace.

    Attributes:
        missing: tracepoints that this kernel lacks, and what they would have told.

    Raises:
        UnsupportedError: no BTF, or none of the tracepoints.
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
    """

    def __init__(self, devices: frozenset[tuple[int, int]] | None = None) -> None:
        def only_wanted(opened: Object) -> None:
            if devices is not None:
                rodata = next(one for one in opened.maps.values() if one.name.endswith(".rodata"))
                rodata.patch_initial_value(0, b"\1")  # only_wanted is the object's first constant

        self._tracer = Tracer("trace_qdisc", HOOKS, unattached=("look",), prepare=only_wanted)
        self.missing: tuple[Missing, ...] = self._tracer.missing
        try:
            for inode, ifindex in devices or ():
                self._tracer.map("wanted").update(struct.pack("=II", inode, ifindex), struct.pack("=I", 1))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach; safe to repeat."""
        self._tracer.close()

    def look(self, ifindex: int, queue: int = 0) -> LiveQdisc | None:
        """The live qdisc behind a tx queue of a device in the calling thread's namespace; None: there is none."""
        run_raw(self._tracer.object.program("look").fd, ifindex, queue)
        raw = self._tracer.map("looked").lookup(bytes(4)) or bytes(_LOOK.size)
        found, flags, state, queue_state, qlen, limit, handle, tx_queues, name = _LOOK.unpack(raw)
        if not found:
            return None
        kind = name.split(b"\0", 1)[0].decode(errors="replace")
        return LiveQdisc(ifindex, queue, kind, handle, flags, state, queue_state, qlen, limit, tx_queues)

    def queues(self, ifindex: int) -> list[LiveQdisc]:
        """The live qdiscs of every tx queue in use of a device in the calling thread's namespace."""
        first = self.look(ifindex)
        if first is None:
            return []
        rest = (self.look(ifindex, queue) for queue in range(1, first.tx_queues))
        return [first, *(one for one in rest if one is not None)]

    def read(self) -> QdiscReport:
        """What was counted so far."""
        devices = read_devices(self._tracer.map("devices"))
        rows: dict[tuple[int, int, int], dict[int, tuple[Histogram, int]]] = {}
        for key, value in self._tracer.map("residence").items():
            inode, ifindex, queue, other = _KEY.unpack(key)
            rows.setdefault((inode, ifindex, queue), {})[other] = _histogram(value)
        residences = [
            Residence(
                devices.get((inode, ifindex), Device(inode, ifindex, None)),
                queue,
                found.get(0, (NOTHING, 0))[0],
                found.get(1, (NOTHING, 0))[0],
                sum(softirq for _, softirq in found.values()),
            )
            for (inode, ifindex, queue), found in sorted(rows.items())
        ]
        gone = [
            sum(one for (one,) in struct.iter_unpack("=Q", value))
            for _, value in sorted(self._tracer.map("gone").items())
        ]
        return QdiscReport(
            time.monotonic(),
            tuple(residences),
            self._waiting(devices),
            gone[0],
            gone[1],
            lost(self._tracer, (0, 1)) + self._tracer.missed(),
        )

    def _waiting(self, devices: Mapping[tuple[int, int], Device]) -> tuple[Waiting, ...]:
        now = time.monotonic_ns()  # the clock of bpf_ktime_get_ns()
        found: dict[tuple[int, int, int], tuple[int, int]] = {}
        for _key, value in self._tracer.map("packets").items():  # noqa: PERF102 - no dict: one system call for both
            at, _cpu, inode, ifindex, queue = _QUEUED.unpack(value)
            count, oldest = found.get((inode, ifindex, queue), (0, now))
            found[inode, ifindex, queue] = (count + 1, min(oldest, at))
        waiting = [
            Waiting(
                devices.get((inode, ifindex), Device(inode, ifindex, None)),
                queue,
                count,
                max(0, now - oldest),
            )
            for (inode, ifindex, queue), (count, oldest) in found.items()
        ]
        return tuple(sorted(waiting, key=lambda one: -one.oldest_ns))


def _histogram(value: bytes) -> tuple[Histogram, int]:
    packets, total, most, softirq = _HEAD.unpack_from(value)
    counts = struct.unpack_from(f"={(len(value) - _HEAD.size) // 8}Q", value, _HEAD.size)
    filled = tuple((bucket, count) for bucket, count in enumerate(counts) if count)
    return Histogram(packets, total, most, filled), softirq
