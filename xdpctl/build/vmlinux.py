"""``vmlinux.h``: the kernel's types as C, made from its BTF once and kept by what the BTF holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from xdpctl.build import packages
from xdpctl.errors import CompileError, ConfigError, NotFoundError, UnsupportedError

NAME = "vmlinux.h"

KERNEL_BTF = (
    "/sys/kernel/btf/vmlinux",
    "/boot/vmlinux-{release}",
    "/lib/modules/{release}/vmlinux-{release}",
    "/lib/modules/{release}/build/vmlinux",
    "/usr/lib/modules/{release}/kernel/vmlinux",
    "/usr/lib/debug/boot/vmlinux-{release}",
    "/usr/lib/debug/boot/vmlinux-{release}.debug",
    "/usr/lib/debug/lib/modules/{release}/vmlinux",
)
"""Where the running kernel's BTF may lie, in the order of btf__load_vmlinux_btf (libbpf's btf.c)."""

HASHED_WHOLE = 64 << 20
"""Bytes. A larger file (a kernel with debug information, up to a GiB) is told apart by size and time."""

_HEAD = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

"""
_TAIL = """
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif
"""


def source(btf: Path | None = None) -> Path:
    """The file to take BTF from: `btf`, or what the running kernel offers.

    Raises:
        NotFoundError: `btf` does not exist.
        CompileError: this kernel offers none.
    """
    if btf is not None:
        if not btf.is_file():
            raise NotFoundError("BTF file", str(btf))
        return btf
    release = os.uname().release
    for pattern in KERNEL_BTF:
        path = Path(pattern.format(release=release))
        if os.access(path, os.R_OK):
            return path
    raise CompileError(
        f"{NAME} can't be made: the running kernel {release} offers no BTF ({KERNEL_BTF[0]} is missing)",
        hint=f"name a file with BTF: --btf FILE, such as that of apt install linux-image-{release}-dbg"
        " (Fedora: dnf debuginfo-install kernel), or boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
    )


def digest(btf: Path) -> str:
    """What tells this BTF from others: 16 hex digits over its bytes.

    Raises:
        ConfigError: it can't be read.
    """
    try:
        with btf.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > HASHED_WHOLE:
                data = f"{btf.resolve()} {status.st_size} {status.st_mtime_ns}".encode()
            else:
                data = file.read()
    except OSError as why:
        raise ConfigError(f"can't read BTF from {btf}: {why.strerror}") from why
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def folder(cache: Path, btf_digest: str) -> Path:
    """Where under `cache` the header made from that BTF lies (or will): the folder to include from."""
    return cache / f"vmlinux-{btf_digest}"


def make(btf: Path, where: Path) -> Path:
    """Write ``where/vmlinux.h`` from `btf`, whole or not at all; nothing to do where it is there already.

    Through libbpf; without one through bpftool. Marked for CO-RE (preserve_access_index) unless the
    source defines BPF_NO_PRESERVE_ACCESS_INDEX, as in bpftool's.

    Returns:
        The header.

    Raises:
        ConfigError: `btf` holds no BTF, or `where` can't be written.
        CompileError: neither libbpf nor bpftool could turn it into C.
    """
    header = where / NAME
    if header.exists():
        return header
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        raise ConfigError(f"can't write to {where}: {why.strerror}") from why
    part = where / f"{NAME}.{os.getpid()}.part"
    try:
        _dump(btf, part)
        part.replace(header)
    except OSError as why:
        raise ConfigError(f"can't write {header}: {why.strerror}") from why
    finally:
        part.unlink(missing_ok=True)
    return header


def _dump(btf: Path, part: Path) -> None:
    from xdpctl.libbpf import btf_dump, log

    with log.capture() as said:
        try:
            part.write_text(_HEAD)
            btf_dump.append_c(btf, part)
            with part.open("a") as file:
                file.write(_TAIL)
        except UnsupportedError as why:
            _dump_by_bpftool(btf, part, why=why.message)
        except btf_dump.CallError as why:
            reason = next((line for line in said if line.startswith("libbpf:")), None) or str(why)
            raise _unusable(btf, reason) from why


def _dump_by_bpftool(btf: Path, part: Path, *, why: str) -> None:
    path = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")
    if path is None:
        raise CompileError(
            f"{NAME} can't be made: {why}, and there is no bpftool either", hint=packages.BPFTOOL.hint()
        )
    with part.open("wb") as file:
        done = subprocess.run(
            [path, "btf", "dump", "file", str(btf), "format", "c"],
            check=False,
            stdout=file,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _unusable(btf, said[-1] if said else f"bpftool ended with {done.returncode}")


def _unusable(btf: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{btf} gives no usable BTF: {reason}",
        hint="name raw BTF (/sys/kernel/btf/vmlinux) or an ELF file with a .BTF section",
    )
