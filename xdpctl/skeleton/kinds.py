"""What each type of map holds and what user space may do with it (its ``struct bpf_map_ops`` in kernel/bpf)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Literal

    Keys = Literal["key", "index", "prefix", "none"]
    Holds = Literal["value", "program", "map", "device", "cpu", "descriptor", "records", "opaque"]


class Kind(NamedTuple):
    """One type of map."""

    type: str
    keys: Keys
    """key: any bytes; index: 0 to max_entries - 1; prefix: of an LPM trie; none: there are no keys."""
    holds: Holds
    """value: bytes of the program's own; descriptor: a socket or event of a process; records: what is only read."""
    can: frozenset[str]
    """Of lookup, update, delete, walk, push, pop, holds: what user space may do."""
    per_cpu: bool = False
    evicts: bool = False
    """A full one makes room by itself (LRU)."""
    note: str = ""
    """What user space has to know."""

    @property
    def deletes(self) -> bool:
        """Whether entries can be taken away; those of an array are set to zero instead."""
        return "delete" in self.can


_ALL = frozenset({"lookup", "update", "delete", "walk"})
_ARRAY = frozenset({"lookup", "update", "walk"})
_WRITE = frozenset({"update", "delete", "walk"})
_QUEUE = frozenset({"push", "pop"})
_LOCAL = "elements belong to a {}, whose descriptor is the key: they can't be listed"

KINDS = {
    one.type: one
    for one in (
        Kind("hash", "key", "value", _ALL),
        Kind("array", "index", "value", _ARRAY),
        Kind("percpu_hash", "key", "value", _ALL, per_cpu=True),
        Kind("percpu_array", "index", "value", _ARRAY, per_cpu=True),
        Kind("lru_hash", "key", "value", _ALL, evicts=True),
        Kind("lru_percpu_hash", "key", "value", _ALL, per_cpu=True, evicts=True),
        Kind("lpm_trie", "prefix", "value", _ALL, note="get finds the longest prefix that matches"),
        Kind("queue", "none", "value", _QUEUE, note="first in, first out"),
        Kind("stack", "none", "value", _QUEUE, note="last in, first out"),
        Kind("bloom_filter", "none", "value", frozenset({"push", "holds"}), note="nothing can be taken out"),
        Kind("prog_array", "index", "program", _ALL, note="emptied when no process and no pin holds it"),
        Kind("array_of_maps", "index", "map", _ALL),
        Kind("hash_of_maps", "key", "map", _ALL),
        Kind("devmap", "index", "device", _ALL),
        Kind("devmap_hash", "key", "device", _ALL),
        Kind("cpumap", "index", "cpu", _ALL),
        Kind("xskmap", "index", "descriptor", _WRITE, note="the kernel does not tell which slots are used"),
        Kind("sockmap", "index", "descriptor", _ALL),
        Kind("sockhash", "key", "descriptor", _ALL),
        Kind("reuseport_sockarray", "index", "descriptor", _ALL),
        Kind(
            "perf_event_array",
            "index",
            "descriptor",
            frozenset({"update", "delete"}),
            note="records are read",
        ),
        Kind("cgroup_array", "index", "descriptor", frozenset({"update", "delete"})),
        Kind("stack_trace", "index", "value", frozenset({"lookup", "delete", "walk"})),
        Kind("cgroup_storage", "key", "value", _ARRAY),
        Kind("percpu_cgroup_storage", "key", "value", _ARRAY, per_cpu=True),
        Kind("sk_storage", "index", "value", _ALL - {"walk"}, note=_LOCAL.format("socket")),
        Kind("inode_storage", "index", "value", _ALL - {"walk"}, note=_LOCAL.format("file")),
        Kind("task_storage", "index", "value", _ALL - {"walk"}, note=_LOCAL.format("process")),
        Kind("cgrp_storage", "index", "value", _ALL - {"walk"}, note=_LOCAL.format("cgroup")),
        Kind("ringbuf", "none", "records", frozenset(), note="records are read, by one reader"),
        Kind("user_ringbuf", "none", "opaque", frozenset(), note="user space sends, programs read"),
        Kind("struct_ops", "index", "opaque", frozenset({"lookup", "delete", "walk"})),
        Kind("arena", "none", "opaque", frozenset(), note="memory that is mapped"),
        Kind("insn_array", "index", "opaque", _ARRAY),
    )
}
"""By the type's name (uapi.MAP_TYPES)."""


def kind_of(type_name: str) -> Kind:
    """The kind of a type; one that is newer than this table is taken for a hash, the kernel refuses what it has not."""
    return KINDS.get(type_name) or Kind(type_name, "key", "value", _ALL)
