"""A scenario: a situation, and one act in it. The tables register theirs here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .acts import Act
    from .ground import Ground


@dataclass(frozen=True)
class Scenario:
    """One line of the oracle's table."""

    name: str
    """The situation and the act as a sentence; what comes of it is the kernel's to say."""
    build: Callable[[Ground], object]
    act: Act
    undecidable: str | None = None
    """Why nobody could know beforehand: then doctor has to say unknown."""
    segment: str | None = None
    """The NICs that it borrows, which serve one scenario at a time, or "several"; None: it makes what it needs."""


TABLE: list[Scenario] = []


def scenario(
    name: str,
    act: Act,
    build: Callable[[Ground], object],
    *,
    undecidable: str | None = None,
    segment: str | None = None,
) -> None:
    """Add a line to the table."""
    assert all(one.name != name for one in TABLE), f"two scenarios are called {name!r}"
    TABLE.append(Scenario(name, build, act, undecidable, segment))
