"""Reads the dependency file that ``clang -MD`` writes: one make rule, escaped as make wants it."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<gap>     \\\n | [ \t]+ )              # between names; a rule goes on behind backslash-newline
  | (?P<end>     \n )
  | (?P<doubled> (?: \\\\ )* ) \\ [ ]         # a blank in a name: backslashes right before it are doubled
  | (?P<pairs>   (?: \\\\ )+ ) (?= [ ] )      # a name that ends in backslashes
  | (?P<before>  \\* ) \\ \#
  | (?P<dollar>  \$\$ )
  | (?P<char>    . )
    """,
    re.VERBOSE | re.DOTALL,
)


def parse(text: str) -> list[str]:
    r"""The prerequisites of the first rule of `text`, each once, in their order; paths as clang spells them.

    Mirrors PrintFilename of clang's DependencyFile.cpp: ``\ `` is a blank within a name, ``\#`` a ``#``,
    ``$$`` a ``$``. Any other backslash stands for itself. Text without a rule has no prerequisites.
    """
    targets = re.search(r":(?=[ \t\n]|\\\n|\Z)", text)
    if targets is None:
        return []
    names: dict[str, None] = {}
    name = ""
    for token in _TOKEN.finditer(text, targets.end()):
        kind, piece = token.lastgroup, token.group()
        if kind in ("gap", "end"):
            if name:
                names[name] = None
            name = ""
            if kind == "end":
                break
        elif kind == "doubled":
            name += "\\" * (len(token["doubled"]) // 2) + " "
        elif kind == "pairs":
            name += "\\" * (len(piece) // 2)
        elif kind == "before":
            name += token["before"] + "#"
        else:
            name += "$" if kind == "dollar" else piece
    if name:
        names[name] = None
    return list(names)
