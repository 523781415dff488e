"""The tests that rows of driver_limits name: what of a link an observer can see of a driver's inner checks.

Each mirrors the `if` of one driver's ndo_bpf, named in the row; from outside some can only be suspected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Fix
from xdpctl.doctor.rules.commands import channels, feature, private_flag, ring
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xdpctl.doctor.intent import AttachXdp
    from xdpctl.doctor.rules.case import Case
    from xdpctl.host.model import Link

GENERIC = "attach in generic mode: --mode generic"


@dataclass(frozen=True, slots=True)
class Hit:
    """A condition that holds, or may."""

    why: str
    """Continues "<device> ...": ``has rx-lro on``."""
    evidence: tuple[Evidence, ...]
    fix: tuple[Fix, ...] = ()
    others: tuple[str, ...] = (GENERIC,)
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Look:
    """What a condition looks at."""

    case: Case
    link: Link
    intent: AttachXdp

    def channel_evidence(self, fact: str) -> tuple[Evidence, ...]:
        """A fact about queue counts."""
        return (Evidence(fact, f"ethtool channels of {self.case.name(self.link)}"),)


def _offloads(look: Look, names: Iterable[str]) -> Hit | None:
    """Receive offloads that are on."""
    short = {"rx-lro": "lro", "rx-gro-hw": "rx-gro-hw"}
    on = [name for name in names if (one := look.link.feature(name)) is not None and one.active]
    if not on:
        return None
    fixed = [name for name in on if (one := look.link.feature(name)) is not None and one.fixed]
    where = f"ethtool features of {look.case.name(look.link)}"
    evidence = tuple(Evidence(f"{name} is on{' [fixed]' if name in fixed else ''}", where) for name in on)
    fix: tuple[Fix, ...] = ()
    others = [GENERIC]
    if fixed:
        others.insert(
            0, f"{', '.join(fixed)} is [fixed]: only the hypervisor or the driver's options can change it"
        )
    else:
        fix = (feature(look.case, look.link, *((short[name], "off") for name in on)),)
    return Hit(f"has {' and '.join(on)} on", evidence, fix, tuple(others))


def lro(look: Look) -> Hit | None:
    """NETIF_F_LRO is active."""
    return _offloads(look, ("rx-lro",))


def lro_without_frags(look: Look) -> Hit | None:
    """NETIF_F_LRO is active and the program takes single buffers only."""
    return None if look.intent.frags else _offloads(look, ("rx-lro",))


def lro_or_hw_gro(look: Look) -> Hit | None:
    """mlx5: packet_merge.type != NONE, that is LRO or HW-GRO."""
    return _offloads(look, ("rx-lro", "rx-gro-hw"))


def tcp_data_split(look: Look) -> Hit | None:
    """Header-data split is on."""
    if look.link.rings is None or look.link.rings.tcp_data_split != "on":
        return None
    evidence = (Evidence("tcp-data-split is on", f"ethtool rings of {look.case.name(look.link)}"),)
    return Hit(
        "splits headers from data", evidence, (ring(look.case, look.link, "tcp-data-split", "off", "on"),)
    )


def sriov(look: Look) -> Hit | None:
    """Virtual functions exist."""
    if not look.link.sriov_vfs:
        return None
    path = f"/sys/class/net/{look.link.name}/device/sriov_numvfs"
    evidence = (Evidence(f"{look.link.sriov_vfs} virtual functions", path),)
    return Hit("has SR-IOV virtual functions", evidence, (), (f"remove them: echo 0 > {path}", GENERIC))


def _cpus(look: Look, most: int) -> Hit | None:
    cpus = look.case.snapshot.cpus_possible
    if cpus <= most:
        return None
    evidence = (Evidence(f"{cpus} possible CPUs, at most {most}", "/sys/devices/system/cpu/possible"),)
    return Hit(
        f"serves at most {most} CPUs and this machine has {cpus}",
        evidence,
        (),
        (f"boot with nr_cpus={most}", GENERIC),
    )


def cpus_over_128(look: Look) -> Hit | None:
    """nr_cpu_ids > IXGBE_MAX_XDP_QS * 2."""
    return _cpus(look, 128)


def cpus_over_64(look: Look) -> Hit | None:
    """nr_cpu_ids > MAX_XDP_QUEUES."""
    return _cpus(look, 64)


def frags_over_striding_rq(look: Look) -> Hit | None:
    """A frags program, a striding RQ and an MTU over one page: whether the strides fit depends on the device."""
    if not look.intent.frags or not (look.link.private_flags or {}).get("rx_striding_rq"):
        return None
    if look.link.mtu <= look.case.kernel.page_size - 600:
        return None
    where = f"ethtool --show-priv-flags {look.link.name}"
    evidence = (
        Evidence("rx_striding_rq is on", where),
        Evidence(f"MTU is {look.link.mtu}", "RTM_GETLINK IFLA_MTU"),
    )
    fix = (private_flag(look.case, look.link, "rx_striding_rq", "off"),)
    return Hit("uses a striding receive queue with a large MTU", evidence, fix, certain=False)


def not_combined(look: Look) -> Hit | None:
    """rx and tx rings on separate interrupts."""
    now = look.link.channels
    if now is None or not (now.rx or now.tx) or now.combined:
        return None
    wanted = min(max(now.rx, now.tx), now.combined_max) if now.combined_max else max(now.rx, now.tx)
    fix = channels(look.case, look.link, rx=(now.rx, 0), tx=(now.tx, 0), combined=(0, wanted))
    return Hit(
        f"has separate channels (rx {now.rx}, tx {now.tx})",
        look.channel_evidence(f"rx {now.rx}, tx {now.tx}, combined {now.combined}"),
        (fix,),
    )


def over_half_combined(look: Look) -> Hit | None:
    """ena: 2 * channels > max."""
    now = look.link.channels
    if now is None or not now.combined_max or 2 * now.combined <= now.combined_max:
        return None
    half = max(now.combined_max // 2, 1)
    return Hit(
        f"uses {now.combined} of {now.combined_max} channels, and XDP wants at most half",
        look.channel_evidence(f"combined {now.combined}, at most {now.combined_max}"),
        (channels(look.case, look.link, combined=(now.combined, half)),),
    )


def gve_queues(look: Look) -> Hit | None:
    """gve: rx != tx, or 2 * tx > max."""
    now = look.link.channels
    if now is None or not now.tx_max or (now.rx == now.tx and 2 * now.tx <= now.tx_max):
        return None
    count = max(min(now.rx, now.tx, now.tx_max // 2), 1)
    return Hit(
        f"has {now.rx} rx and {now.tx} tx queues of {now.tx_max}: XDP wants as many of both, at most half",
        look.channel_evidence(f"rx {now.rx}, tx {now.tx}, at most {now.tx_max}"),
        (channels(look.case, look.link, rx=(now.rx, count), tx=(now.tx, count)),),
    )


def tx_below_two_a_cpu(look: Look) -> Hit | None:
    """mvpp2: ntxqs < 2 * num_possible_cpus()."""
    return _few_tx(look, 2 * look.case.snapshot.cpus_possible, certain=True)


def tx_not_above_cpus(look: Look) -> Hit | None:
    """enetc: at least one queue for the stack, and one a CPU for XDP."""
    return _few_tx(look, look.case.snapshot.cpus_possible + 1, certain=True)


def _few_tx(look: Look, wanted: int, *, certain: bool) -> Hit | None:
    queues = look.link.num_tx_queues
    if queues is None or queues >= wanted:
        return None
    cpus = look.case.snapshot.cpus_possible
    evidence = (
        Evidence(f"{queues} tx queues", "RTM_GETLINK IFLA_NUM_TX_QUEUES"),
        Evidence(f"{cpus} possible CPUs", "/sys/devices/system/cpu/possible"),
    )
    why = f"has {queues} tx queues where XDP wants {wanted} on {cpus} CPUs"
    return Hit(why, evidence, (), (f"boot with fewer CPUs (nr_cpus={max(queues // 2, 1)})", GENERIC), certain)


def all_combined_in_use(look: Look) -> Hit | None:
    """idpf: num_txq == max_txq; from outside only the smaller of both maxima is seen."""
    now = look.link.channels
    if now is None or not now.combined_max or now.combined + now.tx < now.combined_max:
        return None
    fewer = max(now.combined // 2, 1)
    return Hit(
        f"uses all {now.combined_max} channels and may have no tx queue to spare",
        look.channel_evidence(f"combined {now.combined}, at most {now.combined_max}"),
        (channels(look.case, look.link, combined=(now.combined, fewer)),),
        certain=False,
    )


def rx_and_tx_over_max(look: Look) -> Hit | None:
    """thunder: rx_queues + tx_queues > max_queues."""
    now = look.link.channels
    if now is None or not now.rx_max or now.rx + now.tx <= now.rx_max:
        return None
    half = max(now.rx_max // 2, 1)
    return Hit(
        f"has {now.rx} rx and {now.tx} tx queues, more than {now.rx_max} together",
        look.channel_evidence(f"rx {now.rx}, tx {now.tx}, at most {now.rx_max}"),
        (channels(look.case, look.link, rx=(now.rx, half), tx=(now.tx, half)),),
    )


def igb_buffers_of_the_past(look: Look) -> Hit | None:
    """igb: frames over IGB_MAX_FRAME_BUILD_SKB (1536) need large buffers, which are chosen when the link comes up."""
    if look.link.up or look.case.kernel.page_size >= 8192 or not 1536 < look.link.mtu + 26 <= 3072:
        return None
    evidence = (
        Evidence(f"MTU is {look.link.mtu}", "RTM_GETLINK IFLA_MTU"),
        Evidence(f"{look.link.name} lacks IFF_UP", "RTM_GETLINK flags"),
    )
    others = (f"set {look.link.name} up first: its buffers are then those of its MTU", GENERIC)
    return Hit("is down, with receive buffers that can't be seen", evidence, (), others, certain=False)


def bound_only(look: Look) -> Hit | None:
    """netdevsim: prog->aux->offload, which a merely bound program has too."""
    if look.intent.bound_ifindex is None or look.intent.offloaded:
        return None
    evidence = (Evidence(f"bound to ifindex {look.intent.bound_ifindex}", "the program"),)
    return Hit(
        "takes no program that is bound to a device",
        evidence,
        (),
        ("load it without binding it to a device",),
    )


def pairs_and_cpus_over_max(look: Look) -> Hit | None:
    """virtio_net: curr_queue_pairs + nr_cpu_ids > max_queue_pairs."""
    now, cpus = look.link.channels, look.case.snapshot.cpus_possible
    if now is None or not now.combined_max or now.combined + cpus <= now.combined_max:
        return None
    if look.link.xdp.native:
        return None  # the extra queues are counted in already
    want = cpus + now.combined
    fewer = now.combined_max - cpus
    fix = (channels(look.case, look.link, combined=(now.combined, fewer)),) if fewer > 0 else ()
    return Hit(
        f"has {now.combined} of {now.combined_max} queue pairs in use, and XDP wants {cpus} more, one a CPU",
        look.channel_evidence(f"combined {now.combined}, at most {now.combined_max}"),
        fix,
        (f"give the guest {want} queue pairs (QEMU: queues={want})", GENERIC),
    )


_VIRTIO = {
    1: "GUEST_CSUM",
    7: "GUEST_TSO4",
    8: "GUEST_TSO6",
    9: "GUEST_ECN",
    10: "GUEST_UFO",
    54: "GUEST_USO4",
    55: "GUEST_USO6",
}
"""VIRTIO_NET_F_* bits that mean the host merges or leaves checksums out (include/uapi/linux/virtio_net.h)."""


def _virtio_bit(features: str, bit: int) -> bool:
    return features[bit : bit + 1] == "1"


def guest_offloads(look: Look) -> Hit | None:
    """No VIRTIO_NET_F_CTRL_GUEST_OFFLOADS (bit 2) and any of the guest offloads."""
    features = look.link.virtio_features
    path = f"/sys/class/net/{look.link.name}/device/features"
    if features is None:
        if look.link.xdp.native:
            return None
        return Hit(
            "has virtio features that were not read",
            (Evidence("the negotiated features are not known", path),),
            (),
            (f"look at bits 1, 2 and 7 to 10 of {path}",),
            certain=False,
        )
    if _virtio_bit(features, 2):
        return None
    on = [
        name
        for bit, name in _VIRTIO.items()
        if _virtio_bit(features, bit) and (bit < 50 or look.case.since(6, 2))
    ]
    if not on:
        return None
    return Hit(
        f"has {', '.join(on)} from its hypervisor and can't switch them off (no CTRL_GUEST_OFFLOADS)",
        (Evidence(f"{', '.join(on)} without CTRL_GUEST_OFFLOADS", path),),
        (),
        (
            "in the hypervisor: ctrl_guest_offloads=on (QEMU's default), or guest_tso4=off,guest_tso6=off,...",
            GENERIC,
        ),
    )


def mergeable_without_any_layout(look: Look) -> Hit | None:
    """mergeable_rx_bufs (bit 15) without any_header_sg: VIRTIO_F_ANY_LAYOUT (27) or VIRTIO_F_VERSION_1 (32)."""
    features = look.link.virtio_features
    if (
        features is None
        or not _virtio_bit(features, 15)
        or _virtio_bit(features, 27)
        or _virtio_bit(features, 32)
    ):
        return None
    path = f"/sys/class/net/{look.link.name}/device/features"
    return Hit(
        "merges receive buffers without ANY_LAYOUT",
        (Evidence("MRG_RXBUF without ANY_LAYOUT and VERSION_1", path),),
        (),
        ("in the hypervisor: mrg_rxbuf=off or disable-legacy=on", GENERIC),
    )


CONDITIONS: dict[str, Callable[[Look], Hit | None]] = {
    one.__name__: one
    for one in (
        lro,
        lro_without_frags,
        lro_or_hw_gro,
        tcp_data_split,
        sriov,
        cpus_over_128,
        cpus_over_64,
        frags_over_striding_rq,
        not_combined,
        over_half_combined,
        gve_queues,
        tx_below_two_a_cpu,
        tx_not_above_cpus,
        all_combined_in_use,
        rx_and_tx_over_max,
        igb_buffers_of_the_past,
        bound_only,
        pairs_and_cpus_over_max,
        guest_offloads,
        mergeable_without_any_layout,
    )
}
"""By name, as the rows of driver_limits call them."""
