"""What can be in a program's registers at each call, told by following its instructions without running them.

A small abstract interpreter over ``struct bpf_insn``: a register holds a set of at most `MAX_ALTERNATIVES` known
things (a constant, a map, the address or value of a global, a field of the context, ...), or something unknown.
Where paths meet, the sets are joined; what can't be followed becomes unknown, never a guess. Functions are
followed with the arguments of each call. The work is bounded: `analyse` gives up (complete=False) rather than
take longer than the verifier would.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.obj.code import CALL, EXIT, LD_IMM64, PSEUDO_CALL
from xdpctl.obj.helpers import HELPER_NUMBERS, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdpctl.obj.code import Function, Instruction, Section

MAX_ALTERNATIVES = 8
MAX_STEPS = 400_000
"""Instructions followed in one object, revisits included: some seconds of work. The largest public objects (tail
calls of 38,000 instructions) take 53,000."""
MAX_CALL_DEPTH = 8
"""Frames, as the verifier's MAX_CALL_FRAMES."""

U64 = (1 << 64) - 1
U32 = (1 << 32) - 1


class Known(NamedTuple):
    """One thing that a register may hold."""

    kind: str
    """const, map, data (address of a global), value (of a global), stack (address), context (address), field (of the
    context), lookup (address of a map's value), entry (something read from a map's value), call (what a helper
    returned), fib (ifindex that bpf_fib_lookup found), redirect (what a redirect helper returned), other
    (unknown, but not an address of the stack)."""
    name: str = ""
    """Map, section or helper."""
    number: int = 0
    """The constant, or an offset in bytes."""
    size: int = 0
    """Bytes that were loaded; 0 for addresses."""
    indexed: bool = False
    """An unknown index was added to the offset."""
    shifted: bool = False
    """In the upper half of the register: the first half of ``x << 32 >> 32``."""


OTHER = Known("other")
Value = frozenset[Known] | None
"""None: anything, an address of the stack included."""
UNKNOWN: Value = frozenset((OTHER,))

_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
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


class State(NamedTuple):
    """Registers r0 to r10 and the known slots of the stack."""

    registers: tuple[Value, ...]
    stack: dict[int, tuple[int, Value]]
    """Offset from the frame pointer -> (bytes, value)."""


class CallSite(NamedTuple):
    """What a helper of interest was called with, all paths together."""

    section: str
    instruction: int
    helper: int
    arguments: tuple[Value, ...]
    """r1 to r5."""


@dataclass(slots=True)
class Flow:
    """What following a program told."""

    visited: set[tuple[str, int]] = field(default_factory=set)
    """Section and index of each instruction that some path reaches."""
    calls: dict[tuple[str, int], CallSite] = field(default_factory=dict)
    """By section and instruction index."""
    returns: Value = frozenset()
    complete: bool = True
    """False: given up; every call is there then, with nothing known of its arguments."""


@dataclass(slots=True)
class Steps:
    """What is left of `MAX_STEPS`; shared by the programs of an object."""

    left: int = MAX_STEPS


class _TooMuch(Exception):  # noqa: N818 - a way out of the walk, no error
    pass


@dataclass(slots=True)
class _Walk:
    sections: dict[str, Section]
    flow: Flow
    frozen: Callable[[str, int, int], int | None] | None
    steps: Steps
    leaders: dict[str, set[int]] = field(default_factory=dict)
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
            if all((section, start) != (one.section, one.start) for section, start, _ in list(walk.returned)):
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


def join(one: Value, other: Value) -> Value:
    """Everything that either may be."""
    if one is other:
        return one
    if one is None or other is None:
        return None
    both = one | other
    if len(both) <= MAX_ALTERNATIVES:
        return both
    return None if any(known.kind == "stack" for known in both) else UNKNOWN


def _function(walk: _Walk, section: str, start: int, arguments: tuple[Value, ...], depth: int) -> Value:
    """Follow one function until nothing changes any more; what it may return."""
    key = (section, start, arguments)
    if key in walk.returned:
        return walk.returned[key]
    code = walk.sections.get(section)
    if code is None or depth > MAX_CALL_DEPTH:
        return UNKNOWN
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


def _with(state: State, register: int, value: Value) -> State:
    registers = list(state.registers)
    if register < len(registers):
        registers[register] = value
    return State(tuple(registers), state.stack)


def _register(state: State, number: int) -> Value:
    return state.registers[number] if number < 11 else None


