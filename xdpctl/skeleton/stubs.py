"""Names for the .pyi of generated skeletons: what type checkers are told of variables, values and maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from xdpctl.btf.views import ArrayView, StructView
from xdpctl.skeleton.percpu import total
from xdpctl.skeleton.slots import Slot
from xdpctl.skeleton.typed_map import TypedMap

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ArrayView", "CpuValues", "Field", "MapOf", "Slot", "StructView", "TypedMap"]

K = TypeVar("K")
KeyIn_contra = TypeVar("KeyIn_contra", contravariant=True)
V = TypeVar("V")
ValueIn_contra = TypeVar("ValueIn_contra", contravariant=True)


class Field(Generic[V, ValueIn_contra]):
    """A variable or member that takes more than it gives: an array is read as a view and written as a list, too."""

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: object = None) -> V: ...

        def __set__(self, instance: object, value: ValueIn_contra) -> None: ...


class CpuValues(list[V]):
    """A per-CPU value: `percpu.PerCpu`, whose elements are known."""

    def sum(self) -> Any:
        """As `percpu.PerCpu.sum`."""
        return total(self)


class MapOf(TypedMap, Generic[K, KeyIn_contra, V, ValueIn_contra]):
    """A `TypedMap` whose keys and values are known: as read, as given, as read, as given."""

    if TYPE_CHECKING:

        def __getitem__(self, key: KeyIn_contra) -> V: ...

        def __setitem__(self, key: KeyIn_contra, value: ValueIn_contra) -> None: ...

        def __delitem__(self, key: KeyIn_contra) -> None: ...

        def __iter__(self) -> Iterator[K]: ...

        def keys(self) -> Iterator[K]: ...  # noqa: D102

        def values(self) -> Iterator[V]: ...  # noqa: D102

        def items(self) -> Iterator[tuple[K, V]]: ...  # noqa: D102

        def pop(self) -> V | None: ...  # noqa: D102

        def peek(self) -> V | None: ...  # noqa: D102
