"""``xdpctl unit``: a systemd service that brings a deployment up at boot, and heals it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import FILES, VARIABLES, parse_variables

if TYPE_CHECKING:
    import os

app = typer.Typer()


@app.command(no_args_is_help=True)
def unit(
    named: Annotated[list[Path], FILES],
    variables: Annotated[Optional[list[str]], VARIABLES] = None,  # noqa: UP045 - typer reads it at run time, on 3.10 too
    show: Annotated[bool, typer.Option("--print", help="Print the unit, write nothing.")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="FOLDER", help="Write there; by default /etc/systemd/system."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Apply at boot and end: nobody watches for drift.")
    ] = False,
    watchdog: Annotated[
        int,
        typer.Option("--watchdog", metavar="SECONDS", help="systemd restarts what is silent so long.", min=5),
    ] = 60,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a unit that xdpctl did not make.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a hardened systemd unit for a deployment: applied before the network counts as online, then watched.

    It needs no root's capabilities but those that the unit names, each with its reason. Stopping the service leaves
    the programs attached. The files are checked first; nothing is started.

    xdpctl unit --print configs/blocklist.toml --var uplink=eth0

    xdpctl unit /etc/xdpctl/edge.toml && systemctl daemon-reload && systemctl enable --now xdpctl-edge
    """
    import os
    import sys

    import xdpctl
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import unit as making
    from xdpctl.deploy.load import load
    from xdpctl.errors import ConfigError

    if show and out is not None:
        raise ConfigError("--print and -o: give one of them")
    asked = _Asked(os.environ)
    given = parse_variables(variables)
    loaded = load(named, variables=given, environment=asked, compile_sources=False)
    made = making.make(
        making.Request(
            tuple(named),
            _command_of(sys.argv[0], sys.executable),
            given,
            asked.used,
            once,
            watchdog,
            making.has_cap_bpf(),
            (Path(os.path.realpath(sys.executable)), Path(os.__file__), Path(xdpctl.__file__)),
        ),
        loaded,
    )
    for text in made.notes:
        note(f"note: {text}")
    path = (
        None if show else _write(out if out is not None else making.FOLDER, made.name, made.text, force=force)
    )
    if as_json:
        print_json(
            {
                "deployment": loaded.deployment.name,
                "unit": made.name,
                "file": None if path is None else str(path),
                "capabilities": [{"name": one, "why": why} for one, why in made.capabilities],
                "notes": list(made.notes),
                "text": made.text,
            }
        )
    elif show:
        sys.stdout.write(made.text)
    else:
        print_line(f"{path}: deployment {loaded.deployment.name}")
        note(f"next: systemctl daemon-reload && systemctl enable --now {made.name}")


def _command_of(program: str, executable: str) -> tuple[str, ...]:
    """argv that starts this xdpctl again: the script that was called, or the interpreter and its module."""
    import os

    from xdpctl.deploy.unit import absolute

    path = Path(program)
    if path.name == "xdpctl" and path.is_file() and os.access(path, os.X_OK):
        return (str(absolute(path)),)
    return (executable, "-m", "xdpctl.cli")


class _Asked(dict[str, str]):
    """The environment, and which of it was used: a service has another one."""

    def __init__(self, environment: dict[str, str] | os._Environ[str]) -> None:
        super().__init__(environment)
        self.used: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        found = super().__getitem__(name)
        self.used[name] = found
        return found


def _write(folder: Path, name: str, text: str, *, force: bool) -> Path:
    from xdpctl.errors import ConfigError

    path = folder / name
    try:
        if path.exists() and not force and "`xdpctl unit`" not in path.read_text(errors="replace")[:400]:
            raise ConfigError(f"{path} is there, and xdpctl did not make it", hint="--force, or -o FOLDER")
        if not folder.is_dir():
            raise ConfigError(f"no such folder: {folder}", hint="-o FOLDER, or --print")
        fresh = folder / f".{name}.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(
            f"can't write {path}: {(error.strerror or str(error)).lower()}", hint="-o FOLDER, or --print"
        ) from error
    return path
