"""How ``hits=0, name="a b" pair={a=1}`` is cut into its pieces, and which text must be quoted to stay in one piece."""

from __future__ import annotations

import json
import re

from xdpctl.errors import ConfigError

_BARE = re.compile(r"[\w.:/@%+*~^!?$&;|<>#-]+\Z", re.ASCII)
_OPEN, _CLOSE = "[{(", "]})"
MAX_TEXT = 1 << 20
"""Characters of one key or value."""


def quoted(text: str) -> str:
    """The text as it stands between others: bare, or as a JSON string where that would not be one piece."""
    return text if _BARE.match(text) else json.dumps(text)


def split(text: str, path: str) -> list[str]:
    """The pieces between commas and blanks, outside of quotes and brackets.

    Raises:
        ConfigError: quotes or brackets that don't close.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{path or 'the value'} has {len(text)} characters")
    pieces: list[str] = []
    start, depth, at = -1, 0, 0
    while at < len(text):
        one = text[at]
        if one == '"':
            start = at if start < 0 else start
            at = _end_of_string(text, at, path)
            continue
        if depth == 0 and one in ", \t\n":
            if start >= 0:
                pieces.append(text[start:at])
            start = -1
        else:
            start = at if start < 0 else start
            depth += (one in _OPEN) - (one in _CLOSE)
            if depth < 0:
                raise ConfigError(f"{path or 'the value'}: {one} without its other half in {text[:60]!r}")
        at += 1
    if depth:
        raise ConfigError(f"{path or 'the value'}: a bracket does not close in {text[:60]!r}")
    if start >= 0:
        pieces.append(text[start:])
    return pieces


def _end_of_string(text: str, at: int, path: str) -> int:
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at + 1
        at += 1
    raise ConfigError(f'{path or "the value"}: a " does not close in {text[:60]!r}')
