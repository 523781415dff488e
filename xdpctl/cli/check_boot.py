"""``xdpctl check-boot``: what a reboot would change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import VARIABLES, name_of, note_pending, parse_variables

app = typer.Typer()

_TITLES = {
    "lost": "would be lost",
    "changed": "would come back as something else",
    "late": "come later in a boot, or under another name",
    "returns": "come back",
    "stays": "are not touched by a reboot",
}
_COLOURS = {"lost": "31", "changed": "31", "late": "33", "returns": "32", "stays": "32"}


@app.command("check-boot")
def check_boot(
    named: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Argument(
            metavar="[NAME|FILE...]",
            help="Deployments, or their TOML files and folders; without them, the whole machine.",
            autocompletion=name_of,
        ),
    ] = None,
    root: Annotated[
        Path, typer.Option("--root", metavar="FOLDER", help="Where etc/systemd and usr/lib/systemd are.")
    ] = Path("/"),
    variables: Annotated[Optional[list[str]], VARIABLES] = None,  # noqa: UP045
    as_json: options.AsJson = False,
) -> None:
    """Explain what a reboot would change: programs, pins, devices' settings, deployments with and without a unit.

    Units are read from their files, no systemd needs to run. Exit code 0: nothing would be lost, 1: something would,
    or would come back as something else.

    xdpctl check-boot

    xdpctl check-boot edge --json
    """
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import boot, running, state
    from xdpctl.deploy.load import load
    from xdpctl.errors import EXIT_FINDINGS, ConfigError

    if not root.is_dir():
        raise ConfigError(f"no such folder: {root}")
    names, asked = [], []
    given = parse_variables(variables)
    for one in named or ():
        if "/" in one or one.endswith(".toml") or Path(one).is_dir():
            loaded = load([Path(one)], variables=given, compile_sources=False)
            asked.append(boot.Asked(loaded.deployment, loaded.files))
        else:
            names.append(state.existing(one).name)
    note_pending()
    seen = running.look()
    found = boot.check(seen, root=root, names=names, asked=asked)
    for problem in seen.snapshot.problems:
        note(f"note: {problem.what}: {problem.why}")
    if as_json:
        print_json({"lost": boot.lost(found), "items": [one.to_json() for one in found]})
    else:
        for fate, items in boot.grouped(found).items():
            _print(fate, items)
        if not found:
            print_line("nothing here would be lost by a reboot")
    if boot.lost(found):
        raise typer.Exit(EXIT_FINDINGS)


def _print(fate: str, items: list) -> None:  # type: ignore[type-arg]  # of boot.Item, imported lazily
    import sys

    from xdpctl.cli.output import plain

    if not items:
        return
    colour = sys.stdout.isatty()
    head = f"{_TITLES[fate]}:"
    sys.stdout.write((f"\033[{_COLOURS[fate]}m{head}\033[0m" if colour else head) + "\n")
    for one in items:
        sys.stdout.write(plain(f"  {one.what}") + "\n")
        sys.stdout.write(plain(f"      {one.why}") + "\n")
        if one.hint:
            sys.stdout.write(plain(f"      hint: {one.hint}") + "\n")
