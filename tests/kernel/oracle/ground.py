"""The ground of all scenarios: namespaces kept for the whole run, and the present scenario's interfaces.

Interfaces are made with pyroute2 and ioctls, quickly and without any code of xdpctl. Each gets an ifindex
from a range that is random a run: tracepoints name ifindexes without their namespace, and others on the
machine may trace at the same time. All interfaces share one group, so that one request removes them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import random
import secrets
import socket
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tests.support import rtnetlink
from xdpctl.libbpf import libc

from . import bpf
from .bpf import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE, THERE, HIDDEN = "here", "there", "hidden"
"""Where devices under test live, where their other ends live, and a namespace that nobody can find."""

GROUP = 0x7870
_ETH_P_ALL = 0x0003
_MS_BIND = 0x1000
_SIOCETHTOOL = 0x8946
_GCHANNELS, _SCHANNELS, _SGRO = 0x3C, 0x3D, 0x2C
_TUNSETIFF, _TUNSETPERSIST, _TUNSETIFINDEX = 0x400454CA, 0x400454CB, 0x400454DA
_IFF_TUN, _IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI = 0x1, 0x2, 0x100, 0x1000


class NotHere(Exception):  # noqa: N818 - the kernel lacks what a scenario stands on
    """This kernel can't produce the scenario; the words say why."""


@dataclass
class Space:
    """A network namespace."""

    label: str
    name: str | None
    fd: int
    inode: int
    route: IPRoute = field(repr=False)
    quick: socket.socket = field(repr=False)
    """For `rtnetlink`."""
    packets: socket.socket = field(repr=False)
    """A packet socket for all interfaces of the namespace: closing one costs an RCU grace period."""


@dataclass
class Nic:
    """An interface of the present scenario."""

    name: str
    space: str
    ifindex: int
    wire: str | None = None
    """Interface on which its frames can be sent to it, and on which what it transmits arrives."""
    vlan: int | None = None
    """Tag that frames on the wire bear."""
    queues: tuple[int, ...] = ()
    """A tun or tap's descriptors: frames are written and read there instead."""
    settles: bool = False
    below: tuple[str, ...] = ()
    """A bond's slaves: round robin passes over one that has no carrier yet."""
    """Real hardware: a program put on it or taken off resets its link."""
    sink: bool = False
    """A dummy: it takes what it is given, counts it and lets it go; nothing comes out anywhere."""


