"""What can be in a program's registers at each call, told by following its instructions without running them.

A small abstract interpreter over ``struct bpf_insn``: a register holds a set of known things (`obj.registers`: a
constant, a map, the address or value of a global, a field of the context, ...), or something unknown. Where paths
meet, the sets are joined; what can't be followed becomes unknown, never a guess. Functions are
followed with the arguments of each call. The work is bounded: `analyse` gives up (complete=False) rather than
take longer than the verifier would.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.obj.code import CALL, EXIT, LD_IMM64, PSEUDO_CALL
from xdpctl.obj.helpers import HELPER_NUMBERS, helper
from xdpctl.obj.registers import (
    OTHER,
    SIZES,
    U32,
    U64,
    UNKNOWN,
    Known,
    State,
    Value,
    arithmetic,
    decided,
    forget,
    join,
    load,
    register,
    store,
    with_register,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdpctl.obj.code import Function, Instruction, Section

MAX_STEPS = 400_000
"""Instructions followed in one object, revisits included: some seconds of work. The largest public objects (tail
calls of 38,000 instructions) take 53,000."""
MAX_CALL_DEPTH = 8
"""Frames, as the verifier's MAX_CALL_FRAMES."""

_READS_ONLY = frozenset(
    HELPER_NUMBERS[f"bpf_{name}"]
    for name in (
        "map_lookup_elem map_update_elem map_delete_elem map_push_elem perf_event_output ringbuf_output trace_printk"
        " skb_store_bytes csum_diff redirect_neigh skb_set_tunnel_key skb_set_tunnel_opt map_lookup_percpu_elem"
        " xdp_store_bytes skb_output xdp_output trace_vprintk sk_lookup_tcp sk_lookup_udp skc_lookup_tcp"
    ).split()
)
"""Helpers that take an address of the stack and don't write through it."""
_LOOKUPS = frozenset((HELPER_NUMBERS["bpf_map_lookup_elem"], HELPER_NUMBERS["bpf_map_lookup_percpu_elem"]))
_FIB_LOOKUP = HELPER_NUMBERS["bpf_fib_lookup"]
_FIB_IFINDEX = 8
"""offsetof(struct bpf_fib_lookup, ifindex)."""
REDIRECTS = {
    HELPER_NUMBERS[name]: name
    for name in (
        "bpf_redirect",
        "bpf_redirect_map",
        "bpf_redirect_peer",
        "bpf_redirect_neigh",
        "bpf_clone_redirect",
    )
}
TAIL_CALL = HELPER_NUMBERS["bpf_tail_call"]


class CallSite(NamedTuple):
    """What a helper of interest was called with, all paths together."""

    section: str
    instruction: int
    helper: int
    arguments: tuple[Value, ...]
    """r1 to r5."""


class Counted(NamedTuple):
    """A number in a map's value that a program adds to: atomically, or by reading, adding and writing it back."""

    map: str
    offset: int
    """Bytes from the start of the value."""
    size: int
    indexed: bool
    """An unknown index was added to the offset: an array of such numbers."""


@dataclass(eq=False, repr=False)
class Flow:
    """What following a program told."""

    visited: set[tuple[str, int]] = field(default_factory=set)
    """Section and index of each instruction that some path reaches."""
    calls: dict[tuple[str, int], CallSite] = field(default_factory=dict)
    """By section and instruction index."""
    counted: set[Counted] = field(default_factory=set)
    """Numbers in maps' values that some path adds to."""
    returns: Value = frozenset()
    complete: bool = True
    """False: given up; every call is there then, with nothing known of its arguments."""


@dataclass(eq=False, repr=False)
class Steps:
    """What is left of `MAX_STEPS`; shared by the programs of an object."""

    left: int = MAX_STEPS


class _TooMuch(Exception):  # noqa: N818 - a way out of the walk, no error
    pass


