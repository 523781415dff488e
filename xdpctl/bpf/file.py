"""Whether a file can be a BPF object at all, so that the commonest mistakes are told in our words (elf.h)."""

from __future__ import annotations

import os
import stat
import struct
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import NotFoundError, ObjectError

if TYPE_CHECKING:
    from typing import IO

EM_BPF = 247
LARGEST = 256 * 2**20
"""Bytes of an object file that we are willing to read."""
PIECE = 1 << 20
"""Bytes read at once."""


Identity = tuple[int, int, int, int, int]
"""Of a file and its content: device, inode, size, and ns of the last change of content and of inode."""


def identity(path: Path) -> Identity | None:
    """What changes when a regular file does; None: it can't be told."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of path.stat(), and that is most of this function's
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache
def path_of(text: str) -> Path:
    """The path, made once."""
    return Path(text)


def read_at_most(file: IO[bytes], most: int) -> bytes:
    """A file to its end, but not more than `most` bytes and the piece that goes beyond them.

    A ``read(most)`` would ask for that much memory at once, for the smallest file, and a device may have no end.
    """
    pieces: list[bytes] = []
    left = most
    while left >= 0 and (piece := file.read(PIECE)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_file(path: Path) -> bytes:
    """The bytes of a file that can be a BPF object.

    Raises:
        NotFoundError: there is no such file.
        ObjectError: it can't be read, is no ELF file, of another machine, or not relocatable.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError
            size = status.st_size
            with open(fd, "rb", buffering=0, closefd=False) as file:
                data = read_at_most(file, LARGEST) if size <= LARGEST else b""
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise NotFoundError("file", str(path), known=_objects_beside(path)) from None
    except IsADirectoryError:
        raise ObjectError(f"{path} is a directory, not a BPF object") from None
    except OSError as why:
        raise ObjectError(f"{path} can't be read: {why.strerror}") from why
    size = max(size, len(data))
    if size > LARGEST:
        raise ObjectError(f"{path} has {size} bytes; BPF objects of more than {LARGEST} are not read")
    check_bytes(path, data)
    return data


def check_bytes(path: Path, data: bytes) -> None:
    """Look whether bytes can be a BPF object; `path` names them.

    Raises:
        ObjectError: no ELF file, of another machine, or not relocatable.
    """
    head = data[:64]
    if head[:4] != b"\x7fELF":
        is_c = path.suffix in {".c", ".h"}
        raise ObjectError(
            f"{path} is not an ELF file" + (", but C source" if is_c else " (empty)" if not head else ""),
            hint=f"xdpctl build {path}" if is_c else None,
        )
    if len(head) < 64:
        raise ObjectError(f"{path} is a truncated ELF file: {len(head)} bytes")
    order = ">" if head[5] == 2 else "<"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    if machine != EM_BPF or head[4] != 2:
        raise ObjectError(
            f"{path} is an ELF file for machine {_MACHINES.get(machine, machine)}, not for BPF",
            hint="compile it with clang -target bpf, or xdpctl build",
        )
    if (order == ">") != (struct.pack("=H", 1) == b"\x00\x01"):
        endian = "big" if order == ">" else "little"
        raise ObjectError(
            f"{path} is {endian}-endian, this machine is not", hint="clang -target bpf builds for here"
        )
    if kind != 1:
        raise ObjectError(f"{path} is not a relocatable object (ET_REL), but ELF type {kind}")


_MACHINES = {
    0: "none (an old clang's BPF?)",
    3: "x86",
    40: "ARM",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
}


def _objects_beside(path: Path) -> list[str]:
    try:
        return [str(one) for one in path.parent.iterdir() if one.suffix == ".o"]
    except OSError:
        return []
