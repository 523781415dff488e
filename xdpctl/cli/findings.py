"""How findings look to people: one screen, what fails first, and each fix exactly as one types it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from xdpctl.cli.output import plain
from xdpctl.doctor.finding import Status
from xdpctl.doctor.fix import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from xdpctl.doctor.finding import Finding

_LOOK = {
    Status.FAIL: ("FAIL", "✗", "31"),
    Status.WARN: ("WARN", "!", "33"),
    Status.UNKNOWN: ("UNKNOWN", "?", "36"),
    Status.OK: ("OK", "✓", "32"),
}
SHOWN_ALIKE = 3
"""Warnings of one kind told in full; more are counted."""


def _paint(text: str, code: str, *, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour else text


def lines(findings: Sequence[Finding], *, colour: bool) -> Iterator[str]:
    """Every line of the report on these findings."""
    counts: dict[tuple[str, Status], int] = {}
    alike: dict[tuple[str, Status], list[str]] = {}
    for one in findings:
        kind = (one.id, one.status)
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] > SHOWN_ALIKE and one.status in (Status.WARN, Status.OK):
            alike.setdefault(kind, []).append(one.interface or "")
            continue
        yield from finding_lines(one, colour=colour)
    for (name, status), others in alike.items():
        word, symbol, code = _LOOK[status]
        head = _paint(f"{symbol} {word}", code, colour=colour) if colour else word
        some = ", ".join(others[:6]) + (", ..." if len(others) > 6 else "")
        yield f"{head}  {len(others)} more {name}: {some}"


def finding_lines(one: Finding, *, colour: bool) -> Iterator[str]:
    """One finding: what, what follows, from which evidence, and what clears it."""
    word, symbol, code = _LOOK[one.status]
    head = _paint(f"{symbol} {word}", code, colour=colour) if colour else word
    yield f"{head}  {one.summary}  [{one.id}]"
    if one.status is Status.OK:
        return
    if one.consequence:
        yield f"      {one.consequence}"
    if one.extack and one.extack not in (one.consequence or ""):
        yield f'      the kernel says: "{one.extack}"'
    for each in one.evidence:
        yield f"      - {each.fact}  ({each.source})"
    for fix in one.fix:
        remarks = [text for text in ("flaps the link" if fix.flaps_link else "", fix.note or "") if text]
        remark = f"   # {'; '.join(remarks)}" if remarks else ""
        yield f"      {_paint('fix:', '1', colour=colour)} {command_line(fix)}{remark}"
    for other in one.alternatives:
        yield f"      {'or:' if one.fix else 'try:'}  {other}"


def print_findings(findings: Sequence[Finding], *, stream: TextIO | None = None) -> None:
    """Write the report, to stdout unless told otherwise; coloured on a terminal."""
    out = stream or sys.stdout
    colour = out.isatty()
    for line in lines(findings, colour=colour):
        out.write((line if colour else plain(line)) + "\n")
