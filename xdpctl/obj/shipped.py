"""Programs that come with xdpctl, by name: ``builtin:pass`` is what ``make build`` made of bpf/pass.bpf.c.

A fix that doctor offers must run from any folder, so it names such a program and not a path.
"""

from __future__ import annotations

import os
from pathlib import Path

from xdpctl.errors import NotFoundError

PREFIX = "builtin:"
SUFFIX = ".bpf.o"


def folder() -> Path:
    """Where they lie: $XDPCTL_PROGRAMS, else build/bpf beside the package."""
    chosen = os.environ.get("XDPCTL_PROGRAMS")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "build" / "bpf"


def names() -> list[str]:
    """Those that are compiled, as they are named behind ``builtin:``."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder().glob("*" + SUFFIX))


def resolve(named: Path) -> Path:
    """The file of ``builtin:NAME``; any other path as it is.

    Raises:
        NotFoundError: no compiled program has that name.
    """
    text = str(named)
    if not text.startswith(PREFIX):
        return named
    name = text.removeprefix(PREFIX).removesuffix(SUFFIX)
    known = names()
    if name not in known:  # compared with what is there, so a name can't lead out of the folder
        hint = (
            None
            if known
            else f"compile them with `make build`, or name their folder in XDPCTL_PROGRAMS (now {folder()})"
        )
        raise NotFoundError("builtin program", name, known=known, hint=hint)
    return folder() / (name + SUFFIX)
