"""The lockless qdisc's seqlock (include/net/sch_generic.h, net/sched/sch_generic.c), before and after STATE_MISSED.

Each CPU sends one packet: it enqueues, then runs the qdisc if it gets the seqlock. The queue is modelled by its
length. A packet is stranded when every CPU has gone and it is still there: it waits for somebody else's next packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.lab.ringrace.search import Model
from xdpctl.lab.ringrace.steps import add, fence, load, take, test_and_clear, test_and_set, trylock, unlock

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from xdpctl.lab.ringrace.search import Call
    from xdpctl.lab.ringrace.steps import Step

BEFORE = {"queue": 0, "seqlock": 0}
MEMORY = {**BEFORE, "MISSED": 0}


def xmit_before_missed() -> Generator[Step, int, str]:
    """__dev_xmit_skb() and qdisc_run() from 4.16 until MISSED: who doesn't get the lock leaves it to the owner."""
    yield add("queue")  # q->enqueue()
    if not (yield trylock("seqlock")):  # qdisc_run_begin()
        return "left to the owner"
    while (yield take("queue")):  # __qdisc_run(): dequeue and transmit until there is nothing
        pass
    yield unlock("seqlock")  # qdisc_run_end(): whoever came after our last look is forgotten
    return ""


def _run(*, barrier: bool) -> Generator[Step, int, str]:
    """__qdisc_run() and qdisc_run_end() by the owner; "scheduled" where it has to come again (net_tx_action())."""
    while True:
        if (yield take("queue")):
            continue
        if not (yield load("MISSED")):  # pfifo_fast_dequeue(): need_retry
            break
        yield test_and_clear("MISSED")  # clear_bit(); smp_mb__after_atomic()
        if not (yield take("queue")):
            break
    yield unlock("seqlock")
    if barrier:
        yield fence()  # smp_mb()
    return "scheduled" if (yield load("MISSED")) else ""


def _xmit(*, again: bool, barrier: bool) -> Generator[Step, int, str]:
    """__dev_xmit_skb() with STATE_MISSED, and the net_tx_action() that __netif_schedule() leads to."""
    yield add("queue")
    while True:
        if not (yield trylock("seqlock")):  # qdisc_run_begin()
            if (yield test_and_set("MISSED")):
                return "left to the owner"
            if not again or not (yield trylock("seqlock")):
                return "left to the owner"
        answer = yield from _run(barrier=barrier)
        if not answer:
            return ""


def xmit_with_missed() -> Generator[Step, int, str]:
    """Since 5.13 (5.10.42, 5.12.9): MISSED, a second trylock behind it, and smp_mb() before it is looked at."""
    return _xmit(again=True, barrier=True)


def xmit_without_second_trylock() -> Generator[Step, int, str]:
    """What if MISSED were set, and the lock not tried again: the owner may have looked for it just before."""
    return _xmit(again=False, barrier=True)


def xmit_without_barrier() -> Generator[Step, int, str]:
    """MISSED as it was until smp_mb() came (5.18.4): the unlock may reach memory behind the look for MISSED."""
    return _xmit(again=True, barrier=False)


def stranded(memory: Mapping[str, int]) -> bool:
    """A packet is left, and nobody will come for it."""
    return memory["queue"] > 0


def _model(
    name: str, title: str, mirrors: str, xmit: Call, *, broken: bool, tso: bool = False, note: str = ""
) -> Model:
    memory = BEFORE if xmit is xmit_before_missed else MEMORY
    threads = {cpu: [("__dev_xmit_skb", xmit)] for cpu in ("CPU 0", "CPU 1")}
    return Model(name, title, mirrors, memory, threads, stranded=stranded, tso=tso, broken=broken, note=note)


MODELS = (
    _model(
        "qdisc-before-missed",
        "the lockless qdisc before STATE_MISSED",
        "include/net/sch_generic.h qdisc_run_begin(), 4.16 to 5.12",
        xmit_before_missed,
        broken=True,
        note="the owner has seen an empty queue and still holds the lock: the packet behind it waits for the next one",
    ),
    _model(
        "qdisc-one-trylock",
        "STATE_MISSED without the second trylock",
        "what a90c57f2cedd would be without it",
        xmit_without_second_trylock,
        broken=True,
        note="the owner looks for MISSED between the other's failed trylock and its test_and_set_bit()",
    ),
    _model(
        "qdisc-missed",
        "the lockless qdisc with STATE_MISSED",
        "include/net/sch_generic.h qdisc_run_begin(), qdisc_run_end(), 5.13",
        xmit_with_missed,
        broken=False,
    ),
    _model(
        "qdisc-missed-no-barrier-tso",
        "STATE_MISSED without smp_mb(), on x86 with its store buffers",
        "qdisc_run_end() until 5.18.4",
        xmit_without_barrier,
        broken=True,
        tso=True,
        note="the unlock still lies in the store buffer while MISSED is read: both believe that the other one goes on",
    ),
    _model(
        "qdisc-missed-tso",
        "STATE_MISSED with smp_mb(), on x86 with its store buffers",
        "qdisc_run_end() since 5.18.4",
        xmit_with_missed,
        broken=False,
        tso=True,
    ),
)
