"""The search over interleavings: what it finds in each model, and that it can be believed."""

from __future__ import annotations

import itertools

import pytest

from xdpctl.lab.ring_race import LONG_RUN, MODELS, bound, lines
from xdpctl.lab.ringrace import buf_ring, live, ptr_ring
from xdpctl.lab.ringrace.search import FULL, Model, search
from xdpctl.lab.ringrace.steps import fence, load, lock, store, unlock, wait

FOUND = {
    # model: states visited, steps of the shortest schedule that breaks its promise
    "buf-ring-2013": (141, 12),
    "buf-ring-rechecked": (2345, None),
    "buf-ring-rechecked-wrapped": (4213, 54),
    "buf-ring-today": (1877, None),
    "buf-ring-today-wrapped": (1919, None),
    "tap-early-full": (48, 9),
    "ptr-ring": (24, None),
    "ptr-ring-consumed": (8045, None),
    "qdisc-before-missed": (39, 7),
    "qdisc-one-trylock": (127, 11),
    "qdisc-missed": (433, None),
    "qdisc-missed-no-barrier-tso": (200, 12),
    "qdisc-missed-tso": (491, None),
}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_each_model_loses_a_packet_or_is_proven_not_to(model):
    result = search(model)
    assert result.complete
    found = None if result.schedule is None else len(result.schedule)
    assert (result.states, found) == FOUND[model.name]
    assert (result.schedule is not None) == model.broken


def act(step, memory):
    """One step as a reader of the model would do it; None: it has to wait."""
    held = memory.get(step.name, 0)
    if step.kind in ("wait", "lock") and held != (step.value if step.kind == "wait" else 0):
        return None
    if step.kind == "cas" and held != step.expected:
        return 0
    writes = {
        "store": step.value,
        "cas": step.value,
        "exchange": step.value,
        "lock": 1,
        "add": held + step.value,
    }
    if step.kind == "take":
        writes["take"] = max(0, held - 1)
    if step.kind in writes:
        memory[step.name] = writes[step.kind]
    return {"load": held, "exchange": held, "cas": 1, "take": int(held > 0)}.get(step.kind, 0)


def replay(model, order):
    """Run a model's functions by hand, one step of the thread named next; its lies, and what is left in memory."""
    memory = dict(model.memory)
    calls = {name: iter(calls) for name, calls in model.threads.items()}
    running, waiting, been_full, lies = {}, {}, {}, 0
    for who in order:
        if who not in running:
            call = next(calls[who], None)
            if call is None:
                return None
            running[who] = call[1]()
            waiting[who] = next(running[who])
            been_full[who] = False
        before = bool(model.full and model.full(memory))
        got = act(waiting[who], memory)
        if got is None:
            return None
        now = bool(model.full and model.full(memory))
        for one in running:
            been_full[one] |= now or (one == who and before)
        try:
            waiting[who] = running[who].send(got)
        except StopIteration as end:
            lies += end.value == FULL and not been_full[who]
            del running[who], waiting[who]
    return lies, memory


@pytest.mark.parametrize(
    "model", [one for one in MODELS if one.broken and not one.tso], ids=lambda model: model.name
)
def test_a_schedule_replayed_by_hand_does_what_is_said_of_it(model):
    result = search(model)
    lies, memory = replay(model, [move.thread for move in result.schedule])
    assert memory == result.memory
    assert lies == 1 if model.full else model.stranded(memory)


def test_no_shorter_schedule_exists():
    model = next(one for one in MODELS if one.name == "tap-early-full")
    shortest = len(search(model).schedule)
    for length in range(1, shortest):
        for order in itertools.product(model.threads, repeat=length):
            played = replay(model, order)
            assert played is None or played[0] == 0


def store_then_load(mine, other):
    def run():
        yield store(mine, 1)
        seen = yield load(other)
        return "" if seen else FULL

    return run


def with_fence(mine, other):
    def run():
        yield store(mine, 1)
        yield fence()
        seen = yield load(other)
        return "" if seen else FULL

    return run


def both_miss(body, *, tso):
    model = Model(
        "sb",
        "",
        "",
        {"x": 0, "y": 0, "missed": 0},
        {"A": [("a", _noting(body("x", "y")))], "B": [("b", _noting(body("y", "x")))]},
        stranded=lambda memory: memory["missed"] == 2,
        tso=tso,
    )
    return search(model).schedule is not None


def _noting(body):
    from xdpctl.lab.ringrace.steps import add

    def run():
        if (yield from body()) == FULL:
            yield add("missed")
        return ""

    return run


def test_a_store_buffer_lets_both_threads_miss_the_other_unless_there_is_a_fence():
    assert not both_miss(store_then_load, tso=False)
    assert both_miss(store_then_load, tso=True)
    assert not both_miss(with_fence, tso=True)


def test_a_thread_sees_its_own_store_before_others_do():
    def own():
        yield store("x", 1)
        return "" if (yield load("x")) else FULL

    model = Model("own", "", "", {"x": 0}, {"A": [("a", own)]}, full=lambda _: False, tso=True)
    assert search(model).schedule is None


def test_threads_that_wait_for_each_other_are_told():
    def first():
        yield lock("a")
        yield lock("b")
        yield unlock("b")
        return ""

    def second():
        yield lock("b")
        yield wait("a", 0)
        return ""

    model = Model("dead", "", "", {"a": 0, "b": 0}, {"A": [("a", first)], "B": [("b", second)]})
    assert search(model).verdict == "deadlocks"


def test_a_bound_that_is_too_small_proves_nothing():
    result = search(MODELS[1], limit=100)
    assert (result.complete, result.verdict, result.schedule) == (False, "unknown", None)


def test_a_long_run_of_one_thread_is_told_as_its_calls():
    result = search(next(one for one in MODELS if one.name == "buf-ring-rechecked-wrapped"))
    told = lines(result.schedule)
    assert [who for _, who, _ in told] == ["A", "B", "A", "B", "A", "B", "A"]
    assert told[-1][2].endswith(": full")
    assert sum(who == "A" for _, who, _ in told) == 4
    assert all(".." in at for at, who, _ in told if who == "B")
    assert len(result.schedule) > LONG_RUN


def test_the_bound_is_told_with_threads_calls_and_memory():
    assert bound(buf_ring.MODELS[0]) == "2 threads, 4 + 4 calls, sequential consistency"
    assert bound(MODELS[-1]).endswith("(TSO)")
    assert ptr_ring.full({**ptr_ring.CONSUMED, "queue[0]": 1})


def test_the_program_in_c_needs_a_compiler_and_says_so(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Exception, match="there is no C compiler"), live.compiled():
        pass
