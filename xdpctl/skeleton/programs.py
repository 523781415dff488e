"""Programs of a skeleton by what they can do: only an XDP program attaches to XDP, only a TC program to TC.

The class follows the type and expected attach type that libbpf took from the section name (libbpf.c, section_defs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from xdpctl.bpf import pins
from xdpctl.bpf.link import FIRST, LAST, Order, link_netkit, link_tcx
from xdpctl.errors import ConfigError, UnsupportedError
from xdpctl.libbpf import uapi
from xdpctl.netlink import interfaces
from xdpctl.netlink import netns as namespaces
from xdpctl.skeleton import modes, ways
from xdpctl.skeleton.links import Link

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from xdpctl.bpf.program import Program as Core
    from xdpctl.bpf.program import TestRun
    from xdpctl.bpf.query import ProgramInfo
    from xdpctl.skeleton.states import Life

    Mode = Literal["native", "generic", "offload", "auto"]
    Direction = Literal["ingress", "egress"]
    End = Literal["primary", "peer"]

__all__ = ["FIRST", "LAST", "Order", "Program", "TcProgram", "TracingProgram", "XdpProgram"]


class Program:
    """A program of any type: what all have in common; it may be put into a devmap, cpumap or prog_array.

    Attributes:
        name: of its C function.
    """

    __slots__ = ("_core", "_life", "_links", "name")

    kind: ClassVar[str] = "program"
    """As errors call one."""

    def __init__(self, life: Life, core: Core, links: list[Link]) -> None:
        self._life = life
        self._core = core
        self._links = links
        self.name = core.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self._life.what}, {self._life.state}>"

    @property
    def section(self) -> str:
        """The ELF section it stands in (``xdp.frags``)."""
        return self._core.section

    @property
    def type(self) -> str:
        """Program type (``xdp``, ``sched_cls``, ``tracing``)."""
        self._life.require_open(f"type of {self.name}")
        return self._core.type

    @property
    def autoload(self) -> bool:
        """Whether `Skeleton.load` loads it; settable before."""
        self._life.require_open(f"autoload of {self.name}")
        return self._core.autoload

    @autoload.setter
    def autoload(self, wanted: bool) -> None:
        self._life.require("opened", f"autoload of {self.name}")
        self._core.set_autoload(wanted)

    @property
    def fd(self) -> int:
        """File descriptor, the skeleton's.

        Raises:
            ConfigError: it is not loaded.
        """
        self._life.require("loaded", f"use of {self.name}")
        return self._core.fd

    @property
    def id(self) -> int:
        """The kernel's id of it."""
        return self.info().id

    def info(self) -> ProgramInfo:
        """What the kernel says about it.

        Raises:
            ConfigError: it is not loaded.
        """
        self._life.require("loaded", f"use of {self.name}")
        return self._core.info()

    def pin(self, name: str) -> Path:
        """Pin the program itself below xdpctl's directory of the bpffs; `name` as in `Link.pin`.

        Raises:
            AttachError: something is pinned there.
            ConfigError: the name can't be that of a pin, or the program is not loaded.
            UnsupportedError: no bpffs.
        """
        path = pins.below(pins.root(), *name.split("/"))
        pins.pin(self.fd, path)
        return path

    def test_run(
        self,
        data: bytes,
        *,
        repeat: int = 1,
        interface: str | int | None = None,
        live_frames: bool = False,
        ctx: bytes | None = None,
    ) -> TestRun:
        """Run it on a frame (BPF_PROG_TEST_RUN).

        Args:
            data: the frame from its Ethernet header on, at least 14 bytes.
            repeat: how often.
            interface: that it seems to come in on; None: the namespace's lo.
            live_frames: let XDP_TX, REDIRECT and PASS really happen (Linux 5.18).
            ctx: the context instead of one made from `interface`.

        Raises:
            ConfigError: it is not loaded.
            UnsupportedError: the kernel can't run this type, or has no live frames.
            AttachError: the kernel refused.
        """
        self._life.require("loaded", f"test run of {self.name}")
        ifindex = 0 if interface is None else _ifindex(interface)
        return self._core.test_run(data, repeat=repeat, ifindex=ifindex, live_frames=live_frames, ctx=ctx)

    def _require_loaded(self) -> None:
        self._life.require("loaded", f"attach of {self.name}")
        if not self._core.loaded:
            raise ConfigError(
                f"attach of {self.name}: it was left out of the load",
                hint=f"set progs.{self.name}.autoload = True before load()",
            )

    def _keep(self, link: Link) -> Link:
        self._links.append(link)
        return link


