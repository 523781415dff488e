"""Lab ``veth-redirect``: frames redirected natively into a veth whose peer can't take them vanish without a word.

veth_xdp_xmit() (drivers/net/veth.c) needs NAPI on the receiving end: a native program there, or, since 5.13, GRO.
Since 6.3 the core already refuses by xdp-features, so the same mistake is EOPNOTSUPP in xdp_redirect_err there and
ENXIO in xdp_devmap_xmit before. XDP_TX takes another way (veth_xdp_tx() -> xdp_bulk_tx), generic mode none of both.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING

from xdpctl.lab import frames
from xdpctl.lab.scenario import BY_HAND, CURE, HAPPENS, TOLD, Lab, Measured, Outcome
from xdpctl.lab.watch import Watch
from xdpctl.netlink import interfaces, netns
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.lab.stage import Stage

SENT = 50
MARK = b"xdpctl-lab"
NOBODY = "02:00:00:00:00:02"
"""Destination of the frames: a group address would not be sent back."""
DRV, SKB = 1 << 2, 1 << 1
"""XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE (include/uapi/linux/if_link.h)."""
_NUMBERS = re.compile(r"\b(prog_id|map_id|ifindex|to_ifindex|from_ifindex|index)=\d+")
CASES = (
    ("native redirect", "redirect", DRV, "veth_yyy0"),
    ("native XDP_TX", "tx-swap", DRV, "veth1"),
    ("generic redirect", "redirect", SKB, "veth_yyy0"),
    ("generic XDP_TX", "tx-swap", SKB, "veth1"),
)
"""What is done, with which program, in which mode, and where the frames come out."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the frames of one case, by socket and by tracepoint."""

    sent: int
    arrived: int
    redirect_errors: int
    """xdp:xdp_redirect_err."""
    xmit_drops: int
    """Frames that xdp:xdp_devmap_xmit tells as dropped."""
    tx_drops: int
    """Frames that xdp:xdp_bulk_tx tells as dropped."""
    errno: str | None
    events: tuple[str, ...] = ()
    """Each different line once, with how often it came."""


def set_up(stage: Stage) -> None:
    """Two pairs between two namespaces; a native redirect from the one into the other."""
    host, guest = stage.namespace("host"), stage.namespace("guest")
    stage.say(
        "veth0 gets an ifindex that nobody else has: tracepoints tell of every namespace, without its name"
    )
    stage.pair("veth0", "veth1", (host, guest), here_more=f"index {(1 << 20) + secrets.randbelow(1 << 29)}")
    stage.pair("veth_xxx0", "veth_yyy0", (host, guest))
    stage.say("veth0's frames go to veth_xxx0; its peer veth_yyy0 has neither a program nor GRO")
    stage.shell(
        f"xdpctl attach --netns {host} --mode native --force --set target_ifindex=veth_xxx0"
        " veth0 builtin:redirect",
        only=("veth0:",),
    )


def play(stage: Stage) -> Outcome:
    """Send through the redirect, tell, then the same on XDP_TX and in generic mode, before and after the cure."""
    host = stage.netns("host")
    stage.chapter(HAPPENS)
    before = {"native redirect": send(stage, "veth_yyy0")}
    lost = before["native redirect"]
    stage.say(f"{SENT} frames sent to veth0, {lost.arrived} arrived at veth_yyy0; no command has failed")
    stage.chapter(BY_HAND)
    stage.say("nothing but tracepoints tells (bpftrace, perf, or tracefs as here):")
    for line in lost.events:
        stage.say(f"  {line}")
    drops = dropped(stage, host)
    stage.say(
        f"ethtool -S veth0: rx_queue_0_drops is {'not counted' if drops is None else drops} on this kernel"
    )
    stage.chapter(TOLD)
    stage.shell(f"xdpctl doctor --netns {host} veth0 --redirect-to veth_xxx0", ends=1, shows=("veth_yyy0",))
    stage.run(f"xdpctl detach --netns {host} veth0")
    for what, program, mode, out in CASES[1:]:
        with attached(stage, program, mode):
            before[what] = send(stage, out)
    stage.chapter(CURE)
    shown = ("running:", "FIXED", "OK")
    stage.shell(f"xdpctl doctor --netns {host} veth0 --redirect-to veth_xxx0 --fix --yes", only=shown)
    stage.say("XDP_TX goes back to veth0's own peer, which needs the same:")
    stage.shell(f"xdpctl doctor --netns {host} veth0 --prog builtin:tx-swap --fix --yes", only=shown)
    after = {}
    for what, program, mode, out in CASES:
        with attached(stage, program, mode):
            after[what] = send(stage, out)
    check(stage, before, after)
    return Outcome(
        tuple(
            Measured(f"{one[0]}: arrived of {SENT}", before[one[0]].arrived, after[one[0]].arrived)
            for one in CASES
        ),
        None,
        "a rule of the veth driver, no bug: generic mode sends by ndo_start_xmit, so nothing is lost there",
        {
            "before": {what: asdict(one) for what, one in before.items()},
            "after": {what: asdict(one) for what, one in after.items()},
            "rx_queue_0_drops": drops,
        },
    )


