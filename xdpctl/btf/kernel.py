"""The running kernel's own types and those of its modules: /sys/kernel/btf (kernel/bpf/sysfs_btf.c, 5.4, 5.11)."""

from __future__ import annotations

import errno
from functools import cache
from pathlib import Path

from xdpctl.btf.parse import Btf, parse
from xdpctl.errors import NotFoundError, PrivilegeError, UnsupportedError

BTF_FOLDER = Path("/sys/kernel/btf")


@cache
def vmlinux() -> Btf:
    """The kernel's types, read once a process (60 ms).

    Raises:
        UnsupportedError: it does not describe them (CONFIG_DEBUG_INFO_BTF).
        ObjectError: they are not valid BTF.
    """
    try:
        return parse((BTF_FOLDER / "vmlinux").read_bytes())
    except OSError as why:
        if why.errno in {errno.EACCES, errno.EPERM}:
            raise PrivilegeError("reading the kernel's types", capability="CAP_DAC_READ_SEARCH") from why
        raise UnsupportedError(
            f"{BTF_FOLDER}/vmlinux", needs="a kernel with CONFIG_DEBUG_INFO_BTF", has="one without"
        ) from why


def modules() -> list[str]:
    """Names of the loaded modules that have types."""
    try:
        return sorted(one.name for one in BTF_FOLDER.iterdir() if one.name != "vmlinux")
    except OSError:
        return []


def module(name: str) -> Btf:
    """The types of a loaded module: split BTF, whose ids and strings go on where the kernel's end.

    Raises:
        NotFoundError: no loaded module of this name has types; near names in the hint.
        UnsupportedError: the kernel has none.
        ObjectError: they are not valid BTF.
    """
    known = modules()
    wanted = name.replace("-", "_")  # as the kernel calls its modules
    if wanted not in known:
        hint = None if known else f"no loaded module has types here; `modprobe {name}` loads one"
        raise NotFoundError("module with BTF", name, known=known, hint=hint)
    return parse((BTF_FOLDER / wanted).read_bytes(), base=vmlinux())