class XdpProgram(Program):
    """An XDP program."""

    __slots__ = ()

    kind = "XDP program"

    def bind(self, interface: str | int, *, offload: bool, netns: str | None = None) -> None:
        """Before load: make it for one device, to be offloaded to it or to use its metadata kfuncs (Linux 6.3).

        Raises:
            ConfigError: it is loaded already.
            NotFoundError: no such interface or namespace.
        """
        self._life.require("opened", f"bind of {self.name}")
        with namespaces.enter(netns):
            self._core.set_ifindex(_ifindex(interface), offload=offload)

    def attach(self, interface: str | int, *, mode: Mode = "native", netns: str | None = None) -> Link:
        """Attach to an interface; nobody's program is replaced.

        Args:
            interface: name or ifindex.
            mode: native (the driver's), generic, offload (see `bind`), or auto: native, else generic, and
                `Link.note` says why.
            netns: name of the network namespace, as under /run/netns; None: the thread's own.

        Raises:
            ConfigError: the skeleton is not loaded.
            NotFoundError: no such interface or namespace.
            AttachError: the kernel refused; its sentence in `extack`. EBUSY: a program is there.
            PrivilegeError: CAP_NET_ADMIN or CAP_BPF is missing.
        """
        modes.check(mode)
        self._require_loaded()
        fd = self._core.fd
        with namespaces.enter(netns) as where:
            ifindex = _ifindex(interface)

            def attach_in(one: str) -> tuple[ways.Way, str]:
                try:
                    return ways.ByLink(modes.link(fd, ifindex, one)), one
                except UnsupportedError as error:
                    if "link" not in error.feature:
                        raise
                    return ways.XdpByNetlink(ifindex, fd, one, where), one

            (way, got), note = modes.in_mode(mode, attach_in)
        return self._keep(Link(way, self.name, f"xdp of {_place(interface, netns)}", mode=got, note=note))


