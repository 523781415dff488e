"""TOML documents that were found right before need no second check: importing pydantic takes longer than a plan.

What the check made of a document (defaults filled in, values in their types) is kept in ``/run/xdpctl/checked``, under
a name that is the hash of the document and of the schema's own file, so another document or schema is never taken
for it. Wrong documents are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from xdpctl.attach import runstate

if TYPE_CHECKING:
    Told = list[tuple[tuple[str | int, ...], str, str | None]]

KEPT = 64
"""Documents that are kept; the oldest go."""
LARGEST = 1 << 22
_ONE = ("deployment", "rings", "channels", "pause", "napi")
_SEVERAL = ("program", "interface", "redirect", "attach", "entries")
"""Keys of tables, and of arrays of tables; what is below other keys belongs to the user."""


def check(document: dict[str, Any]) -> tuple[Any, Told]:
    """The document's content by attributes, as `schema.check` tells it, or everything that is wrong with it."""
    path = _path(document)
    if path is not None:
        with contextlib.suppress(OSError, ValueError), path.open(encoding="utf-8") as file:
            return _table(json.loads(file.read(LARGEST))), []
    from xdpctl.deploy import schema

    content, told = schema.check(document)
    if content is not None and path is not None:
        _keep(path, content.model_dump())
    return content, told


def _path(document: dict[str, Any]) -> Path | None:
    try:
        text = json.dumps(document, allow_nan=False)
        about = Path(__file__).with_name("schema.py").stat()
    except (TypeError, ValueError, OSError):
        return None  # dates, which JSON does not have
    if len(text) > LARGEST // 4:
        return None
    told = f"{about.st_mtime_ns} {about.st_size} {text}"
    return runstate.folder() / "checked" / hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def _keep(path: Path, content: dict[str, Any]) -> None:
    """Write it down, where that is possible: nothing depends on it."""
    fresh = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError, TypeError, ValueError):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh.write_text(json.dumps(content), encoding="utf-8")
        fresh.replace(path)
        for old in sorted(path.parent.iterdir(), key=lambda one: one.stat().st_mtime)[:-KEPT]:
            old.unlink()


def _table(value: dict[str, Any]) -> SimpleNamespace:
    made: dict[str, Any] = {}
    for name, one in value.items():
        if name in _ONE and isinstance(one, dict):
            made[name] = _table(one)
        elif name in _SEVERAL and isinstance(one, list):
            made[name] = [_table(each) if isinstance(each, dict) else each for each in one]
        elif name == "maps":
            made[name] = {key: _table(each) for key, each in one.items()}
        else:
            made[name] = one
    return SimpleNamespace(**made)
