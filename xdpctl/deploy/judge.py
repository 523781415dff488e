"""What doctor says of the machine as a plan would leave it, and what a [[redirect]] with ensure adds to the plan.

The rules are asked about attaching on the machine with the devices set as planned, and about redirects on the machine
with everything as planned: an end of a pair that gets its own program needs nothing else. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.deploy import simulate
from xdpctl.deploy.plan import ENSURED, FIELDS, placed
from xdpctl.deploy.resolve import label_of
from xdpctl.doctor.finding import Finding, Status
from xdpctl.doctor.intent import AttachTc, AttachXdp, Redirect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpctl.deploy.change import Change
    from xdpctl.deploy.desired import RedirectWish
    from xdpctl.deploy.observe import Observed
    from xdpctl.deploy.plan import Plan
    from xdpctl.deploy.resolve import Hooked, Resolved
    from xdpctl.doctor.finding import Fix
    from xdpctl.doctor.intent import Intent
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.model import ObjFile

ROUNDS = 4
"""How often fixes may need other fixes."""


def judged(plan: Plan, found: Resolved, observed: Observed, objects: Mapping[str, ObjFile]) -> Plan:
    """The plan with what is found about it; and with the changes that redirects with ensure need."""
    changes = list(plan.changes)
    notes = list(plan.notes)
    findings: list[Finding] = []
    for _ in range(ROUNDS):
        findings, more = _once(changes, found, observed, objects)
        if not more:
            break
        changes = _put_in(changes, more)
    if any(one.kind in FIELDS and one.why.startswith(ENSURED) for one in changes):
        from xdpctl.deploy.plan import recommit

        plan = recommit(plan, found, observed, changes)
    changes = placed(changes, observed.snapshot)
    return replace(plan, changes=tuple(changes), findings=tuple(findings), notes=tuple(notes))


def _once(
    changes: Sequence[Change], found: Resolved, observed: Observed, objects: Mapping[str, ObjFile]
) -> tuple[list[Finding], list[Change]]:
    from xdpctl.doctor.rules import judge

    coming: dict[tuple[str | None, int | None, object], Change] = {
        (one.netns, one.ifindex, one.after["hook"]): one
        for one in changes
        if one.kind.endswith((".attach", ".update")) and one.kind.partition(".")[0] in ("xdp", "tc")
    }
    findings: list[Finding] = []
    if coming:
        before = [one for one in changes if not (one.kind.endswith(".attach") or one.kind == "xdp.update")]
        halfway = simulate.after(observed, before).snapshot
        intents = _attaching(coming, found, halfway, objects)
        findings += [one for one in judge(halfway, intents) if not one.id.startswith("redirect.")]
    more: list[Change] = []
    if found.redirects:
        final = simulate.after(observed, changes).snapshot
        told: list[Finding] = []
        for wish, source, target in found.redirects:
            intent = _promise(found, source, target, final)
            about = judge(final, [intent])
            told += about
            if wish.ensure:
                for one in about:
                    if one.status in (Status.FAIL, Status.WARN):
                        more += _fixes(one, wish, final)
        findings += told
    seen = set()
    once = []
    for one in findings:
        key = (one.id, one.interface, one.netns, one.summary)
        if key not in seen:
            seen.add(key)
            once.append(one)
    return once, [one for one in more if one not in changes]


def _attaching(
    coming: Mapping[tuple[str | None, int | None, object], Change],
    found: Resolved,
    snapshot: Snapshot,
    objects: Mapping[str, ObjFile],
) -> list[Intent]:
    intents: list[Intent] = []
    for ref, wish in found.links.items():
        label = label_of(snapshot, ref.netns)
        link = snapshot.link(ref)
        for one in wish.hooked:
            change = coming.get((label, ref.ifindex, one.wish.hook))
            if change is not None and link is not None:
                intents += _intents(one, link, objects, change, snapshot)
    return intents


def _intents(
    one: Hooked, link: Link, objects: Mapping[str, ObjFile], change: Change, snapshot: Snapshot
) -> list[Intent]:
    obj = objects[one.wish.program]
    program = obj.program(one.function)
    update = change.kind.endswith(".update")
    if program is None:
        return []
    if one.wish.hook != "xdp":
        newest = "clsact" if snapshot.kernel.features.get("tcx") is False else "tcx"
        via = one.wish.via or ("netkit" if link.kind == "netkit" else newest)
        return [AttachTc(link.ref, one.wish.hook, one.function, via, update)]
    from xdpctl.doctor.intents_from import Wish, from_wish

    filled = frozenset(use.name for use in one.instance.maps if use.entries)
    values = tuple(text for text in one.instance.wish.settings if not _names_something(text))
    wish = Wish(
        obj,
        program,
        mode=one.wish.mode,
        via=str(change.after.get("via") or "link"),
        replace=update,
        settings=values,
        filled=filled,
        offloaded=one.instance.offload,
    )
    # where its redirects end is a promise of its own: [[redirect]]
    return [each for each in from_wish(wish, _Alone(link), link) if isinstance(each, AttachXdp)]  # type: ignore[arg-type]


def _names_something(text: str) -> bool:
    """A setting whose value is no number: an interface's name, which attaching does not depend on."""
    value = text.partition("=")[2]
    return not value.lstrip("-").isalnum() or not value.lstrip("-")[:1].isdigit()