class TcProgram(Program):
    """A TC classifier (sched_cls)."""

    __slots__ = ()

    kind = "TC program"

    def attach(
        self, interface: str | int, direction: Direction | None = None, *, netns: str | None = None
    ) -> Link:
        """Attach last on tcx where the kernel has it (Linux 6.6), else on clsact.

        Args:
            interface: name or ifindex.
            direction: ingress or egress; None: as its section says (``tc/egress``).
            netns: name of the network namespace; None: the thread's own.

        Raises:
            ConfigError: the skeleton is not loaded, or the section tells no direction.
            NotFoundError, AttachError, PrivilegeError: as `attach_tcx`.
        """
        from xdpctl.bpf import features

        if features.probe("tcx"):
            return self.attach_tcx(interface, direction, netns=netns)
        return self.attach_clsact(interface, direction, netns=netns)

    def attach_tcx(
        self,
        interface: str | int,
        direction: Direction | None = None,
        *,
        order: Order = LAST,
        netns: str | None = None,
    ) -> Link:
        """Attach to tcx (Linux 6.6).

        Args:
            interface: name or ifindex.
            direction: ingress or egress; None: as its section says.
            order: among the programs there: `FIRST`, `LAST` or an `Order`.
            netns: name of the network namespace; None: the thread's own.

        Raises:
            ConfigError: the skeleton is not loaded, or the section tells no direction.
            UnsupportedError: the kernel has no tcx.
            NotFoundError: no such interface or namespace.
            AttachError: the kernel refused (ENOENT: the program to go before is not there).
            PrivilegeError: CAP_NET_ADMIN or CAP_BPF is missing.
        """
        self._require_loaded()
        direction = self._direction(direction)
        attach_type = uapi.TCX_INGRESS if direction == "ingress" else uapi.TCX_EGRESS
        with namespaces.enter(netns):
            made = link_tcx(self._core.fd, _ifindex(interface), attach_type, order=order)
        return self._keep(
            Link(ways.ByLink(made), self.name, f"tcx {direction} of {_place(interface, netns)}")
        )

    def attach_clsact(
        self,
        interface: str | int,
        direction: Direction | None = None,
        *,
        priority: int = 0,
        netns: str | None = None,
    ) -> Link:
        """Attach as a bpf filter in direct-action mode on a clsact qdisc, which is made where there is none.

        Args:
            interface: name or ifindex.
            direction: ingress or egress; None: as its section says.
            priority: 1 to 65535, the lowest runs first; 0: the kernel chooses, before what is there.
            netns: name of the network namespace; None: the thread's own.

        Raises:
            ConfigError: the skeleton is not loaded, or the section tells no direction.
            NotFoundError, AttachError, PrivilegeError: as `attach_tcx`.
        """
        self._require_loaded()
        direction = self._direction(direction)
        with namespaces.enter(netns) as where:
            way = ways.ByFilter(_ifindex(interface), direction, self._core.fd, where, priority)
        return self._keep(Link(way, self.name, f"clsact {direction} of {_place(interface, netns)}"))

    def attach_netkit(
        self,
        interface: str | int,
        end: End = "primary",
        *,
        order: Order = LAST,
        netns: str | None = None,
    ) -> Link:
        """Attach to a netkit device (Linux 6.7).

        Args:
            interface: its primary, by name or ifindex.
            end: what it sends (primary) or what its peer sends.
            order: among the programs there.
            netns: name of the network namespace; None: the thread's own.

        Raises:
            ConfigError: the skeleton is not loaded.
            UnsupportedError: the kernel has no netkit.
            NotFoundError, AttachError, PrivilegeError: as `attach_tcx`.
        """
        self._require_loaded()
        if end not in {"primary", "peer"}:
            raise ConfigError(f"no such end of a netkit pair: {end}", hint="primary or peer")
        attach_type = uapi.NETKIT_PRIMARY if end == "primary" else uapi.NETKIT_PEER
        with namespaces.enter(netns):
            made = link_netkit(self._core.fd, _ifindex(interface), attach_type, order=order)
        return self._keep(Link(ways.ByLink(made), self.name, f"netkit {end} of {_place(interface, netns)}"))

    def _direction(self, asked: str | None) -> Direction:
        for one in ("ingress", "egress"):
            if asked == one or (asked is None and one in self.section):
                return one
        said = (
            f"no such direction: {asked}"
            if asked
            else f"section {self.section} of {self.name} tells no direction"
        )
        raise ConfigError(said, hint='"ingress" or "egress"')


class TracingProgram(Program):
    """A program that its section name ties to a tracepoint or function of the kernel."""

    __slots__ = ()

    kind = "tracing program"

    def attach(self) -> Link:
        """Attach where its section says (``tp_btf/xdp_exception``).

        Raises:
            ConfigError: the skeleton is not loaded.
            UnsupportedError: the kernel has no such hook.
            AttachError: the kernel refused.
            PrivilegeError: CAP_PERFMON or CAP_BPF is missing.
        """
        self._require_loaded()
        action = f"attach of {self.name} to {self.section}"
        way = ways.by_section(self._core.address, self.name, self.section, action)
        return self._keep(Link(way, self.name, self.section))


_CLASSES: dict[str, type[Program]] = {
    "xdp": XdpProgram,
    "sched_cls": TcProgram,
    **dict.fromkeys(
        (
            "tracing",
            "raw_tracepoint",
            "raw_tracepoint_writable",
            "tracepoint",
            "kprobe",
            "perf_event",
            "lsm",
        ),
        TracingProgram,
    ),
}


def class_of(program_type: str, attach_type: int) -> type[Program]:
    """The class for a program type; an XDP program for maps (``xdp/devmap``) attaches to none but those."""
    if program_type == "xdp" and attach_type in {uapi.XDP_DEVMAP, uapi.XDP_CPUMAP}:
        return Program
    return _CLASSES.get(program_type, Program)


def wrap(life: Life, core: Core, links: list[Link]) -> Program:
    """A program as its type's class."""
    return class_of(core.type, core.expected_attach_type)(life, core, links)


def _ifindex(interface: str | int) -> int:
    """The ifindex in the current namespace.

    Raises:
        NotFoundError: no such interface.
    """
    return interfaces.ifindex(interface) if isinstance(interface, str) else interface


def _place(interface: str | int, netns: str | None) -> str:
    named = interface if isinstance(interface, str) else f"ifindex {interface}"
    return f"{named} in namespace {netns}" if netns else named
