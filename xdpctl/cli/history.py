"""``xdpctl history``: what was applied, and when."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import name_of

app = typer.Typer()


@app.command()
def history(
    name: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Argument(
            metavar="[NAME]", help="The deployment; without it, all of them.", autocompletion=name_of
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the generations of a deployment in this boot; `xdpctl rollback NAME N` goes back to one.

    xdpctl history edge
    """
    from xdpctl.cli.output import print_json, print_line, print_table
    from xdpctl.deploy import state
    from xdpctl.errors import NotFoundError

    names = state.names(destroyed=True)
    if name is not None and name not in names:
        raise NotFoundError("deployment", name, known=names)
    found = []
    for one in [name] if name is not None else names:
        present = state.current(one)
        for number in state.generations(one):
            stored = state.generation(one, number)
            found.append(
                {
                    "deployment": one,
                    "generation": number,
                    "applied_at": stored.applied_at,
                    "changes": stored.changes,
                    "programs": [each.name for each in stored.deployment.programs],
                    "destroyed": stored.destroyed,
                    "current": present is not None and present.generation == number,
                    "command": stored.command,
                }
            )
    if as_json:
        print_json({"generations": found})
        return
    if not found:
        print_line("nothing was applied in this boot")
        return
    rows = [
        [
            str(one["deployment"]),
            f"{one['generation']}{'*' if one['current'] else ''}",
            str(one["applied_at"]),
            str(one["changes"]),
            "destroyed" if one["destroyed"] else ", ".join(one["programs"]),  # type: ignore[arg-type]
            str(one["command"]),
        ]
        for one in found
    ]
    print_table(["DEPLOYMENT", "GENERATION", "APPLIED", "CHANGES", "PROGRAMS", "COMMAND"], rows)