class _Alone:
    """As much of a Snapshot as asking about one link needs: no names are looked up."""

    def __init__(self, link: Link) -> None:
        self.only = link

    def named(self, name: str, _netns: int) -> Link | None:
        return self.only if name == self.only.name else None

    def namespace(self, _inode: int) -> None:
        return None


def _promise(found: Resolved, source: Link, target: Link, snapshot: Snapshot) -> Redirect:
    wish = found.links.get(source.ref)
    hooked = next((one for one in (wish.hooked if wish is not None else ()) if one.wish.hook == "xdp"), None)
    now = snapshot.link(source.ref) or source
    generic = (hooked is not None and hooked.wish.mode == "generic") or (
        now.xdp.generic is not None and now.xdp.native is None
    )
    via_map = hooked is not None and any(
        one.type in ("devmap", "devmap_hash") for one in hooked.instance.maps
    )
    return Redirect(source.ref, target.ref, "generic" if generic else "native", via_map=via_map)


# -- ensure -------------------------------------------------------------------------------------------------------


def _fixes(finding: Finding, wish: RedirectWish, snapshot: Snapshot) -> list[Change]:
    """The steps of a finding's fix as changes; none unless all of them can be."""
    made = []
    for step in finding.fix:
        change = _as_change(step, finding, wish, snapshot)
        if change is None:
            return []
        made.append(change)
    return made


def _as_change(step: Fix, finding: Finding, wish: RedirectWish, snapshot: Snapshot) -> Change | None:
    """``ethtool -K IF gro on`` and ``ip link set dev IF up|mtu N`` as changes of the device."""
    from xdpctl.deploy.device import DeviceSettings, settings_changes
    from xdpctl.errors import ConfigError

    words = list(step.argv)
    space = snapshot.namespace_named(step.netns)
    settings = None
    name = ""
    if words[:2] == ["ethtool", "-K"] and len(words) == 5:
        name, settings = words[2], DeviceSettings(features={words[3]: words[4] == "on"})
    elif words[:3] == ["ip", "link", "set"]:
        rest = [one for one in words[3:] if one != "dev"]
        if len(rest) == 2 and rest[1] in ("up", "down"):
            name, settings = rest[0], DeviceSettings(up=rest[1] == "up")
        elif len(rest) == 3 and rest[1] == "mtu" and rest[2].isdigit():
            name, settings = rest[0], DeviceSettings(mtu=int(rest[2]))
    if settings is None or space is None:
        return None
    link = snapshot.named(name, space.inode)
    if link is None:
        return None
    why = f"{ENSURED}{wish.source} to {wish.target}: {finding.summary}"
    try:
        changes = settings_changes(link, settings, netns=label_of(snapshot, link.netns), why=why)
    except ConfigError:
        return None
    return changes[0] if len(changes) == 1 else None


def _put_in(changes: Sequence[Change], more: Sequence[Change]) -> list[Change]:
    """Where devices are set: before anything is attached."""
    rooms = ("xdp", "tc")
    at = next(
        (place for place, one in enumerate(changes) if one.kind.partition(".")[0] in rooms), len(changes)
    )
    return [*changes[:at], *_distinct(more), *changes[at:]]


def _distinct(changes: Sequence[Change]) -> list[Change]:
    found: list[Change] = []
    for one in changes:
        if not any(
            (one.kind, one.netns, one.ifindex, one.after) == (each.kind, each.netns, each.ifindex, each.after)
            for each in found
        ):
            found.append(one)
    return found
