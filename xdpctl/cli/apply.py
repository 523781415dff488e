"""``xdpctl apply``: make the machine what a deployment wants, or finish or undo what was interrupted."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import VARIABLES, WAIT, YES, parse_variables

if TYPE_CHECKING:
    from xdpctl.deploy.plan import Plan

app = typer.Typer()


@app.command()
def apply(
    named: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Argument(
            metavar="[FILE...]", help="TOML files and folders, or one plan.json of `xdpctl plan --out`."
        ),
    ] = None,
    variables: Annotated[Optional[list[str]], VARIABLES] = None,  # noqa: UP045
    wait: Annotated[float, WAIT] = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="Finish what was interrupted.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was interrupted.")] = False,
    replan: Annotated[
        bool,
        typer.Option("--replan", help="With plan.json: go on although the machine needs other changes now."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Apply although something is known to fail.")
    ] = False,
    yes: Annotated[bool, YES] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make the changes that `xdpctl plan` shows: all of them, or none.

    Each is written to a journal before it is made. After a crash, `xdpctl apply --resume` finishes and
    `xdpctl apply --undo` takes back. Exit codes: 0 done or nothing to do, 6 something would fail (--force), 75 another
    command is changing the machine (--wait), 76 an interrupted one must be finished or undone first.

    xdpctl apply configs/blocklist.toml --var uplink=eth0

    xdpctl apply plan.json

    xdpctl apply --undo
    """
    from xdpctl.cli.deployment import heard, settle_pending
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.deploy.lock import locked
    from xdpctl.errors import ConfigError

    if resume and undo:
        raise ConfigError("--resume and --undo: give one of them")
    if not named and not resume and not undo:
        raise ConfigError("no file given", hint="xdpctl apply FILE.toml")
    with locked(wait=wait):
        settled = settle_pending(resume=resume, undo=undo)
        if settled is not None and not as_json:
            print_line(settled)
        if not named:
            if settled is None and not as_json:
                print_line("nothing was interrupted")
            if as_json:
                print_json({"settled": settled})
            return
        with heard():
            _apply(named, parse_variables(variables), replan=replan, force=force, yes=yes, as_json=as_json)


def _apply(
    named: list[Path], variables: dict[str, str], *, replan: bool, force: bool, yes: bool, as_json: bool
) -> None:
    from xdpctl.cli.deployment import agree, plan_json, print_plan, progress
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import apply as doing

    plan = _planned(named, variables, replan=replan)
    if plan.changes and not as_json:
        print_plan(plan)
    if plan.failing and not force:
        raise _refused(plan)
    agree(plan, yes=yes)
    done = doing.run(plan, progress=progress(), tell=note)
    if as_json:
        print_json({**plan_json(plan), "applied": len(done.changes), "generation": done.generation})
        return
    what = f"{len(done.changes)} changes made" if done.changes else "nothing to do"
    print_line(f"{plan.deployment.name}: {what}, generation {done.generation}")


def _planned(named: list[Path], variables: dict[str, str], *, replan: bool) -> Plan:
    from xdpctl.cli.output import note
    from xdpctl.deploy import planfile, ready
    from xdpctl.deploy.load import load
    from xdpctl.errors import ConfigError, DriftError

    if any(planfile.is_plan(one) for one in named):
        if len(named) > 1:
            raise ConfigError("a plan.json is applied alone")
        if variables:
            raise ConfigError("--var is for TOML files; a plan has its values already")
        desired, planned = planfile.read(named[0])
        objects = ready.objects_of(desired)
        _same_objects(desired)
    else:
        loaded = load(named, variables=variables, progress=note)
        desired, objects, planned = loaded.deployment, dict(loaded.objects), None
    ready.wait_for(desired, objects)
    made = ready.make(desired, objects)
    if planned is not None and not replan:
        more = planfile.unforeseen(planned, made.changes)
        if more:
            first = f"{more[0].kind} of {more[0].target}"
            raise DriftError(
                f"the machine has changed since this was planned: {len(more)} other changes are needed, first {first}",
                hint="xdpctl plan again, or --replan to go on with what is needed now",
            )
    return made


def _same_objects(desired) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - imported lazily
    import hashlib

    from xdpctl.errors import ConfigError

    for one in desired.programs:
        if hashlib.sha256(one.object.read_bytes()).hexdigest() != one.digest:
            raise ConfigError(f"{one.object} has changed since this was planned", hint="plan again")


def _refused(plan: Plan) -> Exception:
    from xdpctl.doctor.fix import command_line
    from xdpctl.errors import AttachError

    first = plan.failing[0]
    more = f" (and {len(plan.failing) - 1} more)" if len(plan.failing) > 1 else ""
    fixes = "; ".join(command_line(one) for one in first.fix)
    hint = f"{fixes}; or --force" if fixes else "--force tries all the same"
    return AttachError(f"not applied: {first.summary}{more}", interface=first.interface, hint=hint)
