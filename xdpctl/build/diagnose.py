"""Turns what clang printed into our error: its first error as the message, what helps as the hint."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from xdpctl.build import packages
from xdpctl.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOCATED = re.compile(r"^(?P<where>.+?:\d+:\d+): (?:fatal )?error: (?P<text>.+)$", re.MULTILINE)
_BARE = re.compile(r"^(?:[\w./+-]*clang[\w.+-]*: )?(?:fatal )?error: (?P<text>.+)$", re.MULTILINE)
_HEADER = re.compile(r"'(?P<name>[^']+)' file not found")

HINTS = (
    (
        re.compile(r"No available targets are compatible with triple \"bpf"),
        "this clang was built without the bpf target: "
        + packages.CLANG.hint()
        + ", or name another with --clang",
    ),
    (
        re.compile(r"unknown target CPU 'v\d'"),
        "this clang is too old for BPF instruction set v3: LLVM 9 and newer",
    ),
    (re.compile(r"No space left on device"), "make room there, or name another folder with -o"),
    (
        re.compile(r"vmlinux\.h:\d+:\d+: (?:note: previous|error: (?:typedef )?redefinition)"),
        "vmlinux.h has the kernel's types already: don't include linux/*.h, sys/*.h or stdint.h beside it",
    ),
)
"""What clang says -> what helps, where a missing header is not it; the first that fits."""


def wants(header: str, output: str) -> bool:
    """Whether clang stopped because `header` was not found."""
    return any(
        fits["name"] == header for fits in _HEADER.finditer(output) if "error:" in _line_of(output, fits)
    )


def _line_of(output: str, fits: re.Match[str]) -> str:
    return output[output.rfind("\n", 0, fits.start()) + 1 : fits.end()]


def first_error(source: Path, returncode: int, output: str) -> str:
    """One line: where and what clang's first error is, or how clang ended without one."""
    located = _LOCATED.search(output)
    if located:
        return f"{located['where']}: {located['text']}"
    bare = _BARE.search(output)
    if bare:
        return f"{source}: {bare['text']}"
    if returncode < 0:
        return f"{source}: clang was ended by {_signal_name(-returncode)}"
    return f"{source}: clang ended with {returncode} and gave no reason"


def hint(returncode: int, output: str, include: Sequence[Path]) -> str | None:
    """What to type against the first error, where we know; `include` are the system's header folders."""
    located = _LOCATED.search(output)
    missing = _HEADER.search(located["text"]) if located else None
    if missing:
        return packages.header_hint(missing["name"], include)
    if returncode == -signal.SIGKILL:
        return "probably out of memory: compile fewer at once, -j 1"
    return next((text for pattern, text in HINTS if pattern.search(output)), None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def error_of(failed: Sequence[tuple[Path, int, str]], include: Sequence[Path]) -> CompileError:
    """The error for `failed` compilations.

    Args:
        failed: (source, clang's exit status, what it printed), at least one.
        include: the system's header folders that clang searched.
    """
    source, returncode, output = failed[0]
    message = first_error(source, returncode, output)
    if len(failed) > 1:
        message += f" (and {len(failed) - 1} more source{'s' if len(failed) > 2 else ''} failed)"
    return CompileError(
        message,
        hint=hint(returncode, output, include),
        diagnostics="\n".join(text.rstrip("\n") for _, _, text in failed if text) + "\n",
    )
