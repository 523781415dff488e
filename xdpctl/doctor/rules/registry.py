"""Every subject's rules in one registry, and `judge`, which asks those that an intent concerns.

A subject is imported when it is first asked: `attach` has 200 ms for everything, and of twenty drivers' rules it
mostly needs those of one.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.doctor.finding import Status
from xdpctl.doctor.rules.case import Case

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.doctor.finding import Finding
    from xdpctl.doctor.intent import AttachXdp, Intent
    from xdpctl.doctor.rules.case import Mistake, Rule
    from xdpctl.host.model import LinkRef, Snapshot


class Subject(NamedTuple):
    """One file of rules."""

    module: str
    judges: frozenset[str]
    """Names of intent classes; empty: the machine as a whole, too."""
    kinds: frozenset[str] | None = None
    """rtnl kinds of the links it knows; None: any link."""
    not_kinds: frozenset[str] = frozenset()


def _subject(module: str, judges: str, kinds: str = "", not_kinds: str = "") -> Subject:
    return Subject(
        f"xdpctl.doctor.rules.{module}",
        frozenset(judges.split()),
        frozenset(kinds.split()) or None,
        frozenset(not_kinds.split()),
    )


SUBJECTS = (
    _subject("attach_load", "AttachXdp"),
    _subject("attach_core", "AttachXdp"),
    _subject("attach_install", "AttachXdp"),
    _subject("attach_veth", "AttachXdp", kinds="veth"),
    _subject(
        "attach_drivers", "AttachXdp", not_kinds="veth tun bond bridge vlan macvlan macvtap ipvlan ifb dummy"
    ),
    _subject("bond", "AttachXdp Redirect", kinds="bond"),
    _subject("attach_tc", "AttachTc"),
    _subject("redirect_drivers", "Redirect"),
    _subject("redirect_targets", "Redirect EmptySlot UntoldTarget"),
    _subject("redirect_veth", "Redirect Health", kinds="veth"),
    _subject("transmit_veth", "Transmit", kinds="veth"),
    _subject("tun", "Redirect", kinds="tun"),
    _subject("qdisc", "Health"),
    _subject("page_pool", "AttachXdp Health"),
    _subject("environment", "AttachXdp AttachTc"),
    _subject("measured", ""),
)
"""In the order in which the kernel makes its checks, so that the first failure is the one it answers with."""
MACHINE = "xdpctl.doctor.rules.environment"
WHOLE = (MACHINE, "xdpctl.doctor.rules.page_pool")
"""Where the rules without an intent are."""

_SEVERITY = {Status.FAIL: 0, Status.UNKNOWN: 1, Status.WARN: 2, Status.OK: 3}
_REDIRECT_ORDER = {"EINVAL": 0, "EOPNOTSUPP": 1, "ENETDOWN": 2, "EMSGSIZE": 3}
"""xdp_do_redirect() looks the target up, then __xdp_enqueue() asks features, IFF_UP and length; drivers come last."""


@cache
def rules_of(module: str) -> tuple[Rule, ...]:
    """The rules of one subject."""
    return tuple(importlib.import_module(module).RULES)


def mistakes() -> tuple[Mistake, ...]:
    """Everything that can be found, by subject."""
    found = [one for subject in SUBJECTS for one in importlib.import_module(subject.module).MISTAKES]
    return (*found, importlib.import_module(MACHINE).FINE)


def judge(snapshot: Snapshot, intents: Iterable[Intent]) -> list[Finding]:
    """What stands against the intents on the observed machine: failures first, then unknowns, then warnings.

    Nothing is found where nothing is wrong. Never raises, whatever the snapshot holds.
    """
    wanted = list(intents)
    case = Case.of(snapshot, _promised(wanted), _attaching(wanted))
    findings: list[Finding] = []
    unloadable: set[LinkRef | None] = set()
    only_native: set[LinkRef | None] = set()
    if any(_name(one) == "Health" and not getattr(one, "named", True) for one in wanted):
        # the whole host is asked about
        for rule in (each for module in WHOLE for each in rules_of(module)):
            if not rule.judges:
                findings += rule.function(case, None)
    for intent in wanted:
        asked = _attach if _name(intent) == "AttachXdp" else _judge
        found = list(asked(case, intent))  # type: ignore[arg-type]  # told by its name
        source = getattr(intent, "source", None) or getattr(intent, "link", None)
        if getattr(intent, "entry_programs", False) and not case.since(5, 15):
            only_native.add(source)
        if source in only_native:  # attach_install.entry_programs: generic mode is no way out
            found = [
                replace(
                    one, alternatives=tuple(text for text in one.alternatives if "--mode generic" not in text)
                )
                for one in found
            ]
        if _name(intent) == "AttachXdp" and any(map(_not_loaded, found)):
            unloadable.add(source)
        if source in unloadable:  # no fix of anything else helps a program that the kernel doesn't load
            found = [one if _not_loaded(one) else replace(one, fix=()) for one in found]
        findings += found
    return sorted(_once(findings), key=_rank)


def _not_loaded(finding: Finding) -> bool:
    return finding.status is Status.FAIL and finding.shows_in == "the load"


def _name(intent: Intent) -> str:
    return type(intent).__name__


def _promised(wanted: list[Intent]) -> Iterator[LinkRef]:
    for one in wanted:
        target: LinkRef | None = getattr(one, "target", None) if _name(one) == "Redirect" else None
        if target is not None and getattr(one, "promised", False):
            yield target


def _attaching(wanted: list[Intent]) -> Iterator[LinkRef]:
    """Where a native program is wanted: two devices that redirect to each other give each other what they need."""
    for one in wanted:
        if (
            _name(one) == "AttachXdp"
            and getattr(one, "mode", "") == "native"
            and getattr(one, "promised", False)
        ):
            link: LinkRef | None = getattr(one, "link", None)
            if link is not None:
                yield link


def _judge(case: Case, intent: Intent) -> Iterator[Finding]:
    about = case.link(
        getattr(intent, "target", None) if _name(intent) == "Redirect" else getattr(intent, "link", None)
    )
    kind = about.kind if about is not None else None
    for rule in _rules(type(intent), kind):  # type: ignore[arg-type]  # mypy: a class is not Hashable
        yield from rule.function(case, intent)


@cache
def _rules(intent: type[Intent], kind: str | None) -> tuple[Rule, ...]:
    """What judges such an intent about such a device: five hundred alike are asked about in a row."""
    return tuple(
        rule
        for subject in SUBJECTS
        if intent.__name__ in subject.judges and _knows(subject, kind)
        for rule in rules_of(subject.module)
        if issubclass(intent, rule.judges)
    )


def _knows(subject: Subject, kind: str | None) -> bool:
    if subject.kinds is not None:
        return kind in subject.kinds
    return kind not in subject.not_kinds


def _attach(case: Case, intent: AttachXdp) -> list[Finding]:
    """An attach in the mode that was asked for; one that nobody promised can only warn, and only of the device."""
    found = _auto(case, intent) if intent.mode == "auto" else list(_judge(case, intent))
    if intent.promised:
        return found
    return [
        replace(one, status=Status.WARN) if one.status is Status.FAIL else one
        for one in found
        if one.id.startswith("attach.")
    ]


def _auto(case: Case, intent: AttachXdp) -> list[Finding]:
    """Mode auto: native if it works; else generic, and native's failures are the reason for it."""
    native = list(_judge(case, replace(intent, mode="native")))
    if not any(one.status is Status.FAIL for one in native):
        return native
    generic = list(_judge(case, replace(intent, mode="generic")))
    if any(one.status is Status.FAIL for one in generic):
        return native + generic
    why = "mode auto falls back to generic, because native would be refused"
    return generic + [
        replace(one, status=Status.WARN, consequence=f"{why} with {one.errno}")
        if one.status is Status.FAIL
        else one
        for one in native
    ]


def _rank(finding: Finding) -> tuple[int, int]:
    late = len(_REDIRECT_ORDER)
    step = _REDIRECT_ORDER.get(finding.errno or "", late) if finding.id.startswith("redirect.") else 0
    return _SEVERITY[finding.status], step


def _once(findings: list[Finding]) -> list[Finding]:
    """Each finding once; of the same finding about the same object, only the most severe telling."""
    gravest: dict[tuple[str, str | None, str | None], int] = {}
    for one in findings:
        key = (one.id, one.interface, one.netns)
        gravest[key] = min(gravest.get(key, 9), _SEVERITY[one.status])
    seen: set[tuple[str, str | None, str | None, str]] = set()
    kept = []
    for one in findings:
        key = (one.id, one.interface, one.netns)
        if _SEVERITY[one.status] > gravest[key] or (*key, one.summary) in seen:
            continue
        seen.add((*key, one.summary))
        kept.append(one)
    return kept
