"""A Snapshot as JSON and back, exactly: what `xdpctl snapshot` writes and `xdpctl doctor --snapshot` reads.

One object with the fields of `Snapshot`, and ``feature_sets``: links that have the same features share one set, and
``features`` of a link is its place there. In a set a feature is told as ethtool tells it: ``on``, ``off [fixed]``,
``off [requested on]``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xdpctl.errors import ConfigError
from xdpctl.host import model
from xdpctl.host.codec import Codec, Special, WrongError
from xdpctl.host.model import SCHEMA, Feature, Problem, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

FEATURE_SETS = "feature_sets"
MOST_BYTES = 1 << 28
"""A file longer than this is refused before it is read: a snapshot of ten thousand links has 10 MB."""

_FEATURE_HINT = Mapping[str, Feature]


def dump(snapshot: Snapshot, *, redact: bool = False) -> dict[str, Any]:
    """The snapshot as JSON values.

    Args:
        snapshot: what to write.
        redact: replace hardware and IP addresses by pseudonyms, the same address by the same one everywhere.
    """
    sets = _FeatureSets()
    found = _codec(sets).encode(snapshot)
    document = {"schema": found.pop("schema"), **found, FEATURE_SETS: sets.written}
    if redact:
        from xdpctl.host.redact import redacted

        return redacted(document)
    return document


def text(document: dict[str, Any]) -> str:
    """A dumped snapshot as text: a line for each link and program, so that two can be compared with diff."""
    lines = []
    for key, value in document.items():
        lines.append(f"{json.dumps(key)}: {_namespaces(value) if key == 'namespaces' else _lines(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _namespaces(value: list[dict[str, Any]]) -> str:
    parts = []
    for one in value:
        head = json.dumps({key: each for key, each in one.items() if key != "links"})
        parts.append(f'{head[:-1]}, "links": {_lines(one["links"])}' + "}")
    return "[\n" + ",\n".join(parts) + "\n]" if parts else "[]"


def _lines(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    if isinstance(value, dict) and value and isinstance(next(iter(value.values())), (dict, list)):
        return (
            "{\n"
            + ",\n".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in value.items())
            + "\n}"
        )
    return json.dumps(value)


def read(path: Path) -> Snapshot:
    """The snapshot in a file; ``-`` is standard input.

    Raises:
        ConfigError: it can't be read, or is no snapshot that this xdpctl understands.
    """
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read snapshot {path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path} is no snapshot: it has more than {MOST_BYTES >> 20} MiB")
    try:
        return load(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", hint=error.hint) from error


def load(document: Mapping[str, Any] | str | bytes) -> Snapshot:
    """The snapshot that was dumped.

    A field that may be unknown and is absent becomes unknown, with a problem that says so; other errors in the
    document are refused.

    Raises:
        ConfigError: no JSON (truncated), no snapshot, a newer one, a required field absent or of a wrong type;
            the path of what is wrong is named.
    """
    values = _parsed(document) if isinstance(document, (str, bytes)) else document
    if not isinstance(values, dict) or "schema" not in values or "namespaces" not in values:
        raise ConfigError("this is no snapshot of xdpctl", hint="make one with: xdpctl snapshot > host.json")
    schema = values["schema"]
    if type(schema) is not int or schema < 1:
        raise ConfigError(
            f"schema: a whole number from 1 expected, not {json.dumps(schema, default=str)[:40]}"
        )
    if schema > SCHEMA:
        raise ConfigError(
            f"this snapshot has schema {schema}, this xdpctl understands up to {SCHEMA}",
            hint="use an xdpctl that is at least as new as the one that made it",
        )
    codec: Codec | None = None
    try:
        codec = _codec(_FeatureSets.read(values.get(FEATURE_SETS, [])))
        snapshot: Snapshot = codec.decoder(Snapshot)(values)
    except WrongError as error:
        raise ConfigError(f"{error.where()}: {error.message}") from error
    return _with_problems(snapshot, codec) if codec.missing else snapshot


def _parsed(document: str | bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(document, parse_constant=refuse)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        raise ConfigError(
            f"this is no whole JSON document: {error.msg} at line {error.lineno}, column {error.colno}",
            hint="it ends too early: was it copied whole?" if cut else None,
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, a number of thousands of digits, bottomless nesting
        raise ConfigError(f"this is no JSON document: {error}") from error


def _with_problems(snapshot: Snapshot, codec: Codec) -> Snapshot:
    from dataclasses import replace

    told = tuple(
        Problem(f"{name} in the snapshot", f"absent {count} times, so unknown")
        for name, count in sorted(codec.missing.items())
    )
    return replace(snapshot, problems=snapshot.problems + told)


def _codec(sets: _FeatureSets) -> Codec:
    return Codec({"Mapping": Mapping, **vars(model)}, {_FEATURE_HINT: Special(sets.place, sets.at)})


class _FeatureSets:
    """The distinct feature sets of a snapshot, each written once."""

    def __init__(self) -> None:
        self.written: list[dict[str, str]] = []
        self._places: dict[int, int] = {}
        self._known: dict[tuple[tuple[str, str], ...], int] = {}
        self._kept: list[Mapping[str, Feature]] = []
        self._read: list[Mapping[str, Feature]] = []

    def place(self, features: Mapping[str, Feature]) -> int:
        """Where a set is written; equal ones are found by identity first, since collectors share them."""
        found = self._places.get(id(features))
        if found is None:
            words = {name: _word(one) for name, one in features.items()}
            key = tuple(words.items())
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = len(self.written)
                self.written.append(words)
            self._kept.append(features)  # as long as it lives, no other object has its id
            self._places[id(features)] = found
        return found

    @classmethod
    def read(cls, document: Any) -> _FeatureSets:
        """The sets of a document, shared by the links that refer to them."""
        sets = cls()
        try:
            sets._read = list(_READ_SETS(document))
        except WrongError as error:
            error.path.append(FEATURE_SETS)
            raise
        return sets

    def at(self, place: Any) -> Mapping[str, Feature]:
        """The set that a link refers to."""
        if type(place) is not int or not 0 <= place < len(self._read):
            raise WrongError(f"a place in {FEATURE_SETS} expected")
        return self._read[place]


def _word(one: Feature) -> str:
    word = "on" if one.active else "off"
    if one.wanted != one.active:
        word += " [requested on]" if one.wanted else " [requested off]"
    return word + " [fixed]" if one.fixed else word


_BOTH = (False, True)
_BY_WORD = {
    _word(one): one
    for one in (Feature(active, wanted, fixed) for active in _BOTH for wanted in _BOTH for fixed in _BOTH)
}


def _feature(word: Any) -> Feature:
    if type(word) is not str or word not in _BY_WORD:
        raise WrongError("on or off expected, as ethtool -k tells it")
    return _BY_WORD[word]


_READ_SETS = Codec({}, {Feature: Special(_word, _feature)}).decoder(tuple[Mapping[str, Feature], ...])
