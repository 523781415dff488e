"""From a question about a machine to its answer: which links are meant, what is wanted of them, what was found."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from xdpctl.doctor import intents_from
from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.rules import judge
from xdpctl.doctor.rules.case import Case, driver_of
from xdpctl.doctor.rules.veth_napi import features_evidence, napi_evidence
from xdpctl.errors import ConfigError, NotFoundError
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.doctor.intent import Intent
    from xdpctl.host.model import Link, Namespace, Snapshot
    from xdpctl.obj.model import ObjFile

GLOB = "*?["


@dataclass(frozen=True, slots=True)
class Question:
    """What `xdpctl doctor` was asked."""

    interfaces: Sequence[str] = ()
    """Names or globs; none: every link."""
    netns: str | None = None
    all_netns: bool = False
    """Look for the interfaces in every namespace."""
    obj: ObjFile | None = None
    program: str | None = None
    mode: str | None = None
    settings: Sequence[str] = ()
    redirect_to: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Findings, and how many links have nothing against them."""

    findings: tuple[Finding, ...]
    links: int
    namespaces: int
    healthy: int

    @property
    def failed(self) -> bool:
        """Whether anything fails."""
        return any(one.status is Status.FAIL for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """``{"findings": [...], "links", "healthy", "namespaces"}``."""
        return {
            "findings": [one.to_json() for one in self.findings],
            "links": self.links,
            "healthy": self.healthy,
            "namespaces": self.namespaces,
        }


def choose(snapshot: Snapshot, question: Question) -> list[Link]:
    """The links that are meant.

    Raises:
        NotFoundError: there is no such namespace or interface (and where there is one).
    """
    spaces = _spaces(snapshot, question)
    if not question.interfaces:
        return [one for space in spaces for one in space.links]
    chosen: list[Link] = []
    for pattern in question.interfaces:
        found = [one for space in spaces for one in space.links if _matches(one.name, pattern)]
        if not found:
            raise _not_found(snapshot, question, spaces, pattern)
        chosen += [one for one in found if one not in chosen]
    return chosen


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) if any(one in pattern for one in GLOB) else name == pattern


def _spaces(snapshot: Snapshot, question: Question) -> Sequence[Namespace]:
    if question.netns is not None:
        found = snapshot.namespace_named(question.netns)
        if found is None:
            known = [one.label for one in snapshot.namespaces if one.label]
            raise NotFoundError("network namespace", question.netns, known=known)
        return (found,)
    if question.all_netns or not question.interfaces:
        return snapshot.namespaces
    here = snapshot.namespace_named(None)
    return (here,) if here is not None else snapshot.namespaces


def _not_found(
    snapshot: Snapshot, question: Question, spaces: Sequence[Namespace], pattern: str
) -> NotFoundError:
    elsewhere = [
        space.label
        for space in snapshot.namespaces
        if space not in spaces and any(_matches(one.name, pattern) for one in space.links)
    ]
    known = [one.name for space in spaces for one in space.links]
    where = f"network namespace {question.netns}" if question.netns else None
    hint = None
    if elsewhere:
        label = next((one for one in elsewhere if one), None)
        others = f" and {len(elsewhere) - 1} more" if len(elsewhere) > 1 else ""
        hint = (
            f"there is one in namespace {label}{others}: --netns {label}"
            if label
            else "there is one outside of it"
        )
    return NotFoundError("interface", pattern, known=known, where=where, hint=hint)


def intents(snapshot: Snapshot, question: Question, links: Sequence[Link]) -> list[Intent]:
    """What is wanted of the links: their health, what happens on them now, and what the object would do.

    Raises:
        ConfigError: options contradict each other, or a setting does not fit.
        NotFoundError: something named is not there.
    """
    named = bool(question.interfaces)
    wanted: list[Intent] = []
    if question.obj is None and (question.program or question.settings):
        raise ConfigError("--program and --set are about an object", hint="add --prog OBJ")
    if question.obj is not None:
        if not named:
            raise ConfigError(
                "--prog needs the interface that it is to be attached to",
                hint="xdpctl doctor IFACE --prog OBJ",
            )
        program = intents_from.pick(question.obj, question.program)
        hook = "xdp" if program.type != "sched_cls" else program.hook or "ingress"
        wish = intents_from.Wish(
            question.obj,
            program,
            mode=question.mode or "native",
            hook=hook,
            settings=question.settings,
            redirect_to=question.redirect_to,
        )
        for link in links:
            wanted += intents_from.from_wish(wish, snapshot, link)
    elif question.redirect_to:
        wanted += _redirects(snapshot, question, links)
    happening = intents_from.live(snapshot)
    if named:
        happening = intents_from.concerning(snapshot, happening, links)
        for link in links:
            wanted += intents_from.attached(snapshot, link) if question.obj is None else ()
    elif question.netns is not None:
        inside = {one.netns for one in links}
        happening = [one for one in happening if one.target.netns in inside]
    # an interface that a program is to be attached to was named as a source: its fitness as a target is not asked
    asked_as_target = named and question.obj is None and not question.redirect_to
    healthy = intents_from.health(links, named=asked_as_target) if asked_as_target or not named else []
    if asked_as_target:
        wanted += intents_from.possible(links, question.mode or "native")
    return [*wanted, *happening, *healthy]


def _redirects(snapshot: Snapshot, question: Question, links: Sequence[Link]) -> list[Intent]:
    from xdpctl.doctor.intent import Redirect

    if not question.interfaces:
        raise ConfigError(
            "--redirect-to needs the interface that redirects", hint="xdpctl doctor IFACE --redirect-to IF"
        )
    mode = "generic" if question.mode == "generic" else "native"
    return [
        Redirect(link.ref, intents_from.named(snapshot, link, name).ref, mode)
        for link in links
        for name in question.redirect_to
    ]


def ask(snapshot: Snapshot, question: Question) -> Answer:
    """Answer a question by a snapshot.

    Raises:
        ConfigError, NotFoundError, ObjectError: as `choose` and `intents`.
    """
    links = choose(snapshot, question)
    found = judge(snapshot, intents(snapshot, question, links))
    case = Case.of(snapshot)
    troubled = {(one.interface, one.netns) for one in found}
    well = [one for one in links if (one.name, case.netns(one)) not in troubled]
    if question.interfaces:
        found += [_well(case, one, question) for one in well]
    return Answer(tuple(found), len(links), len({one.netns for one in links}), len(well))


def _well(case: Case, link: Link, question: Question) -> Finding:
    """A link that was asked about and has nothing against it."""
    peer = case.peer(link) if link.kind == "veth" else None
    facts = [
        Evidence(
            f"driver {driver_of(link) or 'not known'}, MTU {link.mtu}", "RTM_GETLINK, ethtool driver info"
        )
    ]
    facts += features_evidence(case, link)
    if peer is not None:
        facts += napi_evidence(case, peer)
    aim = (
        "attach and redirect as asked" if question.obj or question.redirect_to else "native XDP and redirects"
    )
    return Finding(
        "link.ok",
        Status.OK,
        link.name,
        case.netns(link),
        f"{case.name(link)}: nothing stands against {aim}",
        evidence=tuple(facts),
    )
