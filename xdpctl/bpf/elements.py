"""The elements of a map in the kernel, as bytes (BPF_MAP_LOOKUP_ELEM and its kin; bpf.h)."""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import TYPE_CHECKING

from xdpctl.bpf.refused import operation_failed
from xdpctl.errors import MapError
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpctl.errors import KernelError

DESCRIPTORS = frozenset("prog_array array_of_maps hash_of_maps perf_event_array cgroup_array".split())
"""Types whose value is a file descriptor when written, and an id when read (where it can be read)."""


@lru_cache(maxsize=1)
def possible_cpus() -> int:
    """CPUs that may ever come up (/sys/devices/system/cpu/possible): the slots of a per-CPU value."""
    return int(lib().libbpf_num_possible_cpus())


class Elements:
    """The keys and values of a map in the kernel, as bytes.

    Attributes:
        fd: file descriptor of the map.
        label: name of the map, for errors.
        type: of the map.
        key_bytes: of one key; 0 for a queue, stack or bloom filter.
        value_bytes: of one value as system calls carry it: for a per-CPU map, possible CPUs x the value's size
            rounded up to 8.
        key_text: how a key is written in errors.
        one_by_one: names of batch operations that this map has not, found out by trying.
    """

    __slots__ = ("fd", "key_bytes", "key_text", "label", "one_by_one", "type", "value_bytes")

    def __init__(self, fd: int, name: str, kind: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self.label = name
        self.type = uapi.name_of(uapi.MAP_TYPES, kind)
        self.key_bytes = key_size
        self.value_bytes = value_size
        self.key_text: Callable[[bytes], str] = lambda key: f"0x{key.hex()}"
        self.one_by_one: set[str] = set()
        if kind in uapi.PER_CPU_MAP_TYPES:
            self.value_bytes = (value_size + 7 & ~7) * possible_cpus()
        elif self.type in DESCRIPTORS:
            self.value_bytes = 4

    def failed(self, operation: str, why: CallError, key: bytes | None = None) -> KernelError:
        """The error for a refused operation, see `refused.operation_failed`."""
        from xdpctl.bpf import query

        try:
            room = query.map_info(self.fd).max_entries
        except CallError:
            room = None
        shown = self.key_text(key) if key is not None else None
        return operation_failed(operation, why, name=self.label, kind=self.type, room=room, key=shown)

    def check_key(self, key: bytes) -> bytes:
        """The key, if it has the right size.

        Raises:
            MapError: it has not.
        """
        if len(key) != self.key_bytes:
            raise MapError(f"map {self.label}: a key has {self.key_bytes} bytes, not {len(key)}")
        return key

    def check_value(self, value: bytes) -> bytes:
        """The value, if it has the right size.

        Raises:
            MapError: it has not.
        """
        if len(value) != self.value_bytes:
            raise MapError(f"map {self.label}: a value has {self.value_bytes} bytes, not {len(value)}")
        return value

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None where the key is not there."""
        value = memory.buffer(self.value_bytes)
        try:
            lib().bpf_map_lookup_elem(self.fd, self.check_key(key), value)
        except CallError as why:
            if why.code == errno.ENOENT:
                return None
            raise self.failed("lookup", why, key) from why
        return value.raw[: self.value_bytes]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write a value (uapi.BPF_ANY, BPF_NOEXIST, BPF_EXIST)."""
        self.check_value(value)
        try:
            lib().bpf_map_update_elem(self.fd, self.check_key(key), value, flags)
        except CallError as why:
            raise self.failed("update", why, key) from why

    def delete(self, key: bytes) -> bool:
        """Remove a key; False where it was not there."""
        try:
            lib().bpf_map_delete_elem(self.fd, self.check_key(key))
        except CallError as why:
            if why.code == errno.ENOENT:
                return False
            raise self.failed("delete", why, key) from why
        return True

    def push(self, value: bytes, flags: int = 0) -> None:
        """Add to a queue, stack (BPF_EXIST: at the cost of the oldest where it is full) or bloom filter."""
        self.check_value(value)
        try:
            lib().bpf_map_update_elem(self.fd, None, value, flags)
        except CallError as why:
            raise self.failed("push", why) from why

    def pop(self) -> bytes | None:
        """Take the next value off a queue or stack, or None where it is empty."""
        return self._take("bpf_map_lookup_and_delete_elem", "pop")

    def peek(self) -> bytes | None:
        """The next value of a queue or stack, left there, or None where it is empty."""
        return self._take("bpf_map_lookup_elem", "peek")

    def _take(self, function: str, operation: str) -> bytes | None:
        value = memory.buffer(self.value_bytes)
        try:
            getattr(lib(), function)(self.fd, None, value)
        except CallError as why:
            if why.code == errno.ENOENT:
                return None
            raise self.failed(operation, why) from why
        return value.raw[: self.value_bytes]

    def holds(self, value: bytes) -> bool:
        """Whether a bloom filter may hold the value; False is certain."""
        self.check_value(value)
        try:
            lib().bpf_map_lookup_elem(self.fd, None, memory.buffer(self.value_bytes, value))
        except CallError as why:
            if why.code == errno.ENOENT:
                return False
            raise self.failed("lookup", why) from why
        return True

    def next_key(self, key: bytes | None) -> bytes | None:
        """The key after `key` (None: the first), or None behind the last.

        A hash whose `key` is gone starts again from its first key.
        """
        following = memory.buffer(self.key_bytes)
        try:
            lib().bpf_map_get_next_key(self.fd, key, following)
        except CallError as why:
            if why.code == errno.ENOENT:
                return None
            raise self.failed("walk", why) from why
        return following.raw[: self.key_bytes]

    def keys(self) -> Iterator[bytes]:
        """Every key once, also while the map changes; see `walk.keys`."""
        from xdpctl.bpf import walk

        return walk.keys(self)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and its value once; what goes away meanwhile is left out. In batches where the kernel can (5.6)."""
        from xdpctl.bpf import batch

        for one in batch.read(self):
            yield from one.pairs()
