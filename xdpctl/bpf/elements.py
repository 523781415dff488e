"""The elements of a map in the kernel, as bytes (BPF_MAP_LOOKUP_ELEM and its kin, BPF_MAP_*_BATCH; bpf.h)."""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import TYPE_CHECKING

from xdpctl.bpf.failure import map_failed
from xdpctl.errors import MapError
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import MapBatchOpts

if TYPE_CHECKING:
    from collections.abc import Iterator


@lru_cache(maxsize=1)
def possible_cpus() -> int:
    """CPUs that may ever come up (/sys/devices/system/cpu/possible): the slots of a per-CPU value."""
    return int(lib().libbpf_num_possible_cpus())


class Elements:
    """The keys and values of a map in the kernel, as bytes.

    Attributes:
        fd: file descriptor of the map.
        key_bytes: of one key.
        value_bytes: of one value as system calls carry it: for a per-CPU map, possible CPUs x the value's size
            rounded up to 8.
    """

    __slots__ = ("_name", "fd", "key_bytes", "value_bytes")

    def __init__(self, fd: int, name: str, kind: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self._name = name
        self.key_bytes = key_size
        self.value_bytes = value_size
        if kind in uapi.PER_CPU_MAP_TYPES:
            self.value_bytes = (value_size + 7 & ~7) * possible_cpus()
        elif uapi.name_of(uapi.MAP_TYPES, kind) in {"array_of_maps", "hash_of_maps", "prog_array"}:
            self.value_bytes = 4

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_bytes:
            raise MapError(f"map {self._name}: a key has {self.key_bytes} bytes, not {len(key)}")
        return key

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None where the key is not there."""
        value = memory.buffer(self.value_bytes)
        try:
            lib().bpf_map_lookup_elem(self.fd, self._key(key), value)
        except CallError as why:
            if why.code == errno.ENOENT:
                return None
            raise map_failed(f"lookup in map {self._name}", why) from why
        return value.raw[: self.value_bytes]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write a value (uapi.BPF_ANY, BPF_NOEXIST, BPF_EXIST)."""
        if len(value) != self.value_bytes:
            raise MapError(f"map {self._name}: a value has {self.value_bytes} bytes, not {len(value)}")
        try:
            lib().bpf_map_update_elem(self.fd, self._key(key), value, flags)
        except CallError as why:
            raise map_failed(f"update of map {self._name}", why) from why

    def delete(self, key: bytes) -> bool:
        """Remove a key; False where it was not there."""
        try:
            lib().bpf_map_delete_elem(self.fd, self._key(key))
        except CallError as why:
            if why.code == errno.ENOENT:
                return False
            raise map_failed(f"delete in map {self._name}", why) from why
        return True

    def keys(self) -> Iterator[bytes]:
        """Every key. Where the map changes meanwhile, some may be missed or come twice."""
        key: bytes | None = None
        while True:
            following = memory.buffer(self.key_bytes)
            try:
                lib().bpf_map_get_next_key(self.fd, key, following)
            except CallError as why:
                if why.code == errno.ENOENT:
                    return
                raise map_failed(f"walk of map {self._name}", why) from why
            key = following.raw[: self.key_bytes]
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and its value; what goes away meanwhile is left out. In batches where the kernel can (5.6)."""
        found = self._batches()
        if found is None:
            for key in self.keys():
                value = self.lookup(key)
                if value is not None:
                    yield key, value
            return
        yield from found

    def _batches(self) -> list[tuple[bytes, bytes]] | None:
        room = max(1, min(4096, 2**20 // max(1, self.value_bytes)))
        found: list[tuple[bytes, bytes]] = []
        cursor: memory.Buffer | None = None
        opts = MapBatchOpts()
        while True:
            keys, values = memory.buffer(room * self.key_bytes), memory.buffer(room * self.value_bytes)
            # a hash keeps a u32 in the cursor whatever the key's size (generic_map_lookup_batch keeps a key)
            following, count, ended = memory.buffer(max(self.key_bytes, 8)), memory.U32(room), False
            try:
                lib().bpf_map_lookup_batch(self.fd, cursor, following, keys, values, count, opts)
            except CallError as why:
                if why.code == errno.ENOENT:
                    ended = True
                elif why.code == errno.ENOSPC and room < 2**20:  # a hash bucket longer than the room
                    room *= 4
                    continue
                else:
                    return None
            flat_keys, flat_values = keys.raw, values.raw
            found += (
                (
                    flat_keys[at * self.key_bytes : (at + 1) * self.key_bytes],
                    flat_values[at * self.value_bytes : (at + 1) * self.value_bytes],
                )
                for at in range(count.value)
            )
            if ended:
                return found
            cursor = following
