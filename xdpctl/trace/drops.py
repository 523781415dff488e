"""Where packets are lost, why, and how full the ring was that did not take them.

Mirrors the tracepoints skb:kfree_skb (net/core/skbuff.c; with drop reasons from Linux 5.17 on) and xdp:* as
bpf/trace_drops.bpf.c counts them. A drop at a ring (tun, tap, veth, cpumap, AF_XDP, a qdisc) is told with the ring's
occupancy read at that very drop, and with who put packets into it.
"""

from __future__ import annotations

import struct
import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from xdpctl.errors import errno_name
from xdpctl.records import dataclass
from xdpctl.trace.devices import Device, Names, read_devices
from xdpctl.trace.redirect import VERDICTS, lost
from xdpctl.trace.symbols import Symbol, symbols
from xdpctl.trace.tracer import Missing, Tracer, enumerators, hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from xdpctl.bpf.object import Object

VIA = (
    "kfree_skb",
    "xdp_redirect_err",
    "xdp_devmap_xmit",
    "xdp_bulk_tx",
    "xdp_exception",
    "xdp_cpumap_enqueue",
    "xdp_cpumap_kthread",
)
"""enum via of the tracer."""
KINDS = ("none", "tun", "tap", "veth", "cpumap", "xsk-rx", "xsk-fill", "pfifo_fast", "qdisc")
"""enum ring_kind of the tracer."""

HOOKS = (
    hook("kfree_skb_2", "kfree_skb", "packets lost outside XDP", 2),
    hook("kfree_skb_3", "kfree_skb", "packets lost outside XDP", 3, 4),
    hook("redirect_err", "xdp_redirect_err", "frames that the core refuses to redirect", 7),
    hook("redirect_err_m", "xdp_redirect_err", "frames that the core refuses to redirect", 6),
    hook("devmap_xmit", "xdp_devmap_xmit", "redirected frames that a driver did not take", 5),
    hook("bulk_tx", "xdp_bulk_tx", "frames of XDP_TX that a driver did not take", 4),
    hook("exception", "xdp_exception", "XDP_ABORTED and verdicts that the driver does not know", 3),
    hook("cpumap_enqueue", "xdp_cpumap_enqueue", "frames that a cpumap's ring did not take", 4),
    hook("cpumap_kthread", "xdp_cpumap_kthread", "a cpumap's rings, and frames that its thread lost", 5),
)

VETH_FUNCTIONS = ("veth_xmit", "__dev_kfree_skb_any", "dev_kfree_skb_any_reason")
"""Where a veth's drop at its ring is said to be: the driver, or the helper that frees for it."""
GENERIC_FUNCTIONS = (
    "netif_receive_generic_xdp",
    "do_xdp_generic",
    "bpf_prog_run_generic_xdp",
    "generic_xdp_tx",
)
"""Where a packet ends that a program drops in generic mode: with the reason XDP only if its redirect failed."""
PLACES = 4
"""Of each that the tracer has room for."""
NO_QUEUE = 0xFFFFFFFF
PREFIX = "SKB_DROP_REASON_"

