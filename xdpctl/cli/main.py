"""The command line: a lazy table of commands, and the one place where errors become words and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from xdpctl import __version__
from xdpctl.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "attach": "xdpctl.cli.attach",
    "build": "xdpctl.cli.build",
    "detach": "xdpctl.cli.detach",
    "inspect": "xdpctl.cli.inspect",
    "status": "xdpctl.cli.status",
}
"""Command name -> module with an `app`; a module is imported only when its command is asked for."""


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
            self.commands = dict.fromkeys(COMMANDS)  # type: ignore[arg-type]
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Put XDP and TC programs on Linux interfaces, and know beforehand why the kernel would refuse or lose packets.

    Exit codes: 0 fine, 1 findings or drift, 2 usage or configuration, 3 compile, 4 object, 5 verifier,
    6 attach, 7 map, 8 netlink, 9 unsupported here, 10 not permitted, 130 interrupted.
    """


def report(error: XdpctlError, *, as_json: bool) -> None:
    """Print an error: one line and a hint to stderr, and the ``error`` object to stdout with --json."""
    from xdpctl.cli.output import print_error

    print_error(error, as_json=as_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is returned, never a traceback shown (XDPCTL_DEBUG=1 shows it)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result = app(args=arguments, prog_name="xdpctl", standalone_mode=True)
    except SystemExit as stop:  # click's standalone mode ends this way for usage errors and typer.Exit
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except XdpctlError as error:
        if os.environ.get("XDPCTL_DEBUG"):
            raise
        report(error, as_json="--json" in arguments)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("xdpctl: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader went away (`xdpctl status | head`): not our failure, and nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence against a traceback
        if os.environ.get("XDPCTL_DEBUG"):
            raise
        sys.stderr.write(
            f"xdpctl: internal error: {type(error).__name__}: {error}\n"
            "hint: this is a defect of xdpctl; XDPCTL_DEBUG=1 shows where it happened\n"
        )
        return EXIT_INTERNAL
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
