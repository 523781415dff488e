"""The Snapshot: what one observation of a machine found, across network namespaces.

Plain frozen dataclasses. None always means "not known" (not readable, kernel too old, no permission),
never "no": an empty tuple or 0 says "none". `Snapshot.problems` tells what could not be read and why.
Lengths are bytes, counts are entries, ids are the kernel's.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

# not only for type checking: jsonform finds by its name here what a Snapshot is made of
from xdpctl.host.pool_model import KernelMessage, ListedPool, PoolState, UnreadSocket  # noqa: F401, TC001
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SCHEMA = 1
"""Version of the JSON form; a reader takes its own and older ones."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be observed."""

    what: str
    """The thing, e.g. ``"netns blue"`` or ``"veth0 channels"``."""
    why: str
    """In words, with the errno's name where there is one."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The running kernel (uname, /proc, probes)."""

    release: str
    version: tuple[int, int, int]
    """(6, 18, 44): a weak fact, distributions backport; rules prefer the probes below."""
    machine: str
    page_size: int
    btf: bool | None
    """/sys/kernel/btf/vmlinux is there."""
    features: Mapping[str, bool | None] = field(default_factory=dict)
    """Results of bpf.features probes by their name: xdp_link, tcx, netkit, frags, btf, netdev_genl, live_frames, ..."""
    config: Mapping[str, str] | None = None
    """/proc/config.gz, where it exists."""

    def at_least(self, major: int, minor: int, patch: int = 0) -> bool:
        """Whether the version is at least this one."""
        return self.version >= (major, minor, patch)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who observed."""

    uid: int
    capabilities: tuple[str, ...]
    """Effective ones, as ``CAP_NET_ADMIN``."""


@dataclass(frozen=True, slots=True)
class BpfProgram:
    """A loaded program (struct bpf_prog_info)."""

    id: int
    name: str
    type: str
    tag: str
    ifindex: int | None
    """Device it is bound to or offloaded to, 0 for none."""
    map_ids: tuple[int, ...] = ()
    loaded_at: float | None = None
    """CLOCK_BOOTTIME seconds."""
    run_count: int | None = None
    run_time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class RedirectEntry:
    """One used slot of a devmap, cpumap or xskmap that an attached program owns."""

    map_id: int
    map_name: str
    map_type: str
    """devmap, devmap_hash, cpumap, xskmap."""
    key: int
    ifindex: int | None
    """Target of a devmap entry (in the namespace of the device that redirects), else None."""
    program_id: int | None
    """The entry's own program, None for none."""


@dataclass(frozen=True, slots=True)
class RedirectMap:
    """A devmap, cpumap or xskmap that an attached program uses, whatever is in it."""

    id: int
    name: str
    type: str
    """devmap, devmap_hash, cpumap, xskmap; the kernel does not tell what is in an xskmap."""


@dataclass(frozen=True, slots=True)
class RedirectTarget:
    """Where one bpf_redirect() of an attached program leads, as its instructions and globals have it now."""

    ifindex: int | None
    """In the namespace of the device that redirects; None: its instructions don't tell."""
    read_from: str
    """``4 bytes at 0 of map 12 (redirect.rodata)``, ``its instructions``."""
    helper: str = "bpf_redirect"
    """Of TC programs also bpf_clone_redirect, bpf_redirect_neigh, bpf_redirect_peer."""


@dataclass(frozen=True, slots=True)
class Xdp:
    """XDP programs of one link (IFLA_XDP), by mode; None: nothing in that mode."""

    native: int | None = None
    generic: int | None = None
    offload: int | None = None
    native_link_id: int | None = None
    generic_link_id: int | None = None
    offload_link_id: int | None = None

    def __bool__(self) -> bool:
        return bool(self.native or self.generic or self.offload)


@dataclass(frozen=True, slots=True)
class TcHook:
    """One program on a TC hook."""

    hook: str
    """tcx-ingress, tcx-egress, clsact-ingress, clsact-egress, netkit-primary, netkit-peer."""
    program_id: int
    program_name: str
    link_id: int | None = None
    priority: int | None = None
    """clsact filter's pref."""
    handle: int | None = None


