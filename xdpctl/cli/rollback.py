"""``xdpctl rollback``: an earlier generation of a deployment again."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import WAIT, YES, name_of

app = typer.Typer()


@app.command(no_args_is_help=True)
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The deployment.", autocompletion=name_of)],
    number: Annotated[
        Optional[int],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Argument(
            metavar="[N]", help="Generation, as `xdpctl history` lists them; default: the one before."
        ),
    ] = None,
    wait: Annotated[float, WAIT] = 0.0,
    yes: Annotated[bool, YES] = False,
    as_json: options.AsJson = False,
) -> None:
    """Go back to an earlier generation: its programs, declared elements and device settings, upgraded in place.

    Objects are kept with each generation, so it does not matter what became of the files.

    xdpctl rollback edge
    """
    from dataclasses import replace

    from xdpctl.cli.deployment import agree, heard, plan_json, print_plan, progress, settle_pending
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import apply as doing
    from xdpctl.deploy import ready, state
    from xdpctl.deploy.lock import locked
    from xdpctl.errors import NotFoundError

    with heard(), locked(wait=wait):
        settle_pending()
        present = state.current(name)
        if present is None:
            raise NotFoundError("deployment", name, known=state.names(destroyed=True))
        earlier = [one for one in state.generations(name) if one < present.generation]
        if number is None and not earlier:
            raise NotFoundError(
                "generation", f"before {present.generation} of {name}", hint=f"xdpctl history {name}"
            )
        stored = state.generation(name, number if number is not None else earlier[-1])
        desired, objects = ready.of_stored(stored)
        plan = ready.make(desired, objects)
        if plan.commit is not None:
            plan = replace(plan, commit=replace(plan.commit, destroyed=stored.destroyed))
        if not as_json:
            print_plan(plan)
        agree(plan, yes=yes)
        done = doing.run(plan, progress=progress(), tell=note)
    if as_json:
        print_json({**plan_json(plan), "applied": len(done.changes), "generation": done.generation})
        return
    print_line(f"{name}: as in generation {stored.generation}, which is generation {done.generation} now")
