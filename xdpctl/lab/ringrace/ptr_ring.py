"""Linux' ptr_ring (include/linux/ptr_ring.h), and tap's early test of it without its lock (drivers/net/tap.c, 4.15).

A slot that is not NULL is taken: the ring is full for a producer when the slot at its own index is. ``queue[i]`` is a
variable a slot here, so a thread says which one it means once it has read the index, as the C does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.lab.ringrace.search import FULL, Model
from xdpctl.lab.ringrace.steps import load, lock, store, unlock

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from xdpctl.lab.ringrace.steps import Step

SIZE = 4
BATCH = 2
"""__ptr_ring_set_size(): 16, or half the ring where that is less."""
QUEUE = {f"queue[{at}]": 0 for at in range(SIZE)}
MEMORY = {"producer": 0, "producer_lock": 0, **QUEUE}
CONSUMED = {**MEMORY, "consumer_head": 0, "consumer_tail": 0}


def produce() -> Generator[Step, int, str]:
    """ptr_ring_produce(): the test and the write under the producers' lock."""
    yield lock("producer_lock")
    producer = yield load("producer")
    taken = yield load(f"queue[{producer}]")
    if taken:
        yield unlock("producer_lock")
        return FULL  # -ENOSPC
    yield store(
        "producer", (producer + 1) % SIZE
    )  # WRITE_ONCE(r->queue[r->producer++], ptr), as gcc orders it
    yield store(f"queue[{producer}]", 1)
    yield unlock("producer_lock")
    return ""


def tap_handle_frame() -> Generator[Step, int, str]:
    """What 4.15 did first: ``if (__skb_array_full(&q->skb_array)) goto drop;`` without the lock, then produce."""
    producer = yield load("producer")
    taken = yield load(f"queue[{producer}]")
    if taken:
        return FULL
    return (yield from produce())


def consume() -> Generator[Step, int, str]:
    """__ptr_ring_consume() by one reader: slots are given back in batches, the last of them first."""
    head = yield load("consumer_head")
    there = yield load(f"queue[{head}]")
    if not there:
        return "empty"
    tail = yield load("consumer_tail")
    behind = head + 1
    if behind - tail >= BATCH or behind >= SIZE:
        back = head
        while back >= tail:
            yield store(f"queue[{back}]", 0)
            back -= 1
        tail = behind
    if behind >= SIZE:
        behind = tail = 0
    yield store("consumer_tail", tail)
    yield store("consumer_head", behind)
    return ""


def full(memory: Mapping[str, int]) -> bool:
    """Whether the slot for the next frame is taken, at one moment."""
    return bool(memory[f"queue[{memory['producer']}]"])


MODELS = (
    Model(
        "tap-early-full",
        "tap's early test for a full ring, without the lock (4.15)",
        "drivers/net/tap.c tap_handle_frame(), 4.15; gone by 4.16",
        MEMORY,
        {"A": [("tap_handle_frame", tap_handle_frame)], "B": [("tap_handle_frame", tap_handle_frame)]},
        full=full,
        broken=True,
        note="the index is old by the time its slot is read, which the other producer has just filled: it looks full",
    ),
    Model(
        "ptr-ring",
        "Linux' ptr_ring: the test under the producers' lock",
        "include/linux/ptr_ring.h ptr_ring_produce(), 4.8",
        MEMORY,
        {"A": [("ptr_ring_produce", produce)], "B": [("ptr_ring_produce", produce)]},
        full=full,
        broken=False,
    ),
    Model(
        "ptr-ring-consumed",
        "Linux' ptr_ring with a reader that gives slots back in batches",
        "include/linux/ptr_ring.h __ptr_ring_discard_one(), batches since 4.13",
        CONSUMED,
        {
            "A": [("ptr_ring_produce", produce)] * 3,
            "B": [("ptr_ring_produce", produce)] * 3,
            "reader": [("ptr_ring_consume", consume)] * 4,
        },
        full=full,
        broken=False,
        note="every slot may be taken though some were read already: that is a full ring, and no race",
    ),
)