_DROP_KEY = struct.Struct("=IIIIQII")
_DROP = struct.Struct("=QQ")
_RING_KEY = struct.Struct("=IIII")
_RING = struct.Struct("=5Q8I16s")
_PRODUCER = struct.Struct("=4I4I")


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets lost for one reason at one place."""

    via: str
    """The tracepoint that told: ``kfree_skb``, ``xdp_redirect_err``, ..."""
    device: Device | None
    """Where it was lost. None: the packet belonged to no device (a socket's queue), or a cpumap's event."""
    queue: int | None
    """Queue of the ring, if it was lost at one; else skb->queue_mapping (a tx queue; an rx queue plus 1)."""
    reason: str | None
    """Kernel's name without SKB_DROP_REASON_, an errno's name, or a verdict; None: it says none."""
    place: Symbol | None
    """Function that gave it up; None for XDP's events, or where kallsyms hides addresses."""
    program_id: int
    """XDP program that was concerned, 0: none, or not known."""
    program: str | None
    map_id: int
    """Of a cpumap's events, else 0."""
    packets: int
    bytes: int
    """0 for XDP's events, which do not say."""

    @property
    def key(self) -> tuple[object, ...]:
        """What tells one from another."""
        return (self.via, self.device, self.queue, self.reason, self.place, self.program_id, self.map_id)

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys; see docs/json.md."""
        return {
            "via": self.via,
            "device": self.device.to_json(labels) if self.device else None,
            "queue": self.queue,
            "reason": self.reason,
            "place": str(self.place) if self.place else None,
            "function": self.place.name if self.place else None,
            "program": {"id": self.program_id, "name": self.program} if self.program_id else None,
            "map_id": self.map_id or None,
            "packets": self.packets,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True)
class Producer:
    """Who lost packets at a ring: a CPU, and where they had come in."""

    cpu: int
    source: Device | None
    """Interface that the packets came in on; None: sent from this machine."""
    source_queue: int | None
    """Its receive queue; None: not recorded."""
    packets: int

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys."""
        return {
            "cpu": self.cpu,
            "source": self.source.to_json(labels) if self.source else None,
            "source_queue": self.source_queue,
            "packets": self.packets,
        }


@dataclass(frozen=True, slots=True)
class Span:
    """Least, most and last of a figure."""

    least: int
    most: int
    last: int

    def to_json(self) -> dict[str, int]:
        """Stable keys."""
        return {"least": self.least, "most": self.most, "last": self.last}


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring or queue that did not take packets, and how full it was at those moments."""

    kind: str
    """One of `KINDS`."""
    device: Device | None
    """Whose ring it is (a veth's: the end that receives); None for a cpumap."""
    map_id: int
    """Of the cpumap, else 0."""
    queue: int
    """Queue of the tap, tun or veth; CPU of the cpumap; tx queue of a qdisc."""
    band: int | None
    """Of pfifo_fast: 0 to 2."""
    qdisc: str | None
    drops: int
    full: int
    """Packets lost while no slot was free (xsk-fill: while no entry was there)."""
    freeing: int
    """While fewer than a batch were free: the reader may have freed them after the drop was decided."""
    not_full: int
    """While more than a batch were free."""
    unreadable: int
    """While nothing could be read: this kernel does not describe the driver's types."""
    size: int
    """Slots; 0: never read."""
    batch: int
    """Slots that the reader frees at once."""
    taken: Span | None
    """Slots that held something. None: never read."""
    unread: Span | None
    """Packets that the reader had not taken yet; up to batch - 1 less than slots taken."""
    producers: tuple[Producer, ...]
    """Most losses first."""

    @property
    def key(self) -> tuple[object, ...]:
        """What tells one from another."""
        return (self.kind, self.device, self.map_id, self.queue, self.band)

    def to_json(self, labels: Mapping[int, str]) -> dict[str, Any]:
        """Stable keys; see docs/json.md."""
        return {
            "kind": self.kind,
            "device": self.device.to_json(labels) if self.device else None,
            "map_id": self.map_id or None,
            "queue": self.queue,
            "band": self.band,
            "qdisc": self.qdisc,
            "drops": self.drops,
            "full": self.full,
            "freeing": self.freeing,
            "not_full": self.not_full,
            "unreadable": self.unreadable,
            "size": self.size,
            "batch": self.batch,
            "taken": self.taken.to_json() if self.taken else None,
            "unread": self.unread.to_json() if self.unread else None,
            "producers": [one.to_json(labels) for one in self.producers],
        }


@dataclass(frozen=True, slots=True)
class DropReport:
    """All losses at one moment."""

    at: float
    """Seconds, time.monotonic()."""
    drops: tuple[Drop, ...]
    """Most packets first."""
    rings: tuple[Ring, ...]
    lost: int
    """Drops that could not be counted: a map was full, or the tracer was running on that CPU already."""

    @property
    def packets(self) -> int:
        """Lost for all reasons."""
        return sum(one.packets for one in self.drops)

    def minus(self, earlier: DropReport | None) -> DropReport:
        """What was lost since; what did not grow is left out. A ring's least and most stay those of the whole trace."""
        if earlier is None:
            return self
        drops, rings = {one.key: one for one in earlier.drops}, {one.key: one for one in earlier.rings}
        return DropReport(
            self.at,
            tuple(grown for one in self.drops if (grown := _drop_since(one, drops.get(one.key))).packets),
            tuple(more for one in self.rings if (more := _ring_since(one, rings.get(one.key))).drops),
            self.lost - earlier.lost,
        )

    def about(self, devices: frozenset[tuple[int, int]] | None) -> DropReport:
        """Only what was lost at one of these (namespace, ifindex); None: everything. Cpumaps' losses are kept."""
        if devices is None:
            return self

        def kept(one: Drop | Ring) -> bool:
            return bool(one.map_id) or (
                one.device is not None and (one.device.netns, one.device.ifindex) in devices
            )

        return replace(
            self,
            drops=tuple(one for one in self.drops if kept(one)),
            rings=tuple(one for one in self.rings if kept(one)),
        )


def _drop_since(now: Drop, then: Drop | None) -> Drop:
    if then is None:
        return now
    return replace(now, packets=now.packets - then.packets, bytes=now.bytes - then.bytes)


def _ring_since(now: Ring, then: Ring | None) -> Ring:
    if then is None:
        return now
    return replace(
        now,
        drops=now.drops - then.drops,
        full=now.full - then.full,
        freeing=now.freeing - then.freeing,
        not_full=now.not_full - then.not_full,
        unreadable=now.unreadable - then.unreadable,
    )


class DropTrace:
    """Counts lost packets while it is open, in every network namespace.

    Args:
        xdp: count XDP's losses too; without, those that kfree_skb tells (where `RedirectTrace` counts XDP's anyway).

    Attributes:
        missing: tracepoints that this kernel lacks, and what they would have told.
        reasons: whether this kernel gives reasons (Linux 5.17).

    Raises:
        UnsupportedError: no BTF, or none of the tracepoints.
        PrivilegeError: CAP_BPF or CAP_PERFMON is missing.
    """

    def __init__(self, *, xdp: bool = True) -> None:
        hooks = [one for one in HOOKS if xdp or one.tracepoint == "kfree_skb"]
        self._tracer = Tracer("trace_drops", hooks, prepare=_prepare)
        self._names = Names.empty()
        self.missing: tuple[Missing, ...] = self._tracer.missing
        self.reasons: bool = bool(_reasons())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach; safe to repeat."""
        self._tracer.close()

    def program_ids(self) -> frozenset[int]:
        """Ids of its own BPF programs."""
        return self._tracer.program_ids()

    def read(self) -> DropReport:
        """What was lost so far."""
        devices = read_devices(self._tracer.map("devices"))
        drops = [
            self._drop(_DROP_KEY.unpack(key), value, devices)
            for key, value in self._tracer.map("drops").items()
        ]
        producers: dict[bytes, list[Producer]] = {}
        for key, value in self._tracer.map("producers").items():
            producers.setdefault(key[: _RING_KEY.size], []).append(_producer(key, value, devices))
        rings = [
            _ring(key, value, devices, producers.get(key, []))
            for key, value in self._tracer.map("rings").items()
        ]
        return DropReport(
            time.monotonic(),
            tuple(sorted(drops, key=lambda one: (-one.packets, one.via, str(one.place)))),
            tuple(sorted(rings, key=lambda one: (-one.drops, one.kind, one.queue))),
            lost(self._tracer, (0, 1, 2)) + self._tracer.missed(),
        )

    def _drop(self, key: tuple[int, ...], value: bytes, devices: Mapping[tuple[int, int], Device]) -> Drop:
        inode, ifindex, queue, reason, location, program, number = key
        via = VIA[number]
        of_cpumap = via.startswith("xdp_cpumap")
        packets = size = 0
        for one, two in _DROP.iter_unpack(value):
            packets, size = packets + one, size + two
        return Drop(
            via=via,
            device=devices.get((inode, ifindex), Device(inode, ifindex, None)) if ifindex else None,
            queue=None if queue == NO_QUEUE else queue,
            reason=_reason(via, reason),
            place=symbols().at(location) if location and not of_cpumap else None,
            program_id=program,
            program=self._names.program(program),
            map_id=location if of_cpumap else 0,
            packets=packets,
            bytes=size,
        )


@cache
def _reasons() -> Mapping[int, str]:
    """enum skb_drop_reason and the subsystems' of this kernel; empty before Linux 5.17."""
    found = {value: name.removeprefix(PREFIX) for value, name in enumerators("skb_drop_reason").items()}
    if found:
        for other in ("mac80211_drop_reason", "ovs_drop_reason", "qdisc_drop_reason"):
            found.update(enumerators(other))
    return found


def _reason(via: str, number: int) -> str | None:
    if via == "kfree_skb":
        known = _reasons()
        return known.get(number, str(number)) if known else None
    if via == "xdp_exception":
        return VERDICTS[number] if number < len(VERDICTS) else str(number)
    signed = number - (1 << 32) if number >> 31 else number
    return errno_name(signed) if signed else None


def _prepare(opened: Object) -> None:
    """Tell the tracer where veth's and generic XDP's code is, as far as kallsyms says."""
    places = []
    for functions in (VETH_FUNCTIONS, GENERIC_FUNCTIONS):
        extents = symbols().extents(*functions)[:PLACES]
        places += [*extents, *[(0, 0)] * (PLACES - len(extents))]
    rodata = next(one for one in opened.maps.values() if one.name.endswith(".rodata"))
    # `code` is the object's only constant
    rodata.patch_initial_value(0, b"".join(struct.pack("=QQ", *one) for one in places))


def _producer(key: bytes, value: bytes, devices: Mapping[tuple[int, int], Device]) -> Producer:
    inode, _, _, _, cpu, source, queue, _ = _PRODUCER.unpack(key)
    device = devices.get((inode, source))
    if device is None and source:
        device = Device(inode, source, _name_of(inode, source))
    return Producer(
        cpu, device if source else None, None if queue == NO_QUEUE else queue, struct.unpack("=Q", value)[0]
    )


def _name_of(inode: int, ifindex: int) -> str | None:
    """Name of a device that no event has named, if it is in the caller's namespace."""
    from xdpctl.netlink import interfaces, netns

    return interfaces.names().get(ifindex) if netns.current().inode == inode else None


def _ring(
    key: bytes, value: bytes, devices: Mapping[tuple[int, int], Device], producers: list[Producer]
) -> Ring:
    inode, ifindex, queue, number = _RING_KEY.unpack(key)
    counts = _RING.unpack(value)
    size, batch, *spans = counts[5:13]
    kind = KINDS[number]
    name = counts[13].split(b"\0", 1)[0].decode(errors="replace") or None
    of_cpumap = kind == "cpumap"
    return Ring(
        kind=kind,
        device=None if of_cpumap else devices.get((inode, ifindex), Device(inode, ifindex, None)),
        map_id=ifindex if of_cpumap else 0,
        queue=queue // 4 if kind == "pfifo_fast" else queue,
        band=queue % 4 if kind == "pfifo_fast" else None,
        qdisc=name,
        drops=counts[0],
        full=counts[1],
        freeing=counts[2],
        not_full=counts[3],
        unreadable=counts[4],
        size=size,
        batch=batch,
        taken=Span(*spans[:3]) if size else None,
        unread=Span(*spans[3:]) if size else None,
        producers=tuple(sorted(producers, key=lambda one: (-one.packets, one.cpu))),
    )
