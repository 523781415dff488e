"""The same two rings as a C11 program under real threads: compiled where it runs, counting the "full" that are lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import CompileError
from xdpctl.lab.sandbox import LabError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("rings.c")
COMPILERS = ("cc", "gcc", "clang")
PAIRS = (("plain", "checked"), ("early", "locked"))
"""Modes with the race, and their twins without it."""


@dataclass(frozen=True, slots=True)
class Raced:
    """One run."""

    mode: str
    seconds: float
    calls: int
    full: int
    """How often a ring called itself full that held two items at most."""
    slots: int
    pinned: bool
    """Both threads had a CPU of their own."""


@contextmanager
def compiled() -> Iterator[Path]:
    """The program, in a temporary folder.

    Raises:
        CompileError: there is no C compiler, or it refuses the source.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        raise CompileError(
            "there is no C compiler (cc, gcc, clang)", hint="apt install gcc, or name one in the variable CC"
        )
    with tempfile.TemporaryDirectory(prefix="xdpctl-rings-") as folder:
        program = Path(folder) / "rings"
        command = [*compiler.split(), "-O2", "-std=c11", "-pthread", "-o", str(program), str(SOURCE)]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        except OSError as error:
            raise CompileError(f"{compiler}: {error.strerror}", hint="CC names the C compiler") from error
        if done.returncode:
            raise CompileError(f"{compiler} refuses {SOURCE.name}", diagnostics=done.stderr)
        yield program


def race(program: Path, mode: str, seconds: float) -> Raced:
    """Let two threads race.

    Raises:
        LabError: the program failed.
    """
    done = subprocess.run(
        [str(program), mode, str(seconds)], check=False, capture_output=True, text=True, timeout=seconds + 30
    )
    if done.returncode:
        raise LabError(f"rings {mode}: ended with {done.returncode}: {done.stderr.strip()}")
    told = json.loads(done.stdout)
    return Raced(mode, told["seconds"], told["calls"], told["full"], told["slots"], told["pinned"])


def race_until_full(program: Path, mode: str, *, seconds: float, rounds: int) -> Raced:
    """Race for `seconds` at a time until a ring has called itself full, at most `rounds` times; the sum."""
    total: Raced | None = None
    for _ in range(rounds):
        one = race(program, mode, seconds)
        total = (
            one
            if total is None
            else Raced(
                mode,
                total.seconds + one.seconds,
                total.calls + one.calls,
                total.full + one.full,
                one.slots,
                total.pinned and one.pinned,
            )
        )
        if total.full:
            break
    assert total is not None  # noqa: S101 - at least one round
    return total