def check(stage: Stage, before: dict[str, Seen], after: dict[str, Seen]) -> None:
    """All must be as the driver's source says.

    Raises:
        LabError: it is not.
    """
    lost, back = before["native redirect"], before["native XDP_TX"]
    stage.expect(lost.arrived == 0, f"{lost.arrived} frames arrived, though the peer can't take them")
    told = lost.redirect_errors + lost.xmit_drops
    stage.expect(told == SENT, f"the tracepoints tell of {told} lost frames, {SENT} were sent")
    stage.expect(back.arrived == 0, f"{back.arrived} frames came back, though the peer can't take them")
    stage.expect(back.tx_drops == SENT, f"xdp_bulk_tx tells of {back.tx_drops} lost frames, {SENT} were sent")
    for what in ("generic redirect", "generic XDP_TX"):
        stage.expect(not before[what].events, f"{what}: the tracepoints tell {before[what].events}")
        stage.expect(before[what].arrived == SENT, f"{what}: only {before[what].arrived} of {SENT} arrived")
    for what, one in after.items():
        bad = one.redirect_errors + one.xmit_drops + one.tx_drops
        stage.expect(
            one.arrived == SENT and not bad, f"{what}: {one.arrived} of {SENT} arrived after the cure"
        )


@contextlib.contextmanager
def attached(stage: Stage, program: str, mode: int) -> Iterator[None]:
    """One of our programs on veth0, for a while."""
    from pathlib import Path

    from xdpctl.bpf.link import link_xdp
    from xdpctl.bpf.object import Object
    from xdpctl.obj import globals as variables
    from xdpctl.obj import reader
    from xdpctl.obj.shipped import resolve

    path = resolve(Path(f"builtin:{program}"))
    with netns.enter(stage.netns("host")), Object.open(path) as obj:
        if program == "redirect":
            for one in variables.parse_all(
                reader.read(path), ["target_ifindex=veth_xxx0"], ifindex=interfaces.ifindex
            ):
                section = next(held for held in obj.maps.values() if held.name.endswith(one.section))
                section.patch_initial_value(one.offset, one.data)
        obj.load()
        (found,) = (one for one in obj.programs.values() if one.type == "xdp")
        with link_xdp(found.fd, interfaces.ifindex("veth0"), mode):
            yield


def send(stage: Stage, out: str) -> Seen:
    """Send frames to veth0, and see what becomes of them."""
    guest = stage.netns("guest")
    with Watch() as watch, netns.enter(guest), frames.Port("veth1") as wire, frames.Port(out) as port:
        receive = wire if out == "veth1" else port
        for _ in range(SENT):
            wire.send(frames.ethernet(MARK, destination=NOBODY))
        arrived = receive.count(MARK, expect=SENT, seconds=0.3)
        told = list(watch.read())
    with netns.enter(stage.netns("host")):
        mine = interfaces.ifindex("veth0")
    bad = [
        one
        for one in told
        if (one.number("err") or one.number("drops"))
        and mine in (one.number("ifindex"), one.number("from_ifindex"))
    ]
    lines: dict[str, int] = {}
    for one in bad:
        text = _NUMBERS.sub(r"\1=N", str(one))
        lines[text] = lines.get(text, 0) + 1
    return Seen(
        SENT,
        arrived,
        sum(one.name in ("xdp_redirect_err", "xdp_redirect_map_err") for one in bad),
        sum(one.number("drops") for one in bad if one.name == "xdp_devmap_xmit"),
        sum(one.number("drops") for one in bad if one.name == "xdp_bulk_tx"),
        next((one.errno for one in bad if one.errno), None),
        tuple(f"{times} x {text}" for text, times in lines.items()),
    )


def dropped(stage: Stage, host: str) -> int | None:
    """veth0's rx_queue_0_drops; None where its driver has no such counter."""
    found = re.search(r"rx_queue_0_drops: (\d+)", stage.run("ethtool -S veth0", inside=host).stdout)
    return int(found[1]) if found else None


LAB = Lab(
    "veth-redirect",
    "frames redirected into a veth vanish: its peer can't take them, and nothing says so",
    4,
    ("host", "guest"),
    set_up,
    play,
    look=(
        "xdpctl doctor --netns {host} veth0 --redirect-to veth_xxx0",
        "xdpctl doctor --netns {guest} veth_yyy0",
        "xdpctl status --netns {host}",
    ),
)
