"""Scenarios of redirecting to a veth: whose peer must be able to receive frames, and which frames.

xdp_do_redirect(), __xdp_enqueue(), xdp_ok_fwd_dev() in net/core, veth_xdp_xmit(), veth_set_xdp_features() in
drivers/net/veth.c. Frames come in by d (its wire is p) and are to leave by out (whose peer is far).
"""

from __future__ import annotations

from . import bpf
from .acts import Redirect
from .attaching import ADVERB, MODES, STACKED, a
from .ground import HERE, HIDDEN, THERE, Ground
from .scenario import scenario

MAPS = (None, "devmap")
GRO = {False: "no GRO", True: "GRO"}


def path(*after, **target):
    """Source pair and target pair, then what else is to be done."""

    def build(ground: Ground) -> None:
        ground.veth("d", "p")
        ground.veth("out", "far", **target)
        for step in after:
            step(ground)

    return build


def gro_on_while_down(ground: Ground) -> None:
    ground.down("far")
    ground.gro("far", True)
    ground.up("far")


def gro_off_while_down(ground: Ground) -> None:
    ground.gro("far", True)
    ground.down("far")
    ground.gro("far", False)
    ground.up("far")


def gro_off_and_on(ground: Ground) -> None:
    ground.gro("far", False)
    ground.gro("far", True)


def program_attached_and_gone(ground: Ground) -> None:
    ground.attach("far").release()


def second_tx_queue(ground: Ground) -> None:
    ground.channels("far", rx=2, tx=2)


def far_program_while_down(ground: Ground) -> None:
    ground.down("far")
    ground.attach("far")
    ground.up("far")


PEERS = {
    "has neither GRO nor a program": path(),
    "has GRO": path(gro=True),
    "has a native program": path(lambda ground: ground.attach("far")),
    "has a native program that a link holds": path(lambda ground: ground.attach("far", via="link")),
    "has only a generic program": path(lambda ground: ground.attach("far", mode="generic")),
    "has GRO and a native program": path(lambda ground: ground.attach("far"), gro=True),
    "has GRO but is down": path(lambda ground: ground.down("far"), gro=True),
    "has a native program but is down": path(lambda g: g.attach("far"), lambda g: g.down("far")),
    "had GRO switched on while it was down": path(gro_on_while_down),
    "had GRO switched off while it was down": path(gro_off_while_down),
    "had GRO switched off and on while it was up": path(gro_off_and_on, gro=True),
    "lost its program": path(program_attached_and_gone),
    "got its program while it was down": path(far_program_while_down),
}
for words, build in PEERS.items():
    for mode in MODES:
        for map_kind in MAPS:
            scenario(
                f"redirect {ADVERB[mode]} {'by devmap ' if map_kind else ''}to a veth whose peer {words}",
                Redirect("d", "out", mode, map_kind),
                build,
            )

TARGETS = {
    "that is down": path(lambda ground: ground.down("out"), gro=True),
    "that is down, and whose peer has no GRO": path(lambda ground: ground.down("out")),
    "whose peer in the same namespace has no GRO": path(peer_space=HERE),
    "whose peer in the same namespace has GRO": path(peer_space=HERE, gro=True),
    "with one rx queue whose peer has GRO and sends on two": path(gro=True, peer_queues=(2, 2)),
    "with one rx queue whose peer has GRO and then got a second tx queue": path(
        lambda ground: ground.channels("far", rx=2, tx=1),
        gro_off_and_on,
        second_tx_queue,
        peer_queues=(2, 2),
    ),
    "with two rx queues whose peer has GRO and sends on two": path(
        gro=True, queues=(2, 2), peer_queues=(2, 2)
    ),
}
for words, build in TARGETS.items():
    for mode in MODES:
        scenario(f"redirect {ADVERB[mode]} to a veth {words}", Redirect("d", "out", mode), build)

for gro in (False, True):
    scenario(
        f"redirect natively to a veth whose peer, {'with' if gro else 'without'} GRO, nobody can see",
        Redirect("d", "out"),
        path(peer_space=HIDDEN, gro=gro),
        undecidable="the peer is in a namespace that can't be found",
    )

# -- lengths: the target's MTU, its peer's, frames of several buffers


def lengths(length_limit_of: str, mtu: int):
    """Source and target take large frames, one of the devices on the way doesn't."""

    def build(ground: Ground) -> None:
        ground.veth("d", "p", mtu=3000, peer_mtu=3000)
        ground.veth("out", "far", gro=True, mtu=3000, peer_mtu=3000)
        ground.mtu(length_limit_of, mtu)

    return build


for limiting, words in (("out", "the target's MTU"), ("far", "the MTU of the target's peer")):
    for mode in MODES:
        for length, size in ((1518, "as long as"), (1519, "longer than")):
            scenario(
                f"redirect {ADVERB[mode]} a frame {size} {words} allows",
                Redirect("d", "out", mode, length=length),
                lengths(limiting, 1500),
            )
scenario(
    "redirect natively by devmap a frame longer than the target's MTU allows",
    Redirect("d", "out", map="devmap", length=1519),
    lengths("out", 1500),
)


