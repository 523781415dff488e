"""Lab ``ring-race``: rings that call themselves full, a lock that forgets a packet: searched exactly, and raced in C.

No namespace is needed: the models of `xdpctl.lab.ringrace` mirror FreeBSD's buf_ring, Linux' ptr_ring with tap's early
test, and the lockless qdisc's seqlock. Each is searched exhaustively within its bound.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from xdpctl.errors import CompileError
from xdpctl.lab.ringrace import buf_ring, live, ptr_ring, qdisc
from xdpctl.lab.ringrace.search import search
from xdpctl.lab.scenario import BY_HAND, CURE, HAPPENS, Lab, Measured, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.lab.ringrace.search import Model, Move, Result
    from xdpctl.lab.stage import Stage

MODELS: tuple[Model, ...] = (*buf_ring.MODELS, *ptr_ring.MODELS, *qdisc.MODELS)
CURED = (
    ("buf_ring: packets dropped at a ring that is not full", "buf-ring-2013", "buf-ring-today"),
    ("tap: packets dropped at a ring that is not full", "tap-early-full", "ptr-ring"),
    ("lockless qdisc: a packet left behind", "qdisc-before-missed", "qdisc-missed"),
    ("the same under x86's store buffers", "qdisc-missed-no-barrier-tso", "qdisc-missed-tso"),
)
"""What is lost, the model that loses it, the model of the cure."""
SECONDS = 0.3
"""Of one race in C."""
ROUNDS = 8
"""At most so many until one lies."""
LONG_RUN = 9
"""Steps of one thread on end that are told one by one; more are told as calls."""


def set_up(stage: Stage) -> None:
    """Nothing to make."""
    stage.say("nothing is made: models are searched in memory, and a C program of two threads races")


def play(stage: Stage) -> Outcome:
    """Search every model, and race the rings."""
    stage.chapter(HAPPENS)
    found = {one.name: search(one) for one in MODELS}
    for result in found.values():
        stage.expect(result.complete, f"{result.model.name}: not searched to its end")
        stage.expect(
            (result.schedule is not None) == result.model.broken,
            f"{result.model.name}: {result.verdict}, which is not what its source makes of it",
        )
        if result.schedule is not None:
            tell(stage, result)
    stage.chapter(BY_HAND)
    stage.say(
        "nobody sees it: a counter of drops grows while the ring is nearly empty, or a packet waits for the next;"
    )
    stage.say(
        "xdpctl trace drops tells a ring's occupancy at each drop, xdpctl trace qdisc what waits for nothing"
    )
    stage.chapter(CURE)
    for result in found.values():
        if result.schedule is None:
            stage.say(f"{result.model.title}: none, of {result.states:,} states ({bound(result.model)})")
            if result.model.note:
                stage.say(f"  {result.model.note}")
    raced = real(stage)
    rows = [Measured(what, steps(found[bad]), steps(found[good])) for what, bad, good in CURED]
    for bad, good in live.PAIRS:
        if bad in raced:
            rows.append(
                Measured(
                    f"C, {bad}/{good}: false full of {raced[bad].calls:,}/{raced[good].calls:,} calls",
                    raced[bad].full,
                    raced[good].full,
                )
            )
    return Outcome(
        tuple(rows),
        None,
        "an exact search: the schedules are the shortest there are, and none means none within the bound told",
        {
            "models": [of(one) for one in found.values()],
            "live": {mode: asdict(one) for mode, one in raced.items()},
        },
    )


def tell(stage: Stage, result: Result) -> None:
    """A schedule, step by step: one column a thread."""
    model, schedule = result.model, result.schedule or ()
    stage.say(f"{model.title}: {verdict(result)} in {len(schedule)} steps")
    stage.say(f"  mirrors {model.mirrors}")
    if model.note:
        stage.say(f"  {model.note}")
    rows = [[at, *(text if who == one else "" for one in model.threads)] for at, who, text in lines(schedule)]
    stage.table(("", *model.threads), rows)


def lines(schedule: Sequence[Move]) -> list[tuple[str, str, str]]:
    """(number, thread, what it does); a long run of one thread shrinks to the calls that it makes."""
    found: list[tuple[str, str, str]] = []
    at = 0
    while at < len(schedule):
        who = schedule[at].thread
        end = next((n for n in range(at, len(schedule)) if schedule[n].thread != who), len(schedule))
        if end - at > LONG_RUN:
            calls: list[str] = []
            for before, move in zip((None, *schedule[at:end]), schedule[at:end], strict=False):
                if before is None or before.call != move.call:
                    calls.append(move.call)
            found.append((f"{at + 1}..{end}", who, f"{len(calls)} calls: {calls[0]}, ..., {calls[-1]}"))
        else:
            found += [(str(n + 1), who, schedule[n].text) for n in range(at, end)]
        at = end
    return found


def verdict(result: Result) -> str:
    """In words."""
    words = {
        "drops": "a packet is dropped at a ring that was never full",
        "strands": "a packet is stranded",
        "deadlocks": "threads wait for each other",
        "none": "no schedule breaks it",
    }
    return words.get(result.verdict, "not decided within the bound")


def bound(model: Model) -> str:
    """What was searched: threads, calls, memory."""
    calls = " + ".join(str(len(one)) for one in model.threads.values())
    order = "x86's store order (TSO)" if model.tso else "sequential consistency"
    return f"{len(model.threads)} threads, {calls} calls, {order}"


def steps(result: Result) -> str:
    """``12 steps``, or ``never (2,345 states)``."""
    return f"in {len(result.schedule)} steps" if result.schedule else f"never ({result.states:,} states)"


def of(result: Result) -> dict[str, Any]:
    """One search as JSON."""
    model = result.model
    return {
        "name": model.name,
        "title": model.title,
        "mirrors": model.mirrors,
        "bound": bound(model),
        "states": result.states,
        "seconds": round(result.seconds, 4),
        "verdict": result.verdict,
        "complete": result.complete,
        "schedule": None if result.schedule is None else [one._asdict() for one in result.schedule],
    }


def real(stage: Stage) -> dict[str, live.Raced]:
    """The same in C, on real CPUs; empty where nothing compiles it."""
    raced = {}
    try:
        with live.compiled() as program:
            for bad, good in live.PAIRS:
                raced[bad] = live.race_until_full(program, bad, seconds=SECONDS, rounds=ROUNDS)
                raced[good] = live.race(program, good, SECONDS)
    except CompileError as error:
        stage.say(f"the race in C is left out: {error.message}")
        return {}
    stage.say(
        f"the same in C: two threads, at most two items in {raced['plain'].slots} slots, so each full is a lie"
    )
    for one in raced.values():
        stage.say(f"  {one.mode:8} {one.full:6,} of {one.calls:,} calls in {one.seconds:.1f} s")
    for _, good in live.PAIRS:
        stage.expect(
            raced[good].full == 0, f"the ring with {good} loads called itself full {raced[good].full} times"
        )
    return raced


LAB = Lab(
    "ring-race",
    "rings that call themselves full, a lock that forgets a packet: every interleaving searched, then raced in C",
    3,
    (),
    set_up,
    play,
)
