"""``xdpctl doctor``: what would fail, why, and the command that clears it."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import complete, options
from xdpctl.errors import EXIT_FINDINGS, ConfigError
from xdpctl.obj.shipped import resolve

if TYPE_CHECKING:
    from xdpctl.doctor.diagnose import Answer, Question
    from xdpctl.doctor.finding import Finding
    from xdpctl.doctor.fix import Outcome
    from xdpctl.host.model import Snapshot

app = typer.Typer()


@app.command()
def doctor(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.interfaces("Interfaces (names or globs); without any, the whole host."),
    ] = None,
    netns: Annotated[Optional[str], options.netns("Network namespace of the interfaces.")] = None,  # noqa: UP045
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="Look for the interfaces in every namespace that can be seen.")
    ] = False,
    prog: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="OBJ", help="Judge attaching this object, and where it redirects to."),
    ] = None,
    program: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Program, where the object has several."),
    ] = None,
    mode: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="native|generic|offload|auto",
            help="XDP mode to judge; native unless said otherwise.",
            autocompletion=complete.one_of("native", "generic", "offload", "auto"),
        ),
    ] = None,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="NAME=VALUE", help="Value of a global variable, as for attach."),
    ] = None,
    redirect_to: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="IFACE",
            help="Where IFACE's frames are to be redirected (may be repeated).",
            autocompletion=complete.interface,
        ),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Send one marked frame through the real program and redirect.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Run the fixes of what fails, look again, take back what did not help."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --fix: don't ask.")] = False,
    snapshot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Judge this snapshot (xdpctl snapshot) instead of the machine."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what would fail, before the first packet: evidence, consequence on this kernel, and the fix.

    Exit code 1 when anything fails.

    xdpctl doctor veth0

    xdpctl doctor eth0 --prog redirect.bpf.o --set target=veth0

    xdpctl doctor eth0 --redirect-to veth0 --probe

    xdpctl doctor --snapshot host.json
    """
    from xdpctl.doctor.diagnose import Question

    prog = resolve(prog) if prog is not None else None
    _consistent(mode=mode, snapshot=snapshot, probe=probe, fix=fix, yes=yes, netns=netns, all_netns=all_netns)
    question = Question(
        tuple(interfaces or ()),
        netns,
        all_netns,
        _object(prog),
        program,
        mode,
        tuple(settings or ()),
        tuple(redirect_to or ()),
    )
    if (probe or fix) and snapshot is None:
        _live(question, prog, probe=probe, fix=fix, yes=yes, as_json=as_json)
        return
    answer, taken = _answer(question, snapshot)
    _show(answer, taken, as_json=as_json)


def _consistent(
    *,
    mode: str | None,
    snapshot: Path | None,
    probe: bool,
    fix: bool,
    yes: bool,
    netns: str | None,
    all_netns: bool,
) -> None:
    """Options that contradict each other."""
    if mode is not None and mode not in ("native", "generic", "offload", "auto"):
        raise ConfigError(f"--mode {mode}: no such mode", hint="one of native, generic, offload, auto")
    if snapshot is not None and (probe or fix):
        raise ConfigError(
            f"--{'probe' if probe else 'fix'} needs the machine, --snapshot is about a picture of it",
            hint="leave one of them out",
        )
    if yes and not fix:
        raise ConfigError("--yes is for --fix", hint="add --fix")
    if netns is not None and all_netns:
        raise ConfigError("--netns and --all-netns: give one of them")
    if fix and not yes and not sys.stdin.isatty():
        raise ConfigError("--fix asks before it runs anything, and there is no terminal", hint="add --yes")


def _object(path: Path | None) -> Any:
    if path is None:
        return None
    from xdpctl.obj import reader

    return reader.read(path)


def _observe(snapshot: Path | None) -> Snapshot:
    """Every namespace, whatever was asked: the other end of a veth may be in any."""
    if snapshot is not None:
        from xdpctl.host import jsonform

        return jsonform.read(snapshot)
    from xdpctl.host.collect import collect

    return collect(netns="all", probes=("xdp_link", "tcx", "frags"), pools=True)


def _answer(question: Question, snapshot: Path | None) -> tuple[Answer, Snapshot]:
    from xdpctl.doctor.diagnose import ask

    taken = _observe(snapshot)
    return ask(taken, question), taken


def _live(question: Question, prog: Path | None, *, probe: bool, fix: bool, yes: bool, as_json: bool) -> None:
    """Fix first, then measure."""
    outcomes: list[Outcome] = []
    if fix:
        outcomes = _fix(question, yes=yes, quiet=as_json)
    answer, taken = _answer(question, None)
    measured: tuple[Finding, ...] = ()
    if probe:
        from xdpctl.doctor.probe import probe as measure

        measured = measure(question, prog, taken)
    _show(answer, taken, as_json=as_json, outcomes=outcomes, measured=measured)


def _fix(question: Question, *, yes: bool, quiet: bool) -> list[Outcome]:
    from xdpctl.cli.findings import finding_lines
    from xdpctl.cli.output import note
    from xdpctl.doctor.fix import apply

    def agree(finding: Finding) -> bool:
        if not quiet:
            for line in finding_lines(finding, colour=sys.stderr.isatty()):
                note(line)
        return yes or typer.confirm("run the fix?", err=True)

    def tell(line: str) -> None:
        if not quiet:
            note(f"running: {line}")

    outcomes = apply(lambda: _answer(question, None)[0].findings, agree=agree, tell=tell)
    for one in outcomes:
        if one.error:
            note(f"{one.finding.id}: {one.error}")
        elif not one.helped:
            note(f"{one.finding.id}: the fix did not help and was taken back")
    return outcomes


def _show(
    answer: Answer,
    taken: Snapshot,
    *,
    as_json: bool,
    outcomes: list[Outcome] | None = None,
    measured: tuple[Finding, ...] = (),
) -> None:
    from xdpctl.cli.findings import print_findings
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.doctor.finding import Status

    failed = answer.failed or any(one.status is Status.FAIL for one in measured)
    if as_json:
        document = answer.to_json()
        document["findings"] = [one.to_json() for one in measured] + document["findings"]
        if outcomes is not None:
            document["fixed"] = [one.to_json() for one in outcomes]
        document["problems"] = [{"what": one.what, "why": one.why} for one in taken.problems]
        print_json(document)
    else:
        for done in outcomes or ():
            if done.helped:
                print_line(f"FIXED  {done.finding.summary}  [{done.finding.id}]")
        print_findings([*measured, *answer.findings])
        print_line(_summary(answer))
        if not any(one.id == "environment.not-observed" for one in answer.findings):
            for problem in taken.problems:
                note(f"unknown: {problem.what}: {problem.why}")
    if failed:
        raise typer.Exit(EXIT_FINDINGS)


def _summary(answer: Answer) -> str:
    """``12 links in 3 namespaces: 1 fails, 2 warnings, 9 healthy``."""
    from collections import Counter

    from xdpctl.doctor.finding import Status

    counts = Counter(one.status for one in answer.findings)
    parts = [
        f"{counts[status]} {word}{'s' if counts[status] != 1 and plural else ''}"
        for status, word, plural in (
            (Status.FAIL, "failure", True),
            (Status.WARN, "warning", True),
            (Status.UNKNOWN, "unknown", False),
        )
        if counts[status]
    ]
    links = f"{answer.links} link{'s' if answer.links != 1 else ''}"
    spaces = f" in {answer.namespaces} network namespaces" if answer.namespaces > 1 else ""
    return f"{links}{spaces}: {', '.join([*parts, f'{answer.healthy} healthy'])}"
