"""Findings: what a rule concluded, from which evidence, and what would change it."""

from __future__ import annotations

from enum import Enum
from typing import Any

from xdpctl.records import dataclass


class Status(str, Enum):
    """Verdict of a finding."""

    FAIL = "fail"
    WARN = "warn"
    OK = "ok"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fact, and where it was read."""

    fact: str
    """A short sentence: ``rx-gro is off (wanted off)``."""
    source: str
    """``ethtool features of veth_yyy0``, ``netdev dev-get``, ``RTM_GETLINK``, ``program section name``."""

    def to_json(self) -> dict[str, Any]:
        """``{"fact", "source"}``."""
        return {"fact": self.fact, "source": self.source}


@dataclass(frozen=True, slots=True)
class Fix:
    """One command that would clear a finding."""

    argv: tuple[str, ...]
    """Without any namespace prefix: `netns` says where it runs."""
    netns: str | None
    """Label of the namespace it runs in; None: the caller's."""
    flaps_link: bool
    inverse: tuple[str, ...] | None
    """argv that takes it back, in the same namespace; None where nothing does."""
    note: str | None = None
    """What else it does, or when to prefer another."""

    def to_json(self) -> dict[str, Any]:
        """``{"argv", "netns", "flaps_link", "inverse", "note"}``."""
        return {
            "argv": list(self.argv),
            "netns": self.netns,
            "flaps_link": self.flaps_link,
            "inverse": list(self.inverse) if self.inverse else None,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule concluded about one object.

    `fix` lists the steps to take together, in order; `alternatives` lists other ways in words, for when the
    first is impossible (a `[fixed]` feature) or undesirable.
    """

    id: str
    """``redirect.veth-peer-napi``: stable, documented, one a mistake."""
    status: Status
    interface: str | None
    netns: str | None
    """Label of the namespace, None for the caller's (or none at all)."""
    summary: str
    """One sentence naming the objects."""
    errno: str | None = None
    """What the kernel answers on THIS kernel, by name."""
    extack: str | None = None
    """The kernel's sentence that goes with it, verbatim, where it gives one."""
    shows_in: str | None = None
    """Where the failure can be seen: the attach itself, ``xdp:xdp_redirect_err``, a counter."""
    consequence: str | None = None
    evidence: tuple[Evidence, ...] = ()
    fix: tuple[Fix, ...] = ()
    alternatives: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    """``drivers/net/veth.c veth_xdp_xmit()``, with since when."""

    def to_json(self) -> dict[str, Any]:
        """Every field under its own name, in this order."""
        return {
            "id": self.id,
            "status": self.status.value,
            "interface": self.interface,
            "netns": self.netns,
            "summary": self.summary,
            "errno": self.errno,
            "extack": self.extack,
            "shows_in": self.shows_in,
            "consequence": self.consequence,
            "evidence": [one.to_json() for one in self.evidence],
            "fix": [one.to_json() for one in self.fix],
            "alternatives": list(self.alternatives),
            "references": list(self.references),
        }
