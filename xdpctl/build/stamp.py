"""What an object was made of, kept beside it, to tell whether it is current."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMAT = 1

Mark = tuple[int, int]
"""mtime in ns and size in bytes: a file that differs in neither is taken as the same."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One compilation.

    Attributes:
        recipe: digest of the compiler's version and all its arguments.
        object: mark of the object when it was put in place.
        inputs: absolute path -> mark, of the source and every header it included.
        btf: digest of the BTF that vmlinux.h was made from; None: it was not asked for.
        warnings: what clang said besides.
    """

    recipe: str
    object: Mark
    inputs: dict[str, Mark]
    btf: str | None
    warnings: str


def mark(path: Path) -> Mark | None:
    """The file's mark, or None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def write(path: Path, stamp: Stamp) -> None:
    """Save `stamp`, whole or not at all.

    Raises:
        OSError: the folder can't be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps({"format": FORMAT, **asdict(stamp)}))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> Stamp | None:
    """The stamp that was saved, or None where there is none or it can't be made out."""
    try:
        said = json.loads(path.read_text())
        if said.pop("format") != FORMAT:
            return None
        stamp = Stamp(**said)
        inputs = {name: _as_mark(pair) for name, pair in stamp.inputs.items()}
        return replace(stamp, object=_as_mark(stamp.object), inputs=inputs, warnings=str(stamp.warnings))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _as_mark(pair: Any) -> Mark:
    mtime, size = pair
    return int(mtime), int(size)


def why_stale(
    stamp: Stamp | None,
    target: Path,
    *,
    recipe: str,
    btf: Callable[[], str | None],
    mark: Callable[[str], Mark | None],
) -> str | None:
    """Why the object has to be made anew, in words; None: it is current.

    Args:
        stamp: what was saved at its last compilation.
        target: the object.
        recipe: digest it would be made with now.
        btf: digest of the BTF that vmlinux.h would be made from now; only asked where it was.
        mark: of an input, by absolute path.
    """
    now = mark(str(target))
    if now is None:
        return "not built yet"
    if stamp is None:
        return "not built by us"
    if stamp.object != now:
        return "the object changed"
    if stamp.recipe != recipe:
        return "the compiler or its flags changed"
    for name, was in stamp.inputs.items():
        if mark(name) != was:
            return f"{name} changed"
    if stamp.btf is not None and stamp.btf != btf():
        return "the BTF changed"
    return None
