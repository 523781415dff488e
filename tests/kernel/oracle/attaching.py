"""Scenarios of attaching: what the core and the drivers of virtual devices take and refuse.

dev_xdp_attach() and dev_xdp_install() in net/core/dev.c, veth_xdp_set() in drivers/net/veth.c,
tun_xdp() in drivers/net/tun.c.
"""

from __future__ import annotations

from .acts import Attach
from .ground import HERE, HIDDEN, Ground
from .scenario import scenario

VIAS = ("netlink", "link")
MODES = ("native", "generic")
ADVERB = {"native": "natively", "generic": "generically", "offload": "to hardware"}

VETH_MTU_LIMIT = 4096 - 256 - 320 - 14
"""Page, headroom, skb_shared_info and Ethernet header, with 4K pages on x86-64."""


def pair(**more):
    """A veth pair: d here, p in another namespace."""
    return lambda ground: ground.veth("d", "p", **more)


def a(kind: str) -> str:
    """The kind with its article."""
    return kind if kind == "lo" else f"{'an' if kind[0] in 'ai' else 'a'} {kind}"


def say(mode: str, via: str) -> str:
    return f"attach {ADVERB[mode]} by {via}"


# -- a veth in every state that shouldn't matter, and in those that do

for mode in MODES:
    for via in VIAS:
        scenario(f"{say(mode, via)} to a veth", Attach("d", mode, via), pair())
    scenario(f"{say(mode, 'link')} to a veth that is down", Attach("d", mode, "link"), pair(up=False))
    scenario(f"{say(mode, 'netlink')} a program for frags to a veth", Attach("d", mode, frags=True), pair())


def peer_down(ground: Ground) -> None:
    ground.veth("d", "p")
    ground.down("p")


scenario("attach natively by link to a veth whose peer is down", Attach("d", via="link"), peer_down)
scenario("attach natively by link to a veth whose peer has GRO", Attach("d", via="link"), pair(gro=True))

for via in VIAS:
    at, above = VETH_MTU_LIMIT, VETH_MTU_LIMIT + 1
    scenario(
        f"{say('native', via)} to a veth whose peer's MTU is the largest",
        Attach("d", via=via),
        pair(peer_mtu=at),
    )
    scenario(
        f"{say('native', via)} to a veth whose peer's MTU is one too large",
        Attach("d", via=via),
        pair(peer_mtu=above),
    )
    scenario(
        f"{say('native', via)} a program for frags to a veth whose peer's MTU is one too large",
        Attach("d", via=via, frags=True),
        pair(peer_mtu=above),
    )
    scenario(
        f"{say('generic', via)} to a veth whose peer's MTU is one too large",
        Attach("d", "generic", via),
        pair(peer_mtu=above),
    )
scenario(
    "attach natively by link to a veth with an MTU of 9000 over a peer with 1500",
    Attach("d", via="link"),
    pair(mtu=9000),
)
scenario(
    "attach natively by link to a veth whose peer in the same namespace has an MTU of 9000",
    Attach("d", via="link"),
    pair(peer_space=HERE, peer_mtu=9000),
)
scenario(
    "attach natively by netlink a program for frags to a veth whose peer's MTU is the largest of all",
    Attach("d", frags=True),
    pair(peer_mtu=65535),
)
for mtu in (1500, 9000):
    scenario(
        f"attach natively by link to a veth whose peer, with an MTU of {mtu}, nobody can see",
        Attach("d", via="link"),
        pair(peer_space=HIDDEN, peer_mtu=mtu),
        undecidable="the peer is in a namespace that can't be found",
    )

for via in VIAS:
    scenario(
        f"{say('native', via)} to a veth with one rx queue whose peer sends on two",
        Attach("d", via=via),
        pair(peer_queues=(2, 2)),
    )
scenario(
    "attach generically by link to a veth with one rx queue whose peer sends on two",
    Attach("d", "generic", "link"),
    pair(peer_queues=(2, 2)),
)
scenario(
    "attach natively by link to a veth with two rx queues whose peer sends on two",
    Attach("d", via="link"),
    pair(queues=(2, 2), peer_queues=(2, 2)),
)
scenario(
    "attach natively by link to a veth with one rx queue whose peer receives on two",
    Attach("d", via="link"),
    pair(peer_queues=(2, 1)),
)


