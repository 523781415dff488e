"""Things by name, as attributes and as items: ``skel.maps.stats``, ``skel.maps["stats"]``, ``for name in skel.maps``.

No ``keys()`` or ``values()``: BPF maps like to be called so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from xdpctl.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")


class Named(Generic[T]):
    """What a skeleton has of one kind, each made on first use.

    Args:
        kind: as errors call one of them (``map``).
        where: as errors call the skeleton.
        names: gives all there are, when they are asked for.
        make: name -> the thing; its answer is kept.
    """

    __slots__ = ("_ask", "_kept", "_kind", "_make", "_where")

    _ask: Callable[[], Mapping[str, Any]]
    _kept: dict[str, T]
    _kind: str
    _make: Callable[[str], T]
    _where: str

    def __init__(
        self, kind: str, where: str, names: Callable[[], Mapping[str, Any]], make: Callable[[str], T]
    ) -> None:
        keep = object.__setattr__
        keep(self, "_kind", kind)
        keep(self, "_where", where)
        keep(self, "_ask", names)
        keep(self, "_make", make)
        keep(self, "_kept", {})

    def __getitem__(self, name: str) -> T:
        kept = self._kept
        if name not in kept:
            if name not in self._ask():
                raise self._unknown(name)
            kept[name] = self._make(name)
        return kept[name]

    if not TYPE_CHECKING:  # or mypy would believe in any attribute

        def __getattr__(self, name: str) -> T:
            if name.startswith("__"):
                raise AttributeError(name)
            return self[name]

        def __setattr__(self, name: str, value: object) -> None:
            if name not in self._ask():
                raise self._unknown(name)
            raise AttributeError(
                f"{self._kind} {name} can't be replaced; set what it has, as {name}[key] = value"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._ask())

    def __len__(self) -> int:
        return len(self._ask())

    def __contains__(self, name: object) -> bool:
        return name in self._ask()

    def __dir__(self) -> list[str]:
        return [*self._ask()]

    def __repr__(self) -> str:
        return f"<{self._kind}s of {self._where}: {', '.join(self._ask()) or 'none'}>"

    def _unknown(self, name: str) -> UnknownNameError:
        return UnknownNameError(self._kind, name, known=self._ask(), where=self._where)