@dataclass(eq=False, repr=False)
class _Walk:
    sections: dict[str, Section]
    flow: Flow
    frozen: Callable[[str, int, int], int | None] | None
    steps: Steps
    leaders: dict[str, set[int]] = field(default_factory=dict)
    entered: set[tuple[str, int]] = field(default_factory=set)
    returned: dict[tuple[str, int, tuple[Value, ...]], Value] = field(default_factory=dict)


def analyse(
    sections: dict[str, Section],
    functions: Sequence[Function],
    *,
    frozen: Callable[[str, int, int], int | None] | None = None,
    steps: Steps | None = None,
) -> Flow:
    """Follow a program from its first instruction, with the context in r1.

    Args:
        sections: the object's code.
        functions: the program, and what it may call: callbacks among these, which no call instruction enters, are
            followed as well, with nothing known of their arguments.
        frozen: (section, offset, size) -> value of read-only data, where branches on it are to be decided as the
            verifier does; the section of an extern is ``extern NAME``.
        steps: how much work may be done, by default `MAX_STEPS` instructions.
    """
    flow = Flow()
    walk = _Walk(sections, flow, frozen, steps or Steps())
    try:
        arguments: tuple[Value, ...] = (frozenset((Known("context"),)), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
        flow.returns = _function(walk, functions[0].section, functions[0].start, arguments, 0)
        for one in functions[1:]:
            if (one.section, one.start) not in walk.entered:
                _function(walk, one.section, one.start, (UNKNOWN,) * 5, 0)
    except _TooMuch:
        flow.complete = False
        flow.returns = None
        flow.calls = {
            (one.section, index): CallSite(one.section, index, number, (None,) * 5)
            for one in functions
            for index, number in _calls_of_interest(sections[one.section], one)
        }
    return flow


def _calls_of_interest(code: Section, function: Function) -> Iterator[tuple[int, int]]:
    for index in range(function.start, function.end):
        one = code.instructions[index]
        if one.opcode == CALL and one.src == 0 and (one.imm in REDIRECTS or one.imm == TAIL_CALL):
            yield index, one.imm


def _function(walk: _Walk, section: str, start: int, arguments: tuple[Value, ...], depth: int) -> Value:
    """Follow one function until nothing changes any more; what it may return."""
    key = (section, start, arguments)
    if key in walk.returned:
        return walk.returned[key]
    code = walk.sections.get(section)
    if code is None or depth > MAX_CALL_DEPTH:
        return UNKNOWN
    walk.entered.add((section, start))
    walk.returned[key] = UNKNOWN  # recursion, which the verifier refuses anyhow
    if section not in walk.leaders:
        walk.leaders[section] = _leaders(code)
    leaders = walk.leaders[section]
    registers: tuple[Value, ...] = (
        UNKNOWN,
        *arguments,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        UNKNOWN,
        frozenset((Known("stack"),)),
    )
    before: dict[int, State] = {start: State(registers, {})}
    # the lowest address first: code runs mostly forward, so most paths have met before a place is visited
    todo = [start]
    waiting = {start}
    result: Value = frozenset()
    while todo:
        at = heappop(todo)
        waiting.discard(at)
        state = before[at]
        while 0 <= at < len(code.instructions):  # else it falls off the end: the verifier's business
            walk.steps.left -= 1
            walk.flow.visited.add((section, at))
            if walk.steps.left < 0:
                raise _TooMuch
            instruction = code.instructions[at]
            if instruction.opcode == EXIT:
                result = join(result, state.registers[0])
                break
            targets = _step(walk, code, at, instruction, state, depth)
            if len(targets) == 1 and targets[0][0] not in leaders:
                at, state = targets[0]
                continue
            for target, after in targets:
                if _merge(before, target, after) and target not in waiting:
                    waiting.add(target)
                    heappush(todo, target)
            break
    walk.returned[key] = result
    return result


def _leaders(code: Section) -> set[int]:
    """Instructions that some jump goes to, where states have to be joined."""
    found = set()
    for index, one in enumerate(code.instructions):
        if one.opcode & 7 in (5, 6) and one.opcode not in (CALL, EXIT, 0x8D):
            found.add(index + 1 + (one.imm if one.opcode == 0x06 else one.offset))
            found.add(index + 1)
    return found


def _merge(before: dict[int, State], at: int, state: State) -> bool:
    """Join into what is known before an instruction; True if that changed it."""
    known = before.get(at)
    if known is None:
        before[at] = state
        return True
    registers, stack = known.registers, known.stack
    if registers != state.registers:
        registers = tuple(map(join, registers, state.registers))
    if stack is not state.stack and stack != state.stack:
        other = state.stack
        stack = {
            offset: slot if slot is other[offset] else (slot[0], join(slot[1], other[offset][1]))
            for offset, slot in stack.items()
            if offset in other and other[offset][0] == slot[0]
        }
    if registers == known.registers and stack == known.stack:
        return False
    before[at] = State(registers, stack)
    return True


def _step(
    walk: _Walk, code: Section, at: int, one: Instruction, state: State, depth: int
) -> list[tuple[int, State]]:
    """Where execution goes on after one instruction, and with what."""
    kind = one.opcode & 7
    if kind in (4, 7):
        return [(at + 1, with_register(state, one.dst, arithmetic(one, state, wide=kind == 7)))]
    if kind in (5, 6):
        return _jump(walk, code, at, one, state, depth)
    if kind == 1:
        return [(at + 1, with_register(state, one.dst, load(state, one, walk.frozen)))]
    if kind in (2, 3):
        if kind == 3:
            _count(walk.flow, one, state)
        return [(at + 1, store(state, one))]
    if one.opcode == LD_IMM64:
        return [(at + 2, with_register(state, one.dst, _immediate(code, at, one)))]
    # LD_ABS, LD_IND: packet access of old socket filters
    registers = (UNKNOWN, *([UNKNOWN] * 5), *state.registers[6:])
    return [(at + 1, State(registers, state.stack))]


def _count(flow: Flow, one: Instruction, state: State) -> None:
    """Note a store that adds to what a map's value held: an atomic add, or the sum of what was read there."""
    base = register(state, one.dst)
    if base is None:
        return
    is_atomic = one.opcode & 0xE0 == 0xC0
    if is_atomic and one.imm & ~1:  # other than BPF_ADD, with or without BPF_FETCH
        return
    value = register(state, one.src) or frozenset()
    for address in base:
        if address.kind != "lookup":
            continue
        offset = address.number + one.offset
        sums = (Known("grown", address.name, offset, 0, address.indexed) in value) if not is_atomic else True
        if sums:
            flow.counted.add(Counted(address.name, offset, SIZES[one.opcode & 0x18], address.indexed))


def _immediate(code: Section, at: int, one: Instruction) -> Value:
    reference = code.references.get(at)
    if reference is not None:
        if reference.kind == "map":
            return frozenset((Known("map", reference.name),))
        if reference.kind == "data":
            return frozenset((Known("data", reference.section, reference.offset),))
        if reference.kind == "extern":
            return frozenset((Known("data", f"extern {reference.name}"),))
        return UNKNOWN
    if one.src or at + 1 >= len(code.instructions):
        return UNKNOWN
    high = code.instructions[at + 1].imm
    return frozenset((Known("const", "", (high & U32) << 32 | one.imm & U32),))


def _jump(
    walk: _Walk, code: Section, at: int, one: Instruction, state: State, depth: int
) -> list[tuple[int, State]]:
    if one.opcode == CALL:
        return [(at + 1, _call(walk, code, at, one, state, depth))]
    if one.opcode == 0x8D:  # callx
        return [(at + 1, State((UNKNOWN, *([UNKNOWN] * 5), *state.registers[6:]), {}))]
    if one.opcode == 0x05:
        return [(at + 1 + one.offset, state)]
    if one.opcode == 0x06:  # gotol
        return [(at + 1 + one.imm, state)]
    target, operation = at + 1 + one.offset, one.opcode & 0xF0
    taken = decided(one, state)
    if taken is not None:
        return [(target if taken else at + 1, state)]
    if operation in (0x10, 0x50) and not one.opcode & 8 and one.opcode & 7 == 5:
        # equal (not equal) to a constant: on that way the register holds it
        held: Value = frozenset((Known("const", "", one.imm & U64),))
        value = register(state, one.dst)
        exact = with_register(state, one.dst, held) if value == UNKNOWN else state
        if operation == 0x10:
            return [(at + 1, state), (target, exact)]
        return [(at + 1, exact), (target, state)]
    return [(at + 1, state), (target, state)]


def _call(walk: _Walk, code: Section, at: int, one: Instruction, state: State, depth: int) -> State:
    arguments = state.registers[1:6]
    reference = code.references.get(at)
    stack = state.stack
    result: Value
    if one.src == PSEUDO_CALL and (reference is None or reference.kind == "function"):
        section, start = code.call_target(at, one.imm)
        # the callee's frame is another: our stack addresses mean nothing in it
        passed = tuple(_foreign(value) for value in arguments)
        result = _function(walk, section, start, passed, depth + 1)
        stack = _written(stack, arguments)
    elif one.src == 0 and reference is None:
        number = one.imm
        if number in REDIRECTS or number == TAIL_CALL:
            _record(walk, code, at, number, arguments)
        result = _result(number, arguments)
        if number not in _READS_ONLY:
            stack = _written(stack, arguments)
        if number == _FIB_LOOKUP:
            stack = _fib(stack, arguments[1])
    else:
        result = frozenset((Known("call", reference.name),)) if reference is not None else UNKNOWN
        stack = _written(stack, arguments)
    return State((result, *([UNKNOWN] * 5), *state.registers[6:]), stack)


def _foreign(value: Value) -> Value:
    if value is None:
        return None
    return frozenset(OTHER if known.kind == "stack" else known for known in value)


def _written(
    stack: dict[int, tuple[int, Value]], arguments: tuple[Value, ...]
) -> dict[int, tuple[int, Value]]:
    """What is left of the stack after a call that may write through its arguments, upwards from each."""
    if not stack:
        return stack
    lowest: int | None = None
    for value in arguments:
        if value is None:
            return {}
        for known in value:
            if known.kind == "stack":
                lowest = known.number if lowest is None else min(lowest, known.number)
    if lowest is None:
        return stack
    if any(value is None or any(known.kind == "stack" for known in value) for _, value in stack.values()):
        return {}  # an address in memory may have been followed
    return {at: slot for at, slot in stack.items() if at + slot[0] <= lowest}


def _fib(stack: dict[int, tuple[int, Value]], parameters: Value) -> dict[int, tuple[int, Value]]:
    if parameters is None or len(parameters) != 1:
        return stack
    (known,) = parameters
    if known.kind != "stack":
        return stack
    at = known.number + _FIB_IFINDEX
    return {**forget(stack, at, at + 4), at: (4, frozenset((Known("fib"),)))}


def _result(number: int, arguments: tuple[Value, ...]) -> Value:
    if number in _LOOKUPS:
        maps = arguments[0]
        if maps is None or any(known.kind != "map" for known in maps):
            return UNKNOWN
        return frozenset(Known("lookup", known.name) for known in maps)
    if number in REDIRECTS:
        returned = {Known("redirect")}
        flags = arguments[2] if REDIRECTS[number] == "bpf_redirect_map" else None
        # a failed bpf_redirect_map returns the action in the low bits of its flags
        for known in flags or ():
            returned.add(Known("const", "", known.number & 3) if known.kind == "const" else OTHER)
        return frozenset(returned)
    return frozenset((Known("call", helper(number)),))


def _record(walk: _Walk, code: Section, at: int, number: int, arguments: tuple[Value, ...]) -> None:
    key = (code.name, at)
    known = walk.flow.calls.get(key)
    if known is not None:
        arguments = tuple(join(one, other) for one, other in zip(known.arguments, arguments, strict=True))
    walk.flow.calls[key] = CallSite(code.name, at, number, arguments)
