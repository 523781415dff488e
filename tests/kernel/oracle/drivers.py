"""Scenarios of real drivers: what igb, virtio_net, vmxnet3, e1000e and netdevsim take, refuse and transmit.

Only where those devices exist (in the guests of tests/matrix): elsewhere nothing is registered. Mirrors
igb_xdp_setup(), igb_xdp_xmit(), virtnet_xdp_set(), virtnet_xdp_xmit(), vmxnet3_xdp_set(), vmxnet3_xdp_xmit(),
nsim_bpf(), bond_xdp_set().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .acts import Attach, Redirect, Transmit
from .attaching import ADVERB, BOND_MODES, MODES, say
from .hardware import NETDEVSIM, SEGMENTS, borrow, netdevsim, present
from .scenario import scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from .acts import Act
    from .ground import Ground

CALLED = {
    "igb_a": "igb",
    "virtio_mq": "virtio_net with queues to spare",
    "virtio_sq": "virtio_net with one pair of queues",
    "virtio_fixed": "virtio_net whose guest offloads the host fixed",
    "vmxnet3": "vmxnet3",
    "e1000e": "e1000e",
}
"""How sentences call a NIC."""
PRESENT = present()
NATIVE = tuple(name for name in ("igb_a", "virtio_mq", "virtio_sq", "vmxnet3") if name in PRESENT)
"""NICs whose drivers have native XDP (vmxnet3 from 6.6)."""
ALL = tuple(name for name in CALLED if name in PRESENT)


def add(
    segment: str, name: str, act: Act, build: Callable[[Ground], object], undecidable: str | None = None
) -> None:
    """A scenario, with the segment of NICs that it borrows from, or "several"."""
    lending = segment if segment == "several" or segment in SEGMENTS.values() else None
    scenario(name, act, build, undecidable=undecidable, segment=lending)


def lent(*names: str, after: Callable[[Ground], object] | None = None, **how):
    """A build that borrows NICs, and then does more."""

    def build(ground: Ground) -> None:
        borrow(ground, *names, **how)
        if after:
            after(ground)

    return build


# -- attaching

for name in ALL:
    sentence, segment = CALLED[name], SEGMENTS[name]
    for mode in MODES:
        add(segment, f"{say(mode, 'netlink')} to {sentence}", Attach(name, mode), lent(name, wired=False))
    if name in ("igb_a", "virtio_fixed", "vmxnet3"):
        add(
            segment,
            f"{say('native', 'link')} to {sentence}",
            Attach(name, via="link"),
            lent(name, wired=False),
        )
    if name in ("igb_a", "virtio_mq", "vmxnet3"):
        add(
            segment,
            f"attach natively to {sentence} while it is down",
            Attach(name),
            lent(name, wired=False, up=False),
        )
    if name in ("igb_a", "e1000e"):
        add(segment, f"attach to hardware on {sentence}", Attach(name, "offload"), lent(name, wired=False))
    if name in ("igb_a", "vmxnet3"):
        add(
            segment,
            f"attach natively to {sentence} a program bound to it",
            Attach(name, bound_to=name),
            lent(name, wired=False),
        )

MTUS = {
    "igb_a": (1510, 1511, 3046, 3047),
    "virtio_mq": (3506, 3507, 4064, 4065, 4080, 4081),
    "vmxnet3": (3494, 3495),
}
"""Around what each version takes at most."""
for name, sizes in MTUS.items():
    if name not in PRESENT:
        continue
    sentence, segment = CALLED[name], SEGMENTS[name]
    for size in sizes:
        add(
            segment,
            f"attach natively to {sentence} with an MTU of {size}",
            Attach(name),
            lent(name, wired=False, mtu=size),
        )
    above = sizes[1]
    add(
        segment,
        f"attach natively to {sentence} with an MTU of {sizes[-1]} a program for frags",
        Attach(name, frags=True),
        lent(name, wired=False, mtu=sizes[-1]),
    )
    add(
        segment,
        f"attach generically to {sentence} with an MTU of {above}",
        Attach(name, "generic"),
        lent(name, wired=False, mtu=above),
    )
    add(
        segment,
        f"attach natively by link to {sentence} with an MTU of {sizes[-1]}",
        Attach(name, via="link"),
        lent(name, wired=False, mtu=sizes[-1]),
    )
if "igb_a" in PRESENT:
    add(
        "igb",
        "attach natively to igb whose MTU became 3000 while it was down",
        Attach("igb_a"),
        lent(
            "igb_a",
            wired=False,
            after=lambda ground: (ground.down("igb_a"), ground.mtu("igb_a", 3000)),
        ),
        undecidable="its buffers are chosen when it comes up, and nothing shows them",
    )
    add(
        "igb",
        "attach natively to igb whose MTU fell back to 1500 while it was down",
        Attach("igb_a"),
        lent(
            "igb_a",
            wired=False,
            mtu=3000,
            after=lambda ground: (ground.down("igb_a"), ground.mtu("igb_a", 1500)),
        ),
    )
if "virtio_mq" in PRESENT:
    for pairs in (1, 6, 7, 8):
        add(
            "virtio",
            f"attach natively to virtio_net that uses {pairs} of 8 pairs of queues",
            Attach("virtio_mq"),
            lent(
                "virtio_mq",
                wired=False,
                after=lambda ground, pairs=pairs: ground.combined("virtio_mq", pairs),
            ),
        )


def holding(name: str, mode: str):
    return lent(name, wired=False, after=lambda ground: ground.attach(name, mode=mode))


for name in NATIVE:
    sentence, segment = CALLED[name], SEGMENTS[name]
    add(
        segment,
        f"attach natively to {sentence} where a generic program is attached",
        Attach(name),
        holding(name, "generic"),
    )

# -- redirecting to a NIC: its driver may want a program of its own on it


def from_veth(*names: str, program: str | None = None, down: bool = False, mtu: int = 1500, veth: int = 1500):
    """d and its wire p beside NICs."""

    def build(ground: Ground) -> None:
        borrow(ground, *names, mtu=mtu, wire_mtu=veth)
        ground.veth("d", "p", mtu=veth, peer_mtu=veth)
        if down:
            ground.down(names[0])
        if program:
            ground.attach(names[0], mode="native" if program == "late" else program)
        if program == "late":
            ground.up(names[0])

    return build


for name in ALL:
    if name == "virtio_fixed":
        continue
    sentence, segment = CALLED[name], SEGMENTS[name]
    for mode in MODES:
        add(segment, f"redirect {ADVERB[mode]} to {sentence}", Redirect("d", name, mode), from_veth(name))
    add(
        segment,
        f"redirect natively by devmap to {sentence}",
        Redirect("d", name, map="devmap"),
        from_veth(name),
    )
for name in NATIVE:
    sentence, segment = CALLED[name], SEGMENTS[name]
    add(
        segment,
        f"redirect natively to {sentence} with only a generic program",
        Redirect("d", name),
        from_veth(name, program="generic"),
    )
    if name != "virtio_sq":
        add(
            segment,
            f"redirect natively to {sentence} that is down",
            Redirect("d", name),
            from_veth(name, down=True),
        )
        add(
            segment,
            f"redirect natively to {sentence} that got its program while it was down",
            Redirect("d", name),
            from_veth(name, down=True, program="late"),
        )
    for map_kind in (None, "devmap"):
        add(
            segment,
            f"redirect natively {'by devmap ' if map_kind else ''}to {sentence} with a native program",
            Redirect("d", name, map=map_kind),
            from_veth(name, program="native"),
        )
    add(
        segment,
        f"redirect natively to {sentence} with a native program a frame longer than its MTU allows",
        Redirect("d", name, length=1519),
        from_veth(name, program="native", veth=3000),
    )

# -- from a NIC: to a veth, to another NIC, and back


def to_veth(name: str, *, gro: bool = True):
    return lent(name, after=lambda ground: ground.veth("out", "far", gro=gro))


for name in ALL:
    if name == "virtio_fixed":
        continue
    sentence, segment = CALLED[name], SEGMENTS[name]
    for mode in MODES:
        add(
            segment,
            f"redirect {ADVERB[mode]} from {sentence} to a veth whose peer has GRO",
            Redirect(name, "out", mode),
            to_veth(name),
        )
        add(segment, f"XDP_TX {ADVERB[mode]} on {sentence}", Transmit(name, mode), lent(name))
    if name in NATIVE and name != "virtio_sq":
        add(
            segment,
            f"redirect natively from {sentence} to a veth whose peer has no GRO",
            Redirect(name, "out"),
            to_veth(name, gro=False),
        )
        add(segment, f"redirect natively back to {sentence} it came by", Redirect(name, name), lent(name))

for source, target in (
    ("igb_a", "virtio_mq"),
    ("virtio_mq", "igb_a"),
    ("vmxnet3", "virtio_sq"),
    ("igb_a", "vmxnet3"),
    ("e1000e", "igb_a"),
):
    if not {source, target} <= PRESENT:
        continue
    sentence = f"from {CALLED[source]} to {CALLED[target]}"
    add(
        "several",
        f"redirect natively {sentence} with a native program",
        Redirect(source, target),
        lent(source, target, after=lambda ground, target=target: ground.attach(target)),
    )
    add(
        "several",
        f"redirect generically {sentence}",
        Redirect(source, target, "generic"),
        lent(source, target),
    )

# -- what is stacked on NICs


def stacked(kind: str, name: str, *, program: str | None = None, wired: bool = True):
    def build(ground: Ground) -> None:
        borrow(ground, name, wired=wired)
        if kind == "bridge":
            ground.bridge("upper", name)
        elif kind == "vlan":
            ground.vlan("upper", name)
        else:
            ground.stacked(kind, "upper", name)
        if program:
            ground.attach("upper", mode=program)

    return build


UPPERS = {
    "igb_a": ("vlan", "macvtap", "macvlan", "bridge"),
    "virtio_mq": ("vlan", "macvtap", "bridge"),
    "vmxnet3": ("vlan",),
}
for name, kinds in UPPERS.items():
    if name not in PRESENT:
        continue
    sentence, segment = CALLED[name], SEGMENTS[name]
    for kind in kinds:
        for mode in MODES:
            add(
                segment,
                f"{say(mode, 'netlink')} to a {kind} over {sentence}",
                Attach("upper", mode),
                stacked(kind, name, wired=False),
            )
        add(
            segment,
            f"attach natively to {sentence} under a {kind} with a program",
            Attach(name),
            stacked(kind, name, program="generic", wired=False),
        )
        add(
            segment,
            f"redirect generically from a {kind} over {sentence} to a veth whose peer has no GRO",
            Redirect("upper", "out", "generic"),
            lambda ground, kind=kind, name=name: (
                stacked(kind, name)(ground),
                ground.veth("out", "far"),
            ),
        )


def bonded(mode: str, *slaves: str, wired: bool = False, program: bool = False, beside: bool = False):
    def build(ground: Ground) -> None:
        borrow(ground, *slaves, wired=wired)
        ground.bond("bond", BOND_MODES[mode], *slaves)
        if beside:
            ground.veth("d", "p")
        if program:
            ground.attach("bond")

    return build


if {"igb_a", "igb_b"} <= PRESENT:
    for mode in BOND_MODES:
        add(
            "igb",
            f"attach natively to a {mode} bond over two igb",
            Attach("bond"),
            bonded(mode, "igb_a", "igb_b"),
        )
    add(
        "igb",
        "attach generically to a bond over two igb",
        Attach("bond", "generic"),
        bonded("active-backup", "igb_a", "igb_b"),
    )
    for mode in ("active-backup", "balance-rr", "broadcast"):
        add(
            "igb",
            f"redirect natively to a {mode} bond over igb without a program",
            Redirect("d", "bond"),
            bonded(mode, "igb_a", wired=True, beside=True),
        )
    for mode in ("active-backup", "balance-rr"):
        add(
            "igb",
            f"redirect natively to a {mode} bond over igb with a native program",
            Redirect("d", "bond"),
            bonded(mode, "igb_a", wired=True, beside=True, program=True),
        )
if {"igb_a", "e1000e"} <= PRESENT:
    add(
        "several",
        "attach natively to a bond over igb and e1000e",
        Attach("bond"),
        bonded("active-backup", "igb_a", "e1000e"),
    )

# -- netdevsim plays hardware

if NETDEVSIM.exists():

    def simulated(after: Callable[[Ground], object] | None = None):
        def build(ground: Ground) -> None:
            netdevsim(ground)
            if after:
                after(ground)

        return build

    def sim(name: str, act: Act, after: Callable[[Ground], object] | None = None) -> None:
        add("netdevsim", name, act, simulated(after))

    for mode in MODES:
        for via in ("netlink", "link"):
            sim(f"{say(mode, via)} to netdevsim", Attach("nsim", mode, via))
    for size in (4000, 4001):
        for frags in (False, True):
            words = "a program for frags " if frags else ""
            sim(
                f"attach natively {words}to netdevsim with an MTU of {size}",
                Attach("nsim", frags=frags),
                lambda ground, size=size: ground.mtu("nsim", size),
            )
    HARD = {"bound_to": "nsim", "offloaded": True}
    sim("attach to hardware on netdevsim a program loaded for it", Attach("nsim", "offload", **HARD))
    sim(
        "attach to hardware on netdevsim by link a program loaded for it",
        Attach("nsim", "offload", "link", **HARD),
    )
    sim("attach to hardware on netdevsim a plain program", Attach("nsim", "offload"))
    sim("attach to hardware on netdevsim a program bound to it", Attach("nsim", "offload", bound_to="nsim"))
    for mode in MODES:
        sim(
            f"attach {ADVERB[mode]} to netdevsim a program loaded for its hardware",
            Attach("nsim", mode, **HARD),
        )
        sim(
            f"attach {ADVERB[mode]} to netdevsim a program bound to it", Attach("nsim", mode, bound_to="nsim")
        )
        sim(
            f"attach to hardware on netdevsim where a {mode} program is attached",
            Attach("nsim", "offload", **HARD),
            lambda ground, mode=mode: ground.attach("nsim", mode=mode),
        )
    sim(
        "attach natively to netdevsim where a program runs in hardware",
        Attach("nsim"),
        lambda ground: ground.attach(
            "nsim", mode="offload", ifindex=ground.nics["nsim"].ifindex, offloaded=True
        ),
    )
    sim(
        "redirect natively to netdevsim",
        Redirect("d", "nsim"),
        lambda ground: ground.veth("d", "p"),
    )
    sim(
        "redirect natively by devmap to netdevsim with a native program",
        Redirect("d", "nsim", map="devmap"),
        lambda ground: (ground.veth("d", "p"), ground.attach("nsim")),
    )
