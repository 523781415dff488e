"""Lab ``page-pool``: a driver's rings go while their frames are elsewhere, and the page pool waits for every page.

page_pool_destroy() (net/core/page_pool.c) frees a pool only when all its pages are back; until then
page_pool_release_retry() asks once a second, and says so in the kernel's log after a minute ("stalled pool
shutdown"). Whoever parks the frames decides how long that is: a socket nobody reads, a cpumap's thread that does
not keep up, the ring of a device that is down, or a driver that leaks.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from xdpctl.lab import frames
from xdpctl.lab.parking import (
    BURN_NS,
    DEBUGFS,
    NETDEVSIM,
    Parked,
    Parking,
    Socket,
    Tap,
    datagrams,
    netdevsim,
    one_cpu,
)
from xdpctl.lab.scenario import BY_HAND, CURE, HAPPENS, TOLD, Lab, Measured, Outcome
from xdpctl.lab.watch import Watch
from xdpctl.netlink import interfaces, netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from xdpctl.lab.stage import Stage
    from xdpctl.trace.pool_records import PoolEvent
    from xdpctl.trace.pools import PoolTracer

MAC = "02:00:00:00:88:01"
ADDRESS = "192.0.2.2"
SOCKET, CPUMAP, TAP, VETH, DEVICE = (
    "an unread socket",
    "a slow cpumap",
    "the ring of a tap that is down",
    "an unread socket, from a veth's own rings",
    "a driver that leaks (netdevsim)",
)
LIVE = {SOCKET: 61, CPUMAP: 59, TAP: 57}
"""Live frames parked at each place: a number of its own, so that its pool is known by it."""
FROM_VETH = 100
PORTS = {SOCKET: 901, VETH: 902}
MOST_LINES = 9
"""Of the tracepoint's."""
PATIENCE = 6.0
"""Seconds in which a pool should be freed once its pages are back: the kernel looks once a second."""


def set_up(stage: Stage) -> None:
    """A veth whose end eth0 has a native program and so rings with a page pool."""
    host, guest = stage.namespace("host"), stage.namespace("guest")
    stage.pair("eth0", "eth1", (host, guest))
    stage.shell(f"ip -n {host} link set eth0 address {MAC}")
    stage.shell(f"ip -n {host} addr add {ADDRESS}/24 dev eth0")
    stage.run("ethtool -K eth0 gro off", inside=host)
    stage.shell(f"xdpctl attach --netns {host} --mode native eth0 builtin:pass", only=("eth0:",))


def play(stage: Stage) -> Outcome:
    """Park frames, let the rings go, watch the pools wait, and give the pages back."""
    from xdpctl.trace.pools import PoolTracer

    host = stage.netns("host")
    with contextlib.ExitStack() as held:
        cpu = held.enter_context(one_cpu())
        tap = held.enter_context(contextlib.closing(Tap(host, "tap0")))
        stage.run(f"ip -n {host} link set tap0 up")
        sockets = {
            name: held.enter_context(contextlib.closing(Socket(host, ADDRESS, port)))
            for name, port in PORTS.items()
        }
        parking = held.enter_context(contextlib.closing(Parking(host, "eth0", "tap0", cpu)))
        device = held.enter_context(leaking(stage, host))
        tracer = held.enter_context(PoolTracer())
        watch = held.enter_context(Watch(events=("page_pool/page_pool_release",)))
        parked = park(stage, parking, tracer, device)
        stage.chapter(BY_HAND)
        until(tracer, parked, lambda: all(len(one.attempts) > 1 or one.over for one in parked))
        by_hand(stage, watch, host)
        stage.chapter(TOLD)
        stage.shell("xdpctl pool leaks --duration 1.2", ends=None)
        follow(tracer, parked, 0)
        stage.table(
            ("frames parked in", "frames", "in flight", "asked", "for seconds"),
            [(one.where, one.frames, one.last, len(one.attempts), one.waited) for one in parked],
        )
        before = {one.where: (one.first, one.last) for one in parked}
        stage.chapter(CURE)
        stage.say("the socket is read, the tap is read, the cpumap's thread gets through")
        got = {name: one.drain() for name, one in sockets.items()}
        got[TAP] = tap.drain()
        if device is not None:
            stage.say("the driver lets go of its page")
            device[1].write_text("n")
        until(tracer, parked, lambda: all(one.over for one in parked))
    return outcome(stage, parked, before, got)


def park(stage: Stage, parking: Parking, tracer: PoolTracer, device: tuple[str, Path] | None) -> list[Parked]:
    """Send frames to each place, and let the rings they came from go."""
    host = stage.netns("host")
    stage.chapter(HAPPENS)
    parked = [Parked(name, count) for name, count in LIVE.items()]
    frame = {name: frames.udp4(bytes(64), destination=MAC, ports=(900, PORTS.get(name, 9))) for name in LIVE}
    ports = " and ".join(map(str, PORTS.values()))
    stage.say(f"tap0 and UDP sockets at ports {ports} of {ADDRESS} are open, and nobody reads them")
    stage.say("live frames come from a driver of their own, whose rings and page pool go when the run ends:")
    for one, program in zip(parked, ("up", "aside", "onto"), strict=True):
        events = parking.send(program, frame[one.where], one, tracer)
        for other in parked:
            other.follow(events)
        stage.say(f"  {one.frames} frames into {one.where}: then {one.first} of the pool's pages are out")
    stage.say(f"  (each frame takes the cpumap's thread {BURN_NS // 1_000_000} ms)")
    stage.shell(f"ip -n {host} link set tap0 down")
    with netns.enter(host):
        index = interfaces.ifindex("eth0")
        inode = netns.current().inode
    datagrams(stage.netns("guest"), "eth1", MAC, PORTS[VETH], FROM_VETH)
    reading = tracer.read()
    own = [one for one in reading.pools if (one.ifindex, one.netns) == (index, inode)]
    follow(tracer, parked, 0, reading.events)
    stage.say(
        f"{FROM_VETH} datagrams come in at eth0 and wait in a socket; then its program goes, and its rings:"
    )
    stage.shell(f"xdpctl detach --netns {host} eth0", only=("eth0:",))
    if own:
        parked.append(Parked(VETH, FROM_VETH, key=(own[0].address, own[0].seen)))
    else:
        stage.say("this kernel's veth has no page pool (Linux 6.6)")
    if device is not None:
        name, switch = device
        stage.say(f"{name} is told to keep a page, as a driver with a leak does, and goes down:")
        switch.write_text("y")
        stage.run(f"ip -n {host} link set {name} down")
        keep = tracer.read()
        follow(tracer, parked, 0, keep.events)
        leaked = [one for one in keep.events if one.pool.interface == name and one.inflight > 0]
        if leaked:
            one = Parked(DEVICE, 1, key=(leaked[-1].pool.address, leaked[-1].pool.seen))
            one.follow(list(keep.events))
            parked.append(one)
    return parked


