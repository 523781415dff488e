"""One row of the reference: a reason why the kernel gives an answer, how to tell, and what clears it."""

from __future__ import annotations

from xdpctl.records import dataclass

ATTACH, REDIRECT, LOAD = "attach", "redirect", "load"


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for one answer."""

    op: str
    """attach, redirect or load."""
    errno: tuple[str, ...]
    """Names; empty where the kernel stays silent."""
    text: str
    """The kernel's words, verbatim (extack, dmesg or verifier log); empty for none."""
    why: str
    tell: str
    """How to tell that it is this one: a command, or what to look at."""
    fix: str
    drivers: tuple[str, ...] = ()
    """Empty: any."""
    finding: str | None = None
    """The rule that predicts it."""
    heard: str = "extack"
    """extack, dmesg, tracepoint, log, nowhere."""
    versions: str = ""
    weight: int = 0
    """How often people meet it, 0 to 3: breaks ties."""
