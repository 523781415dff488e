"""Which sources are meant, and which object each becomes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

PATTERN = "*.bpf.c"


def collect(named: Sequence[Path], *, here: Path | None = None) -> list[Path]:
    """The source files meant by `named`: files as they are, of a folder its ``*.bpf.c``; each once, in order.

    With nothing named: those of ``bpf/`` below `here` (the current folder), or else of `here` itself.

    Raises:
        NotFoundError: one does not exist.
        ConfigError: one is not C, can't be read, or a folder has no ``*.bpf.c``.
    """
    if not named:
        return _default(here or Path())
    found: dict[Path, Path] = {}
    for path in named:
        try:
            for source in _of_folder(path) if path.is_dir() else [_checked(path)]:
                found.setdefault(source.resolve(), source)
        except OSError as error:  # a folder above it that may not be searched, a name too long
            raise ConfigError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from error
    return list(found.values())


def _default(here: Path) -> list[Path]:
    for folder in (here / "bpf", here):
        sources = sorted(folder.glob(PATTERN))
        if sources:
            return sources
    raise ConfigError(
        f"nothing to build: no {PATTERN} in ./bpf or here", hint="name sources: xdpctl build prog.bpf.c"
    )


def _of_folder(folder: Path) -> list[Path]:
    sources = sorted(folder.glob(PATTERN))
    if not sources:
        others = sorted(path.name for path in folder.glob("*.c"))
        raise ConfigError(
            f"no {PATTERN} in {folder}",
            hint=f"name the files themselves: {folder / others[0]}" if others else None,
        )
    return sources


def _checked(path: Path) -> Path:
    if not path.exists():
        near = [str(other) for other in path.parent.glob("*.c")] if path.parent.is_dir() else []
        raise NotFoundError("source", str(path), known=near)
    if path.suffix != ".c":
        raise ConfigError(f"{path} is not a C source: its name does not end in .c")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"can't read {path}: permission denied")
    return path


def objects(sources: Sequence[Path], out_dir: Path) -> list[Path]:
    """The object of each source: ``out_dir/NAME.bpf.o`` for ``NAME.bpf.c``.

    Raises:
        ConfigError: two sources would become one object.
    """
    owner: dict[Path, Path] = {}
    for source in sources:
        target = out_dir / f"{source.name[: -len('.c')]}.o"
        if target in owner:
            raise ConfigError(
                f"{owner[target]} and {source} would both become {target}",
                hint="build them apart, each with its own -o DIR",
            )
        owner[target] = source
    return list(owner)
