"""``xdpctl schema``: the shape of a deployment's TOML as JSON Schema, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def schema(
    as_json: Annotated[bool, typer.Option("--json", help="It is JSON anyway.")] = False,  # noqa: ARG001
) -> None:
    """Print the JSON Schema of a deployment's TOML; editors complete and check by it.

    xdpctl schema > deployment.schema.json, and as the first line of the TOML: #:schema ./deployment.schema.json
    """
    from xdpctl.cli.output import print_json
    from xdpctl.deploy.schema import json_schema

    print_json(json_schema())
