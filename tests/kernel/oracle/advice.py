"""The other ways that a finding names in words: each that says what to do differently is done, to see if it helps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Status

from . import predict
from .acts import Redirect

if TYPE_CHECKING:
    from xdpctl.lab.watch import Watch

    from .acts import Act
    from .ground import Ground
    from .predict import Prediction

_COMMAND = re.compile(r": ((?:ip netns exec \S+ )?ethtool .*)$")
_BELOW = re.compile(r"the device below instead: (\w+)")


def ways(act: Act, said: Prediction) -> list[tuple[str, Act]]:
    """(words, the act changed as they say), for a single failing finding: several need several changes."""
    failing = said.of(Status.FAIL)
    found = []
    for text in failing[0].alternatives if len(failing) == 1 else ():
        below = _BELOW.search(text)
        if "--mode generic" in text:
            found.append((text, replace(act, mode="generic")))
        elif "--mode native" in text or text.endswith("attach natively"):
            found.append((text, _native(act)))
        elif "frags-aware" in text:
            found.append((text, replace(act, frags=True)))
        elif text == 'give it SEC("xdp")':
            found.append((text, replace(act, attach_type="xdp")))
        elif text.startswith("load it for "):
            found.append((text, replace(act, bound_to=text.split()[-1])))
        elif "--replace" in text and "--via netlink" in text:
            found.append((text, replace(act, via="netlink", replace=True)))
        elif below:
            field = "target" if isinstance(act, Redirect) and text.startswith("redirect") else None
            field = field or ("source" if isinstance(act, Redirect) else "on")
            found.append((text, replace(act, **{field: below[1]})))
    return found


def commands(act: Act, said: Prediction, ground: Ground, watch: Watch) -> tuple[str, ...]:
    """What is wrong with alternatives that are a command; the first that is there stays in effect."""
    failing = said.of(Status.FAIL)
    for text in failing[0].alternatives if len(failing) == 1 else ():
        command = _COMMAND.search(text)
        if command:
            problem = predict.typed(command[1])
            happened = act.perform(ground, watch)
            return () if happened.works else (f"{text!r}: {problem or happened}",)
    return ()


def _native(act: Act) -> Act:
    changed = replace(act, mode="native")
    return replace(changed, bound_to=None, offloaded=False) if getattr(act, "offloaded", False) else changed


def check(act: Act, said: Prediction, ground: Ground, watch: Watch) -> tuple[str, ...]:
    """What is wrong with the advice, nothing where it helps or where doctor itself says what to do next."""
    off = []
    for text, changed in ways(act, said):
        known = predict.predict(changed, ground).status is Status.FAIL
        happened = changed.perform(ground, watch)
        if not happened.works and (not known or "--mode generic" in text):
            off.append(f"{text!r}: {happened}")
    return tuple(off)
