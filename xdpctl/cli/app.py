"""The typer application: a group that imports a command's module only when that command is asked for."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xdpctl import __version__
from xdpctl.cli.light import lighten
from xdpctl.cli.main import COMMANDS


class LazyGroup(TyperGroup):
    """A group whose commands are imported on use, so that no command pays for another's imports."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command's name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        """The command, or None; near names are suggested by the group."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            # typer suggests from self.commands: give it the names without importing anything
            self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]
            return None
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"xdpctl {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Put XDP and TC programs on Linux interfaces, and know beforehand why the kernel would refuse.

    Exit codes: 0 fine, 1 findings or drift, 2 usage or configuration, 3 compile, 4 object, 5 verifier,
    6 attach, 7 map, 8 netlink, 9 unsupported here, 10 not permitted, 74 output not written, 130 interrupted.
    """


def run(arguments: list[str]) -> Any:
    """Run one command; see `typer._click.core.Command.main` for what comes back and what is raised."""
    lighten()
    return app(args=arguments, prog_name="xdpctl", standalone_mode=False)
