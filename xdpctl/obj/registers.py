"""What a register of a BPF program may hold, and what one instruction makes of it, without running anything.

The abstract values of `obj.flow`, with the arithmetic, loads and stores of ``struct bpf_insn`` over them
(Documentation/bpf/standardization/instruction-set.rst). What can't be told is unknown, never a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.obj.code import Instruction

MAX_ALTERNATIVES = 8
U64 = (1 << 64) - 1
U32 = (1 << 32) - 1


class Known(NamedTuple):
    """One thing that a register may hold."""

    kind: str
    """const, map, data (address of a global), value (of a global), stack (address), context (address), field (of the
    context), lookup (address of a map's value), entry (something read from a map's value), grown (that, and something
    added to it), call (what a helper returned), fib (ifindex that bpf_fib_lookup found), redirect (what a redirect
    helper returned), other (unknown, but not an address of the stack)."""
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

SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
"""BPF_W, BPF_H, BPF_B, BPF_DW -> bytes."""


class State(NamedTuple):
    """Registers r0 to r10 and the known slots of the stack."""

    registers: tuple[Value, ...]
    stack: dict[int, tuple[int, Value]]
    """Offset from the frame pointer -> (bytes, value)."""


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


def with_register(state: State, register: int, value: Value) -> State:
    """The state after a register got a value."""
    registers = list(state.registers)
    if register < len(registers):
        registers[register] = value
    return State(tuple(registers), state.stack)


def register(state: State, number: int) -> Value:
    """What a register holds; a number that no register has: anything."""
    return state.registers[number] if number < 11 else None


def arithmetic(one: Instruction, state: State, *, wide: bool) -> Value:
    """What an ALU or ALU64 instruction leaves in its destination."""
    operation = one.opcode & 0xF0
    left = register(state, one.dst)
    if operation in (0xD0, 0x80):  # byte swap, negation
        return UNKNOWN
    right: Value
    if one.opcode & 8:
        right = register(state, one.src)
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
    if operation in (0x00, 0x10) and first.kind in ("entry", "grown"):
        return first._replace(kind="grown", size=0)
    if operation == 0x00 and second.kind in ("entry", "grown"):
        return second._replace(kind="grown", size=0)
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


def load(state: State, one: Instruction, frozen: Callable[[str, int, int], int | None] | None) -> Value:
    """What an LDX instruction loads."""
    if one.opcode & 0xE0 not in (0x60, 0x80):
        return UNKNOWN
    size = SIZES[one.opcode & 0x18]
    base = register(state, one.src)
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
            known = None
            if frozen is not None and not address.indexed:
                known = frozen(address.name, offset, size)
            if known is not None:
                found.add(Known("const", "", known))
            else:
                found.add(Known("value", address.name, offset, size, address.indexed))
        elif address.kind == "lookup":
            found.add(Known("entry", address.name, offset, size, address.indexed))
        elif address.kind == "context":
            found.add(Known("field", "", offset, size))
        else:
            found.add(OTHER)
    return frozenset(found) if len(found) <= MAX_ALTERNATIVES else UNKNOWN


def forget(stack: dict[int, tuple[int, Value]], start: int, end: int) -> dict[int, tuple[int, Value]]:
    """Without the slots that overlap [start, end)."""
    return {at: slot for at, slot in stack.items() if at + slot[0] <= start or at >= end}


def store(state: State, one: Instruction) -> State:
    """The state after ST, STX or an atomic operation."""
    size = SIZES[one.opcode & 0x18]
    base = register(state, one.dst)
    is_atomic = one.opcode & 0xE0 == 0xC0 and one.opcode & 7 == 3
    value: Value
    if one.opcode & 7 == 2:
        value = frozenset((Known("const", "", one.imm & ((1 << 8 * size) - 1)),))
    else:
        value = register(state, one.src)
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
            stack = forget(stack, places[0], places[0] + size)
            stack[places[0]] = (size, value)
        else:
            for place in places:
                stack = forget(stack, place, place + size)
    after = State(state.registers, stack)
    if is_atomic and one.imm & 1:  # BPF_FETCH
        after = with_register(after, 0 if one.imm & 0xF0 == 0xF0 else one.src, UNKNOWN)
    return after


def decided(one: Instruction, state: State) -> bool | None:
    """Whether a branch is taken, where both sides are constants."""
    left = constant(register(state, one.dst))
    right = constant(register(state, one.src)) if one.opcode & 8 else one.imm & U64
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


def constant(value: Value) -> int | None:
    """Whether a branch is taken, where both sides are constants."""
    if value is not None and len(value) == 1:
        (known,) = value
        if known.kind == "const":
            return known.number
    return None
