"""What a modelled thread does to shared memory, one step at a time: the words that models are written in.

A model's function is a generator: it yields a step, and gets back what that step read. Everything between two
yields is the thread's own (registers), so it costs no step: what other threads can come between is shared memory.
"""

from __future__ import annotations

from xdpctl.records import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One access to one shared variable."""

    kind: str
    """load, store, cas, exchange, add, take, lock, wait, fence."""
    name: str
    value: int = 0
    """What store and exchange write, what add adds, what cas writes, what wait waits for."""
    expected: int = 0
    """What cas compares with."""

    @property
    def locked(self) -> bool:
        """On x86 a locked instruction or a fence: the store buffer is empty when it is done."""
        return self.kind in ("cas", "exchange", "add", "take", "fence")


def load(name: str) -> Step:
    """Read a variable."""
    return Step("load", name)


def store(name: str, value: int) -> Step:
    """Write a variable; under TSO it stays in the thread's store buffer for a while."""
    return Step("store", name, value)


def cas(name: str, expected: int, value: int) -> Step:
    """atomic_cmpset, cmpxchg: write if it holds what is expected; gets 1 if it did."""
    return Step("cas", name, value, expected)


def trylock(name: str) -> Step:
    """spin_trylock: gets 1 if it was free."""
    return Step("cas", name, 1, 0)


def lock(name: str) -> Step:
    """spin_lock: this thread can't go on before it is free."""
    return Step("lock", name, 1)


def unlock(name: str) -> Step:
    """spin_unlock: on x86 a plain store."""
    return Step("store", name, 0)


def test_and_set(name: str) -> Step:
    """test_and_set_bit: gets what it was."""
    return Step("exchange", name, 1)


def test_and_clear(name: str) -> Step:
    """test_and_clear_bit: gets what it was."""
    return Step("exchange", name, 0)


def add(name: str, value: int = 1) -> Step:
    """Atomic addition; gets what it was."""
    return Step("add", name, value)


def take(name: str) -> Step:
    """One off a queue that is modelled by its length; gets 0 where it was empty."""
    return Step("take", name)


def wait(name: str, value: int) -> Step:
    """Spin until a variable holds a value."""
    return Step("wait", name, value)


def fence() -> Step:
    """smp_mb: what was stored before is seen before what is loaded after."""
    return Step("fence", "")
