"""Every subject's rules in one registry, the table of what they can find, and `judge`, which asks them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachXdp, Health, Redirect
from xdpctl.doctor.rules import (
    attach_core,
    attach_drivers,
    attach_tc,
    attach_veth,
    bond,
    environment,
    qdisc,
    redirect_targets,
    redirect_veth,
    tun,
)
from xdpctl.doctor.rules.case import Case, Mistake

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.doctor.finding import Finding
    from xdpctl.doctor.intent import Intent
    from xdpctl.doctor.rules.case import Rule
    from xdpctl.host.model import Snapshot

SUBJECTS = (
    attach_core,
    attach_veth,
    attach_drivers,
    bond,
    attach_tc,
    redirect_targets,
    redirect_veth,
    tun,
    qdisc,
    environment,
)
"""In the order in which the kernel makes its checks, so that the first failure is the one it answers with."""

RULES: tuple[Rule, ...] = tuple(rule for subject in SUBJECTS for rule in subject.RULES)
FINE = Mistake("link.ok", "Nothing stands against what was asked of the link.", "none", ())
"""Not a mistake, but a finding: diagnose gives it for links that were named."""
MISTAKES: tuple[Mistake, ...] = (*(one for subject in SUBJECTS for one in subject.MISTAKES), FINE)

_SEVERITY = {Status.FAIL: 0, Status.UNKNOWN: 1, Status.WARN: 2, Status.OK: 3}
_REDIRECT_ORDER = {"EINVAL": 0, "EOPNOTSUPP": 1, "ENETDOWN": 2, "EMSGSIZE": 3}
"""xdp_do_redirect() looks the target up, then __xdp_enqueue() asks features, IFF_UP and length; drivers come last."""


def judge(snapshot: Snapshot, intents: Iterable[Intent]) -> list[Finding]:
    """What stands against the intents on the observed machine: failures first, then unknowns, then warnings.

    Nothing is found where nothing is wrong. Never raises, whatever the snapshot holds.
    """
    wanted = list(intents)
    case = Case.of(snapshot, [one.target for one in wanted if isinstance(one, Redirect) and one.promised])
    findings: list[Finding] = []
    if any(isinstance(one, Health) and not one.named for one in wanted):  # the whole host is asked about
        for rule in RULES:
            if not rule.judges:
                findings += rule.function(case, None)
    for intent in wanted:
        findings += _auto(case, intent) if _is_auto(intent) else _judge(case, intent)
    return sorted(_once(findings), key=_rank)


def _judge(case: Case, intent: Intent) -> Iterator[Finding]:
    for rule in RULES:
        if isinstance(intent, rule.judges):
            yield from rule.function(case, intent)


def _is_auto(intent: Intent) -> bool:
    return isinstance(intent, AttachXdp) and intent.mode == "auto"


def _auto(case: Case, intent: Intent) -> list[Finding]:
    """Mode auto: native if it works; else generic, and native's failures are the reason for it."""
    assert isinstance(intent, AttachXdp)  # noqa: S101 - _is_auto said so
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
