"""An exact breadth-first search over the interleavings of a few threads: the shortest schedule that breaks a promise.

Why no model checker: these models have a few hundred to some ten thousand states, which Python visits in a second;
spin would add a compiler run and a second language, and knows sequential consistency only, while the store buffers of
x86 (TSO) are a bit more state here.

Each thread's function is turned, while the search goes on, into an automaton: a state of it is its place in the code
and its local variables, so two histories that lead to the same place with the same values are one state. A state of
the whole is the memory, each thread's state, its store buffer, and a ghost bit a thread: "the ring was full at some
time during this call". A "full" answered while that bit is off is a lie.
"""

from __future__ import annotations

import time
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from xdpctl.lab.ringrace.steps import Step

    Call = Callable[[], Generator[Step, int, str]]

FULL = "full"
"""What a producer's call returns when it gives up."""


@dataclass(frozen=True, slots=True)
class Model:
    """Shared memory, threads, and the promise."""

    name: str
    title: str
    mirrors: str
    """The C that it mirrors: file, function, since when."""
    memory: Mapping[str, int]
    """Initial values."""
    threads: Mapping[str, Sequence[tuple[str, Call]]]
    """Thread -> its calls, one after the other: (name, generator function)."""
    full: Callable[[Mapping[str, int]], bool] | None = None
    """Whether the ring is full; a call that returns FULL though it never was breaks the promise."""
    stranded: Callable[[Mapping[str, int]], bool] | None = None
    """Whether a packet is left behind, asked when no thread has anything left to do."""
    tso: bool = False
    """Stores reach memory later than the loads behind them, as on x86; else sequential consistency."""
    broken: bool | None = None
    """What is expected of the search."""
    note: str = ""


class Move(NamedTuple):
    """One step of a schedule."""

    thread: str
    call: str
    text: str
    """In the words of C: ``br_prod_head is 0``, ``br_cons_tail = 1``."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the search found."""

    model: Model
    states: int
    schedule: tuple[Move, ...] | None
    """The shortest one that breaks the promise; None: there is none."""
    verdict: str
    seconds: float
    complete: bool = True
    """Every reachable state was visited (or a schedule found); False: the bound ended it."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """At the end of the schedule."""


class _Thread:
    """A thread's calls as an automaton that grows while it is asked."""

    def __init__(self, calls: Sequence[tuple[str, Call]]) -> None:
        self.calls = calls
        self._ids: dict[tuple[Any, ...], int] = {}
        self._history: list[tuple[int, tuple[int, ...]]] = []
        self.steps: list[Step | None] = []
        self._next: dict[tuple[int, int], tuple[int, str | None]] = {}
        self.start = self._at(0, ())[0]

    def call(self, state: int) -> tuple[int, str]:
        """Number and name of the call that a state is in."""
        number = self._history[state][0]
        return number, self.calls[min(number, len(self.calls) - 1)][0]

    def fresh(self, state: int) -> bool:
        """Nothing of the call has happened yet."""
        return not self._history[state][1]

    def _at(self, call: int, history: tuple[int, ...]) -> tuple[int, str | None]:
        """The state after a call has read these values, and what the call returned if it ended thereby."""
        if call == len(self.calls):
            return self._state(("end",), call, (), None), None
        body = self.calls[call][1]()
        try:
            step = next(body)
            for value in history:
                step = body.send(value)
        except StopIteration as end:
            return self._at(call + 1, ())[0], end.value or ""
        inner: Any = body  # as inspect.getgeneratorstate() sees it
        where = []
        while (frame := getattr(inner, "gi_frame", None)) is not None:
            where.append((frame.f_lasti, tuple(sorted(frame.f_locals.items(), key=str))))
            inner = inner.gi_yieldfrom
        # generator objects among the locals are compared by their own frames, which follow
        key = (
            call,
            step,
            *((at, tuple(one for one in held if not hasattr(one[1], "gi_frame"))) for at, held in where),
        )
        return self._state(key, call, history, step), None

    def _state(self, key: tuple[Any, ...], call: int, history: tuple[int, ...], step: Step | None) -> int:
        known = self._ids.get(key)
        if known is None:
            known = self._ids[key] = len(self.steps)
            self._history.append((call, history))
            self.steps.append(step)
        return known

    def after(self, state: int, value: int) -> tuple[int, str | None]:
        """The state behind a step that read `value`; and the call's answer where it ended."""
        found = self._next.get((state, value))
        if found is None:
            call, history = self._history[state]
            found = self._next[state, value] = self._at(call, (*history, value))
        return found


class _State(NamedTuple):
    memory: tuple[int, ...]
    at: tuple[int, ...]
    buffers: tuple[tuple[tuple[int, int], ...], ...]
    """Each thread's pending stores, oldest first: (variable, value)."""
    ghosts: tuple[bool, ...]


