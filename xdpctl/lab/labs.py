"""The labs by name: run one in a sandbox, keep one standing, clean up what is kept."""

from __future__ import annotations

import importlib
import os
import time
from typing import TYPE_CHECKING, Any

from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.lab import kept as records
from xdpctl.lab.sandbox import Sandbox
from xdpctl.lab.scenario import MEASURED, SET_UP, Lab, Outcome
from xdpctl.lab.stage import Stage
from xdpctl.lab.transcript import Transcript
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

LABS = {
    "veth-redirect": "xdpctl.lab.veth_redirect",
    "page-pool": "xdpctl.lab.page_pool",
    "stuck-qdisc": "xdpctl.lab.stuck_qdisc",
    "macvtap-queues": "xdpctl.lab.macvtap_queues",
    "ring-race": "xdpctl.lab.ring_race",
}
"""Lab name -> module with a `LAB`, imported when it is asked for."""


@dataclass(frozen=True, slots=True)
class Played:
    """One run of a lab."""

    lab: Lab
    outcome: Outcome
    seconds: float
    steps: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """``{"lab", "title", "kernel", "real", "why", "seconds", "measured", "facts", "steps"}``."""
        return {
            "lab": self.lab.name,
            "title": self.lab.title,
            "kernel": os.uname().release,
            "real": self.outcome.real,
            "why": self.outcome.why,
            "seconds": round(self.seconds, 3),
            "measured": [one.to_json() for one in self.outcome.measured],
            "facts": dict(self.outcome.facts),
            "steps": list(self.steps),
        }


def find(name: str) -> Lab:
    """The lab called `name`.

    Raises:
        NotFoundError: there is none.
    """
    module = LABS.get(name)
    if module is None:
        raise NotFoundError("lab", name, known=LABS)
    lab: Lab = importlib.import_module(module).LAB
    return lab


def every() -> list[Lab]:
    """All labs, in the order in which the stories happened."""
    return [find(name) for name in LABS]


def run(lab: Lab, write: Callable[[str], object], *, colour: bool | None = None) -> Played:
    """Set a lab up in a sandbox, play it, and print what was measured. Nothing of it stays, however it ends.

    Raises:
        LabError: something did not go as told.
        PrivilegeError: not root.
        UnsupportedError: this kernel lacks what the story needs.
    """
    begun = time.monotonic()
    with Sandbox() as sandbox:
        show = Transcript(sandbox, write, colour=colour)
        stage = Stage(show)
        if lab.namespaces:
            stage.chapter(SET_UP)
        lab.set_up(stage)
        outcome = lab.play(stage)
        stage.chapter(MEASURED)
        rows = [
            (one.what + (f" ({one.unit})" if one.unit else ""), one.before, one.after)
            for one in outcome.measured
        ]
        stage.measured(rows)
        stage.say(outcome.why)
    return Played(lab, outcome, time.monotonic() - begun, tuple(show.steps))


def keep(lab: Lab, write: Callable[[str], object]) -> records.Kept:
    """Set a lab up and leave it standing.

    Raises:
        ConfigError: it has nothing to keep, or is kept already.
        LabError: the set-up did not go as told (what was made is removed).
    """
    if not lab.namespaces:
        raise ConfigError(f"lab {lab.name} has no namespaces to keep", hint=f"xdpctl lab run {lab.name}")
    if any(one.lab == lab.name for one in records.read()):
        raise ConfigError(f"lab {lab.name} is kept already", hint="xdpctl lab clean")
    left = records.Kept(lab.name)
    show = Transcript(records.Machine(), write)
    prefix = f"{records.PREFIX}{lab.name}-"
    stage = Stage(show, prefix=prefix, made=lambda name: records.before_making(left, name))
    try:
        stage.chapter(SET_UP)
        lab.set_up(stage)
        records.settle(left)
    except BaseException:
        for _ in records.remove(left):
            pass
        raise
    stage.chapter("Look around")
    names = {one: prefix + one for one in lab.namespaces}
    for command in lab.look:
        write(f"$ {command.format(**names)}\n")
    write("# xdpctl lab clean removes it\n")
    return left
