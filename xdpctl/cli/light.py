"""Option values without pydantic: typer imports it (50 to 100 ms) for every command, even to hand on a plain string.

Absent values, defaults, flags, strings and paths are handed on here; anything else goes typer's own way, pydantic
included. This takes the place of one function of typer's (0.29): where it is not there, nothing is changed and
commands are merely slower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LISTS: dict[Any, Any] = {list[str]: str, list[Path]: Path}
"""No path here is asked to exist: commands tell better themselves."""


class Light:
    """Stands in for typer's RuntimeParam of one parameter (``_TyperParameter.get_runtime_param``)."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor
        self._heavy: Any = None

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command's function takes it."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        annotation = self._descriptor.annotation
        if annotation is str and isinstance(value, str):
            return value
        if annotation in (bool, int, float) and type(value) is annotation:
            return value
        if several and annotation in _LISTS and all(isinstance(one, str) for one in value):
            return [_LISTS[annotation](one) for one in value]
        if annotation is Path and isinstance(value, str):
            return Path(value)
        if self._heavy is None:
            from typer._coercion import build_runtime_param

            self._heavy = build_runtime_param(self._descriptor)
        return self._heavy.coerce(value, param=param, ctx=ctx)


def lighten() -> None:
    """From now on parameters are handled by `Light`."""
    import typer.core

    if hasattr(typer.core, "build_runtime_param"):
        typer.core.build_runtime_param = Light