def search(model: Model, *, limit: int = 200_000) -> Result:
    """Visit all interleavings of a model, nearest first, until one breaks its promise.

    Args:
        model: what to search.
        limit: states to visit at most.
    """
    begun = time.monotonic()
    names = list(model.memory)
    index = {name: at for at, name in enumerate(names)}
    threads = [_Thread(calls) for calls in model.threads.values()]
    labels = list(model.threads)
    count = len(threads)
    first = _State(
        tuple(model.memory.values()),
        tuple(one.start for one in threads),
        ((),) * count,
        (False,) * count,
    )
    seen: dict[_State, tuple[_State, int, str] | None] = {first: None}
    layer = [first]

    def full(memory: tuple[int, ...]) -> bool:
        return model.full is not None and model.full(dict(zip(names, memory, strict=True)))

    def schedule(state: _State, last: Move | None) -> tuple[Move, ...]:
        moves = [last] if last else []
        while (came := seen[state]) is not None:
            before, who, text = came
            moves.append(Move(labels[who], _call_name(threads[who], before.at[who]), text))
            state = before
        return tuple(reversed(moves))

    def result(
        moves: tuple[Move, ...] | None, verdict: str, memory: tuple[int, ...] = (), *, complete: bool = True
    ) -> Result:
        held = dict(zip(names, memory, strict=True)) if memory else {}
        return Result(model, len(seen), moves, verdict, time.monotonic() - begun, complete, held)

    while layer:
        following: list[_State] = []
        for state in layer:
            moved = False
            for who in range(count):
                for after, answer, text in _moves(state, who, threads[who], index, tso=model.tso):
                    moved = True
                    ghosts = state.ghosts
                    if model.full is not None:
                        was, now = full(state.memory), full(after.memory)
                        ghosts = tuple(
                            _ghost(
                                threads[one],
                                state.at[one],
                                after.at[one],
                                state.ghosts[one] or was or now,
                                ended=one == who and answer is not None,
                            )
                            for one in range(count)
                        )
                        never = not (state.ghosts[who] or was or now)
                        if answer == FULL and never:
                            last = Move(labels[who], _call_name(threads[who], state.at[who]), text + ": full")
                            return result(schedule(state, last), "drops", after.memory)
                    reached = after._replace(ghosts=ghosts)
                    if reached not in seen:
                        seen[reached] = (state, who, text + (f": {answer}" if answer else ""))
                        following.append(reached)
                        if len(seen) >= limit:
                            return result(None, "unknown", complete=False)
            if not moved and any(
                one.steps[at] is not None for one, at in zip(threads, state.at, strict=True)
            ):
                return result(schedule(state, None), "deadlocks", state.memory)
            if not moved and model.stranded is not None:
                held = dict(zip(names, state.memory, strict=True))
                if model.stranded(held):
                    return result(schedule(state, None), "strands", state.memory)
        layer = following
    return result(None, "none")


def _call_name(thread: _Thread, state: int) -> str:
    return thread.call(state)[1]


def _ghost(thread: _Thread, before: int, after: int, full: bool, *, ended: bool) -> bool:
    """A call's bit: off while it has not begun, and off again behind its end."""
    if ended or thread.steps[after] is None or (before == after and thread.fresh(after)):
        return False
    return full


def _moves(
    state: _State, who: int, thread: _Thread, index: Mapping[str, int], *, tso: bool
) -> list[tuple[_State, str | None, str]]:
    """Everything that one thread can do next: its step, and the oldest of its stores reaching memory."""
    moves: list[tuple[_State, str | None, str]] = []
    buffer = state.buffers[who]
    if buffer:
        at, value = buffer[0]
        name = next(one for one, number in index.items() if number == at)
        memory = _with(state.memory, at, value)
        buffers = _with(state.buffers, who, buffer[1:])
        moves.append(
            (
                state._replace(memory=memory, buffers=buffers),
                None,
                f"[its store {name} = {value} reaches memory]",
            )
        )
    step = thread.steps[state.at[who]]
    if step is None:
        return moves
    if step.kind == "fence" or ((step.kind == "lock" or step.locked) and buffer):
        if buffer:
            return moves  # it waits for its own stores
        following, answer = thread.after(state.at[who], 0)
        return [(state._replace(at=_with(state.at, who, following)), answer, "full barrier")]
    at = index[step.name]
    held = next((value for one, value in reversed(buffer) if one == at), state.memory[at])
    done = _do(step, held)
    if done is None:
        return moves
    got, write, text = done
    following, answer = thread.after(state.at[who], got)
    reached = state._replace(at=_with(state.at, who, following))
    if write is not None and tso and step.kind == "store":
        reached = reached._replace(buffers=_with(state.buffers, who, (*buffer, (at, write))))
    elif write is not None:
        reached = reached._replace(memory=_with(state.memory, at, write))
    moves.append((reached, answer, text))
    return moves


def _do(step: Step, held: int) -> tuple[int, int | None, str] | None:
    """(what the thread gets, what is written, in words); None: it has to wait."""
    name, value = step.name, step.value
    if step.kind == "load":
        return held, None, f"reads {name}: {held}"
    if step.kind == "store":
        return 0, value, f"writes {name} = {value}"
    if step.kind == "cas":
        done = held == step.expected
        return (
            int(done),
            value if done else None,
            f"{name} {step.expected} -> {value}: {'done' if done else f'refused, it is {held}'}",
        )
    if step.kind == "exchange":
        return held, value, f"{'sets' if value else 'clears'} {name}, it was {held}"
    if step.kind == "add":
        return held, held + value, f"{name} = {held + value}"
    if step.kind == "take":
        return (
            int(held > 0),
            held - 1 if held else None,
            f"takes one off {name}" if held else f"finds {name} empty",
        )
    if step.kind == "lock":
        return (0, 1, f"takes {name}") if not held else None
    return (0, None, f"has waited for {name} == {value}") if held == value else None


def _with(row: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*row[:at], value, *row[at + 1 :])