def two_made_one(ground: Ground) -> None:
    """Two queues allocated, one in use: what counts is in use."""
    ground.veth("d", "p", peer_queues=(2, 2))
    ground.channels("p", rx=1, tx=1)


scenario(
    "attach natively by link to a veth whose peer was made with two tx queues and uses one",
    Attach("d", via="link"),
    two_made_one,
)


def one_made_two(ground: Ground) -> None:
    """Both ends made with two queues, of which the receiving end uses one."""
    ground.veth("d", "p", queues=(2, 2), peer_queues=(2, 2))
    ground.channels("d", rx=1, tx=2)


scenario(
    "attach natively by link to a veth that uses one of two rx queues and whose peer sends on two",
    Attach("d", via="link"),
    one_made_two,
)


def both_wrong(ground: Ground) -> None:
    ground.veth("d", "p", peer_mtu=9000, peer_queues=(2, 2))


scenario(
    "attach natively by link to a veth whose peer has too large an MTU and too many tx queues",
    Attach("d", via="link"),
    both_wrong,
)

# -- something is attached already


def holding(mode: str, via: str):
    """A veth with a program on it."""

    def build(ground: Ground) -> None:
        ground.veth("d", "p")
        ground.attach("d", mode=mode, via=via)

    return build


for held in MODES:
    for held_via in VIAS:
        other = "generic" if held == "native" else "native"
        for via in VIAS:
            scenario(
                f"{say(held, via)} where a {held} program is attached by {held_via}",
                Attach("d", held, via),
                holding(held, held_via),
            )
        scenario(
            f"{say(other, held_via)} where a {held} program is attached by {held_via}",
            Attach("d", other, held_via),
            holding(held, held_via),
        )
    scenario(
        f"replace by netlink a {held} program that was attached by netlink",
        Attach("d", held, replace=True),
        holding(held, "netlink"),
    )
    scenario(
        f"replace by netlink a {held} program that a link holds",
        Attach("d", held, replace=True),
        holding(held, "link"),
    )

# -- programs that don't belong on a device

for kind in ("xdp/devmap", "xdp/cpumap"):
    for via in VIAS:
        scenario(
            f"attach natively by {via} a program of SEC({kind})",
            Attach("d", via=via, attach_type=kind),
            pair(),
        )
scenario(
    "attach generically by link a program of SEC(xdp/devmap)",
    Attach("d", "generic", "link", attach_type="xdp/devmap"),
    pair(),
)

scenario("attach natively a program bound to the device", Attach("d", bound_to="d"), pair())
scenario(
    "attach natively by link a program bound to the device", Attach("d", via="link", bound_to="d"), pair()
)
scenario("attach generically a program bound to the device", Attach("d", "generic", bound_to="d"), pair())
scenario(
    "attach natively a program bound to another device",
    Attach("d", bound_to="e"),
    lambda ground: (ground.veth("d", "p"), ground.veth("e", "q")),
)
scenario("attach natively to a tap a program bound to it", Attach("t", bound_to="t"), lambda g: g.tun("t"))
scenario("attach to hardware a plain program on a veth", Attach("d", "offload"), pair())
scenario("attach to hardware a plain program on a veth by link", Attach("d", "offload", "link"), pair())
scenario(
    "attach to hardware a program loaded for a veth's hardware",
    Attach("d", "offload", bound_to="d", offloaded=True),
    pair(),
)
scenario("attach to hardware on lo", Attach("lo", "offload"), lambda _: None)
scenario("attach to hardware on a tap", Attach("t", "offload"), lambda ground: ground.tun("t"))

# -- devices without native XDP, and the tap, which has it

STACKED = {
    "lo": ("lo", lambda _: None),
    "bridge": ("b", lambda ground: (ground.veth("d", "p"), ground.bridge("b", "d"))),
    "vlan": ("v", lambda ground: (ground.veth("d", "p"), ground.vlan("v", "d"))),
    "macvlan": ("m", lambda ground: (ground.veth("d", "p"), ground.stacked("macvlan", "m", "d"))),
    "macvtap": ("m", lambda ground: (ground.veth("d", "p"), ground.stacked("macvtap", "m", "d"))),
    # in L3, its default mode, an ipvlan passes nothing but IP
    "ipvlan": (
        "m",
        lambda ground: (ground.veth("d", "p"), ground.stacked("ipvlan", "m", "d", ipvlan_mode=0)),
    ),
    "ifb": ("i", lambda ground: ground.virtual("ifb", "i")),
    "dummy": ("y", lambda ground: ground.virtual("dummy", "y")),
    "vxlan": ("x", lambda ground: ground.virtual("vxlan", "x", vxlan_id=7, vxlan_port=4789)),
    "tun": ("t", lambda ground: ground.tun("t", tap=False)),
    "tap": ("t", lambda ground: ground.tun("t")),
}
for kind, (nic, build) in STACKED.items():
    for mode in MODES:
        scenario(f"{say(mode, 'netlink')} to {a(kind)}", Attach(nic, mode), build)
    scenario(f"{say('native', 'link')} to {a(kind)}", Attach(nic, "native", "link"), build)

