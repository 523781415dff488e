"""What a scenario does, and what the kernel did: an attach, a redirect of a real frame, an XDP_TX."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdpctl.errors import errno_name
from xdpctl.lab import frames

from . import bpf
from .bpf import Refused
from .ground import Attached, Ground, Nic

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.lab.watch import Event, Watch

PATIENCE = float(os.environ.get("ORACLE_PATIENCE", "0.5"))
"""Seconds to wait for a frame or an event before calling it silence (raise it where the CPU is emulated)."""

ETHERTYPE = 0xC000 + secrets.randbelow(0x1000)
"""Nobody's protocol, random a run: the machine's other packets are never taken for ours."""

_OUTGOING = 4
"""PACKET_OUTGOING: what is sent, seen by packet sockets too."""

_LOUD = ("xdp_redirect_err", "xdp_redirect_map_err", "xdp_devmap_xmit", "xdp_bulk_tx", "xdp_exception")


@dataclass(frozen=True)
class Happened:
    """The kernel's answer."""

    works: bool
    seen_in: str
    """attach, load, devmap: the call that was refused; arrived; a tracepoint's name; nothing."""
    errno: str | None = None
    extack: str | None = None
    words: str = ""
    """The event as the kernel printed it."""

    def __str__(self) -> str:
        if self.works:
            return "works"
        return f"{self.errno or 'lost'} in {self.seen_in}"


def _refused(error: Refused, watch: Watch) -> Happened:
    """A refusal; a link's extack only shows in a tracepoint (6.6)."""
    told = [
        event.text.removeprefix("errmsg=")
        for event in watch.read()
        if event.name == "bpf_xdp_link_attach_failed"
        and event.pid == os.getpid()
        and "(null)" not in event.text
    ]
    extack = error.extack or (told[-1] if told and error.stage == "attach" else None)
    return Happened(False, error.stage, errno_name(error.number), extack, str(error))


@dataclass(frozen=True)
class Attach:
    """Attach an XDP program and take it off again."""

    on: str
    mode: str = "native"
    via: str = "netlink"
    frags: bool = False
    attach_type: str = "xdp"
    bound_to: str | None = None
    """Load for this device (6.3)."""
    offloaded: bool = False
    replace: bool = False

    def perform(self, ground: Ground, watch: Watch) -> Happened:
        flags = bpf.FLAGS_IF_NOEXIST if self.via == "netlink" and not self.replace else 0
        list(watch.read())
        try:
            ground.attach(
                self.on,
                mode=self.mode,
                via=self.via,
                flags=flags,
                frags=self.frags,
                attach_type=self.attach_type,
                ifindex=ground.nics[self.bound_to].ifindex if self.bound_to else 0,
                offloaded=self.offloaded,
            ).release()
        except Refused as error:
            return _refused(error, watch)
        return Happened(True, "attach")


@dataclass(frozen=True)
class Redirect:
    """Send one frame to `source`, whose program redirects it to `target`."""

    source: str
    target: str
    mode: str = "native"
    map: str | None = None
    """devmap or devmap_hash; None: bpf_redirect()."""
    length: int = 128
    """Bytes from the Ethernet header on."""
    frags: bool = False
    entry: bytes | None = None
    """A program for the devmap entry."""
    fill: bool = True
    """False: the devmap slot stays empty."""

    def perform(self, ground: Ground, watch: Watch, armed: Callable[[], object] | None = None) -> Happened:
        """Attach, call `armed`, send."""
        target = ground.nics[self.target]
        try:
            with contextlib.ExitStack() as held:
                code = self._program(ground, held)
                attached = ground.attach(self.source, code, mode=self.mode, frags=self.frags)
                held.callback(attached.release)
                if armed:
                    armed()
                return _send(ground, watch, (self.source, target), attached, self.length)
        except Refused as error:
            return _refused(error, watch)

    def _program(self, ground: Ground, held: contextlib.ExitStack) -> bytes:
        ifindex = ground.nics[self.target].ifindex
        if self.map is None:
            return bpf.redirect(ifindex)
        devmap = bpf.create_devmap(self.map, with_programs=self.entry is not None)
        held.callback(os.close, devmap)
        if self.fill:
            program = bpf.load(self.entry, attach_type="xdp/devmap") if self.entry else None
            if program:
                held.callback(program.close)
            with ground.inside(ground.nics[self.source].space):
                bpf.set_slot(devmap, 3, ifindex, program and program.fd)
        return bpf.redirect_map(devmap, 3)


