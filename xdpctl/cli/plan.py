"""``xdpctl plan``: what applying a deployment would change, why, what it costs, and what would fail."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import FILES, VARIABLES, parse_variables

app = typer.Typer()


@app.command(no_args_is_help=True)
def plan(
    named: Annotated[list[Path], FILES],
    out: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option("--out", metavar="FILE", help="Write the plan there, for `xdpctl apply FILE`."),
    ] = None,
    variables: Annotated[Optional[list[str]], VARIABLES] = None,  # noqa: UP045
    as_json: options.AsJson = False,
) -> None:
    """Show the ordered changes that a deployment needs, as a diff; nothing is changed.

    For each: why, and whether frames are lost or the link flaps. The rules of `xdpctl doctor` are asked about the
    machine as it would be. Exit code 0: nothing to do, 1: changes, 6: something would fail.

    xdpctl plan configs/blocklist.toml --var uplink=eth0

    xdpctl plan --out plan.json edge/
    """
    from xdpctl.cli.deployment import plan_json, print_plan
    from xdpctl.cli.output import note, print_json
    from xdpctl.deploy import journal, planfile, ready
    from xdpctl.deploy.load import load
    from xdpctl.errors import EXIT_FINDINGS, AttachError

    loaded = load(named, variables=parse_variables(variables), progress=note)
    if (half := journal.read()) is not None:
        note(f"note: {half.told}; `xdpctl apply --resume` or `--undo` comes first")
    made = ready.make(loaded.deployment, loaded.objects)
    if out is not None:
        planfile.write(out, made)
    if as_json:
        print_json(plan_json(made))
    else:
        print_plan(made)
    if made.failing:
        raise typer.Exit(AttachError.exit_code)
    if made.changes or made.waiting:
        raise typer.Exit(EXIT_FINDINGS)