class Ground:
    """Namespaces, and the interfaces, programs and descriptors of the present scenario."""

    def __init__(self) -> None:
        self.tag = secrets.token_hex(3)
        self._next = random.randrange(1 << 20, 1 << 30, 1 << 10)  # noqa: S311 - only to keep apart
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.spaces: dict[str, Space] = {}
        self.nics: dict[str, Nic] = {}
        self._scenario = contextlib.ExitStack()
        for label in (HERE, THERE, HIDDEN):
            self.spaces[label] = self._make_space(label)
        self.clear()

    def _make_space(self, label: str) -> Space:
        name = None if label == HIDDEN else f"xt{self.tag}-{label}"
        libc.unshare(libc.CLONE_NEWNET)
        try:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            if name is not None:
                anchor = Path("/run/netns", name)
                anchor.parent.mkdir(exist_ok=True)
                anchor.touch()
                libc.mount("/proc/thread-self/ns/net", str(anchor), None, _MS_BIND)
            with contextlib.suppress(OSError):  # a kernel without IPv6
                for which in ("all", "default"):
                    Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
            route = IPRoute(ext_ack=True)
            quick = rtnetlink.open_socket()
            rtnetlink.set_link(quick, 1, state="up")
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            packets.setblocking(False)
        finally:
            libc.setns(self._home, libc.CLONE_NEWNET)
        return Space(label, name, fd, os.fstat(fd).st_ino, route, quick, packets)

    def close(self) -> None:
        """Remove everything."""
        self.clear()
        for space in self.spaces.values():
            space.route.close()
            space.quick.close()
            space.packets.close()
            os.close(space.fd)
            if space.name is not None:
                anchor = Path("/run/netns", space.name)
                libc.umount(str(anchor), libc.MNT_DETACH)
                anchor.unlink(missing_ok=True)
        self.spaces.clear()

    def clear(self) -> None:
        """Back to three namespaces that hold nothing but lo."""
        self._scenario.close()
        for space in self.spaces.values():
            with contextlib.suppress(NetlinkError):  # ENODEV: nothing in the group
                rtnetlink.delete_group(space.quick, GROUP)
        self.nics = {f"lo@{label}": Nic("lo", label, 1, wire=f"lo@{label}") for label in self.spaces}
        self.nics["lo"] = self.nics[f"lo@{HERE}"]

    @contextlib.contextmanager
    def inside(self, space: str) -> Iterator[None]:
        """This thread in a namespace."""
        libc.setns(self.spaces[space].fd, libc.CLONE_NEWNET)
        try:
            yield
        finally:
            libc.setns(self._home, libc.CLONE_NEWNET)

    def at_end(self, undo: Callable[[], object]) -> None:
        """Call something when the scenario ends."""
        self._scenario.callback(undo)

    # -- interfaces

    def _index(self) -> int:
        self._next += 1
        return self._next

    def _add(
        self, name: str, kind: str, *, space: str = HERE, up: bool = True, wire: str | None, **more
    ) -> Nic:
        index = self._index()
        route = self.spaces[space].route
        try:
            route.link("add", ifname=name, kind=kind, index=index, group=GROUP, **more)
        except NetlinkError as error:
            if error.code == 95:  # rtnl_newlink: "Unknown device type"
                raise NotHere(f"this kernel has no {kind}") from error
            raise
        self.nics[name] = Nic(name, space, index, wire=wire)
        if up:
            self.up(name)
        return self.nics[name]

    def address(self, name: str) -> str:
        """The MAC address as it is now (a bridge takes its ports')."""
        return self.state(self.nics[name]).address or "02:00:00:00:00:02"

    def state(self, nic: Nic) -> rtnetlink.State:
        """Flags, address and count as they are now."""
        return rtnetlink.get_link(self.spaces[nic.space].quick, nic.ifindex)

    def veth(
        self,
        name: str,
        peer: str,
        *,
        peer_space: str = THERE,
        space: str = HERE,
        up: bool = True,
        gro: bool = False,
        mtu: int = 1500,
        peer_mtu: int = 1500,
        queues: tuple[int, int] = (1, 1),
        peer_queues: tuple[int, int] = (1, 1),
    ) -> None:
        """A pair; `gro` and `peer_*` speak of the second end; queues are (rx, tx) in use."""
        index, peer_index = self._index(), self._index()
        rtnetlink.new_veth(
            self.spaces[space].quick,
            rtnetlink.End(name, index, mtu, queues),
            rtnetlink.End(peer, peer_index, peer_mtu, peer_queues, self.spaces[peer_space].fd),
            group=GROUP,
        )
        self.nics[name] = Nic(name, space, index, wire=peer)
        self.nics[peer] = Nic(peer, peer_space, peer_index, wire=name)
        for one in (name, peer):
            if up:
                self.up(one)
        self.gro(peer, gro)

    def bridge(self, name: str, *ports: str, up: bool = True) -> None:
        self._add(name, "bridge", up=up, wire=self.nics[ports[0]].wire if ports else None)
        for port in ports:
            self.set(port, master=self.nics[name].ifindex)

    def bond(self, name: str, mode: int, *slaves: str) -> None:
        self._add(name, "bond", up=False, wire=self.nics[slaves[0]].wire, bond_mode=mode)
        for slave in slaves:
            self.set(slave, state="down")
            self.set(slave, master=self.nics[name].ifindex)
        self.nics[name].below = slaves
        self.up(name)

    def vlan(self, name: str, lower: str, tag: int = 7, *, up: bool = True) -> None:
        below = self.nics[lower]
        self._add(name, "vlan", up=up, wire=below.wire, link=below.ifindex, vlan_id=tag)
        self.nics[name].vlan = tag

    def stacked(self, kind: str, name: str, lower: str, *, up: bool = True, **more) -> None:
        """macvlan, macvtap, ipvlan on a lower device."""
        below = self.nics[lower]
        self._add(name, kind, up=up, wire=below.wire, link=below.ifindex, **more)

    def virtual(self, kind: str, name: str, *, up: bool = True, **more) -> None:
        """A device that stands alone: ifb, dummy, vxlan."""
        self._add(name, kind, up=up, wire=None, **more).sink = kind == "dummy"

    def tun(
        self,
        name: str,
        *,
        tap: bool = True,
        reader: bool = True,
        queues: int = 1,
        up: bool = True,
        mtu: int = 1500,
    ) -> None:
        """A tun or tap; without `reader` it persists while nobody holds a queue."""
        index = self._index()
        flags = (_IFF_TAP if tap else _IFF_TUN) | _IFF_NO_PI | (_IFF_MULTI_QUEUE if queues > 1 else 0)
        request = struct.pack("16sH22x", name.encode(), flags)
        held = []
        with self.inside(HERE):
            for _ in range(queues):
                try:
                    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                except OSError as error:
                    raise NotHere("this kernel has no tun") from error
                if not held:
                    fcntl.ioctl(fd, _TUNSETIFINDEX, struct.pack("I", index))
                fcntl.ioctl(fd, _TUNSETIFF, request)
                held.append(fd)
            if not reader:
                fcntl.ioctl(held[0], _TUNSETPERSIST, 1)
        self.nics[name] = Nic(name, HERE, index, queues=tuple(held) if reader else ())
        self.set(name, group=GROUP)
        for fd in held:
            self.at_end(lambda fd=fd: os.close(fd)) if reader else os.close(fd)
        if mtu != 1500:
            self.set(name, mtu=mtu)
        if up:
            self.up(name)

    def missing(self, name: str) -> None:
        """A name for an ifindex that no device of the namespace has."""
        self.nics[name] = Nic(name, HERE, self._index())

    def elsewhere(self, nic: str) -> Nic:
        """The ifindex of another namespace's device, taken for one of here."""
        return Nic(nic, HERE, self.nics[nic].ifindex)

    # -- states

    def settle(self, nic: Nic) -> None:
        """Wait until the carrier of a NIC, its slaves and its wire is there: up to 8 s, as autonegotiation goes."""
        for one in (nic, self.nics.get(nic.wire or ""), *map(self.nics.get, nic.below)):
            end = time.monotonic() + 8
            while one is not None and one.settles and time.monotonic() < end:
                now = self.state(one)
                carrier = now.flags & rtnetlink.IFF_LOWER_UP and now.operstate != rtnetlink.OPER_DOWN
                if carrier or not now.flags & rtnetlink.IFF_UP:
                    break
                time.sleep(0.02)

    def transmitted(self, nic: Nic) -> int:
        """tx_packets of a device."""
        return self.state(nic).sent

    def set(self, nic: str, **what) -> None:
        where = self.nics[nic]
        rtnetlink.set_link(self.spaces[where.space].quick, where.ifindex, **what)

    def up(self, nic: str) -> None:
        self.set(nic, state="up")

    def down(self, nic: str) -> None:
        self.set(nic, state="down")

    def mtu(self, nic: str, mtu: int) -> None:
        self.set(nic, mtu=mtu)

    def _ethtool(self, nic: str, words: list[int]) -> list[int]:
        data = bytearray(struct.pack(f"{len(words)}I", *words))
        place = (ctypes.c_char * len(data)).from_buffer(data)
        request = struct.pack("16sQ16x", self.nics[nic].name.encode(), ctypes.addressof(place))
        with (
            self.inside(self.nics[nic].space),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket,
        ):
            try:
                fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:  # veth has no set_channels before 5.15
                    raise NotHere(f"this kernel's {nic} takes no ethtool command 0x{words[0]:x}") from error
                raise
        return list(struct.unpack(f"{len(words)}I", bytes(place)))

    def gro(self, nic: str, on: bool) -> None:
        self._ethtool(nic, [_SGRO, int(on)])

    def channels(self, nic: str, *, rx: int, tx: int) -> None:
        now = self._ethtool(nic, [_GCHANNELS, *[0] * 8])
        self._ethtool(nic, [_SCHANNELS, *now[1:5], rx, tx, *now[7:]])

    def combined(self, nic: str, count: int) -> None:
        """Pairs of queues in use."""
        now = self._ethtool(nic, [_GCHANNELS, *[0] * 8])
        self._ethtool(nic, [_SCHANNELS, *now[1:8], count])

    # -- programs

    def attach(
        self,
        nic: str,
        code: bytes = bpf.PASS,
        *,
        mode: str = "native",
        via: str = "netlink",
        flags: int = 0,
        **load,
    ) -> Attached:
        """Load and attach a program.

        Raises:
            Refused: with the stage (load or attach), the errno and, by netlink, the extack.
        """
        with self.inside(self.nics[nic].space):  # where an ifindex to be bound to means something
            program = bpf.load(code, **load)
        try:
            done = self._attach(nic, program, mode, via, flags)
        except BaseException:
            program.close()
            raise
        self.at_end(done.release)
        return done

    def _attach(self, nic: str, program: bpf.Program, mode: str, via: str, flags: int) -> Attached:
        where = self.nics[nic]
        mode_flag = bpf.MODE_FLAGS[mode]
        if via == "link":
            with self.inside(where.space):
                fd = bpf.create_link(program.fd, where.ifindex, mode_flag | flags)
            return Attached(program, lambda: os.close(fd))
        self._xdp(nic, program.fd, mode_flag | flags)

        def off() -> None:
            with contextlib.suppress(Refused):  # the device may be gone
                self._xdp(nic, -1, mode_flag)

        return Attached(program, off)

    def _xdp(self, nic: str, fd: int, flags: int) -> None:
        try:
            self.set(nic, xdp=(fd, flags))
        except NetlinkError as error:
            words = error.args[1] if len(error.args) > 1 else None
            raise Refused(error.code, None if words == os.strerror(error.code) else words) from error


@dataclass
class Attached:
    """A program on a device, until released."""

    program: bpf.Program
    _off: Callable[[], None]
    _released: bool = False

    def release(self) -> None:
        """Detach and unload."""
        if not self._released:
            self._released = True
            self._off()
            self.program.close()
