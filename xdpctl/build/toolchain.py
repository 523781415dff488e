"""Finds clang and where the system's headers lie, and says what to install where they are missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from xdpctl.build import packages
from xdpctl.errors import CompileError, NotFoundError
from xdpctl.records import dataclass

TARGET_ARCH = {
    "aarch64": "arm64",
    "arm": "arm",
    "i386": "x86",
    "i686": "x86",
    "loongarch64": "loongarch",
    "mips": "mips",
    "powerpc": "powerpc",
    "ppc": "powerpc",
    "riscv": "riscv",
    "s390": "s390",
    "x86_64": "x86",
}
"""Machine of uname(2), or how it begins -> X of ``__TARGET_ARCH_X`` (bpf_tracing.h)."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The compiler of a build.

    Attributes:
        clang: path of the executable.
        version: its first line (``Debian clang version 14.0.6``).
        target_arch: X of ``__TARGET_ARCH_X``, or None where bpf_tracing.h knows none.
        include: system header folders, in the order in which clang searches them for this machine.
    """

    clang: str
    version: str
    target_arch: str | None
    include: tuple[Path, ...]


def find(clang: str | None = None) -> Toolchain:
    """The toolchain around `clang` (a path or a name), or around the newest clang in PATH.

    One ``clang -v -E`` tells version and header folders. For ``-target bpf`` clang leaves out the multiarch
    folder (``/usr/include/x86_64-linux-gnu``, with asm/types.h), so we ask for the machine's own and hand
    them over, as get_sys_includes of tools/testing/selftests/bpf/Makefile does.

    Raises:
        CompileError: there is no clang in PATH, or it does not run.
        NotFoundError: `clang` does not exist.
    """
    path = _locate(clang)
    argv = [path, "-v", "-E", "-x", "c", os.devnull, "-o", os.devnull]
    try:
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        reason = getattr(why, "strerror", None) or "no answer in 60 s"
        raise CompileError(f"{path} does not run: {reason}", hint="name another with --clang") from why
    version = next((line for line in done.stderr.splitlines() if "version" in line), "")
    if done.returncode or "clang" not in version:
        first = next(iter(done.stderr.splitlines()), f"it ended with {done.returncode}")
        raise CompileError(
            f"{path} is not a clang that works: {first}",
            hint="name another with --clang",
            diagnostics=done.stderr,
        )
    return Toolchain(path, version, _target_arch(os.uname().machine), tuple(_search_list(done.stderr)))


def _locate(clang: str | None) -> str:
    if clang is not None:
        found = shutil.which(clang)
        if found is None:
            raise NotFoundError("clang", clang, hint=packages.CLANG.hint())
        return found
    found = shutil.which("clang") or _newest_versioned()
    if found is None:
        raise CompileError("clang is not installed: no clang in PATH", hint=packages.CLANG.hint())
    return found


def _newest_versioned() -> str | None:
    """``clang-19`` and the like: Debian's numbered packages bring no plain ``clang``."""
    best: tuple[int, str] | None = None
    for folder in os.get_exec_path():
        try:
            names = [entry.name for entry in Path(folder).iterdir()]
        except OSError:
            continue
        for name in names:
            fits = re.fullmatch(r"clang-(\d+)", name)
            path = f"{folder}/{name}"
            if fits and (best is None or int(fits[1]) > best[0]) and os.access(path, os.X_OK):
                best = (int(fits[1]), path)
    return best[1] if best else None


def _target_arch(machine: str) -> str | None:
    return next((name for begin, name in TARGET_ARCH.items() if machine.startswith(begin)), None)


def _search_list(text: str) -> list[Path]:
    """The folders between clang's two marks, less its own headers (which it finds for any target)."""
    _, _, after = text.partition("#include <...> search starts here:\n")
    listed, _, _ = after.partition("End of search list.")
    folders = [Path(line.strip()) for line in listed.splitlines() if line.strip()]
    return [folder for folder in folders if not re.search(r"/clang/[\d.]+/include$", str(folder))]


def libbpf_headers(include: tuple[Path, ...]) -> list[Path]:
    """Folders to add for bpf/bpf_helpers.h: none where `include` has it, else the one pkg-config knows."""
    if any((folder / "bpf" / "bpf_helpers.h").exists() for folder in include) or not shutil.which(
        "pkg-config"
    ):
        return []
    done = subprocess.run(
        ["pkg-config", "--variable=includedir", "libbpf"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    folder = Path(done.stdout.strip())
    return [folder] if folder.is_absolute() and (folder / "bpf" / "bpf_helpers.h").exists() else []
