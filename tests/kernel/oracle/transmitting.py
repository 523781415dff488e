"""Scenarios of XDP_TX: the frame goes back by the device it came by, past every check of a redirect.

veth_xdp_tx() in drivers/net/veth.c, tun_xdp_tx() in drivers/net/tun.c, generic_xdp_tx() in net/core/dev.c.
"""

from __future__ import annotations

from .acts import Transmit
from .attaching import ADVERB, MODES, STACKED, a
from .ground import Ground
from .redirecting import GRO
from .scenario import scenario


def pair(*after, **more):
    def build(ground: Ground) -> None:
        ground.veth("d", "p", **more)
        for step in after:
            step(ground)

    return build


def gro_on_while_down(ground: Ground) -> None:
    ground.down("p")
    ground.gro("p", True)
    ground.up("p")


def gro_off_while_down(ground: Ground) -> None:
    ground.gro("p", True)
    ground.down("p")
    ground.gro("p", False)
    ground.up("p")


PEERS = {
    "has neither GRO nor a program": pair(),
    "has GRO": pair(gro=True),
    "has a native program": pair(lambda ground: ground.attach("p")),
    "has only a generic program": pair(lambda ground: ground.attach("p", mode="generic")),
    "had GRO switched on while it was down": pair(gro_on_while_down),
    "had GRO switched off while it was down": pair(gro_off_while_down),
}
for words, build in PEERS.items():
    for mode in MODES:
        scenario(f"XDP_TX {ADVERB[mode]} on a veth whose peer {words}", Transmit("d", mode), build)

for gro, has in GRO.items():
    scenario(
        f"XDP_TX natively of a frame of several buffers on a veth whose peer has {has}",
        Transmit("d", length=6000, frags=True),
        pair(gro=gro, mtu=9000, peer_mtu=9000),
    )

for mode in MODES:
    scenario(f"XDP_TX {ADVERB[mode]} on a tap", Transmit("t", mode), STACKED["tap"][1])
for kind in ("bridge", "vlan", "macvlan"):
    scenario(f"XDP_TX generically on {a(kind)}", Transmit(STACKED[kind][0], "generic"), STACKED[kind][1])
scenario("XDP_TX natively on a bridge", Transmit("b"), STACKED["bridge"][1])