@dataclass(frozen=True, slots=True)
class Feature:
    """One ethtool feature (ETHTOOL_MSG_FEATURES_GET)."""

    active: bool
    wanted: bool
    """What was asked for: the bit that veth's driver tests for GRO."""
    fixed: bool
    """The driver or hardware doesn't let it change (not in hw_features, or in NETIF_F_NEVER_CHANGE)."""


@dataclass(frozen=True, slots=True)
class Channels:
    """ETHTOOL_MSG_CHANNELS_GET: counts in use and at most."""

    rx: int = 0
    tx: int = 0
    other: int = 0
    combined: int = 0
    rx_max: int = 0
    tx_max: int = 0
    other_max: int = 0
    combined_max: int = 0


@dataclass(frozen=True, slots=True)
class Rings:
    """ETHTOOL_MSG_RINGS_GET: descriptors in use and at most; None where the driver doesn't say."""

    rx: int | None = None
    tx: int | None = None
    rx_max: int | None = None
    tx_max: int | None = None
    rx_buf_len: int | None = None
    tcp_data_split: str | None = None
    """on, off, unknown (the driver decides)."""
    hds_thresh: int | None = None
    hds_thresh_max: int | None = None
    rx_mini: int | None = None
    rx_jumbo: int | None = None
    rx_mini_max: int | None = None
    rx_jumbo_max: int | None = None
    cqe_size: int | None = None
    """Bytes of a completion (5.18)."""
    tx_push: bool | None = None
    rx_push: bool | None = None
    tx_push_buf_len: int | None = None
    tx_push_buf_len_max: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """ETHTOOL_MSG_PAUSE_GET."""

    autoneg: bool = False
    rx: bool = False
    tx: bool = False


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline (RTM_GETQDISC)."""

    kind: str
    handle: int
    parent: int
    """TC_H_ROOT for the root."""
    qlen: int | None = None
    backlog: int | None = None
    drops: int | None = None


@dataclass(frozen=True, slots=True)
class Napi:
    """One NAPI instance (netdev genl napi-get, 6.8)."""

    id: int
    irq: int | None = None
    pid: int | None = None
    """Its thread, when it is threaded."""
    defer_hard_irqs: int | None = None
    gro_flush_timeout_ns: int | None = None
    irq_suspend_timeout_ns: int | None = None
    threaded: int | None = None
    """0 disabled, 1 enabled, 2 busy-poll (after 6.18, which refuses it); before 6.17 `pid` alone tells."""
    cpus: str | None = None
    """Where its interrupt goes now, as a list (/proc/irq/N/effective_affinity_list)."""
    queues: tuple[str, ...] = ()
    """``rx-0``, ``tx-0``: the queues it serves (queue-get)."""


@dataclass(frozen=True, slots=True)
class PagePool:
    """A page pool that its driver lists (netdev genl page-pool-get, 6.8); many drivers' are not listed."""

    id: int
    ifindex: int | None
    """None: its device is gone, and pages are still out."""
    napi: int | None = None
    inflight: int | None = None
    """Pages handed out and not yet back."""
    inflight_bytes: int | None = None
    detach_time: int | None = None
    """CLOCK_BOOTTIME seconds of its destruction with pages out; None: in use."""


@dataclass(frozen=True, slots=True)
class Bond:
    """What a bond adds (IFLA_BOND_*)."""

    mode: str
    """As ip prints it: balance-rr, active-backup, 802.3ad, balance-xor, ..."""
    active_slave: int | None = None
    """ifindex."""
    xmit_hash_policy: str | None = None


@dataclass(frozen=True, slots=True)
class Tun:
    """What a tun or tap adds (IFLA_TUN_*)."""

    type: str
    """tun (L3) or tap (L2)."""
    multi_queue: bool | None = None
    queues: int | None = None
    """Queues that a reader has attached; 0: nobody reads."""
    persist: bool | None = None


