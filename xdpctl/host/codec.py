"""Frozen dataclasses to JSON values and back, driven by their type hints; wrong input is told by its path.

Understood: str, int, float, bool, dataclasses, ``X | None``, ``tuple[X, ...]``, ``tuple[X, Y]`` and ``Mapping`` from
str or int. Other types take a `Special` pair of functions.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from xdpctl.records import dataclass

if typing.TYPE_CHECKING:
    from collections.abc import Callable

    Encode = Callable[[Any], Any]
    Decode = Callable[[Any], Any]


class WrongError(Exception):
    """A value that doesn't fit, and the path that leads to it; `Codec.decode`'s caller makes it an xdpctl error."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.path: list[str | int] = []

    def where(self) -> str:
        """The path as people write it: ``namespaces[0].links[3].mtu``."""
        text = ""
        for step in reversed(self.path):
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text


@dataclass(frozen=True, slots=True)
class Special:
    """How a type that the hints don't describe is written and read."""

    encode: Encode
    decode: Decode


@dataclass(slots=True)
class Codec:
    """Encoders and decoders of one document, made from hints on first use.

    Attributes:
        names: what type hints may name beyond the builtins and their own module.
        special: by type hint, what to use instead of deriving it.
        missing: how often each optional field was absent while decoding, by ``Class.field``.
    """

    names: Mapping[str, Any]
    special: Mapping[Any, Special]
    missing: Counter[str] = field(default_factory=Counter)
    _encoders: dict[Any, Encode | None] = field(default_factory=dict)
    _decoders: dict[Any, Decode] = field(default_factory=dict)

    def encode(self, value: Any) -> Any:
        """The JSON value of a dataclass's instance."""
        inner = self.encoder(type(value))
        return value if inner is None else inner(value)

    def encoder(self, hint: Any) -> Encode | None:
        """What makes a JSON value of a value of type `hint`; None: it is one already."""
        if hint not in self._encoders:
            self._encoders[hint] = self._make_encoder(hint)
        return self._encoders[hint]

    def _make_encoder(self, hint: Any) -> Encode | None:
        if hint in self.special:
            return self.special[hint].encode
        if dataclasses.is_dataclass(hint):
            return self._dataclass_encoder(hint)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            inner = self.encoder(_not_none(arguments))
            return None if inner is None else lambda value: None if value is None else inner(value)
        if origin is tuple:
            each = self.encoder(arguments[0])
            return list if each is None else lambda value: list(map(each, value))
        if origin is Mapping:
            item = self.encoder(arguments[1])
            if item is None:
                return lambda value: {str(key): one for key, one in value.items()}
            return lambda value: {str(key): item(one) for key, one in value.items()}
        return None

    def _dataclass_encoder(self, kind: Any) -> Encode:
        hints = self._hints(kind)
        plan = [(one.name, self.encoder(hints[one.name])) for one in dataclasses.fields(kind) if one.init]

        def encode(value: Any) -> dict[str, Any]:
            return {
                name: getattr(value, name) if inner is None else inner(getattr(value, name))
                for name, inner in plan
            }

        return encode

    def decoder(self, hint: Any) -> Decode:
        """What makes a value of type `hint` from a JSON value, or raises `WrongError`."""
        if hint not in self._decoders:
            self._decoders[hint] = self._make_decoder(hint)
        return self._decoders[hint]

    def _make_decoder(self, hint: Any) -> Decode:
        if hint in self.special:
            return self.special[hint].decode
        if hint in _SCALARS:
            return _SCALARS[hint]
        if dataclasses.is_dataclass(hint):
            return self._dataclass_decoder(hint)
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            inner = self.decoder(_not_none(arguments))
            return lambda value: None if value is None else inner(value)
        if origin is tuple:
            return self._tuple_decoder(arguments)
        if origin is Mapping:
            return self._mapping_decoder(arguments)
        raise TypeError(f"no codec for {hint}")

    def _tuple_decoder(self, arguments: tuple[Any, ...]) -> Decode:
        each = self.decoder(arguments[0])
        length = None if arguments[-1] is Ellipsis else len(arguments)

        def decode(value: Any) -> tuple[Any, ...]:
            if type(value) is not list:
                raise WrongError(f"a list expected, not {_kind(value)}")
            if length is not None and len(value) != length:
                raise WrongError(f"{length} items expected, not {len(value)}")
            place = 0
            made = []
            try:
                for place, one in enumerate(value):  # noqa: B007 - told in the error
                    made.append(each(one))
            except WrongError as error:
                error.path.append(place)
                raise
            return tuple(made)

        return decode

    def _mapping_decoder(self, arguments: tuple[Any, ...]) -> Decode:
        each = self.decoder(arguments[1])
        numbered = arguments[0] is int

        def decode(value: Any) -> dict[Any, Any]:
            if type(value) is not dict:
                raise WrongError(f"an object expected, not {_kind(value)}")
            key = ""
            made: dict[Any, Any] = {}
            try:
                for key, one in value.items():
                    name: str | int = _number(key) if numbered else _text(key)
                    made[name] = each(one)
            except WrongError as error:
                error.path.append(str(key))
                raise
            return made

        return decode

    def _dataclass_decoder(self, kind: Any) -> Decode:
        hints = self._hints(kind)
        plan = [
            (one.name, self.decoder(hints[one.name]), _absent(one, hints[one.name]))
            for one in dataclasses.fields(kind)
            if one.init
        ]
        missing = self.missing

        def decode(value: Any) -> Any:
            if type(value) is not dict:
                raise WrongError(f"an object expected, not {_kind(value)}")
            name = ""
            made: list[Any] = []
            try:
                for name, inner, absent in plan:
                    if name in value:
                        made.append(inner(value[name]))
                    else:
                        made.append(absent())
                        missing[f"{kind.__name__}.{name}"] += 1
            except WrongError as error:
                error.path.append(name)
                raise
            return kind(*made)

        return decode

    def _hints(self, kind: Any) -> dict[str, Any]:
        return typing.get_type_hints(kind, localns=dict(self.names))


def _not_none(arguments: tuple[Any, ...]) -> Any:
    (inner,) = (one for one in arguments if one is not types.NoneType)
    return inner


def _absent(one: dataclasses.Field[Any], hint: Any) -> Callable[[], Any]:
    """What an absent field becomes: its default, or None where the hint allows it, or an error."""
    if one.default_factory is not dataclasses.MISSING:
        return one.default_factory
    if one.default is not dataclasses.MISSING:
        return lambda: one.default
    if types.NoneType in typing.get_args(hint):
        return lambda: None
    return _missing


def _missing() -> Any:
    raise WrongError("is missing")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise WrongError(f"text expected, not {_kind(value)}")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise WrongError(f"a whole number expected, not {_kind(value)}")
    return value


def _float(value: Any) -> float:
    if type(value) not in (int, float):
        raise WrongError(f"a number expected, not {_kind(value)}")
    try:
        made = float(value)
    except OverflowError:
        made = math.inf
    if not math.isfinite(made):
        raise WrongError("a number that fits expected")
    return made


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise WrongError(f"true or false expected, not {_kind(value)}")
    return value


def _number(key: Any) -> int:
    text = _text(key)
    if not text.removeprefix("-").isdecimal() or len(text) > 20:
        raise WrongError(f"{text[:40]!r} is no number")
    return int(text)


_SCALARS: Mapping[Any, Decode] = {str: _text, int: _integer, float: _float, bool: _bool}
