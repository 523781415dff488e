"""``xdpctl validate``: is a deployment's TOML right? Needs no root and touches nothing."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import FILES, VARIABLES, parse_variables

app = typer.Typer()


@app.command(no_args_is_help=True)
def validate(
    named: Annotated[list[Path], FILES],
    variables: Annotated[Optional[list[str]], VARIABLES] = None,  # noqa: UP045 - typer reads it at run time, on 3.10 too
    as_json: options.AsJson = False,
) -> None:
    """Check a deployment: every error at once, with its file, line, and what would be right. Needs no root.

    Exit code 2 when something is wrong.

    xdpctl validate configs/blocklist.toml

    xdpctl validate --var uplink=eth0 edge/
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.deploy.load import load

    found = load(named, variables=parse_variables(variables), compile_sources=False)
    wanted = found.deployment
    if as_json:
        print_json(
            {
                "valid": True,
                "deployment": wanted.name,
                "files": [str(one) for one in found.files],
                "programs": [one.name for one in wanted.programs],
                "interfaces": len(wanted.interfaces),
                "redirects": len(wanted.redirects),
            }
        )
        return
    counts = ", ".join(
        f"{len(one)} {word}{'' if len(one) == 1 else 's'}"
        for one, word in (
            (wanted.programs, "program"),
            (wanted.interfaces, "interface"),
            (wanted.redirects, "redirect"),
        )
    )
    print_line(f"deployment {wanted.name} is valid: {counts}")
