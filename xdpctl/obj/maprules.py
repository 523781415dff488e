"""What the kernel asks of a map's sizes: the ``map_alloc_check`` and ``map_alloc`` of each type, as a table.

Read in kernel/bpf/*map*.c, hashtab.c, lpm_trie.c, ringbuf.c, local_storage.c, arena.c and net/core/sock_map.c of
6.1 and 6.12; the checks have not become looser or stricter in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.obj.model import ObjMap

NO_PREALLOC = 0x01
MMAPABLE = 0x400
PERCPU_LIMIT = 32 << 10
"""PCPU_MIN_UNIT_SIZE: bytes of a per-CPU value."""
STACK_DEPTH = 127
"""Default of sysctl kernel.perf_event_max_stack."""

ANY = (1, 1 << 31)
NONE = (0, 0)


class MapRule(NamedTuple):
    """(lowest, highest) of each size, both included."""

    key: tuple[int, int] = ANY
    value: tuple[int, int] = ANY
    entries: tuple[int, int] = ANY
    flags: int = 0
    """Flags that must be set."""
    values: tuple[int, ...] = ()
    """Where set: the only value sizes."""


_FD_ARRAY = MapRule((4, 4), (4, 4))
_STORAGE = MapRule((4, 4), ANY, NONE, NO_PREALLOC)
RULES = {
    "hash": MapRule(),
    "percpu_hash": MapRule(value=(1, PERCPU_LIMIT)),
    "lru_hash": MapRule(),
    "lru_percpu_hash": MapRule(value=(1, PERCPU_LIMIT)),
    "array": MapRule((4, 4)),
    "percpu_array": MapRule((4, 4), (1, PERCPU_LIMIT)),
    "prog_array": _FD_ARRAY,
    "perf_event_array": _FD_ARRAY,
    "cgroup_array": _FD_ARRAY,
    "array_of_maps": _FD_ARRAY,
    "hash_of_maps": MapRule(value=(4, 4)),
    "stack_trace": MapRule((4, 4), (8, 8 * STACK_DEPTH)),
    "lpm_trie": MapRule((5, 260), flags=NO_PREALLOC),
    "devmap": MapRule((4, 4), values=(4, 8)),
    "devmap_hash": MapRule((4, 4), values=(4, 8)),
    "cpumap": MapRule((4, 4), values=(4, 8)),
    "xskmap": MapRule((4, 4), (4, 4)),
    "sockmap": MapRule((4, 4), values=(4, 8)),
    "sockhash": MapRule((1, 512), values=(4, 8)),
    "reuseport_sockarray": MapRule((4, 4), values=(4, 8)),
    "queue": MapRule(NONE),
    "stack": MapRule(NONE),
    "bloom_filter": MapRule(NONE),
    "ringbuf": MapRule(NONE, NONE),
    "user_ringbuf": MapRule(NONE, NONE),
    "sk_storage": _STORAGE,
    "inode_storage": _STORAGE,
    "task_storage": _STORAGE,
    "cgrp_storage": _STORAGE,
    "cgroup_storage": MapRule((8, 16), ANY, NONE),
    "percpu_cgroup_storage": MapRule((8, 16), (1, PERCPU_LIMIT), NONE),
    "arena": MapRule(NONE, NONE, flags=MMAPABLE),
}
"""By map type; a type that is not here is not judged."""

FILLED_BY_LIBBPF = frozenset(("perf_event_array",))
"""max_entries 0 becomes the number of possible CPUs."""


def broken(one: ObjMap) -> Iterator[tuple[str, str]]:
    """(what, why) of each rule that a map breaks: `what` is key, value, entries or flags."""
    rule = RULES.get(one.type)
    if rule is None:
        return
    if not rule.key[0] <= one.key_size <= rule.key[1]:
        yield "key", f"keys of {one.key_size} bytes, {one.type} takes {_range(rule.key)}"
    if rule.values and one.value_size not in rule.values:
        wanted = " or ".join(str(size) for size in rule.values)
        yield "value", f"values of {one.value_size} bytes, {one.type} takes {wanted}"
    elif not rule.values and not rule.value[0] <= one.value_size <= rule.value[1]:
        yield "value", f"values of {one.value_size} bytes, {one.type} takes {_range(rule.value)}"
    elif one.type == "stack_trace" and one.value_size % 8:
        yield "value", f"values of {one.value_size} bytes, {one.type} takes multiples of 8"
    if not rule.entries[0] <= one.max_entries <= rule.entries[1] and one.type not in FILLED_BY_LIBBPF:
        yield "entries", f"max_entries = {one.max_entries}, {one.type} takes {_range(rule.entries)}"
    if rule.flags & ~one.flags:
        wanted = "BPF_F_NO_PREALLOC" if rule.flags & NO_PREALLOC else "BPF_F_MMAPABLE"
        yield "flags", f"flags {one.flags:#x}, {one.type} needs {wanted}"


def _range(limits: tuple[int, int]) -> str:
    low, high = limits
    if low == high:
        return "none" if low == 0 else str(low)
    return f"{low} or more" if high >= 1 << 31 else f"{low} to {high}"