def jumbo(ground: Ground, **target) -> None:
    ground.veth("d", "p", mtu=9000, peer_mtu=9000)
    ground.veth("out", "far", mtu=9000, peer_mtu=9000, **target)


BIG = {"length": 6000, "frags": True}
for mode in MODES:
    scenario(
        f"redirect {ADVERB[mode]} a frame of several buffers to a veth whose peer has GRO",
        Redirect("d", "out", mode, **BIG),
        lambda ground: jumbo(ground, gro=True),
    )
    scenario(
        f"redirect {ADVERB[mode]} a frame of several buffers to a veth whose peer has no GRO",
        Redirect("d", "out", mode, **BIG),
        jumbo,
    )
    scenario(
        f"redirect {ADVERB[mode]} a frame of several buffers to a tap",
        Redirect("d", "t", mode, **BIG),
        lambda ground: (ground.veth("d", "p", mtu=9000, peer_mtu=9000), ground.tun("t", mtu=9000)),
    )
scenario(
    "redirect natively a frame of one buffer by a program for frags to a tap",
    Redirect("d", "t", frags=True),
    lambda ground: (ground.veth("d", "p", mtu=9000, peer_mtu=9000), ground.tun("t", mtu=9000)),
)
scenario(
    "redirect natively by a program without frags from a veth whose peer's MTU is 9000",
    Redirect("d", "out"),
    lambda ground: jumbo(ground, gro=True),
)

# -- maps

scenario(
    "redirect natively by an empty devmap slot",
    Redirect("d", "out", map="devmap", fill=False),
    path(gro=True),
)
scenario(
    "redirect generically by an empty devmap slot",
    Redirect("d", "out", "generic", map="devmap", fill=False),
    path(gro=True),
)
for gro, has in GRO.items():
    scenario(
        f"redirect natively by devmap_hash to a veth whose peer has {has}",
        Redirect("d", "out", map="devmap_hash"),
        path(gro=gro),
    )
    scenario(
        f"redirect natively by a devmap entry with a program to a veth whose peer has {has}",
        Redirect("d", "out", map="devmap", entry=bpf.PASS),
        path(gro=gro),
    )
    scenario(
        f"redirect generically by a devmap entry with a program to a veth whose peer has {has}",
        Redirect("d", "out", "generic", map="devmap", entry=bpf.PASS),
        path(gro=gro),
    )

# -- targets that aren't there


def no_target(ground: Ground) -> None:
    ground.veth("d", "p")
    ground.missing("out")


def target_elsewhere(ground: Ground) -> None:
    """The ifindex is somebody's, but in another namespace than the source's."""
    ground.veth("d", "p")
    ground.veth("a", "b", gro=True, space=THERE, peer_space=THERE)
    ground.nics["out"] = ground.elsewhere("a")


for mode in MODES:
    scenario(f"redirect {ADVERB[mode]} to an ifindex that isn't there", Redirect("d", "out", mode), no_target)
    scenario(
        f"redirect {ADVERB[mode]} to the ifindex of a device in another namespace",
        Redirect("d", "out", mode),
        target_elsewhere,
    )
    for gro, has in GRO.items():
        scenario(
            f"redirect {ADVERB[mode]} back to the veth it came by, whose peer has {has}",
            Redirect("d", "d", mode),
            lambda ground, gro=gro: ground.veth("d", "p", gro=gro),
        )

# -- targets that are no veth

OTHERS = {
    **{a(kind): STACKED[kind] for kind in STACKED if kind != "vxlan"},
    "a tap that nobody reads": ("t", lambda ground: ground.tun("t", reader=False)),
    "a tap that is down": ("t", lambda ground: ground.tun("t", up=False)),
    "a tap with two queues": ("t", lambda ground: ground.tun("t", queues=2)),
    "a tap with a native program": ("t", lambda ground: (ground.tun("t"), ground.attach("t"))),
    "a bridge without ports": ("b", lambda ground: ground.bridge("b")),
}


def towards(build):
    """The source beside whatever `build` makes."""

    def both(ground: Ground) -> None:
        ground.veth("s", "w")
        build(ground)

    return both


for words, (nic, build) in OTHERS.items():
    for mode in MODES:
        scenario(f"redirect {ADVERB[mode]} to {words}", Redirect("s", nic, mode), towards(build))
for words in ("a tap", "a bridge", "lo"):
    nic, build = OTHERS[words]
    for mode in MODES:
        scenario(
            f"redirect {ADVERB[mode]} by devmap to {words}",
            Redirect("s", nic, mode, "devmap"),
            towards(build),
        )

# -- sources that are no veth

for kind in ("tap", "lo", "bridge", "vlan", "macvlan"):
    nic, build = STACKED[kind]
    for gro, has in GRO.items():
        for mode in MODES if kind == "tap" else ("generic",):
            scenario(
                f"redirect {ADVERB[mode]} from {a(kind)} to a veth whose peer has {has}",
                Redirect(nic, "out", mode),
                lambda ground, build=build, gro=gro: (build(ground), ground.veth("out", "far", gro=gro)),
            )
scenario(
    "redirect natively from a bridge to a veth whose peer has GRO",
    Redirect("b", "out"),
    lambda ground: (STACKED["bridge"][1](ground), ground.veth("out", "far", gro=True)),
)
