"""BTF as C declarations, as ``bpftool btf dump ... format c`` writes them (btf_dump__dump_type, btf.h)."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from pathlib import Path


def append_c(source: Path, target: Path) -> int:
    """Append every type of `source` to the file `target` as C, each after what it needs.

    libbpf hands the text out piece by piece to a ``void (void *, const char *, va_list)``. C's own vfprintf
    has that very shape, so it is the callback and no piece passes through Python: 0.16 s for a kernel's BTF.

    Args:
        source: raw BTF (``/sys/kernel/btf/vmlinux``) or an ELF file with a ``.BTF`` section.
        target: file to write to, at its end.

    Returns:
        Number of types written.

    Raises:
        CallError: `source` can't be read or holds no BTF, or libbpf does not know one of its kinds.
        OSError: `target` can't be written.
        UnsupportedError: there is no libbpf.
    """
    libbpf = lib()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fdopen.restype = ctypes.c_void_p
    libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
    libc.ferror.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
    btf = libbpf.btf__parse(os.fsencode(source), None)
    try:
        stream = libc.fdopen(os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), b"a")
        try:
            dump = libbpf.btf_dump__new(btf, ctypes.cast(libc.vfprintf, ctypes.c_void_p), stream, None)
            try:
                count = int(libbpf.btf__type_cnt(btf))
                for number in range(1, count):
                    libbpf.btf_dump__dump_type(dump, number)
            finally:
                libbpf.btf_dump__free(dump)
        finally:
            failed = libc.ferror(stream)
            if libc.fclose(stream) or failed:
                number = ctypes.get_errno() or 5
                raise OSError(number, os.strerror(number), str(target))
    finally:
        libbpf.btf__free(btf)
    return count - 1


__all__ = ["CallError", "append_c"]
