"""Where will a program redirect to? Answered from its instructions, conservatively."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpctl.obj.code import Section
    from xdpctl.obj.model import RedirectCall


@dataclass(frozen=True, slots=True)
class Flow:
    """What following the instructions of one program told."""

    redirects: tuple[RedirectCall, ...] = ()
    tail_calls: tuple[str, ...] = ()
    returns_tx: bool | None = None


def analyse(sections: dict[str, Section], section: str, start: int) -> Flow:  # noqa: ARG001 - to come
    """Follow a program from its first instruction."""
    return Flow()
