"""Intents: what somebody wants from the machine, in terms that rules can judge against a Snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from xdpctl.host.model import LinkRef


@dataclass(frozen=True, slots=True)
class AttachXdp:
    """An XDP program is to be attached to a link."""

    link: LinkRef
    mode: str
    """native, generic, offload, or auto."""
    program: str
    frags: bool = False
    """SEC("xdp.frags")."""
    attach_type: str = "xdp"
    """xdp, or xdp/devmap and xdp/cpumap, which no device takes."""
    bound_ifindex: int | None = None
    """Device-bound or offloaded to this device; None: not bound."""
    offloaded: bool = False
    """Loaded for hardware (prog_ifindex without BPF_F_XDP_DEV_BOUND_ONLY)."""
    via: str = "link"
    """link or netlink."""
    replace: bool = False
    sends_tx: bool = False
    """May return XDP_TX."""
    redirects: bool = False
    entry_programs: bool = False
    """Uses a devmap or cpumap whose values hold programs (struct bpf_devmap_val, struct bpf_cpumap_val)."""
    promised: bool = True
    """Somebody wants it; False: only whether it could be done, so failures are warnings."""


@dataclass(frozen=True, slots=True)
class AttachTc:
    """A TC program is to be attached to a link."""

    link: LinkRef
    hook: str
    """ingress or egress."""
    program: str
    via: str = "tcx"
    """tcx, clsact or netkit."""
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Frames that arrive at `source` are to leave through `target`."""

    source: LinkRef | None
    """None: any device, native mode assumed (a link is asked about as a target)."""
    target: LinkRef
    mode: str = "native"
    """Mode in which the source's program runs: native or generic."""
    via_map: bool = False
    frame_len: int | None = None
    """Bytes from the Ethernet header on; None: up to the source's MTU."""
    multi_buffer: bool = False
    """Frames may have fragments (frags program and frames larger than one buffer)."""
    promised: bool = True
    """Somebody said or showed that this redirect happens; False: only that it could."""


@dataclass(frozen=True, slots=True)
class EmptySlot:
    """A program redirects through a slot of a devmap, cpumap or xskmap that nothing fills."""

    source: LinkRef | None
    program: str
    map_name: str
    map_type: str
    key: int | None = None
    """None: the whole map is empty."""
    flags: int | None = None
    """bpf_redirect_map()'s flags: the low two bits are returned instead of XDP_REDIRECT; None: not known."""
    read_from: str = "the map's elements"
    promised: bool = True
    """The map is live and was read; False: whoever loads the program may still fill it."""


@dataclass(frozen=True, slots=True)
class UntoldTarget:
    """A program redirects to where nothing but its runs can tell."""

    source: LinkRef | None
    program: str
    target: str
    """What feeds the target, in words: ``global out``, ``bpf_fib_lookup``."""
    look: str
    """What would tell it: an option to give, a place to look at."""
    read_from: str = "the program's instructions"


@dataclass(frozen=True, slots=True)
class Transmit:
    """An XDP program on `link` returns XDP_TX."""

    link: LinkRef
    mode: str = "native"


@dataclass(frozen=True, slots=True)
class Health:
    """Is this link fit for XDP, as it stands? Asked of every link when nothing more is known."""

    link: LinkRef
    named: bool = False
    """The user named this link (then what merely could go wrong counts)."""


Intent = AttachXdp | AttachTc | Redirect | EmptySlot | UntoldTarget | Transmit | Health
