"""In which line of a TOML text does a value stand? (the grammar of toml.io 1.0; tomli tells values, not places).

The text is one that tomli took, so only what is well-formed needs to be followed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple["str | int", ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?")
_QUOTES = ('"""', "'''", '"', "'")


def lines(text: str) -> dict[Path, int]:
    """Line, from 1, of every key, table and array element, by its path from the top."""
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.at = 0
        self.line = 1
        self.counted = 0
        self.found: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}
        """Tables so far of each array of tables."""

    def run(self) -> dict[Path, int]:
        here: Path = ()
        while self.skip(newlines=True):
            if self.text.startswith("[[", self.at):
                self.at += 2
                here = self.header(array=True)
                self.at += 2
            elif self.text[self.at] == "[":
                self.at += 1
                here = self.header(array=False)
                self.at += 1
            else:
                self.pair(here)
        return self.found

    def place(self) -> int:
        """Line of the current character; asked in ascending order."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def note(self, path: Path, line: int) -> None:
        for length in range(1, len(path)):
            self.found.setdefault(path[:length], line)
        self.found.setdefault(path, line)

    def skip(self, *, newlines: bool) -> bool:
        """Past blanks and comments; False at the end."""
        blank = " \t\n" if newlines else " \t"
        while self.at < len(self.text):
            if self.text[self.at] in blank:
                self.at += 1
            elif self.text[self.at] == "#" and newlines:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def keys(self) -> Iterator[str]:
        while True:
            self.skip(newlines=False)
            if self.text[self.at] in "\"'":
                yield self.string()
            else:
                match = _BARE.match(self.text, self.at)
                if match is None:
                    raise ValueError(self.at)
                self.at = match.end()
                yield match[0]
            self.skip(newlines=False)
            if self.text[self.at] != ".":
                return
            self.at += 1

    def string(self) -> str:
        start = self.at
        quote = next(one for one in _QUOTES if self.text.startswith(one, start))
        self.at += len(quote)
        while not self.text.startswith(quote, self.at):
            self.at += 2 if quote[0] == '"' and self.text[self.at] == "\\" else 1
        while len(quote) == 3 and self.text.startswith(quote, self.at + 1):
            self.at += 1  # up to two quotes may stand before the closing three
        self.at += len(quote)
        raw = self.text[start + len(quote) : self.at - len(quote)]
        if len(quote) == 1 and "\\" in raw and quote == '"':
            import tomli

            return str(tomli.loads(f"x = {self.text[start : self.at]}")["x"])
        return raw

    def header(self, *, array: bool) -> Path:
        line = self.place()
        path: Path = ()
        for name in self.keys():
            path = (*path, name)
            if path in self.arrays:
                path = (*path, self.arrays[path] - 1)
        if array:
            base = path[:-1] if path and isinstance(path[-1], int) else path
            number = self.arrays.get(base, 0)
            self.arrays[base] = number + 1
            path = (*base, number)
            for one in [one for one in self.arrays if len(one) > len(base) and one[: len(base)] == base]:
                if len(one) > len(base) + 1 and one[len(base)] == number:
                    del self.arrays[one]
        self.note(path, line)
        return path

    def pair(self, base: Path) -> None:
        line = self.place()
        path = (*base, *self.keys())
        self.at += 1  # the equals sign
        self.note(path, line)
        self.value(path)

    def value(self, path: Path) -> None:
        self.skip(newlines=False)
        first = self.text[self.at]
        if first in "\"'":
            self.string()
        elif first == "[":
            self.at += 1
            number = 0
            while self.skip(newlines=True) and self.text[self.at] != "]":
                self.note((*path, number), self.place())
                self.value((*path, number))
                number += 1
                self.skip(newlines=True)
                self.at += self.text[self.at] == ","
            self.at += 1
        elif first == "{":
            self.at += 1
            while self.skip(newlines=True) and self.text[self.at] != "}":
                self.pair(path)
                self.skip(newlines=True)
                self.at += self.text[self.at] == ","
            self.at += 1
        else:
            match = _SCALAR.match(self.text, self.at)
            if match is None:
                raise ValueError(self.at)
            self.at = match.end()
