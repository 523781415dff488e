"""What a lab is: a place it sets up, a play that measures before and after the cure, and the outcome."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xdpctl.lab.stage import Stage

SET_UP = "What is set up"
HAPPENS = "What happens"
BY_HAND = "How one would have seen it by hand"
TOLD = "What xdpctl says"
CURE = "The cure"
MEASURED = "Measured, before and after"


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantity, before the cure and after it."""

    what: str
    before: float | str | None
    after: float | str | None
    """None: not measured, the story needs no second figure."""
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name."""
        return {"what": self.what, "before": self.before, "after": self.after, "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a lab measured. It exists only if all went as told: otherwise the play has raised LabError."""

    measured: tuple[Measured, ...]
    real: bool | None
    """The kernel's own bug was made to happen; False: staged, because this kernel has the fix; None: no bug needed."""
    why: str
    """From what `real` is known, in words."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More figures, by name, as JSON; docs/json.md names them."""


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab."""

    name: str
    title: str
    """The story in one line."""
    seconds: int
    """About how long it takes."""
    namespaces: tuple[str, ...]
    """Those it makes; empty: nothing to look around in."""
    set_up: Callable[[Stage], None]
    """Make the place, as broken as the story has it."""
    play: Callable[[Stage], Outcome]
    """Let it happen, and cure it.

    Raises:
        LabError: something did not go as told.
    """
    look: tuple[str, ...] = ()
    """Commands to look around with in what `keep` leaves; ``{host}`` stands for that namespace's name."""
