"""``xdpctl destroy``: a deployment goes, and devices are as they were found."""

from __future__ import annotations

from typing import Annotated

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import WAIT, YES, name_of

app = typer.Typer()


@app.command(no_args_is_help=True)
def destroy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The deployment.", autocompletion=name_of)],
    wait: Annotated[float, WAIT] = 0.0,
    yes: Annotated[bool, YES] = False,
    as_json: options.AsJson = False,
) -> None:
    """Detach everything of a deployment, unpin its programs and maps, and put device settings back as found.

    Its history stays until the next boot: `xdpctl rollback NAME` brings it back.

    xdpctl destroy edge
    """
    from dataclasses import replace

    from xdpctl.cli.deployment import agree, heard, plan_json, print_plan, progress, settle_pending
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import apply as doing
    from xdpctl.deploy import ready, state
    from xdpctl.deploy.lock import locked

    with heard(), locked(wait=wait):
        settle_pending()
        state.existing(name)
        plan = ready.make(ready.empty(name), {})
        if plan.commit is not None:
            plan = replace(plan, commit=replace(plan.commit, destroyed=True))
        if not as_json:
            print_plan(plan)
        agree(plan, yes=yes)
        done = doing.run(plan, progress=progress(), tell=note)
    if as_json:
        print_json({**plan_json(plan), "applied": len(done.changes), "generation": done.generation})
    else:
        print_line(f"{name}: destroyed")
