"""Where BPF things are pinned, and that nothing escapes from there (bpffs: kernel/bpf/inode.c)."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf.failure import denied
from xdpctl.errors import AttachError, ConfigError, NotFoundError, UnsupportedError, errno_text
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = "XDPCTL_BPFFS"

_SAFE = re.compile(r"[A-Za-z0-9_@:+,=-][A-Za-z0-9_@:+,=-]*\Z")


def mount_point() -> Path:
    """The bpffs we use: XDPCTL_BPFFS or /sys/fs/bpf."""
    return _path(os.environ.get(ENVIRONMENT) or "/sys/fs/bpf")


def root() -> Path:
    """Directory that holds all of xdpctl's pins; it may not exist yet."""
    return _path(f"{os.environ.get(ENVIRONMENT) or '/sys/fs/bpf'}/xdpctl")


@functools.lru_cache(maxsize=8)
def _path(text: str) -> Path:
    """The same object for the same text: it is asked for with every pin."""
    return Path(text)


def require_bpffs(path: Path | None = None) -> Path:
    """`path` (or the mount point), if it lies in a mounted bpffs.

    Args:
        path: a file or directory that may not exist yet.

    Raises:
        UnsupportedError: no bpffs is mounted there; the hint mounts it.
    """
    path = path or mount_point()
    near = path
    while not os.path.exists(near) and near != near.parent:  # noqa: PTH110 - false where a name is too long, no OSError
        near = near.parent
    if _filesystem_type(near) != "bpf":
        where = mount_point()
        raise UnsupportedError(
            f"pinning below {path}",
            needs=f"a mounted bpffs at {where}",
            has=f"a system where {near} is no bpffs",
            hint=f"mount -t bpf bpf {where}",
        )
    return path


def _filesystem_type(path: Path) -> str | None:
    """Type of the filesystem that `path` lies in, from the mount table (Python has no f_type of statfs(2))."""
    wanted = os.fsencode(os.path.realpath(path))
    best, kind = -1, None
    with Path("/proc/self/mountinfo").open("rb") as table:
        for line in table:
            fields, _, rest = line.partition(b" - ")
            # octal escapes of blanks and backslashes, seq_path_root() in fs/seq_file.c
            where = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), fields.split()[4])
            inside = wanted == where or wanted.startswith(where.rstrip(b"/") + b"/")
            if inside and len(where) >= best:  # a later mount covers an earlier one
                best, kind = len(where), rest.split()[0].decode()
    return kind


def component(name: str) -> str:
    """`name`, if it can be one path component of a pin: bpffs refuses dots, and nothing may lead elsewhere.

    Raises:
        ConfigError: it can't.
    """
    if not _SAFE.match(name) or len(name) > 255:
        raise ConfigError(
            f"{name!r} can't be the name of a pin",
            hint="letters, digits and _ - @ : + , = only; the BPF filesystem takes no dots",
        )
    return name


def escaped(name: str) -> str:
    """`name` (of an interface, say) as a safe component: other bytes become ``+`` and two hex digits."""
    if "+" not in name and _SAFE.match(name):
        return name
    return "".join(
        chr(byte) if chr(byte).isascii() and chr(byte) != "+" and _SAFE.match(chr(byte)) else f"+{byte:02x}"
        for byte in os.fsencode(name)
    )


def below(base: Path, *names: str) -> Path:
    """`base` with each of `names` appended as one checked component."""
    return base.joinpath(*(component(name) for name in names))


def make_parents(path: Path) -> None:
    """Make the directories above a pin, readable by root alone.

    Raises:
        UnsupportedError: no bpffs there.
        ConfigError: a directory can't be made.
    """
    require_bpffs(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as why:
        raise ConfigError(f"can't make {path.parent}: {why.strerror}") from why


def pin(fd: int, path: Path) -> None:
    """Pin the program, map or link behind `fd` at `path`, making the directories above; it must not exist yet.

    Raises:
        AttachError: something is pinned there already (EEXIST), or the kernel refused.
        UnsupportedError: no bpffs there.
        PrivilegeError: CAP_BPF or write permission is missing.
    """
    where = os.fsencode(path)
    try:
        try:
            lib().bpf_obj_pin(fd, where)
        except CallError as why:
            # EPERM is also the answer where the directory is in no bpffs (bpf_obj_do_pin in kernel/bpf/inode.c)
            if why.code not in {errno.ENOENT, errno.EPERM}:
                raise
            make_parents(path)
            lib().bpf_obj_pin(fd, where)
    except CallError as why:
        if why.code == errno.EEXIST:
            raise AttachError(f"{path} is pinned already", errno=why.code, hint=f"rm {path}") from why
        raise denied(f"pin {path}", why, "CAP_BPF") or AttachError(
            f"pin {path}: {errno_text(why.code)}", errno=why.code
        ) from why


def open_pin(path: Path, what: str = "pin") -> int:
    """A file descriptor of what is pinned at `path`: a ``program``, ``map`` or ``link``, or any ``pin``.

    Raises:
        NotFoundError: nothing is there.
        ConfigError: it is no pin, or one of another kind.
        PrivilegeError: CAP_BPF or read permission is missing.
    """
    try:
        fd = int(lib().bpf_obj_get(os.fsencode(path)))
    except CallError as why:
        if why.code in {errno.ENOENT, errno.ENOTDIR}:
            raise NotFoundError(what, str(path), known=_siblings(path)) from why
        lost = denied(f"open {path}", why, "CAP_BPF")
        if lost:
            raise lost from why
        raise ConfigError(f"{path} is not a pinned {what}: {errno_text(why.code)}") from why
    kind = kind_of(fd)
    if what not in {"pin", kind}:
        os.close(fd)
        raise ConfigError(f"{path} is not a pinned {what}, but a {kind}")
    return fd


def kind_of(fd: int) -> str:
    """``program``, ``map`` or ``link``: what is behind a file descriptor, or ``file`` where it is nothing of BPF."""
    # the names given to anon_inode_getfd() in kernel/bpf/syscall.c; GET_INFO_BY_FD would answer for any kind
    target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - hundreds of times
    return {"bpf-prog": "program", "bpf-map": "map", "bpf-link": "link", "bpf_link": "link"}.get(
        target.removeprefix("anon_inode:").strip("[]"), "file"
    )


def _siblings(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [str(one) for one in path.parent.iterdir()]
    return []


def unpin(path: Path) -> bool:
    """Remove a pin, and the directories above it up to `root` that are empty then.

    A link that only the pin held detaches a moment later (an RCU grace period and a work queue): to be sure that it is
    off, `Link.detach` it first.

    Returns:
        False where there was none.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    top = root()
    with contextlib.suppress(OSError):
        for parent in path.parents:
            if top not in (parent, *parent.parents):
                break
            parent.rmdir()
    return True


def walk(top: Path | None = None) -> Iterator[Path]:
    """Every pin below `top` (or below `root`), sorted; nothing where it does not exist or may not be read."""
    pending = [top or root()]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif not entry.is_symlink():
                yield Path(entry.path)