@contextlib.contextmanager
def leaking(stage: Stage, host: str) -> Iterator[tuple[str, Path] | None]:
    """A netdevsim that is up, where the kernel has that driver and its switch `pp_hold` (6.10)."""
    if not NETDEVSIM.exists():
        stage.say("this kernel has no netdevsim, whose switch pp_hold is a leak on demand")
        yield None
        return
    if not (DEBUGFS / "netdevsim").exists():
        stage.run(f"mount -t debugfs debugfs {DEBUGFS}")
    with netdevsim(host) as made:
        if made is not None:
            stage.run(f"ip -n {host} link set {made[0]} up")
        yield made


def follow(
    tracer: PoolTracer, parked: list[Parked], seconds: float, events: Sequence[PoolEvent] = ()
) -> None:
    """What the tracer tells within `seconds`, to each place's own pool."""
    told = [*events, *tracer.events(seconds)]
    for one in parked:
        one.follow(told)


def until(tracer: PoolTracer, parked: list[Parked], held: Callable[[], bool]) -> None:
    """Follow the pools until something holds, or patience ends."""
    end = time.monotonic() + PATIENCE
    while not held() and time.monotonic() < end:
        follow(tracer, parked, 0.1)


def by_hand(stage: Stage, watch: Watch, host: str) -> None:
    """A tracepoint once a second, and the kernel's log after a minute."""
    stage.say("the kernel's log says nothing for a minute (then: stalled pool shutdown); a tracepoint does:")
    ours: set[str] = set()
    lines: list[str] = []
    for one in watch.read():
        pool = one.fields.get("page_pool", "")
        if one.number("inflight") in LIVE.values():
            ours.add(pool)  # its address is hashed: told by its frames
        if pool in ours:
            lines.append(f"  {one}")
    for line in lines[:MOST_LINES]:
        stage.say(line)
    if len(lines) > MOST_LINES:
        stage.say(f"  ... and {len(lines) - MOST_LINES} more")
    stage.say("and who has the pages is for you to find: sockets with unread bytes are one place")
    stage.shell("ss -nua", inside=host, ends=None)


def outcome(
    stage: Stage, parked: list[Parked], before: dict[str, tuple[int, int]], got: dict[str, int]
) -> Outcome:
    """All must be as the kernel's source says.

    Raises:
        LabError: it is not.
    """
    found = {one.where: one for one in parked}
    for one in parked:
        stage.expect(bool(one.attempts), f"{one.where}: nobody tried to free the pool")
        stage.expect(one.over, f"{one.where}: {one.last} pages are out still, after the cure")
    for name, count in got.items():
        sent = FROM_VETH if name == VETH else LIVE[name]
        stage.expect(count == sent, f"{name}: {count} frames came out of {sent}")
    recycles = before[SOCKET][0] > 0
    exact = (SOCKET, TAP) if recycles else (TAP,)
    for name in exact:
        stage.expect(before[name] == (LIVE[name], LIVE[name]), f"{name}: {before[name]} in flight")
    stage.expect(0 < before[CPUMAP][0] <= LIVE[CPUMAP], f"{CPUMAP}: {before[CPUMAP][0]} in flight")
    why = "no bug but a rule: a pool lives until its last page is back, and says nothing for a minute"
    if not recycles:
        why += "; before 6.4 a page leaves its pool when its frame becomes an skb, so no socket holds it up"
    return Outcome(
        tuple(
            Measured(f"pages out, frames in {one.where}", before[one.where][0], one.last) for one in parked
        ),
        None,
        why,
        {
            "recycles_skbs": recycles,
            "netdevsim": DEVICE in found,
            "parked": [
                {
                    "where": one.where,
                    "frames": one.frames,
                    "came_out": got.get(one.where),
                    "in_flight_at_destruction": one.first,
                    "in_flight_before_the_cure": before[one.where][1],
                    "waited_seconds": round(one.waited, 3),
                    "attempts": [
                        {"after": round(each.at - one.attempts[0].at, 3), "inflight": each.inflight}
                        for each in one.attempts
                    ],
                }
                for one in parked
            ],
        },
    )


LAB = Lab(
    "page-pool",
    "a driver's rings go, its frames are parked elsewhere: the page pool waits for the last page, silently",
    5,
    ("host", "guest"),
    set_up,
    play,
    look=(
        "xdpctl pool list --netns {host}",
        "xdpctl pool watch --netns {host} --duration 5",
    ),
)
