"""What libbpf says while it works, captured per thread instead of printed (libbpf_set_print, libbpf.h).

One print function serves a whole process, called on the thread that called libbpf. Ours formats the message
into the list of the thread's innermost `capture`; outside one, messages are dropped.
"""

from __future__ import annotations

import atexit
import ctypes
import threading

WARN, INFO, DEBUG = 0, 1, 2
"""enum libbpf_print_level."""

_LONGEST = 16384
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Sink(threading.local):
    lines: list[str] | None = None
    level: int = INFO
    interrupted: bool = False


_sink = _Sink()
_vsnprintf = ctypes.CDLL(None).vsnprintf
_vsnprintf.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
_vsnprintf.restype = ctypes.c_int


_wanted = INFO
"""The most that any thread captures. A load has a hundred debug messages: they must cost next to nothing."""


def _print(level: int, form: int, arguments: int) -> int:
    if level > _wanted:
        return 0
    # An exception can't pass through C. Ctrl-C may arrive while we are in here: it is raised again when the
    # capture ends, or it would be lost.
    try:
        lines = _sink.lines
        if lines is None or level > _sink.level:
            return 0
        text = ctypes.create_string_buffer(_LONGEST)
        _vsnprintf(text, _LONGEST, form, arguments)
        lines.append(text.value.decode(errors="replace").rstrip("\n"))
    except KeyboardInterrupt:
        _sink.interrupted = True
    except Exception:  # noqa: BLE001, S110 - see above
        pass
    return 0


_callback = _PRINT(_print)
"""Held for the life of the process: libbpf keeps the pointer."""


def install(dll: ctypes.CDLL) -> None:
    """Make `dll`, a libbpf, print through here, and nowhere once the interpreter ends."""
    set_print = dll.libbpf_set_print
    set_print.restype = ctypes.c_void_p
    set_print.argtypes = [ctypes.c_void_p]
    set_print(ctypes.cast(_callback, ctypes.c_void_p))
    atexit.register(set_print, None)


class capture:  # noqa: N801 - read as a phrase; a generator would take twice the time, and it is in every call
    """Collect this thread's libbpf messages up to `level`; captures nest, the innermost takes all.

    Entered, it is the list of messages, oldest first, without the newline at their end; a long one is cut at 16 KiB.
    """

    __slots__ = ("_before", "_level")

    def __init__(self, level: int = INFO) -> None:
        global _wanted  # noqa: PLW0603 - it only grows, so that no thread takes another's messages away
        _wanted = max(_wanted, level)
        self._level = level

    def __enter__(self) -> list[str]:
        self._before = (_sink.lines, _sink.level)
        lines: list[str] = []
        _sink.lines, _sink.level = lines, self._level
        return lines

    def __exit__(self, *_: object) -> None:
        _sink.lines, _sink.level = self._before
        if _sink.interrupted:
            _sink.interrupted = False
            raise KeyboardInterrupt
