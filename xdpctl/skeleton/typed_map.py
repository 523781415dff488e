"""A map as a Python mapping, typed by BTF: ``m[3] = 7``, ``m[key].packets``, ``for key, value in m.items()``.

| C | key | value |
|---|---|---|
| integers, enums, pointers, bool, float | as such | as such |
| char[N] | str | str |
| struct | named tuple | read-only view with attributes |
| per-CPU | | `PerCpu`, a list with ``.sum()`` |
| devmap, cpumap | int | `Slot`: an int (ifindex, queue size) with ``.program`` |
| prog_array, maps of maps | int | id; written as a program or map, an id, or the path of a pin |
| prefix of an LPM trie | ``"203.0.113.0/24"`` | |
| without BTF | bytes | bytes |

Numbers are as the program's C code sees them; text may be given wherever a key or value is, and is read as the command
line reads it (addresses, interface and enumerator names, ``hits=0,bytes=7``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.bpf import batch
from xdpctl.bpf.elements import possible_cpus
from xdpctl.errors import ConfigError, MapError
from xdpctl.libbpf import uapi
from xdpctl.skeleton.declared import by_users, declared
from xdpctl.skeleton.percpu import PerCpu
from xdpctl.skeleton.shape import Shape, btf_of, shape_of

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.bpf.elements import Elements
    from xdpctl.bpf.map import LoadedMap, Map
    from xdpctl.bpf.query import MapInfo
    from xdpctl.btf.parse import Btf
    from xdpctl.skeleton.records import Records

MANY = 1 << 14
"""Elements that `update_many` encodes before it writes them."""


class MissingKeyError(MapError, KeyError):
    """A key is not in the map (ENOENT); a KeyError too, as a mapping's is."""


