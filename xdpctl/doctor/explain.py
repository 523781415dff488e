"""What does this errno, extack or dmesg line mean? Ranks the causes of `reference` against a query. Offline."""

from __future__ import annotations

import difflib
import errno as errno_module
import os
import re
from typing import TYPE_CHECKING, Any

from xdpctl.doctor import reference
from xdpctl.errors import errno_name
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.cause import Cause

MOST = 8
"""Candidates shown."""
CLOSE = 0.55
"""Least likeness of texts, from 0 to 1, for one to be a candidate."""

_NUMBER = re.compile(r"-?\d+")
_VERB = re.compile(r"%-?[0-9.]*l*[a-z]+")
_WORD = re.compile(r"[a-z0-9_/%]+")
_MODULE = re.compile(r"^[a-z0-9_-]+: ")
"""NL_SET_ERR_MSG_MOD puts the module's name before the text."""
_ERR = re.compile(r"\berr(?:no)?[= ](-?\d+)")
_PREFIXES = ("rtnetlink answers:", "error:", "netlink error:", "xdpctl: error:", "kernel:")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cause, and how well it fits: 0 to 1."""

    cause: Cause
    fit: float
    matched: str
    """errno, text, or both."""

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        one = self.cause
        return {
            "op": one.op,
            "errno": list(one.errno),
            "text": one.text or None,
            "why": one.why,
            "how_to_tell": one.tell,
            "fix": one.fix,
            "drivers": list(one.drivers),
            "finding": one.finding,
            "heard_in": one.heard,
            "versions": one.versions or None,
            "fit": round(self.fit, 2),
        }


def _strerrors() -> dict[str, str]:
    """What strerror() says -> errno's name."""
    return {os.strerror(number).lower(): name for number, name in errno_module.errorcode.items()}


def errno_of(query: str) -> str | None:
    """The errno that a query is, or holds: ``-95``, ``ENXIO``, ``err=-6``, ``Operation not supported``."""
    word = query.strip()
    if re.fullmatch(r"-?\d{1,4}", word):
        return errno_name(int(word))
    upper = word.upper()
    if re.fullmatch(r"-?E[A-Z0-9]+", upper):
        name = upper.lstrip("-")
        return {"ENOTSUP": "EOPNOTSUPP", "EWOULDBLOCK": "EAGAIN"}.get(name, name)
    told = _ERR.search(word)
    if told:
        return errno_name(int(told[1]))
    in_brackets = re.search(
        r"\((-?\d{1,4})\)\s*$", word
    )  # libbpf and xdp-loader: "...: Numerical result ...(-34)"
    if in_brackets:
        return errno_name(int(in_brackets[1]))
    lowered = word.lower()
    for text, name in _strerrors().items():
        if lowered == text or lowered.endswith((f": {text}", f": {text}.")):
            return {"ENOTSUP": "EOPNOTSUPP"}.get(name, name)
    return None


def _plain(text: str) -> str:
    """Lower case, without prefixes that tools add, numbers and printf conversions alike."""
    text = text.strip().lower()
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix).strip()
    return _VERB.sub("#", _NUMBER.sub("#", text)).rstrip(".! ")


def likeness(query: str, text: str) -> float:
    """How alike two messages are, 0 to 1: shared words of the known text, or characters in sequence."""
    left, right = _plain(query), _plain(text)
    if not left or not right:
        return 0.0
    if left == right:
        return 1.0
    bare = _MODULE.sub("", right)  # "veth: Peer MTU ..." -> "Peer MTU ..."
    if left in (right, bare) or bare in left:
        return 0.97
    if len(left) >= 8 and left in right:
        return 0.9
    mine, its = set(_WORD.findall(left)), set(_WORD.findall(bare))
    if not mine or not its:
        return 0.0
    shared = len(mine & its)
    if shared == len(mine) >= 3:  # a part of the text, or its words in another order
        return 0.85
    words = shared / len(mine | its)
    if shared < 2 and words < 0.5:
        return words / 2
    sequence = difflib.SequenceMatcher(None, left, bare, autojunk=False).ratio()
    return 0.5 * words + 0.5 * sequence


def explain(query: str, *, driver: str | None = None, op: str | None = None) -> list[Candidate]:
    """The causes that fit, best first; empty when nothing is known.

    Args:
        query: an errno by name or number of either sign, or a message of the kernel or of a tool, also in part.
        driver: ethtool's name of the driver: its rows come first, other drivers' rows are left out.
        op: attach, redirect or load.
    """
    query = query[:2000]
    name = errno_of(query)
    alone = name is not None and re.fullmatch(r"\s*-?(?:\d{1,4}|[Ee][A-Za-z0-9]+)\s*", query) is not None
    found = sorted(_candidates(query, name, alone, driver, op), key=lambda one: -one.fit)
    if found and found[0].fit >= 0.9 and found[0].matched != "errno":
        found = [
            one for one in found if one.matched != "errno"
        ]  # the words decide; the bare errno adds nothing
    return found[:MOST]


def _candidates(
    query: str, name: str | None, alone: bool, driver: str | None, op: str | None
) -> Iterator[Candidate]:
    for cause in reference.causes():
        if (op is not None and cause.op != op) or not _fits_driver(cause, driver):
            continue
        by_errno = name is not None and name in cause.errno
        alike = 0.0 if alone else likeness(query, cause.text)
        if not by_errno and alike < CLOSE:
            continue
        fit = alike if alike >= CLOSE else 0.0
        if by_errno:
            fit = max(fit, 0.3 + 0.08 * cause.weight)
        if cause.heard.startswith("xdp:") and cause.heard.removeprefix("xdp:") in query:
            fit = min(fit + 0.1, 1.0)
        if driver is not None and driver in cause.drivers:
            fit = min(fit + 0.3, 1.0)
        matched = "both" if by_errno and alike >= CLOSE else "errno" if by_errno else "text"
        yield Candidate(cause, fit, matched)


def _fits_driver(cause: Cause, driver: str | None) -> bool:
    return driver is None or not cause.drivers or driver in cause.drivers
