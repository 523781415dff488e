"""Which files make a deployment: TOML files, folders of them, what they include, and their variables put in."""

from __future__ import annotations

import os
import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.deploy.desired import Place, Wrong
from xdpctl.errors import near
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LARGEST = 4 << 20
"""Bytes of one TOML file: what is larger is data, and belongs into entries_from."""
MOST_FILES = 1000
GLOB = "*?["
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\{)")

Path_ = tuple["str | int", ...]


@dataclass(slots=True)
class Source:
    """One TOML file, read."""

    path: Path
    document: dict[str, Any]
    lines: Mapping[Path_, int] = field(default_factory=dict)

    def place(self, path: Path_) -> Place:
        """Where a value of it stands; of what is absent, its table."""
        at = path
        while at and at not in self.lines:
            at = at[:-1]
        return Place(str(self.path), self.lines.get(at), spelled(path))


def spelled(path: Path_) -> str:
    """``interface[0].rings.rx``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_all(named: Iterable[Path], wrong: list[Wrong]) -> list[Source]:
    """Files, the ``*.toml`` of folders, and all they include; each once. What is wrong goes into `wrong`."""
    found: dict[Path, Source | None] = {}
    for path in named:
        if path.is_dir():
            inside = sorted(path.glob("*.toml"))
            if not inside:
                wrong.append(Wrong(Place(str(path)), "no *.toml in this folder"))
            for one in inside:
                if _within(one, path, wrong, Place(str(path))):
                    _read(one, found, wrong, Place())
        else:
            _read(path, found, wrong, Place())
    return [one for one in found.values() if one is not None]


def _read(path: Path, found: dict[Path, Source | None], wrong: list[Wrong], named_at: Place) -> None:
    real = Path(os.path.realpath(path))
    if real in found:
        return
    if len(found) >= MOST_FILES:
        wrong.append(Wrong(named_at, f"more than {MOST_FILES} files"))
        return
    found[real] = None
    text = _text(path, wrong, named_at)
    if text is None:
        return
    import tomli

    from xdpctl.deploy import positions

    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        said = str(error).partition(" (at ")[0]
        wrong.append(
            Wrong(
                Place(str(path), int(match[1]) if match else None), f"no TOML: {said[:1].lower()}{said[1:]}"
            )
        )
        return
    except (ValueError, RecursionError) as error:  # a date that does not exist, bottomless nesting
        wrong.append(Wrong(Place(str(path)), f"no TOML that can be read: {error}"))
        return
    try:
        lines = positions.lines(text)
    except (ValueError, IndexError, RecursionError):
        lines = {}
    source = Source(path, document, lines)
    found[real] = source
    includes = document.get("include", [])
    for number, pattern in enumerate(includes if isinstance(includes, list) else []):
        if isinstance(pattern, str):
            for one in _included(path, pattern, source.place(("include", number)), wrong):
                _read(one, found, wrong, source.place(("include", number)))


def _text(path: Path, wrong: list[Wrong], named_at: Place) -> str | None:
    place = named_at if named_at.file else Place(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        hint = None
        if isinstance(error, FileNotFoundError):
            beside = [one.name for one in path.parent.glob("*.toml")] if path.parent.is_dir() else []
            close = near(path.name, beside)
            hint = f"did you mean {path.parent / close[0]}?" if close else None
        wrong.append(Wrong(place, f"can't read {path}: {(error.strerror or str(error)).lower()}", hint))
        return None
    if len(data) > LARGEST:
        wrong.append(
            Wrong(
                Place(str(path)),
                f"this file has more than {LARGEST >> 20} MiB",
                "a deployment is small; elements of maps belong into a CSV file: entries_from",
            )
        )
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong.append(Wrong(Place(str(path), line), f"no TOML: not UTF-8 (byte 0x{data[error.start]:02x})"))
        return None


def _included(base: Path, pattern: str, place: Place, wrong: list[Wrong]) -> list[Path]:
    if "\0" in pattern:
        wrong.append(Wrong(place, f"{pattern!r} can't be a path"))
        return []
    path = Path(os.path.normpath(base.parent / pattern))
    if not any(one in pattern for one in GLOB):
        return [path] if _within(path, base.parent, wrong, place) else []
    import glob

    found = sorted(map(Path, glob.glob(str(path))))  # noqa: PTH207 - patterns with .. and absolute ones
    if not found:
        wrong.append(Wrong(place, f"{pattern} fits no file"))
    return [one for one in found if one.is_file() and _within(one, base.parent, wrong, place)]


def _within(path: Path, base: Path, wrong: list[Wrong], place: Place) -> bool:
    """Whether a path stays where its words lead: no symbolic link on the way goes elsewhere.

    The tree is what the base folder and the path have in common as they are written: ``../bpf/x.c`` may leave the
    base folder, since it says so.
    """
    written, start = os.path.abspath(path), os.path.abspath(base)  # noqa: PTH100 - must not follow symlinks
    tree = os.path.realpath(os.path.commonpath([written, start]))
    real = os.path.realpath(written)
    if real != tree and not real.startswith(tree.rstrip("/") + "/"):
        wrong.append(
            Wrong(place, f"{path} leads out of {tree}, to {real}", "symbolic links must stay in the tree")
        )
        return False
    return True


def resolve(source: Source, text: str, place: Place, wrong: list[Wrong]) -> Path | None:
    """The file that a TOML file names, relative to it; None where it is not there, with the reason in `wrong`."""
    base = source.path.parent
    path = Path(os.path.normpath(base / text))
    if not _within(path, base, wrong, place):
        return None
    try:
        if path.is_file():
            return path
        exists = path.exists()
    except OSError as error:
        wrong.append(Wrong(place, f"can't use {path}: {(error.strerror or str(error)).lower()}"))
        return None
    if exists:
        wrong.append(Wrong(place, f"{path} is no file"))
        return None
    beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    close = near(path.name, beside)
    wrong.append(Wrong(place, f"no such file: {path}", f"did you mean {close[0]}?" if close else None))
    return None


# -- variables ----------------------------------------------------------------------------------------------------


def put_in(
    sources: list[Source], given: Mapping[str, str], environment: Mapping[str, str], wrong: list[Wrong]
) -> None:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every text; ``$$`` is a dollar sign.

    A value comes from `given` (--var), else from a [vars] table (an including file's before an included one's), else
    from the environment. A text that is nothing but a variable takes its type.
    """
    values: dict[str, Any] = {}
    for source in sources:
        table = source.document.get("vars")
        for name, value in (table if isinstance(table, dict) else {}).items():
            values.setdefault(name, value)
    values.update(given)
    finder = _Finder(values, environment)
    for source in sources:
        for key in list(source.document):
            source.document[key] = finder.fill(source.document[key], source, (key,), wrong, ())
    known = set(values)
    for name in given:
        if name not in finder.used and not any(name in _table(one) for one in sources):
            close = near(name, known - {name})
            wrong.append(
                Wrong(
                    Place(),
                    f"--var {name}: no file uses ${{{name}}}",
                    f"did you mean {close[0]}?" if close else None,
                )
            )