@dataclass(frozen=True)
class Transmit:
    """Send one frame to `on`, whose program returns XDP_TX."""

    on: str
    mode: str = "native"
    length: int = 128
    frags: bool = False

    def perform(self, ground: Ground, watch: Watch) -> Happened:
        try:
            attached = ground.attach(self.on, bpf.TX, mode=self.mode, frags=self.frags)
        except Refused as error:
            return _refused(error, watch)
        try:
            return _send(ground, watch, (self.on, ground.nics[self.on]), attached, self.length)
        finally:
            attached.release()


Act = Attach | Redirect | Transmit


class _Outside:
    """Where frames for a device are put in, and where those it transmits come out."""

    def __init__(self, ground: Ground, nic: Nic) -> None:
        self._sent = (lambda: ground.transmitted(nic)) if nic.sink else (lambda: 0)
        self._before = self._sent()
        self._queues = nic.queues
        self._wire = ground.nics[nic.wire] if nic.wire else None
        self._socket = ground.spaces[self._wire.space].packets if self._wire else None

    def put(self, frame: bytes) -> None:
        if self._queues:
            os.write(self._queues[0], frame)
        else:
            assert self._socket is not None, "a source needs a wire"
            self._socket.sendto(frame, (self._wire.name, 0))

    def came(self, mark: bytes) -> bool:
        """Whether a frame with the mark came out since the last look."""
        seen = self._sent() > self._before
        with contextlib.suppress(BlockingIOError):
            while self._socket:
                frame, address = self._socket.recvfrom(1 << 17)
                seen |= mark in frame and address[0] == self._wire.name and address[2] != _OUTGOING
        for queue in self._queues:
            with contextlib.suppress(BlockingIOError):
                while True:
                    seen |= mark in os.read(queue, 1 << 17)
        return seen


def _send(ground: Ground, watch: Watch, way: tuple[str, Nic], attached: Attached, length: int) -> Happened:
    """Send one marked frame to the source and watch for it, and for the kernel's complaints."""
    source_name, target = way
    source = ground.nics[source_name]
    mark = b"xdpctl-oracle-" + secrets.token_bytes(8)
    frame = frames.ethernet(
        mark, destination=ground.address(source_name), ethertype=ETHERTYPE, length=length, vlan=source.vlan
    )

    def concerns_us(event: Event) -> bool:
        if event.name == "kfree_skb":
            return f"protocol={ETHERTYPE}" in event.text
        if "prog_id" in event.fields:
            return event.number("prog_id") == attached.program.id
        return source.ifindex in (event.number("ifindex"), event.number("from_ifindex"))

    ground.settle(source)
    ground.settle(target)
    outlet = _Outside(ground, target)
    outlet.came(mark)  # what earlier scenarios left
    list(watch.read())
    _Outside(ground, source).put(frame)
    events: list[Event] = []
    end = time.monotonic() + PATIENCE
    while True:
        if outlet.came(mark):
            return Happened(True, "arrived")
        events += filter(concerns_us, watch.read())
        loud = [event for event in events if event.name in _LOUD and _complains(event)]
        if loud or time.monotonic() > end:
            break
        if any(event.name == "kfree_skb" for event in events):
            end = min(end, time.monotonic() + 0.02)  # freed: what else may come comes now
        time.sleep(0.0005)
    if loud:
        first = min(loud, key=lambda event: _LOUD.index(event.name))
        return Happened(False, first.name, first.errno, None, first.text)
    quiet = [event for event in events if event.name == "kfree_skb"]
    if quiet:
        return Happened(False, "kfree_skb", None, None, quiet[-1].text)
    return Happened(False, "nothing", None, None, "; ".join(map(str, events)))


def _complains(event: Event) -> bool:
    if event.name in ("xdp_devmap_xmit", "xdp_bulk_tx"):
        return event.number("drops") > 0
    return True
