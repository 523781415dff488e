"""One map: of an object, before and after load, or of the kernel by pin or id (libbpf.h, struct bpf_map; bpf.h)."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf import pins, query
from xdpctl.bpf.elements import Elements
from xdpctl.errors import ConfigError, MapError, errno_text
from xdpctl.libbpf import memory, uapi
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.bpf.object import Object


class Map:
    """A map of an object.

    Setters work before the object is loaded, `fd` and the elements after.
    """

    __slots__ = ("_elements", "_object", "_pointer", "name")

    def __init__(self, owner: Object, pointer: int) -> None:
        self._object = owner  # keeps the memory behind the pointer
        self._pointer = pointer
        self._elements: Elements | None = None
        self.name: str = lib().bpf_map__name(pointer).decode(errors="replace")

    @property
    def _at(self) -> int:
        self._object.opened()  # or the pointer leads nowhere
        return self._pointer

    def __repr__(self) -> str:
        return f"<Map {self.name} ({self.type})>"

    @property
    def type(self) -> str:
        """Name of its type (``hash``, ``devmap``)."""
        return uapi.name_of(uapi.MAP_TYPES, lib().bpf_map__type(self._at))

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return int(lib().bpf_map__key_size(self._at))

    @property
    def value_size(self) -> int:
        """Bytes of a value, of one CPU where it is per-CPU."""
        return int(lib().bpf_map__value_size(self._at))

    @property
    def max_entries(self) -> int:
        """Room; 0 must be set before load for most types."""
        return int(lib().bpf_map__max_entries(self._at))

    @property
    def flags(self) -> int:
        """BPF_F_... it is made with."""
        return int(lib().bpf_map__map_flags(self._at))

    @property
    def btf_key_type_id(self) -> int:
        """BTF type of the key in the object's BTF, 0: none."""
        return int(lib().bpf_map__btf_key_type_id(self._at))

    @property
    def btf_value_type_id(self) -> int:
        """BTF type of the value in the object's BTF, 0: none."""
        return int(lib().bpf_map__btf_value_type_id(self._at))

    @property
    def internal(self) -> bool:
        """Whether it is .data, .rodata, .bss or .kconfig."""
        return bool(lib().bpf_map__is_internal(self._at))

    @property
    def pin_path(self) -> Path | None:
        """Where loading pins it, or finds it pinned."""
        path = lib().bpf_map__pin_path(self._at)
        return Path(os.fsdecode(path)) if path else None

    @property
    def loaded(self) -> bool:
        """Whether it is in the kernel."""
        return self._object.loaded and int(lib().bpf_map__fd(self._at)) >= 0

    @property
    def fd(self) -> int:
        """File descriptor, owned by the object.

        Raises:
            ConfigError: it is not in the kernel.
        """
        fd = int(lib().bpf_map__fd(self._at))
        # from libbpf 1.4 on a map has a placeholder descriptor before load
        if fd < 0 or not self._object.loaded:
            raise ConfigError(f"map {self.name} is not loaded")
        return fd

    def _set(self, function: str, *values: object) -> None:
        try:
            getattr(lib(), function)(self._at, *values)
        except CallError as why:
            raise MapError(
                f"map {self.name}: {function} refused: {errno_text(why.code)}", errno=why.code
            ) from why

    def set_max_entries(self, entries: int) -> None:
        """Make it with this much room."""
        if not 0 < entries < 2**32:
            raise ConfigError(f"map {self.name}: {entries} entries don't fit, 1 to {2**32 - 1} do")
        self._set("bpf_map__set_max_entries", entries)

    def set_value_size(self, size: int) -> None:
        """Make it with values of this size."""
        self._set("bpf_map__set_value_size", size)

    def set_autocreate(self, wanted: bool) -> None:
        """Make it at load, or leave it out; programs that use it then fail to load."""
        self._set("bpf_map__set_autocreate", wanted)

    def set_pin_path(self, path: Path | None) -> None:
        """Pin it there at load, or use the one pinned there already; None: no pin."""
        self._set("bpf_map__set_pin_path", os.fsencode(path) if path else None)

    def set_ifindex(self, ifindex: int) -> None:
        """Make it on this device, for a program that is offloaded to it."""
        self._set("bpf_map__set_ifindex", ifindex)

    def set_inner(self, fd: int) -> None:
        """For a map of maps: the prototype of an inner map."""
        self._set("bpf_map__set_inner_map_fd", fd)

    def reuse(self, fd: int) -> None:
        """Use this existing map instead of a new one; `fd` stays the caller's.

        Raises:
            MapError: type or sizes differ; the message says which.
        """
        theirs = query.map_info(fd)
        ours = (self.type, self.key_size, self.value_size)
        if ours != (theirs.type, theirs.key_size, theirs.value_size):
            raise MapError(
                f"map {self.name} is {ours[0]} with keys of {ours[1]} and values of {ours[2]} bytes, map"
                f" {theirs.name} (id {theirs.id}) is {theirs.type} with {theirs.key_size} and {theirs.value_size}"
            )
        self._set("bpf_map__reuse_fd", fd)

    def initial_value(self) -> bytes:
        """Copy of a .data, .rodata or .bss map's content before load; after it see `mapped`.

        Raises:
            MapError: it is no such map, or the object is loaded.
        """
        return memory.read(*self.initial_memory())

    def set_initial_value(self, value: bytes) -> None:
        """Set all of a .data, .rodata or .bss map's content before load.

        Raises:
            MapError: it is no such map, the size differs, or the object is loaded.
        """
        self.patch_initial_value(0, value, whole=True)

    def patch_initial_value(self, offset: int, value: bytes, *, whole: bool = False) -> None:
        """Set the bytes from `offset` on, before load.

        Raises:
            MapError: they lie outside the map, it has no content, or the object is loaded.
        """
        where, size = self.initial_memory()
        if not 0 <= offset <= offset + len(value) <= size or (whole and len(value) != size):
            raise MapError(f"map {self.name} has {size} bytes, not {offset + len(value)}")
        memory.write(where + offset, value)

    def initial_memory(self) -> tuple[int, int]:
        """Address and bytes of libbpf's copy of a .data, .rodata or .bss map's content, valid until load.

        Raises:
            MapError: it is no such map, or the object is loaded.
        """
        if self._object.loaded:
            raise MapError(f"map {self.name} is loaded: it has no initial value any more")
        size = memory.Size(0)
        where = lib().bpf_map__initial_value(self._at, size) if self.internal else None
        if not where:
            raise MapError(f"map {self.name} has no initial value: it is no .data, .rodata or .bss")
        return int(where), size.value

    def mapped(self, *, writable: bool = True) -> mmap.mmap:
        """The content of an array map made with BPF_F_MMAPABLE (every .data, .rodata, .bss), live.

        Before libbpf 1.5 what libbpf itself has mapped is not live after load. A frozen map (.rodata) can't be
        mapped writable.

        Returns:
            a mapping of whole pages; close it.

        Raises:
            MapError: it can't be mapped.
        """
        each = self.value_size if self.max_entries == 1 else self.value_size + 7 & ~7
        size = max(1, each * self.max_entries)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return mmap.mmap(self.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.MAP_SHARED, protection)
        except OSError as why:
            number = why.errno or 0
            raise MapError(f"map {self.name} can't be mapped: {errno_text(number)}", errno=number) from why

    def info(self) -> query.MapInfo:
        """What the kernel says about it."""
        return query.map_info(self.fd)

    def pin(self, path: Path) -> None:
        """Pin it; see `pins.pin`."""
        pins.pin(self.fd, path)

    @property
    def elements(self) -> Elements:
        """Its keys and values."""
        if self._elements is None or self._elements.fd != self.fd:
            kind = lib().bpf_map__type(self._at)
            self._elements = Elements(self.fd, self.name, kind, self.key_size, self.value_size)
        return self._elements

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None where the key is not there."""
        return self.elements.lookup(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Write a value (uapi.BPF_ANY, BPF_NOEXIST, BPF_EXIST)."""
        self.elements.update(key, value, flags)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False where it was not there."""
        return self.elements.delete(key)

    def keys(self) -> Iterator[bytes]:
        """Every key."""
        return self.elements.keys()

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and its value."""
        return self.elements.items()


class LoadedMap(Elements):
    """A map that is in the kernel already, held by a file descriptor of its own."""

    __slots__ = ("_info",)

    def __init__(self, fd: int) -> None:
        self._info = query.map_info(fd)
        kind = uapi.MAP_TYPES.index(self._info.type) if self._info.type in uapi.MAP_TYPES else 0
        super().__init__(fd, self._info.name, kind, self._info.key_size, self._info.value_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """At most 15 characters."""
        return self._info.name

    def info(self) -> query.MapInfo:
        """What the kernel said about it when it was opened."""
        return self._info

    def pin(self, path: Path) -> None:
        """Pin it; see `pins.pin`."""
        pins.pin(self.fd, path)

    def close(self) -> None:
        """Let go of it; safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_map(which: Path | int) -> LoadedMap:
    """The map pinned at a path, or with an id.

    Raises:
        NotFoundError: there is none.
        ConfigError: something else is pinned there.
        PrivilegeError: CAP_SYS_ADMIN (by id) or permission is missing.
    """
    return LoadedMap(query.open_id("map", which) if isinstance(which, int) else pins.open_pin(which, "map"))
