"""Values that a map keeps once for each possible CPU (round_up(value_size, 8) apart, bpf_percpu_hash_copy)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PerCpu(list[Any]):
    """One value a possible CPU, by CPU number; offline ones have theirs too."""

    def sum(self) -> Any:
        """The sum: of numbers a number, of structs a `Totals` by member (without text), of arrays a list.

        Raises:
            TypeError: text can't be added.
        """
        return total(self)


class Totals(dict[str, Any]):
    """Sums by member, as attributes too: ``stats[0].sum().packets``."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def total(values: list[Any]) -> Any:
    """Sum of numbers, or of structs and arrays member by member.

    Raises:
        TypeError: something in them can't be added.
    """
    if not values:
        return 0
    first = values[0]
    if isinstance(first, bool | str | bytes):
        raise TypeError(f"{type(first).__name__} can't be added")
    if isinstance(first, int | float):
        return sum(values)
    names = list(first) if isinstance(first, Mapping) else list(getattr(first, "_members", ()))
    if names:
        columns = ((name, [one[name] for one in values]) for name in names)
        return Totals({name: total(column) for name, column in columns if not isinstance(column[0], str)})
    return [total(list(column)) for column in zip(*values, strict=True)]
