"""``xdpctl lab``: the stories that this tool grew from, made to happen in throwaway namespaces."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from xdpctl.cli import options

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


def _names(incomplete: str) -> list[str]:
    from xdpctl.lab.labs import LABS

    return sorted(one for one in LABS if one.startswith(incomplete))


Name = Annotated[str, typer.Argument(metavar="NAME", help="Which lab.", autocompletion=_names)]


@app.callback()
def lab() -> None:
    """Make a failure happen, see it, have it told and cured: each lab in namespaces of its own, a few seconds long.

    xdpctl lab list

    xdpctl lab run veth-redirect

    xdpctl lab keep veth-redirect
    """


@app.command("list")
def list_labs(as_json: options.AsJson = False) -> None:
    """List the labs, and which are kept."""
    from xdpctl.cli.output import print_json, print_table
    from xdpctl.lab import kept, labs

    standing = {one.lab for one in kept.read()}
    rows = [
        {"name": one.name, "title": one.title, "seconds": one.seconds, "kept": one.name in standing}
        for one in labs.every()
    ]
    if as_json:
        print_json({"labs": rows})
        return
    print_table(
        ("LAB", "SECONDS", "KEPT", "STORY"),
        [
            [str(row["name"]), str(row["seconds"]), "yes" if row["kept"] else "", str(row["title"])]
            for row in rows
        ],
    )


@app.command()
def run(name: Name, as_json: options.AsJson = False) -> None:
    """Run a lab: set up, what happens, by hand, what xdpctl says, the cure, measured before and after.

    Nothing of it stays, however it ends. Exit code 1 if something did not go as told.
    """
    from xdpctl.cli.output import print_json
    from xdpctl.lab import labs

    played = labs.run(labs.find(name), _silent if as_json else _printed)
    if as_json:
        print_json(played.to_json())


@app.command()
def keep(name: Name, as_json: options.AsJson = False) -> None:
    """Set a lab up and leave its namespaces standing, as broken as the story has it."""
    from xdpctl.cli.output import print_json
    from xdpctl.lab import labs

    left = labs.keep(labs.find(name), _silent if as_json else _printed)
    if as_json:
        print_json({"lab": left.lab, "namespaces": list(left.namespaces)})


@app.command()
def clean(as_json: options.AsJson = False) -> None:
    """Remove the namespaces that `lab keep` has left, and nothing else."""
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.lab import kept

    removed: list[str] = []
    spared: list[str] = []
    for one in kept.read():
        for name, why in kept.remove(one):
            (removed if why is None else spared).append(name)
            if why is not None:
                note(f"{name} stays: {why}")
            elif not as_json:
                print_line(f"removed network namespace {name}")
    if as_json:
        print_json({"removed": removed, "left_alone": spared})
    elif not removed and not spared:
        print_line("no lab is kept")


def _printed(text: str) -> Any:
    from xdpctl.cli.output import plain

    colour = sys.stdout.isatty()
    sys.stdout.write(text if colour else plain(text))
    sys.stdout.flush()


def _silent(_: str) -> None:
    """With --json the steps come as data."""