@dataclass(frozen=True, slots=True)
class LinkRef:
    """A link anywhere on the machine: namespaces are named by the inode of their nsfs file."""

    netns: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth or netkit pair, or the lower device of a stacked one (IFLA_LINK, IFLA_LINK_NETNSID)."""

    ifindex: int
    netns: int | None
    """nsfs inode; None: a namespace that was not observed (another container's, or no permission)."""
    nsid: int | None = None
    """The id that the kernel gave for it, as `ip link` prints link-netnsid."""


@dataclass(frozen=True, slots=True)
class Link:
    """One network interface."""

    ifindex: int
    name: str
    netns: int
    kind: str | None
    """rtnl link kind: veth, bridge, vlan, bond, tun, macvlan, ...; None for hardware (and lo)."""
    driver: str | None
    """ethtool's driver name; equals `kind` for most virtual ones."""
    flags: int
    """IFF_*."""
    operstate: str | None
    type: int
    """ARPHRD_*: 1 Ethernet, 772 loopback, 65534 none."""
    mtu: int
    min_mtu: int | None
    max_mtu: int | None
    address: str | None
    master: int | None
    """ifindex of the bridge, bond, team it is a port of."""
    peer: Peer | None
    """veth/netkit: the other end. None: no pair device, or the peer is gone."""
    lower: Peer | None
    """vlan, macvlan, macvtap, ipvlan: the device below."""
    num_rx_queues: int | None
    """Allocated (IFLA_NUM_RX_QUEUES), not in use."""
    num_tx_queues: int | None
    real_rx_queues: int | None
    """In use: channels, netdev queue-get, or /sys/class/net/D/queues."""
    real_tx_queues: int | None
    xdp: Xdp = Xdp()
    tc: tuple[TcHook, ...] = ()
    features: Mapping[str, Feature] | None = None
    """By ethtool's kernel names: rx-gro, rx-lro, rx-gro-hw, tx-tcp-segmentation, ..."""
    xdp_features: int | None = None
    """NETDEV_XDP_ACT_* bits (6.3); None: not known."""
    xdp_zc_max_segs: int | None = None
    xdp_rx_metadata: int | None = None
    channels: Channels | None = None
    rings: Rings | None = None
    private_flags: Mapping[str, bool] | None = None
    qdiscs: tuple[Qdisc, ...] | None = None
    napis: tuple[Napi, ...] | None = None
    bond: Bond | None = None
    tun: Tun | None = None
    vlan_id: int | None = None
    virtio_features: str | None = None
    """/sys/class/net/D/device/features: one character a bit, for virtio_net."""
    statistics: Mapping[str, int] | None = None
    """The driver's own counters (ethtool -S); read only for links that were asked about."""
    sriov_vfs: int | None = None
    bus_info: str | None = None
    # the rest is observed on request (collect(settings=True)): what `driver show` and `driver set` look at
    firmware: str | None = None
    """Version of the device's firmware; "" where the driver tells none."""
    numa_node: int | None = None
    """-1: the machine has one node only, or the device belongs to none."""
    coalesce: Mapping[str, int] | None = None
    """By the names of ethtool -C; switches are 0 or 1. {}: the driver has none."""
    pause: Pause | None = None
    page_pools: tuple[PagePool, ...] | None = None
    """(): none listed, which is not "none there"."""
    napi_defaults: Mapping[str, int] | None = None
    """threaded, defer-hard-irqs, gro-flush-timeout (ns) of the whole device (/sys/class/net/D)."""

    @property
    def ref(self) -> LinkRef:
        """What names it on the whole machine."""
        return LinkRef(self.netns, self.ifindex)

    @property
    def up(self) -> bool:
        """IFF_UP: administratively up."""
        return bool(self.flags & 0x1)

    @property
    def running(self) -> bool:
        """IFF_RUNNING: up, and its carrier too."""
        return bool(self.flags & 0x40)

    def feature(self, name: str) -> Feature | None:
        """The feature by its kernel name, None when unknown."""
        return None if self.features is None else self.features.get(name)


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace."""

    inode: int
    name: str | None
    """As under /run/netns; None for the initial one and for unnamed ones."""
    current: bool
    """The one xdpctl was started in."""
    pid: int | None = None
    """A process inside, where no name exists (a container)."""
    links: tuple[Link, ...] = ()
    cookie: int | None = None
    """What no other namespace of this boot has or had, while inodes are given again (Linux 5.14)."""

    @property
    def label(self) -> str:
        """How people read it: its name, ``pid:123`` for a container's, or ``""`` for the current unnamed one."""
        if self.name:
            return self.name
        if self.current:
            return ""
        return f"pid:{self.pid}" if self.pid else f"net:[{self.inode}]"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One observation of the machine."""

    taken_at: str
    """UTC, ISO 8601."""
    kernel: Kernel
    caller: Caller
    cpus_online: int
    cpus_possible: int
    namespaces: tuple[Namespace, ...]
    programs: Mapping[int, BpfProgram] = field(default_factory=dict)
    """Loaded programs by id; empty without CAP_SYS_ADMIN (see problems)."""
    redirects: Mapping[int, tuple[RedirectEntry, ...]] = field(default_factory=dict)
    """By program id: the used entries of its devmaps, cpumaps and xskmaps."""
    redirect_calls: Mapping[int, bool | None] = field(default_factory=dict)
    """By program id: its instructions call a redirect helper; None: not readable."""
    redirect_maps: Mapping[int, tuple[RedirectMap, ...]] = field(default_factory=dict)
    """By program id: the maps that it can redirect through, empty ones too."""
    redirect_targets: Mapping[int, tuple[RedirectTarget, ...]] = field(default_factory=dict)
    """By program id: where its plain redirects lead; TC programs' only on request (`collect(tc_redirects=True)`)."""
    modules: tuple[str, ...] | None = None
    bpffs: tuple[str, ...] = ()
    """Mount points of bpf filesystems."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """net.core.bpf_jit_enable, kernel.unprivileged_bpf_disabled, ..."""
    problems: tuple[Problem, ...] = ()
    pool_state: PoolState | None = None
    """Page pools and where their pages may wait; None: not looked at (`collect(pools=True)` does)."""
    schema: int = SCHEMA
    _links_by: dict[tuple[object, ...], list[Link]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Links by what they are asked for, made at the first question: rules ask for each of thousands of links."""

    def links(self) -> Iterator[Link]:
        """Every link of every namespace."""
        for namespace in self.namespaces:
            yield from namespace.links

    def _by(self, *key: object) -> list[Link]:
        found = self._links_by
        if not found:
            for one in self.links():
                space = one.netns
                found.setdefault(("ifindex", space, one.ifindex), []).append(one)
                found.setdefault(("name", space, one.name), []).append(one)
                if one.master:
                    found.setdefault(("master", space, one.master), []).append(one)
                if one.lower is not None and one.lower.netns is not None:
                    found.setdefault(("lower", one.lower.netns, one.lower.ifindex), []).append(one)
        return found.get(key, [])

    def link(self, ref: LinkRef | None) -> Link | None:
        """The link, or None where it was not observed."""
        return next(iter(self._by("ifindex", ref.netns, ref.ifindex)), None) if ref is not None else None

    def namespace(self, inode: int) -> Namespace | None:
        """The namespace by inode."""
        return next((one for one in self.namespaces if one.inode == inode), None)

    def namespace_named(self, name: str | None) -> Namespace | None:
        """The namespace by name or label; None or "" is the current one."""
        if not name:
            return next((one for one in self.namespaces if one.current), None)
        return next((one for one in self.namespaces if name in (one.name, one.label)), None)

    def named(self, name: str, netns: int) -> Link | None:
        """The link called `name` in the namespace with inode `netns`."""
        return next(iter(self._by("name", netns, name)), None)

    def peer(self, link: Link) -> Link | None:
        """The other end of a pair, None where it was not observed."""
        if link.peer is None or link.peer.netns is None:
            return None
        return self.link(LinkRef(link.peer.netns, link.peer.ifindex))

    def lowers(self, link: Link) -> tuple[Link, ...]:
        """Ports of a master and the device below a stacked one."""
        below = list(self._by("master", link.netns, link.ifindex))
        if link.lower is not None and link.lower.netns is not None:
            below += self._by("ifindex", link.lower.netns, link.lower.ifindex)
        return tuple(below)

    def uppers(self, link: Link) -> tuple[Link, ...]:
        """The master and every device stacked upon it, direct ones only."""
        above = list(self._by("lower", link.netns, link.ifindex))
        if link.master:
            above += self._by("ifindex", link.netns, link.master)
        return tuple(above)