def _step(
    walk: _Walk, code: Section, at: int, one: Instruction, state: State, depth: int
) -> list[tuple[int, State]]:
    """Where execution goes on after one instruction, and with what."""
    kind = one.opcode & 7
    if kind in (4, 7):
        return [(at + 1, _with(state, one.dst, _arithmetic(one, state, wide=kind == 7)))]
    if kind in (5, 6):
        return _jump(walk, code, at, one, state, depth)
    if kind == 1:
        return [(at + 1, _with(state, one.dst, _load(walk, state, one)))]
    if kind in (2, 3):
        return [(at + 1, _store(state, one))]
    if one.opcode == LD_IMM64:
        return [(at + 2, _with(state, one.dst, _immediate(code, at, one)))]
    # LD_ABS, LD_IND: packet access of old socket filters
    registers = (UNKNOWN, *([UNKNOWN] * 5), *state.registers[6:])
    return [(at + 1, State(registers, state.stack))]


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


def _arithmetic(one: Instruction, state: State, *, wide: bool) -> Value:
    operation = one.opcode & 0xF0
    left = _register(state, one.dst)
    if operation in (0xD0, 0x80):  # byte swap, negation
        return UNKNOWN
    right: Value
    if one.opcode & 8:
        right = _register(state, one.src)
    else:
        right = frozenset((Known("const", "", one.imm & (U64 if wide else U32)),))
    if operation == 0xB0:
        if one.offset:  # sign-extending move
            return UNKNOWN
        return right if wide else _truncate(right)
    if left is None or right is None:
        return None if wide and operation in (0x00, 0x10) else UNKNOWN
    found: set[Known] = set()
    for first in left:
        for second in right:
            result = _operate(operation, first, second, wide=wide)
            if result is None:
                return None
            found.add(result)
    return frozenset(found) if len(found) <= MAX_ALTERNATIVES else UNKNOWN


def _truncate(value: Value) -> Value:
    """A 32-bit move: constants are cut, values of at most 4 bytes stay, addresses are lost."""
    if value is None:
        return UNKNOWN
    kept = {
        Known("const", "", one.number & U32)
        if one.kind == "const"
        else one
        if _narrow(one) and not one.shifted
        else OTHER
        for one in value
    }
    return frozenset(kept)


def _operate(operation: int, first: Known, second: Known, *, wide: bool) -> Known | None:
    """One operation on two known things; None: something that may be an address of the stack."""
    if first.kind == second.kind == "const":
        return _fold(operation, first.number, second.number, wide=wide)
    if operation == 0x00 and second.kind in ("stack", "data", "lookup", "context"):
        first, second = second, first
    if operation in (0x00, 0x10) and wide and first.kind in ("stack", "data", "lookup", "context"):
        if second.kind == "const":
            delta = second.number - (1 << 64) if second.number >> 63 else second.number
            return first._replace(number=first.number + (delta if operation == 0x00 else -delta))
        if first.kind == "stack":
            return None
        return first._replace(indexed=True) if operation == 0x00 and first.kind != "context" else OTHER
    # without 32-bit registers compilers write (u32)x as x << 32 >> 32
    if wide and second == Known("const", "", 32) and _narrow(first):
        if operation == 0x60 and not first.shifted:
            return first._replace(shifted=True)
        if operation in (0x70, 0xC0) and first.shifted:
            return first._replace(shifted=False)
    if operation == 0x50 and second.kind == "const" and first.size and not first.shifted:
        bits = (1 << 8 * first.size) - 1
        if second.number & bits == bits:
            return first
    return OTHER


def _narrow(one: Known) -> bool:
    """It fits 32 bits, so that cutting it to them changes nothing."""
    return 0 < one.size <= 4 or one.kind in ("call", "fib", "redirect")


def _fold(operation: int, first: int, second: int, *, wide: bool) -> Known:
    mask, bits = (U64, 64) if wide else (U32, 32)
    first, second = first & mask, second & mask
    match operation:
        case 0x00:
            value = first + second
        case 0x10:
            value = first - second
        case 0x20:
            value = first * second
        case 0x40:
            value = first | second
        case 0x50:
            value = first & second
        case 0x60:
            value = first << (second % bits)
        case 0x70:
            value = first >> (second % bits)
        case 0xA0:
            value = first ^ second
        case 0xC0:
            signed = first - (1 << bits) if first >> (bits - 1) else first
            value = signed >> (second % bits)
        case _:
            return OTHER
    return Known("const", "", value & mask)


