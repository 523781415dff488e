"""What `xdpctl attach` shows of its checks: warnings, fixes it runs first, and why the kernel refused all the same."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from xdpctl.attach.prepare import Prepared
    from xdpctl.doctor.finding import Finding
    from xdpctl.doctor.preflight import Preflight
    from xdpctl.errors import AttachError


class Checks(NamedTuple):
    """How to treat what the rules find."""

    redirect_to: tuple[str, ...] = ()
    force: bool = False
    fix: bool = False
    yes: bool = False


def judged(prepared: Prepared, checks: Checks) -> Preflight:
    """Judge, fix when asked to, show what remains; failures end it here unless forced.

    Raises:
        AttachError: it would fail, or its redirects would.
        ConfigError: --fix without a terminal to ask on.
    """
    from xdpctl.doctor.finding import Status
    from xdpctl.doctor.preflight import preflight, stop

    found = preflight(prepared, redirect_to=checks.redirect_to)
    if checks.fix and any(one.fix for one in found.findings):
        _fix(prepared, checks)
        found = preflight(prepared, redirect_to=checks.redirect_to)
    if not found.findings:
        return found
    from xdpctl.cli.findings import print_findings

    print_findings(found.findings, stream=sys.stderr)
    if any(one.status is Status.FAIL for one in found.findings) and not checks.force:
        raise stop(found)
    return found


def _fix(prepared: Prepared, checks: Checks) -> None:
    from xdpctl.cli.findings import finding_lines
    from xdpctl.cli.output import note
    from xdpctl.doctor.finding import Status
    from xdpctl.doctor.fix import apply
    from xdpctl.doctor.preflight import preflight

    if not checks.yes and not sys.stdin.isatty():
        raise ConfigError("--fix asks before it runs anything, and there is no terminal", hint="add --yes")

    def agree(finding: Finding) -> bool:
        for line in finding_lines(finding, colour=sys.stderr.isatty()):
            note(line)
        if checks.yes:
            return True
        import typer

        return typer.confirm("run the fix?", err=True)

    outcomes = apply(
        lambda: preflight(prepared, redirect_to=checks.redirect_to).findings,
        agree=agree,
        statuses=(Status.FAIL, Status.WARN),
        tell=lambda line: note(f"running: {line}"),
    )
    for one in outcomes:
        if one.error:
            note(f"{one.finding.id}: {one.error}")
        elif not one.helped:
            note(f"{one.finding.id}: the fix did not help and was taken back")


def explain_refusal(error: AttachError, found: Preflight) -> None:
    """Say why the kernel refused, on stderr: the rule that matches, or that it is unknown."""
    from xdpctl.cli.findings import print_findings
    from xdpctl.doctor.preflight import why

    if error.errno is None:
        return  # refused by us, in words
    print_findings(why(error, found, interface=error.interface), stream=sys.stderr)
