"""TOML 1.0 as text, comments included: what `xdpctl export` writes (Python reads TOML and writes none)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_VARIABLE = re.compile(r"\$(?=[{$])")
MOST_WIDTH = 100


def key(name: str) -> str:
    """A key, bare where it may be."""
    return name if _BARE.fullmatch(name) else quoted(name)


def quoted(text: str) -> str:
    """A basic string."""
    made = "".join(
        _ESCAPES.get(one) or (one if ord(one) >= 0x20 and one != "\x7f" else f"\\u{ord(one):04x}")
        for one in text
    )
    return f'"{made}"'  # fmt: skip


def literal(text: str) -> str:
    """Text that ``${NAME}`` must not be read in: `files.put_in` takes ``$$`` for a dollar sign."""
    return _VARIABLE.sub("$$", text)


def value(one: Any) -> str:
    """A value, tables inline.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(one, bool):
        return "true" if one else "false"
    if isinstance(one, (int, float)):
        return repr(one)
    if isinstance(one, str):
        return quoted(literal(one))
    if isinstance(one, (list, tuple)):
        inner = [value(each) for each in one]
        line = f"[{', '.join(inner)}]"
        return line if len(line) <= MOST_WIDTH else "[\n" + "".join(f"  {each},\n" for each in inner) + "]"
    if hasattr(one, "items"):
        return "{ " + ", ".join(f"{key(str(name))} = {value(each)}" for name, each in one.items()) + " }"
    raise TypeError(f"no TOML value: {type(one).__name__}")


class Writer:
    """Lines of a document, in the order in which they are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def comment(self, text: str) -> None:
        """One or more comment lines; control characters are spelled out, which TOML does not take there."""
        for line in text.split("\n"):
            shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)
            self.lines.append(f"# {shown}".rstrip())

    def gap(self) -> None:
        """An empty line, where there is none yet."""
        if self.lines and self.lines[-1]:
            self.lines.append("")

    def table(
        self, *path: str, array: bool = False, pairs: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()
    ) -> None:
        """``[path]`` or ``[[path]]``, and its pairs; those that are None are left out."""
        name = ".".join(key(one) for one in path)
        self.lines.append(f"[[{name}]]" if array else f"[{name}]")
        for one, content in dict(pairs).items():
            if content is not None:
                self.lines.append(f"{key(one)} = {value(content)}")

    def text(self) -> str:
        """The document."""
        return "\n".join(self.lines).rstrip("\n") + "\n"
