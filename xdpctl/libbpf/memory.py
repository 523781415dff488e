"""C memory for callers that know no ctypes: buffers, counters, and structs that pass their own address."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

Buffer = ctypes.Array[ctypes.c_char]
"""A char array: ``.raw`` is its bytes, ``.value`` those before the first NUL."""


class U32(ctypes.c_uint32):
    """A ``__u32`` passed by address, for input and output; ``.value`` is the number."""

    __slots__ = ()

    @property
    def _as_parameter_(self) -> Any:
        return ctypes.byref(self)


class Size(ctypes.c_size_t):
    """A ``size_t`` passed by address; ``.value`` is the number."""

    __slots__ = ()

    @property
    def _as_parameter_(self) -> Any:
        return ctypes.byref(self)


class Pointer(ctypes.c_size_t):
    """A pointer passed by address (an output); ``.value`` is where it points to, or 0.

    No ``c_void_p``: ctypes would pass one by value.
    """

    __slots__ = ()

    @property
    def _as_parameter_(self) -> Any:
        return ctypes.byref(self)


def buffer(size: int, initial: bytes = b"") -> Buffer:
    """`size` zeroed bytes (at least one), beginning with `initial`."""
    made = ctypes.create_string_buffer(max(size, 1))
    if initial:
        ctypes.memmove(made, initial, min(len(initial), size))
    return made


def u32s(count: int) -> ctypes.Array[ctypes.c_uint32]:
    """An array of `count` zeroed ``__u32``."""
    return (ctypes.c_uint32 * max(count, 1))()


def address(thing: Any) -> int:
    """Address of a ctypes object."""
    return ctypes.addressof(thing)


def read(where: int, size: int) -> bytes:
    """Copy of `size` bytes at address `where`."""
    return ctypes.string_at(where, size)


def view(where: int, size: int) -> memoryview:
    """`size` bytes at address `where` themselves, writable; the caller knows how long they live."""
    return memoryview((ctypes.c_ubyte * size).from_address(where)).cast("B")


def write(where: int, data: bytes) -> None:
    """Copy `data` to address `where`; the caller knows it is writable and large enough."""
    ctypes.memmove(where, data, len(data))


class LazyBuffer:
    """Zeroed memory that costs nothing until something is written to it (an anonymous mapping).

    Attributes:
        size: bytes that can be written.
        address: of the first byte, for a pointer field.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # in the module since Python 3.11
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | reserve)
        self._view = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._view)

    def text(self) -> str:
        """What was written, up to the first NUL."""
        return ctypes.string_at(self.address).decode(errors="replace")

    def clear(self) -> None:
        """Forget what was written."""
        self._map[0] = 0
