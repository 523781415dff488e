"""Records that BPF programs send to user space: ring buffers (Linux 5.8) and perf buffers (ringbuf.c, libbpf.c)."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING, Any

from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_RING_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_PERF_SAMPLE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_PERF_LOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64)


class _Records:
    """What both kinds share: callbacks that only collect, since an exception can't pass through C."""

    _poll: str
    _free: str

    def __init__(self) -> None:
        self._found: list[Any] = []
        self._stopped: BaseException | None = None
        self._pointer: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free it; safe to repeat."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            getattr(lib(), self._free)(pointer)

    def _gather(self, timeout_ms: int) -> list[Any]:
        if self._pointer is None:
            raise CallError(self._poll, errno.EBADF)
        try:
            getattr(lib(), self._poll)(self._pointer, timeout_ms)
        except CallError as why:
            if why.code != errno.EINTR and self._stopped is None:
                raise
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            raise stopped
        found, self._found = self._found, []
        return found

    def _collect(self, make: Callable[[], Any]) -> int:
        try:
            self._found.append(make())
        except BaseException as why:  # noqa: BLE001 - Ctrl-C may arrive in here: raised again after the call
            self._stopped = why
            return -errno.EINTR
        return 0


class RingBuffer(_Records):
    """A BPF_MAP_TYPE_RINGBUF map being read, in the order in which records were reserved.

    Raises:
        CallError: not a ring buffer.
    """

    _poll, _free = "ring_buffer__poll", "ring_buffer__free"

    def __init__(self, map_fd: int) -> None:
        super().__init__()
        self._callback = _RING_SAMPLE(self._sample)  # libbpf keeps the pointer
        callback = ctypes.cast(self._callback, ctypes.c_void_p)
        self._pointer = lib().ring_buffer__new(map_fd, callback, None, None)

    def _sample(self, _context: int, data: int, size: int) -> int:
        return self._collect(lambda: ctypes.string_at(data, size))

    def poll(self, timeout_ms: int) -> list[bytes]:
        """The records that are there, or come within the time (0: don't wait; -1: for ever); none after a signal.

        Raises:
            CallError: it is closed, or epoll failed.
        """
        return self._gather(timeout_ms)

    @property
    def epoll_fd(self) -> int:
        """A descriptor that is readable when there are records."""
        return int(lib().ring_buffer__epoll_fd(self._pointer))


class PerfBuffer(_Records):
    """A BPF_MAP_TYPE_PERF_EVENT_ARRAY map being read, all CPUs.

    Args:
        map_fd: of the map.
        pages: of memory for each CPU, a power of two.

    Raises:
        CallError: not such a map, or no memory.

    Attributes:
        lost: records that the kernel dropped for want of room.
    """

    _poll, _free = "perf_buffer__poll", "perf_buffer__free"

    def __init__(self, map_fd: int, pages: int = 64) -> None:
        super().__init__()
        self.lost = 0
        self._callback = _PERF_SAMPLE(self._sample)
        self._lost_callback = _PERF_LOST(self._drop)
        callbacks = (ctypes.cast(one, ctypes.c_void_p) for one in (self._callback, self._lost_callback))
        self._pointer = lib().perf_buffer__new(map_fd, pages, *callbacks, None, None)

    def _sample(self, _context: int, cpu: int, data: int, size: int) -> None:
        self._collect(lambda: (cpu, ctypes.string_at(data, size)))

    def _drop(self, _context: int, _cpu: int, count: int) -> None:
        self.lost += count

    def poll(self, timeout_ms: int) -> list[tuple[int, bytes]]:
        """The (CPU, record) pairs that are there, or come within the time; CPUs come one after the other.

        A record may be longer than it was sent by up to 7 bytes of padding.

        Raises:
            CallError: it is closed, or epoll failed.
        """
        return self._gather(timeout_ms)

    @property
    def epoll_fd(self) -> int:
        """A descriptor that is readable when there are records."""
        return int(lib().perf_buffer__epoll_fd(self._pointer))