def _table(source: Source) -> Mapping[str, Any]:
    found = source.document.get("vars")
    return found if isinstance(found, dict) else {}


class _Finder:
    def __init__(self, values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.values = values
        self.environment = environment
        self.used: set[str] = set()

    def fill(
        self, value: Any, source: Source, path: Path_, wrong: list[Wrong], within: tuple[str, ...]
    ) -> Any:
        if isinstance(value, dict):
            return {key: self.fill(one, source, (*path, key), wrong, within) for key, one in value.items()}
        if isinstance(value, list):
            return [self.fill(one, source, (*path, at), wrong, within) for at, one in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        whole = _VARIABLE.fullmatch(value)
        if whole is not None and whole[1]:
            return self.value_of(whole, source, path, wrong, within)
        return _VARIABLE.sub(lambda one: _written(self.value_of(one, source, path, wrong, within)), value)

    def value_of(
        self, match: re.Match[str], source: Source, path: Path_, wrong: list[Wrong], within: tuple[str, ...]
    ) -> Any:
        if match[0] == "$$":
            return "$"
        name = match[1]
        if name is None:
            wrong.append(
                Wrong(source.place(path), "a ${ that is no variable", "${NAME}, or $${ for the characters")
            )
            return match[0]
        self.used.add(name)
        if name in within:
            wrong.append(Wrong(source.place(path), f"${{{name}}} is made of itself"))
            return match[0]
        if name in self.values:
            return self.fill(self.values[name], source, path, wrong, (*within, name))
        if name in self.environment:
            return self.environment[name]
        if match[2] is not None:
            return match[2]
        close = near(name, [*self.values, *self.environment])
        hint = f"did you mean ${{{close[0]}}}? " if close else ""
        wrong.append(
            Wrong(source.place(path), f"no variable ${{{name}}}", f"{hint}give it: --var {name}=...")
        )
        return match[0]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