def _load(walk: _Walk, state: State, one: Instruction) -> Value:
    if one.opcode & 0xE0 not in (0x60, 0x80):
        return UNKNOWN
    size = _SIZES[one.opcode & 0x18]
    base = _register(state, one.src)
    if base is None:
        return None
    found: set[Known] = set()
    for address in base:
        offset = address.number + one.offset
        if address.kind == "stack":
            slot = state.stack.get(offset)
            if slot is None or slot[0] != size or slot[1] is None:
                return None  # never written, or not as a whole: it may be part of anything
            found |= slot[1]
        elif address.kind == "data":
            constant = None
            if walk.frozen is not None and not address.indexed:
                constant = walk.frozen(address.name, offset, size)
            if constant is not None:
                found.add(Known("const", "", constant))
            else:
                found.add(Known("value", address.name, offset, size, address.indexed))
        elif address.kind == "lookup":
            found.add(Known("entry", address.name, offset, size, address.indexed))
        elif address.kind == "context":
            found.add(Known("field", "", offset, size))
        else:
            found.add(OTHER)
    return frozenset(found) if len(found) <= MAX_ALTERNATIVES else UNKNOWN


def _forget(stack: dict[int, tuple[int, Value]], start: int, end: int) -> dict[int, tuple[int, Value]]:
    """Without the slots that overlap [start, end)."""
    return {at: slot for at, slot in stack.items() if at + slot[0] <= start or at >= end}


def _store(state: State, one: Instruction) -> State:
    size = _SIZES[one.opcode & 0x18]
    base = _register(state, one.dst)
    is_atomic = one.opcode & 0xE0 == 0xC0 and one.opcode & 7 == 3
    value: Value
    if one.opcode & 7 == 2:
        value = frozenset((Known("const", "", one.imm & ((1 << 8 * size) - 1)),))
    else:
        value = _register(state, one.src)
        if size < 8 and value is not None:
            value = frozenset(
                known
                if not known.shifted and (0 < known.size <= size or (size == 4 and _narrow(known)))
                else Known("const", "", known.number & ((1 << 8 * size) - 1))
                if known.kind == "const"
                else OTHER
                for known in value
            )
    if is_atomic:
        value = UNKNOWN
    stack = state.stack
    if base is None:
        stack = {}
    else:
        places = [known.number + one.offset for known in base if known.kind == "stack"]
        if len(places) == 1 and len(base) == 1:
            stack = _forget(stack, places[0], places[0] + size)
            stack[places[0]] = (size, value)
        else:
            for place in places:
                stack = _forget(stack, place, place + size)
    after = State(state.registers, stack)
    if is_atomic and one.imm & 1:  # BPF_FETCH
        after = _with(after, 0 if one.imm & 0xF0 == 0xF0 else one.src, UNKNOWN)
    return after


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
    taken = _decided(one, state)
    if taken is not None:
        return [(target if taken else at + 1, state)]
    if operation in (0x10, 0x50) and not one.opcode & 8 and one.opcode & 7 == 5:
        # equal (not equal) to a constant: on that way the register holds it
        held: Value = frozenset((Known("const", "", one.imm & U64),))
        value = _register(state, one.dst)
        exact = _with(state, one.dst, held) if value == UNKNOWN else state
        if operation == 0x10:
            return [(at + 1, state), (target, exact)]
        return [(at + 1, exact), (target, state)]
    return [(at + 1, state), (target, state)]


def _decided(one: Instruction, state: State) -> bool | None:
    """Whether a branch is taken, where both sides are constants."""
    left = _constant(_register(state, one.dst))
    right = _constant(_register(state, one.src)) if one.opcode & 8 else one.imm & U64
    if left is None or right is None:
        return None
    bits = 64 if one.opcode & 7 == 5 else 32
    mask = (1 << bits) - 1
    left, right = left & mask, right & mask
    signed_left = left - (1 << bits) if left >> (bits - 1) else left
    signed_right = right - (1 << bits) if right >> (bits - 1) else right
    return {
        0x10: left == right,
        0x20: left > right,
        0x30: left >= right,
        0x40: bool(left & right),
        0x50: left != right,
        0x60: signed_left > signed_right,
        0x70: signed_left >= signed_right,
        0xA0: left < right,
        0xB0: left <= right,
        0xC0: signed_left < signed_right,
        0xD0: signed_left <= signed_right,
    }.get(one.opcode & 0xF0)


def _constant(value: Value) -> int | None:
    if value is not None and len(value) == 1:
        (known,) = value
        if known.kind == "const":
            return known.number
    return None


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
    return {**_forget(stack, at, at + 4), at: (4, frozenset((Known("fib"),)))}


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
