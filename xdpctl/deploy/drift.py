"""What differs from what was applied: a plan that should have been empty, and what a plan does not look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.deploy import plan as planning
from xdpctl.deploy import ready, state
from xdpctl.deploy.desired import DeploymentError, Wrong
from xdpctl.deploy.resolve import label_of
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.deploy.change import Change
    from xdpctl.deploy.observe import Observed
    from xdpctl.deploy.plan import Plan
    from xdpctl.deploy.resolve import Resolved


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference."""

    kind: str
    """missing, changed, extra, foreign, unpinned, stale-pin, duplicate, priority, setting, elements, redirect, gone;
    unknown: no difference, but what the caller may not look at."""
    netns: str | None
    target: str
    message: str
    healed: bool = True
    """Whether applying the deployment again puts it right."""

    def to_json(self) -> dict[str, Any]:
        """``{"kind", "netns", "target", "message", "heals"}``."""
        return {
            "kind": self.kind,
            "netns": self.netns,
            "target": self.target,
            "message": self.message,
            "heals": self.healed,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that differs for one deployment, and the plan that heals it."""

    deployment: str
    drifts: tuple[Drift, ...]
    plan: Plan | None
    """None: it can't be planned; the drifts say why."""


def look(name: str) -> Answer:
    """Compare a deployment as it was applied with the machine as it is.

    Raises:
        NotFoundError: there is no such deployment.
    """
    stored = state.existing(name)
    desired, objects = ready.of_stored(stored)
    from xdpctl.deploy import unseen

    if not unseen.all_seen(desired):
        return Answer(name, tuple(unseen.look(stored, desired, objects)), None)
    try:
        found, observed = ready.looked(desired, objects)
        made = planning.of_resolved(found, observed)
    except DeploymentError as error:
        # an interface that is gone, a program of somebody else where ours should be
        return Answer(name, tuple(of_wrong(one) for one in error.errors), None)
    if found.redirects:
        from xdpctl.deploy import judge

        made = judge.judged(made, found, observed, objects)
    drifts = _of_changes(made.changes)
    drifts += [
        Drift("redirect", one.netns, one.interface or "", one.summary, healed=False) for one in made.failing
    ]
    drifts += _foreign(found, observed)
    drifts += _stale(observed)
    return Answer(name, tuple(drifts), made)


def of_wrong(wrong: Wrong) -> Drift:
    """What stands in the way of a plan, as a difference."""
    kind = "foreign" if "holds" in wrong.message else "gone"
    return Drift(kind, None, wrong.place.path, wrong.message, healed=False)


def _of_changes(changes: Sequence[Change]) -> list[Drift]:
    """A program that is taken off to be put on again right there (another mode, another order) is one difference."""
    moved = {
        (one.netns, one.target, one.before.get("hook"), one.after["for"])
        for one in changes
        if one.kind.endswith(".detach") and one.after.get("for") is not None
    }
    return [
        of_change(one)
        for one in changes
        if not one.kind.endswith(".attach")
        or (one.netns, one.target, one.after.get("hook"), one.after.get("program")) not in moved
    ]


def of_change(change: Change) -> Drift:
    """What a change would put right."""
    room, _, what = change.kind.partition(".")
    before: dict[str, Any] = dict(change.before)
    after: dict[str, Any] = dict(change.after)
    if room == "device":
        told = ", ".join(f"{key} is {_shown(before[key])}, applied was {_shown(after[key])}" for key in after)
        return Drift("setting", change.netns, change.target, told)
    if change.kind == "program.load":
        return Drift(
            "missing", change.netns, change.target, f"program {change.target} is not pinned any more"
        )
    if change.kind == "program.pin":
        held = [*after["functions"], *(one.rpartition("/")[2] for one in after["maps"])]
        told = f"somebody removed the pin of {', '.join(held)}, which the kernel has still"
        return Drift("unpinned", change.netns, change.target, told)
    if room == "map":
        count = len(after.get("entries", ()))
        told = f"{count} element{'s' if count != 1 else ''} of {change.target} not as declared"
        return Drift("elements", None, change.target, told)
    was, name = _named(before.get("program")), _named(after.get("program"))
    hook = after.get("at") or after.get("hook")
    if what == "attach":
        return Drift("missing", change.netns, change.target, f"{name} is not on {hook}")
    if what == "update":
        told = f"another version of {name}" if was == name else f"{was}, not {name}"
        return Drift("changed", change.netns, change.target, f"{hook} runs {told}")
    if change.drift == "extra":
        told = f"{was} is on {hook}, where the deployment does not want it"
        return Drift("extra", change.netns, change.target, told)
    return Drift(change.drift or "changed", change.netns, change.target, f"{was} on {hook}: {change.why}")


def _named(key: str | None) -> str:
    """How the file calls a program."""
    return str(key or "a program").partition("@")[0]


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _foreign(found: Resolved, observed: Observed) -> list[Drift]:
    """Programs of nobody we know on the TC hooks that the deployment uses: XDP has room for one alone."""
    ours = {*observed.programs.values(), *observed.lost.values(), *observed.others}
    pinned = {one.program_id for one in observed.links}
    drifts = []
    for ref, wish in found.links.items():
        link = observed.snapshot.link(ref)
        if link is None or not wish.hooked:
            continue
        label = label_of(observed.snapshot, ref.netns)
        for one in link.tc:
            if one.program_id not in ours and one.program_id not in pinned:
                name = one.program_name or "a program"
                told = f"{name} (id {one.program_id}) on {one.hook} was attached by somebody else"
                drifts.append(Drift("foreign", label, link.name, told, healed=False))
    return drifts


def _stale(observed: Observed) -> list[Drift]:
    """Pins of links whose device is gone, of this deployment's programs."""
    ours = set(observed.programs.values())
    return [
        Drift("stale-pin", None, one.interface, f"{one.path} holds a link whose device is gone")
        for one in observed.links
        if one.ifindex is None and one.program_id in ours
    ]


def clear_stale(observed_links: Any, programs: set[int]) -> list[str]:
    """Remove the pins that `_stale` tells of."""
    from pathlib import Path

    from xdpctl.bpf import pins

    return [
        one.path
        for one in observed_links
        if one.ifindex is None and one.program_id in programs and pins.unpin(Path(one.path))
    ]
