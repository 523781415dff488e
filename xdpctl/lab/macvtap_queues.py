"""Lab ``macvtap-queues``: N queues of a macvtap fed by M producers: what is lost, and how full the ring was just then.

tap_handle_frame() (drivers/net/tap.c) drops where a queue's ptr_ring has no free slot. In 4.15 it asked without the
ring's lock and so dropped at rings that were nearly empty, unless N was a multiple of M and each ring had one producer
(`ringrace.ptr_ring`). Since 4.16 only a full ring drops: here a reader that doesn't read stages that.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from xdpctl.lab.scenario import BY_HAND, CURE, HAPPENS, TOLD, Lab, Measured, Outcome
from xdpctl.lab.taps import Queues, produce, senders

if TYPE_CHECKING:
    import socket

    from xdpctl.lab.stage import Stage
    from xdpctl.trace.drops import DropTrace

SLOTS = 64
"""The macvtap's txqueuelen when a queue is opened is its ring's size."""
FRAMES = 432
"""Divisible by 1 to 4 producers; each of four queues gets more than it holds, however hashes spread them."""
MAC = "02:00:00:00:71:01"
COMBINATIONS = tuple((queues, producers) for queues in range(1, 5) for producers in range(1, 5))


def set_up(stage: Stage) -> None:
    """A macvtap on one end of a veth."""
    host, guest = stage.namespace("host"), stage.namespace("guest")
    stage.pair("pa", "pb", (host, guest))
    number = (1 << 20) + secrets.randbelow(1 << 29)
    stage.shell(
        f"ip -n {host} link add link pa name mt0 index {number} txqueuelen {SLOTS} address {MAC}"
        " type macvtap mode bridge"
    )
    stage.shell(f"ip -n {host} link set mt0 up")


def play(stage: Stage) -> Outcome:
    """Every combination with nobody reading, and with a reader that keeps up."""
    from xdpctl.netlink import interfaces, netns
    from xdpctl.trace.drops import DropTrace

    host = stage.netns("host")
    with netns.enter(host):
        ifindex = interfaces.ifindex("mt0")
    with DropTrace() as tracer, senders(stage.netns("guest"), "pb", 4) as made:
        before = {pair: feed(stage, tracer, ifindex, made, *pair, reads=False) for pair in COMBINATIONS}
        stage.chapter(HAPPENS)
        stage.say(
            f"{FRAMES} frames to queues of {SLOTS} slots that nobody reads; lost, by queues and producers:"
        )
        grid(stage, before)
        stage.chapter(BY_HAND)
        stage.say("a counter of drops says how many, and not how full the ring was:")
        stage.shell(f"ip -n {host} -s link show mt0")
        stage.chapter(TOLD)
        stage.say(
            "trace drops reads the ring at each drop: a full one is a slow reader, one with room is a race"
        )
        columns = (
            "queues x producers",
            "drops",
            "at a full ring",
            "not full",
            "slots taken, least",
            "multiple",
        )
        rows = [
            (f"{n} x {m}", one["drops"], one["full"], one["not_full"], one["least"], "" if n % m else "yes")
            for (n, m), one in before.items()
        ]
        stage.table(columns, rows)
        stage.say(
            "in 4.15 rings dropped falsely unless the queues were a multiple of the producers' queues: then"
        )
        stage.say(
            "each ring has one producer, and no index is read that somebody else has moved (lab ring-race)"
        )
        stage.chapter(CURE)
        stage.say("the reader reads as fast as frames come:")
        after = {pair: feed(stage, tracer, ifindex, made, *pair, reads=True) for pair in COMBINATIONS}
        grid(stage, after)
    lost, kept = (sum(one["lost"] for one in rows.values()) for rows in (before, after))
    known = sum(one["drops"] - one["unreadable"] for one in before.values())
    race = sum(one["not_full"] for one in before.values())
    return Outcome(
        (
            Measured(f"frames lost of {FRAMES * len(COMBINATIONS):,}", lost, kept),
            Measured("of these at a ring that was not full", race if known else None, 0 if known else None),
        ),
        race > 0 if known else None,
        why(known, race),
        {"before": table(before), "after": table(after), "slots": SLOTS, "frames": FRAMES},
    )


def why(known: int, race: int) -> str:
    """What the occupancies say."""
    if not known:
        return (
            "this kernel doesn't describe the driver's types (BTF of modules, 5.11), so no ring could be read"
        )
    if race:
        return "the race: rings that were not full have dropped"
    return "staged: every drop was at a full ring, so it is the reader that is slow and no race"


def feed(
    stage: Stage,
    tracer: DropTrace,
    ifindex: int,
    made: list[socket.socket],
    queues: int,
    producers: int,
    *,
    reads: bool,
) -> dict[str, Any]:
    """One combination: what was sent, read and lost, and what the tracer saw of the rings.

    Raises:
        LabError: frames were neither read nor told as lost.
    """
    earlier = tracer.read()
    held = Queues(stage.netns("host"), "mt0", ifindex, queues)
    got = 0
    try:

        def reader() -> None:
            nonlocal got
            if reads:
                got += sum(held.drain())

        sent = produce(made[:producers], MAC, each=FRAMES // producers, between=reader)
        got += sum(held.drain())
    finally:
        held.close()
    rings = [
        one for one in tracer.read().minus(earlier).rings if one.device and one.device.ifindex == ifindex
    ]
    drops = sum(one.drops for one in rings)
    stage.expect(sent == FRAMES, f"{queues} x {producers}: only {sent} of {FRAMES} frames could be sent")
    if not all(one.unreadable for one in rings):
        stage.expect(drops == sent - got, f"{queues} x {producers}: {sent - got} frames lost, {drops} told")
    return {
        "sent": sent,
        "read": got,
        "lost": sent - got,
        "drops": drops,
        "full": sum(one.full + one.freeing for one in rings),
        "not_full": sum(one.not_full for one in rings),
        "unreadable": sum(one.unreadable for one in rings),
        "least": min((one.taken.least for one in rings if one.taken), default=None),
    }


def grid(stage: Stage, found: dict[tuple[int, int], dict[str, Any]]) -> None:
    """Loss by queues (down) and producers (across)."""
    stage.table(
        ("queues", *(f"{m} producer{'s' * (m > 1)}" for m in range(1, 5))),
        [[n, *(found[n, m]["lost"] for m in range(1, 5))] for n in range(1, 5)],
    )


def table(found: dict[tuple[int, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [{"queues": n, "producers": m, **one} for (n, m), one in found.items()]


LAB = Lab(
    "macvtap-queues",
    "a macvtap's queues fed by several producers lose frames: was the ring full, or did it say so?",
    3,
    ("host", "guest"),
    set_up,
    play,
    look=("ip -n {host} -s link show mt0",),
)