class TypedMap:
    """A map of an object, or one that the kernel has already.

    Before its object is loaded only the attributes of its making are there (`max_entries`).
    """

    __slots__ = ("__weakref__", "_btf", "_key_type", "_readers", "_shape", "_source", "_value_type")

    def __init__(
        self, source: Map | LoadedMap, btf: Btf | None, key_type_id: int, value_type_id: int
    ) -> None:
        self._source = source
        self._btf = btf
        self._key_type = key_type_id
        self._value_type = value_type_id
        self._shape: Shape | None = None
        self._readers: list[Records] = []

    def __repr__(self) -> str:
        return f"<TypedMap {self.name} ({self.type})>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; a map of an object stays with the object. Safe to repeat."""
        while self._readers:
            self._readers.pop().close()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def source(self) -> Map | LoadedMap:
        """The same map with bytes for keys and values."""
        return self._source

    @property
    def name(self) -> str:
        """In the kernel at most 15 characters, in an object all."""
        return self._source.name

    @property
    def type(self) -> str:
        """``hash``, ``devmap``, ..."""
        return self._source.type

    @property
    def fd(self) -> int:
        """File descriptor.

        Raises:
            ConfigError: its object is not loaded.
        """
        return self._source.fd

    def info(self) -> MapInfo:
        """What the kernel says about it."""
        return self._source.info()

    @property
    def max_entries(self) -> int:
        """Room; can be set before its object is loaded."""
        return self._planned("max_entries")

    @max_entries.setter
    def max_entries(self, entries: int) -> None:
        setter = getattr(self._source, "set_max_entries", None)
        if setter is None or getattr(self._source, "loaded", True):
            raise ConfigError(f"map {self.name} is made already: max_entries can't change")
        setter(entries)

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self._planned("key_size")

    @property
    def value_size(self) -> int:
        """Bytes of a value, of one CPU where it is per-CPU."""
        return self._planned("value_size")

    def _planned(self, name: str) -> int:
        found = getattr(self._source, name, None)
        return int(getattr(self.info(), name) if found is None else found)

    def pin(self, path: Path | str) -> None:
        """Pin it in a bpffs; see `pins.pin`."""
        self._source.pin(Path(path))

    @property
    def btf(self) -> Btf | None:
        """The types it was declared with."""
        return self._btf

    @property
    def btf_ids(self) -> tuple[int, int]:
        """BTF types of key and value; 0: not told."""
        return self._key_type, self._value_type

    @property
    def shape(self) -> Shape:
        """How its keys and values are written."""
        if self._shape is None:
            key, value = self._key_type, self._value_type
            if self._btf is not None and not (key or value):
                key, value = declared(self._btf, self.name)
            self._shape = shape_of(self.info(), self._btf, key, value)
        return self._shape

    @property
    def elements(self) -> Elements:
        """Its keys and values as bytes."""
        from xdpctl.bpf.elements import Elements

        found = self._source if isinstance(self._source, Elements) else self._source.elements
        key = self.shape.key
        if key is not None:
            found.key_text = key.text
        return found

    def _must(self, what: str) -> None:
        kind = self.shape.kind
        if what not in kind.can:
            words = {"walk": "list", "lookup": "look up", "holds": "test", "pop": "take"}.get(what, what)
            # not from the errno: the kernel's differ from version to version
            raise MapError(
                f"map {self.name}: user space can't {words} elements of a map of type {kind.type}",
                hint=kind.note or None,
            )

    # -- one element -------------------------------------------------------------------------------------------

    def value_out(self, raw: bytes) -> Any:
        """A value of `elements` as Python takes it."""
        shape = self.shape
        if not shape.stride:
            return shape.value_out(raw)
        size, stride = shape.value.size, shape.stride
        return PerCpu(shape.value_out(raw[at : at + size]) for at in range(0, len(raw), stride))

    def value_in(self, value: Any) -> bytes:
        """The bytes of a value; for a per-CPU map a list of one a CPU, or one that is for each of them.

        Raises:
            ConfigError: it does not fit.
        """
        shape = self.shape
        if not shape.stride:
            return shape.value_in(value)
        cpus = possible_cpus()
        if isinstance(value, PerCpu) or (isinstance(value, list | tuple) and len(value) == cpus):
            if len(value) != cpus:
                raise ConfigError(f"map {self.name}: {len(value)} values for {cpus} possible CPUs")
            return b"".join(shape.value_in(one).ljust(shape.stride, b"\0") for one in value)
        return shape.value_in(value).ljust(shape.stride, b"\0") * cpus

    def __getitem__(self, key: Any) -> Any:
        """The value; of an LPM trie that of the longest prefix that matches.

        Raises:
            MissingKeyError: it is not there.
            MapError: user space can't look up in this type of map.
            ConfigError: the key does not fit.
        """
        self._must("lookup")
        raw = self.shape.key_in(key)
        found = self.elements.lookup(raw)
        if found is None:
            raise self._missing(raw)
        return self.value_out(found)

    def _missing(self, raw: bytes) -> MissingKeyError:
        return MissingKeyError(f"map {self.name} has no key {self.elements.key_text(raw)}", errno=2)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value, or `default` where the key is not there."""
        self._must("lookup")
        found = self.elements.lookup(self.shape.key_in(key))
        return default if found is None else self.value_out(found)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def set(self, key: Any, value: Any, *, flags: int = uapi.BPF_ANY) -> None:
        """Write a value; what it does not mention becomes zero.

        Args:
            key: where.
            value: what.
            flags: uapi.BPF_ANY, BPF_NOEXIST (must be new) or BPF_EXIST (must be there).

        Raises:
            MapError: the map is full (E2BIG), the key is there (EEXIST) or is not (ENOENT), ...
            ConfigError: key or value do not fit.
        """
        self._must("update")
        try:
            self.elements.update(self.shape.key_in(key), self.value_in(value), flags)
        finally:
            self._release()

    def _release(self) -> None:
        if self.shape.held is not None:
            self.shape.held.close()

    def __delitem__(self, key: Any) -> None:
        self._must("delete")
        raw = self.shape.key_in(key)
        if not self.elements.delete(raw):
            raise self._missing(raw)

    def __contains__(self, key: object) -> bool:
        if "holds" in self.shape.kind.can:
            return self.elements.holds(self.value_in(key))
        self._must("lookup")
        return self.elements.lookup(self.shape.key_in(key)) is not None

    # -- all elements ------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[batch.Batch]:
        """Every element as bytes, many at a time; what comes or goes meanwhile may be left out.

        Raises:
            MapError: this type of map can't be listed.
        """
        self._must("walk")
        self._must("lookup")
        return batch.read(self.elements)

    def __iter__(self) -> Iterator[Any]:
        self._must("walk")
        if "lookup" not in self.shape.kind.can:
            return map(self.shape.key_out, self.elements.keys())
        return (self.shape.key_out(key) for one in self.batches() for key, _ in one.pairs())

    def keys(self) -> Iterator[Any]:
        """Every key once, also while others add and delete."""
        return iter(self)

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Every key and value once; see `batches`."""
        key_out, value_out = self.shape.key_out, self.value_out
        return ((key_out(key), value_out(value)) for one in self.batches() for key, value in one.pairs())

    def values(self) -> Iterator[Any]:
        """Every value."""
        return (value for _, value in self.items())

    def __len__(self) -> int:
        if self.shape.kind.type in {"array", "percpu_array"}:
            return self.max_entries
        if "lookup" not in self.shape.kind.can:
            return sum(1 for _ in self)
        return sum(one.length for one in self.batches())

    def __bool__(self) -> bool:
        return True  # a map that is empty is still one

    def lookup_many(self, keys: Iterable[Any]) -> list[Any]:
        """The value of each key, None where it is not there."""
        self._must("lookup")
        found = batch.lookup_many(self.elements, [self.shape.key_in(one) for one in keys])
        return [None if one is None else self.value_out(one) for one in found]

    def update_many(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]], *, flags: int = 0) -> int:
        """Write many (key, value) pairs in batches.

        Returns:
            how many.

        Raises:
            PartlyDoneError: the kernel refused one; ``done`` are written, those before it.
            ConfigError: one does not fit; up to `MANY` pairs before it are not written.
        """
        self._must("update")
        pairs = iter(items.items() if isinstance(items, Mapping) else items)
        done = 0
        while True:
            keys, values = bytearray(), bytearray()
            count = 0
            try:
                for key, value in pairs:
                    keys += self.shape.key_in(key)
                    values += self.value_in(value)
                    count += 1
                    if (
                        count == MANY or self.shape.held is not None
                    ):  # its descriptors are open until it is written
                        break
                for _ in batch.write(self.elements, bytes(keys), bytes(values), flags=flags):
                    pass
            except batch.PartlyDoneError as why:
                raise batch.PartlyDoneError(why.why, done + why.done) from why
            finally:
                self._release()
            if not count:
                return done
            done += count

    def delete_many(self, keys: Iterable[Any]) -> int:
        """Delete keys in batches; returns how many of them were there."""
        self._must("delete")
        return batch.delete(self.elements, b"".join(map(self.shape.key_in, keys)))

    def clear(self) -> int:
        """Delete every entry; slots of an array become zero, a queue or stack is emptied.

        Returns:
            how many there were.

        Raises:
            MapError: the kernel can't empty this type of map.
        """
        from xdpctl.skeleton.clear import clear

        return clear(self)

    # -- queues, stacks and bloom filters ----------------------------------------------------------------------

    def push(self, value: Any, *, replace: bool = False) -> None:
        """Put a value into a queue, stack or bloom filter.

        Args:
            value: what.
            replace: where it is full, the oldest makes room.

        Raises:
            MapError: it is full (E2BIG).
        """
        self._must("push")
        self.elements.push(self.value_in(value), uapi.BPF_EXIST if replace else uapi.BPF_ANY)

    def add(self, value: Any) -> None:
        """Put a value into a bloom filter; ``value in m`` is true from then on."""
        self.push(value)

    def pop(self) -> Any:
        """Take the next value of a queue or stack; None: it is empty."""
        self._must("pop")
        raw = self.elements.pop()
        return None if raw is None else self.value_out(raw)

    def peek(self) -> Any:
        """The next value of a queue or stack, left there; None: it is empty."""
        self._must("pop")
        raw = self.elements.peek()
        return None if raw is None else self.value_out(raw)

    # -- maps in maps, and records -----------------------------------------------------------------------------

    def inner(self, key: Any) -> TypedMap:
        """The map in a slot of a map of maps; close it.

        Raises:
            MissingKeyError: the slot is empty.
        """
        if self.shape.kind.holds != "map":
            raise ConfigError(f"map {self.name} is no map of maps: it is {self.type}")
        return open_typed(int(self[key]))

    def poll(self, timeout: float = 0.0, *, record: str | None = None) -> list[Any]:
        """Records of a ring buffer, or of a perf event array's CPUs, that are there or come within the time.

        They are taken away from any other reader of the map; reading goes on until `close`.

        Args:
            timeout: seconds; 0 does not wait.
            record: name of a struct in the program's BTF that a record is; without, records are bytes.

        Raises:
            MapError: it is neither.
            NotFoundError: there is no such struct.
        """
        if not self._readers:
            from xdpctl.skeleton.records import Records

            self._readers.append(Records(self))
        return self._readers[0].poll(timeout, record, self._btf)

    @property
    def lost(self) -> int:
        """Records that the kernel dropped since the first `poll`, for want of room.

        Perf event arrays tell, with a record that comes after those lost; of a ring buffer only the program knows.
        """
        return self._readers[0].lost if self._readers else 0


def typed(source: Map | LoadedMap, btf: Btf | None, key_type_id: int, value_type_id: int) -> TypedMap:
    """A map with the types of its object, or of the kernel.

    Args:
        source: the map.
        btf: its types, None: it has none.
        key_type_id: BTF type of a key, 0: not told.
        value_type_id: of a value.
    """
    return TypedMap(source, btf, key_type_id, value_type_id)


def open_typed(which: Path | str | int) -> TypedMap:
    """Any map of the system, by the path of its pin or its id, with the types it was made with; close it.

    Raises:
        NotFoundError: there is none.
        ConfigError: something else is pinned there.
        PrivilegeError: CAP_SYS_ADMIN (by id) or permission is missing.
    """
    from xdpctl.bpf.map import open_map

    source = open_map(which if isinstance(which, int) else Path(which))
    try:
        info = source.info()
        btf, _ = btf_of(info)
        if btf is None and (found := by_users(info.id, info.name)) is not None:
            return TypedMap(source, *found)
        return TypedMap(source, btf, info.btf_key_type_id, info.btf_value_type_id)
    except BaseException:
        source.close()
        raise


__all__ = ["MissingKeyError", "PerCpu", "TypedMap", "open_typed", "typed"]
