"""Why the kernel refused a map operation: which map, which key, and what the errno means for this type of map.

What each errno stands for is read in kernel/bpf/{hashtab,arraymap,lpm_trie,devmap,cpumap,queue_stack_maps,syscall}.c.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xdpctl.bpf.failure import denied
from xdpctl.errors import MapError, errno_name, errno_text

if TYPE_CHECKING:
    from xdpctl.errors import KernelError
    from xdpctl.libbpf.library import CallError

ENOTSUPP = 524
"""linux/errno.h; what kernels answer for an operation that a type of map does not have."""

ARRAYS = frozenset(
    "array percpu_array prog_array array_of_maps devmap cpumap xskmap sockmap perf_event_array cgroup_array"
    " reuseport_sockarray".split()
)
"""Types whose key is an index below max_entries."""

Meaning = tuple[str, str | None]
"""Why, and what to do about it."""

_MEANINGS: dict[tuple[str, int], Meaning] = {
    ("update", errno.EEXIST): ("it is there already", None),
    ("update", errno.ENOENT): ("it is not there", None),
    ("update", errno.ENOSPC): ("it is full ({room})", "an upgrade can make it larger: max_entries"),
    ("update", errno.ENOMEM): ("no memory for one more element, or none may be used ({room})", None),
    ("update", errno.EPERM): ("it is frozen, or read-only for user space", None),
    ("update", errno.EBUSY): ("a program works on the same bucket", "try again"),
    ("update", errno.EBADF): ("the value is no open descriptor of what this map holds", None),
    ("update", errno.ENODEV): ("there is no such interface in this network namespace", None),
    ("update", errno.EINVAL): ("the kernel does not take this key or value", None),
    ("delete", errno.ENOENT): ("it is not there", None),
    ("delete", errno.EPERM): ("it is frozen, or read-only for user space", None),
    ("delete", errno.EINVAL): ("elements of this type of map can't be deleted", None),
    ("lookup", errno.EPERM): ("it is write-only for user space", None),
    ("pop", errno.ENOENT): ("it is empty", None),
    ("peek", errno.ENOENT): ("it is empty", None),
    ("push", errno.E2BIG): ("it is full ({room})", None),
    ("push", errno.EPERM): ("it is frozen, or read-only for user space", None),
}

_NOT_HERE = "user space can't {operation} elements of a map of type {kind}"


def meaning(operation: str, kind: str, code: int, room: str) -> Meaning:
    """What an errno stands for.

    Args:
        operation: lookup, update, delete, walk, push, pop or peek.
        kind: type of the map.
        code: positive errno.
        room: ``20 entries``.
    """
    if code in {errno.EOPNOTSUPP, ENOTSUPP}:
        return _NOT_HERE.format(operation=operation, kind=kind), None
    if code == errno.E2BIG and operation == "update":
        if kind in ARRAYS:
            return f"the key lies beyond its {room}", None
        return f"it is full ({room})", "an upgrade can make it larger: max_entries"
    if code == errno.EINVAL and operation == "update" and kind == "lpm_trie":
        return "the prefix is longer than the address", None
    if code == errno.EINVAL and operation == "update" and kind in {"devmap", "devmap_hash"}:
        code = errno.ENODEV
    text, hint = _MEANINGS.get((operation, code), ("", None))
    return text.format(room=room), hint


def operation_failed(
    operation: str, why: CallError, *, name: str, kind: str, room: int | None, key: str | None = None
) -> KernelError:
    """The error for a refused operation on a map's element.

    Args:
        operation: as of `meaning`.
        why: what libbpf answered.
        name: of the map.
        kind: its type.
        room: its max_entries, if known.
        key: the key as people write it, if there is one.
    """
    at = f" map {name}" + (f", key {key}" if key is not None else "")
    verb = {"lookup": "lookup in", "update": "update of", "delete": "delete in", "walk": "walk of"}.get(
        operation, f"{operation} of"
    )
    lost = denied(f"{verb}{at}", why, "CAP_BPF")
    if lost is not None:
        return lost
    entries = "slots" if kind in ARRAYS else "elements" if kind in {"queue", "stack"} else "entries"
    text, hint = meaning(operation, kind, why.code, f"{room} {entries}" if room is not None else entries)
    name_of_errno = errno_name(why.code) if text else errno_text(why.code)
    return MapError(f"{verb}{at}: {name_of_errno}{': ' if text else ''}{text}", errno=why.code, hint=hint)
