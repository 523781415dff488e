"""What every rule stands on: a `Case` (the Snapshot, indexed), and the words in which findings name objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.doctor.finding import Evidence, Finding, Fix, Status
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from xdpctl.host.model import Kernel, Link, LinkRef, Snapshot

IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
"""Carrier, as `ip link` prints LOWER_UP."""

NDO_XMIT, HW_OFFLOAD, RX_SG, NDO_XMIT_SG = 4, 16, 32, 64
"""NETDEV_XDP_ACT_* (include/uapi/linux/netdev.h, 6.3)."""

ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_NONE = 1, 772, 65534
ETH_HLEN, VLAN_HLEN, ETH_FCS_LEN = 14, 4, 4


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that can be wrong, as the table of findings (docs/findings.md) lists it."""

    id: str
    """Stable: ``redirect.veth-peer-napi``."""
    what: str
    """What is wrong, in one sentence without names."""
    errno: str
    """What the kernel answers, with versions where they differ; "none" where it stays silent."""
    mirrors: tuple[str, ...]
    """Kernel functions that the rule mirrors."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A pure function over (case, intent), and which intents it judges."""

    judges: tuple[type, ...]
    """Intent classes; empty: asked once about the machine as a whole."""
    function: Callable[[Case, Any], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Case:
    """A Snapshot with the indexes that keep judging linear in the number of links."""

    snapshot: Snapshot
    by_ref: Mapping[tuple[int, int], Link]
    above: Mapping[tuple[int, int], tuple[Link, ...]]
    """Direct uppers (struct net_device adj_list.upper): the master, and what is stacked on it."""
    below: Mapping[tuple[int, int], tuple[Link, ...]]
    """Direct lowers: ports of a master, the device below a stacked one."""
    labels: Mapping[int, str | None]
    """Namespace inode -> label; None for the caller's own."""
    promised: frozenset[tuple[int, int]] = frozenset()
    """Links that something is known to redirect to: of a pair, this end is the one that matters."""
    attaching: frozenset[tuple[int, int]] = frozenset()
    """Links that are to get a native program: by the time of the first redirect they have it."""

    @classmethod
    def of(
        cls, snapshot: Snapshot, promised: Iterable[LinkRef] = (), attaching: Iterable[LinkRef] = ()
    ) -> Case:
        """Index a snapshot, once for all intents."""
        by_ref = {(one.netns, one.ifindex): one for one in snapshot.links()}
        above: dict[tuple[int, int], list[Link]] = {}
        below: dict[tuple[int, int], list[Link]] = {}

        def stack(upper: Link, lower: Link) -> None:
            above.setdefault((lower.netns, lower.ifindex), []).append(upper)
            below.setdefault((upper.netns, upper.ifindex), []).append(lower)

        for link in by_ref.values():
            master = by_ref.get((link.netns, link.master)) if link.master else None
            if master is not None:
                stack(master, link)
            if link.lower is not None and link.lower.netns is not None:
                lower = by_ref.get((link.lower.netns, link.lower.ifindex))
                if lower is not None:
                    stack(link, lower)
        return cls(
            snapshot,
            by_ref,
            {key: tuple(value) for key, value in above.items()},
            {key: tuple(value) for key, value in below.items()},
            {one.inode: None if one.current else one.label for one in snapshot.namespaces},
            frozenset((one.netns, one.ifindex) for one in promised),
            frozenset((one.netns, one.ifindex) for one in attaching),
        )

    @property
    def kernel(self) -> Kernel:
        """The kernel that was observed."""
        return self.snapshot.kernel

    def since(self, major: int, minor: int, patch: int = 0) -> bool:
        """Whether the kernel's version is at least this one: a weak fact, said so in the evidence."""
        return self.kernel.at_least(major, minor, patch)

    @property
    def takes_newer_drivers(self) -> bool:
        """Enterprise kernels take whole drivers from newer ones: there a version says nothing about them."""
        return ".el" in self.kernel.release or ".amzn" in self.kernel.release

    def link(self, ref: LinkRef | None) -> Link | None:
        """The link, or None where it was not observed."""
        return None if ref is None else self.by_ref.get((ref.netns, ref.ifindex))

    def observed(self, netns: int) -> bool:
        """Whether that namespace was looked into at all."""
        return netns in self.labels

    def peer(self, link: Link) -> Link | None:
        """The other end of a pair, None where it was not observed."""
        if link.peer is None or link.peer.netns is None:
            return None
        return self.by_ref.get((link.peer.netns, link.peer.ifindex))

    def uppers(self, link: Link) -> tuple[Link, ...]:
        """Its direct uppers."""
        return self.above.get((link.netns, link.ifindex), ())

    def aimed_at(self, link: Link) -> bool:
        """Whether something is known to redirect to the link."""
        return (link.netns, link.ifindex) in self.promised

    def is_to_run_native(self, link: Link) -> bool:
        """Whether a native program is about to be attached to the link."""
        return (link.netns, link.ifindex) in self.attaching

    def runs_native(self, link: Link) -> bool:
        """Whether the link has a native program, or will have one before the first frame."""
        return has_native(link) or self.is_to_run_native(link)

    def lowers(self, link: Link) -> tuple[Link, ...]:
        """Its direct lowers."""
        return self.below.get((link.netns, link.ifindex), ())

    def netns(self, link: Link) -> str | None:
        """Label of the link's namespace, None for the caller's."""
        return self.labels.get(link.netns)

    def name(self, link: Link) -> str:
        """``veth0``, or ``veth0 (netns blue)`` when it is in another namespace than the caller's."""
        label = self.netns(link)
        return f"{link.name} (netns {label})" if label else link.name

    def fix(
        self,
        link: Link,
        *argv: str,
        inverse: tuple[str, ...] | None = None,
        flaps: bool = False,
        note: str | None = None,
    ) -> Fix:
        """A command that runs in the link's namespace."""
        return Fix(argv, self.netns(link), flaps, inverse, note)

    def version_evidence(self) -> Evidence:
        """The kernel's release, for rules that only a version decides."""
        return Evidence(f"kernel {self.kernel.release}", "uname")

    def find(
        self,
        mistake: Mistake,
        status: Status,
        link: Link | None,
        summary: str,
        **more: Any,
    ) -> Finding:
        """A finding about `link`; `more` are Finding's other fields."""
        more.setdefault("references", mistake.mirrors)
        return Finding(
            id=mistake.id,
            status=status,
            interface=link.name if link else more.pop("interface", None),
            netns=self.netns(link) if link else more.pop("netns", None),
            summary=summary,
            **more,
        )


def driver_of(link: Link) -> str | None:
    """What decides about XDP: the rtnl kind of a virtual link, ``loopback`` for lo, else ethtool's driver name."""
    if link.type == ARPHRD_LOOPBACK:
        return "loopback"
    if link.kind == "tun":
        return "tap" if is_tap(link) else "tun"
    return link.kind or link.driver


def is_tap(link: Link) -> bool:
    """A tap (L2) rather than a tun (L3): only taps get tap_netdev_ops with ndo_bpf (tun_net_initialize)."""
    return link.tun.type == "tap" if link.tun else link.type == ARPHRD_ETHER


def hard_header_len(link: Link) -> int:
    """dev->hard_header_len in bytes: 14 for Ethernet and loopback, 0 for devices without a link layer."""
    return ETH_HLEN if link.type in (ARPHRD_ETHER, ARPHRD_LOOPBACK) else 0


def forward_limit(link: Link) -> int:
    """Longest frame in bytes that may be forwarded out (xdp_ok_fwd_dev): mtu + hard_header_len + VLAN_HLEN."""
    return link.mtu + hard_header_len(link) + VLAN_HLEN


def carrier(link: Link) -> bool:
    """The link has a carrier: a veth's peer is up, a tap has a reader."""
    # not IFF_RUNNING: it is also set while the operational state is still unknown (netif_oper_up)
    return bool(link.flags & IFF_LOWER_UP)


def has_native(link: Link) -> bool:
    """A native program is attached."""
    return bool(link.xdp.native)


def flags_text(link: Link) -> str:
    """``up`` or ``down``."""
    return "up" if link.up else "down"


def worst(findings: Iterable[Finding]) -> Status | None:
    """The most severe status, None of none."""
    order = (Status.FAIL, Status.UNKNOWN, Status.WARN, Status.OK)
    seen = {one.status for one in findings}
    return next((one for one in order if one in seen), None)