scenario("attach natively to a tap that is down", Attach("t"), lambda ground: ground.tun("t", up=False))
scenario(
    "attach natively to a tap that nobody reads", Attach("t"), lambda ground: ground.tun("t", reader=False)
)
scenario("attach natively to a tap with two queues", Attach("t"), lambda ground: ground.tun("t", queues=2))
scenario(
    "attach natively to a tap with an MTU of 9000", Attach("t"), lambda ground: ground.tun("t", mtu=9000)
)
scenario(
    "attach natively to a tap with an MTU of 9000 a program for frags",
    Attach("t", frags=True),
    lambda ground: ground.tun("t", mtu=9000),
)

# -- programs above and below


def program_above(kind: str):
    def build(ground: Ground) -> None:
        nic, make = STACKED[kind]
        make(ground)
        ground.attach(nic, mode="generic")

    return build


for kind in ("bridge", "vlan", "macvlan", "macvtap", "ipvlan"):
    for mode in MODES:
        scenario(
            f"{say(mode, 'netlink')} to a veth under {a(kind)} with a program",
            Attach("d", mode),
            program_above(kind),
        )
    scenario(
        f"attach natively by link to a veth under {a(kind)} without a program",
        Attach("d", via="link"),
        STACKED[kind][1],
    )
scenario(
    "attach natively by link to a veth under a bridge with a program",
    Attach("d", via="link"),
    program_above("bridge"),
)


def program_below(kind: str):
    def build(ground: Ground) -> None:
        STACKED[kind][1](ground)
        ground.attach("d")

    return build


for kind in ("bridge", "vlan", "macvlan"):
    scenario(
        f"attach generically to {a(kind)} over a veth with a program",
        Attach(STACKED[kind][0], "generic"),
        program_below(kind),
    )


def vlan_on_bridge(ground: Ground) -> None:
    """Only the direct upper is asked."""
    ground.veth("d", "p")
    ground.bridge("b", "d")
    ground.vlan("v", "b")
    ground.attach("v", mode="generic")


scenario("attach natively to a veth in a bridge whose vlan has a program", Attach("d"), vlan_on_bridge)
scenario("attach generically to a bridge whose vlan has a program", Attach("b", "generic"), vlan_on_bridge)


def program_on_peer(ground: Ground) -> None:
    ground.veth("d", "p")
    ground.attach("p")


scenario(
    "attach natively by link to a veth whose peer has a program", Attach("d", via="link"), program_on_peer
)

# -- bonds (net/core asks the bond's mode, the bond asks its slaves)

BOND_MODES = {
    "balance-rr": 0,
    "active-backup": 1,
    "balance-xor": 2,
    "broadcast": 3,
    "802.3ad": 4,
    "balance-tlb": 5,
}


def bond_of(mode: str, *, over: str = "veth"):
    def build(ground: Ground) -> None:
        if over == "veth":
            ground.veth("d", "p")
        else:
            ground.virtual(over, "d")
        ground.bond("bond", BOND_MODES[mode], "d")

    return build


for bond_mode in BOND_MODES:
    scenario(f"attach natively to a {bond_mode} bond over a veth", Attach("bond"), bond_of(bond_mode))
scenario("attach natively to a bond over a dummy", Attach("bond"), bond_of("active-backup", over="dummy"))


def bond_with_busy_slave(ground: Ground) -> None:
    bond_of("active-backup")(ground)
    ground.attach("d")


scenario("attach natively to a bond whose slave has a program", Attach("bond"), bond_with_busy_slave)
scenario("attach generically to a bond over a veth", Attach("bond", "generic"), bond_of("active-backup"))
