"""FreeBSD's buf_ring (sys/sys/buf_ring.h): the ring that called itself full by a race, and what became of it.

Each function stands beside the C of the same name; ``(x + 1) % SIZE`` is its ``(x + 1) & br->br_prod_mask``. The
slots themselves are left out: nothing is decided by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.lab.ringrace.search import FULL, Model
from xdpctl.lab.ringrace.steps import cas, load, store, wait

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from xdpctl.lab.ringrace.steps import Step

SIZE = 4
MEMORY = {"br_prod_head": 0, "br_prod_tail": 0, "br_cons_head": 0, "br_cons_tail": 0}


def enqueue_2013() -> Generator[Step, int, str]:
    """buf_ring_enqueue() of FreeBSD 9.x (r248287, 2013): prod_head is old by the time cons_tail is read."""
    while True:
        prod_head = yield load("br_prod_head")
        cons_tail = yield load("br_cons_tail")
        prod_next = (prod_head + 1) % SIZE
        if prod_next == cons_tail:
            return FULL  # br->br_drops++; return (ENOBUFS);
        if (yield cas("br_prod_head", prod_head, prod_next)):
            break
    yield wait("br_prod_tail", prod_head)  # br_ring[prod_head] = buf; enqueues before us complete first
    yield store("br_prod_tail", prod_next)
    return ""


def enqueue_rechecked() -> Generator[Step, int, str]:
    """buf_ring_enqueue() between the two: before it gives up it looks again whether both stand as it read them."""
    while True:
        prod_head = yield load("br_prod_head")
        prod_next = (prod_head + 1) % SIZE
        cons_tail = yield load("br_cons_tail")
        if prod_next == cons_tail:
            head_again = yield load("br_prod_head")  # behind rmb()
            if prod_head == head_again:
                tail_again = yield load("br_cons_tail")
                if cons_tail == tail_again:
                    return FULL
            continue
        if (yield cas("br_prod_head", prod_head, prod_next)):
            break
    yield wait("br_prod_tail", prod_head)
    yield store("br_prod_tail", prod_next)
    return ""


def enqueue_today() -> Generator[Step, int, str]:
    """buf_ring_enqueue() since 2024: indices count on, and are masked only to find the slot: a turn shows."""
    while True:
        prod_head = yield load("br_prod_head")
        prod_next = prod_head + 1
        cons_tail = yield load("br_cons_tail")
        if cons_tail + SIZE - prod_next < 1:
            head_again = yield load("br_prod_head")
            if prod_head == head_again:
                tail_again = yield load("br_cons_tail")
                if cons_tail == tail_again:
                    return FULL
            continue
        if (yield cas("br_prod_head", prod_head, prod_next)):
            break
    yield wait("br_prod_tail", prod_head)
    yield store("br_prod_tail", prod_next)
    return ""


def dequeue() -> Generator[Step, int, str]:
    """buf_ring_dequeue_mc() until 2024."""
    while True:
        cons_head = yield load("br_cons_head")
        prod_tail = yield load("br_prod_tail")
        if cons_head == prod_tail:
            return "empty"
        cons_next = (cons_head + 1) % SIZE
        if (yield cas("br_cons_head", cons_head, cons_next)):
            break
    yield wait("br_cons_tail", cons_head)  # buf = br_ring[cons_head]
    yield store("br_cons_tail", cons_next)
    return ""


def dequeue_today() -> Generator[Step, int, str]:
    """buf_ring_dequeue_mc() since 2024."""
    while True:
        cons_head = yield load("br_cons_head")
        prod_tail = yield load("br_prod_tail")
        if cons_head == prod_tail:
            return "empty"
        if (yield cas("br_cons_head", cons_head, cons_head + 1)):
            break
    yield wait("br_cons_tail", cons_head)
    yield store("br_cons_tail", cons_head + 1)
    return ""


def full(memory: Mapping[str, int]) -> bool:
    """buf_ring_full(), asked of one moment."""
    return (memory["br_prod_head"] + 1 - memory["br_cons_tail"]) % SIZE == 0


OF_2013 = (("enqueue", enqueue_2013), ("dequeue", dequeue))
RECHECKED = (("enqueue", enqueue_rechecked), ("dequeue", dequeue))
TODAY = (("enqueue", enqueue_today), ("dequeue", dequeue_today))

MODELS = (
    Model(
        "buf-ring-2013",
        "FreeBSD's buf_ring as it was in 2013",
        "sys/sys/buf_ring.h r248287, buf_ring_enqueue()",
        MEMORY,
        {"A": OF_2013 * 2, "B": OF_2013 * 2},
        full=full,
        broken=True,
        note="one thread is interrupted between its two reads: the old prod_head meets a new cons_tail",
    ),
    Model(
        "buf-ring-rechecked",
        "FreeBSD's buf_ring with both indices read again before it gives up",
        "sys/sys/buf_ring.h before 2024, buf_ring_enqueue()",
        MEMORY,
        {"A": RECHECKED * 2, "B": RECHECKED * 2},
        full=full,
        broken=False,
        note="what was stale shows when it is read again",
    ),
    Model(
        "buf-ring-rechecked-wrapped",
        "the same, while the other thread goes once around the ring",
        "sys/sys/buf_ring.h before 2024, buf_ring_enqueue()",
        MEMORY,
        {"A": RECHECKED[:1], "B": RECHECKED * (SIZE + 1)},
        full=full,
        broken=True,
        note="masked indices look the same a turn later: the re-check is safe as long as nobody turns the ring over",
    ),
    Model(
        "buf-ring-today",
        "FreeBSD's buf_ring as it is",
        "sys/sys/buf_ring.h since 2024, buf_ring_enqueue()",
        MEMORY,
        {"A": TODAY * 2, "B": TODAY * 2},
        full=full,
        broken=False,
    ),
    Model(
        "buf-ring-today-wrapped",
        "the same, while the other thread goes once around the ring",
        "sys/sys/buf_ring.h since 2024, buf_ring_enqueue()",
        MEMORY,
        {"A": TODAY[:1], "B": TODAY * (SIZE + 1)},
        full=full,
        broken=False,
        note="the indices' upper bits count the turns",
    ),
)
