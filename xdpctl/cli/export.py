"""``xdpctl export``: a deployment's TOML of what runs now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import name_of, note_pending

if TYPE_CHECKING:
    from xdpctl.deploy.export import Exported

app = typer.Typer()


@app.command()
def export(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.interfaces("Of what is in no deployment, only these interfaces (names or globs)."),
    ] = None,
    netns: Annotated[
        Optional[str],  # noqa: UP045
        options.netns("Look in this network namespace for what is in no deployment."),
    ] = None,
    all_netns: Annotated[bool, typer.Option("--all-netns", help="Look in every network namespace.")] = False,
    deployment: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--deployment", metavar="NAME", help="This deployment alone.", autocompletion=name_of),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", help="Name for what is in no deployment; by default the host's."),
    ] = None,
    out: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write there; FOLDER/ takes a file of each deployment."
        ),
    ] = None,
    copy_to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--copy-to",
            metavar="FOLDER",
            help="Copy objects, and long lists of map elements, there: they outlive a boot.",
        ),
    ] = None,
    all_settings: Annotated[
        bool, typer.Option("--all", help="Every setting of the devices, not only what differs from defaults.")
    ] = False,
    entries: Annotated[bool, typer.Option("--entries", help="What the programs' maps hold, too.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write what runs now as a deployment: programs, where they are attached, devices' settings, redirects.

    `xdpctl plan` of the file finds nothing to do on the same machine, but for programs attached by hand, which it
    would take over. What a file can't say is told in it and on stderr. A deployment is exported whole.

    xdpctl export > now.toml

    xdpctl export -o edge.toml --copy-to edge.objects --deployment edge

    xdpctl export --netns blue 'veth*' --all
    """
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import export as doing
    from xdpctl.deploy import export_text
    from xdpctl.deploy.schema import safe_name
    from xdpctl.errors import ConfigError

    if netns is not None and all_netns:
        raise ConfigError("--netns and --all-netns: give one of them")
    if name is not None and not safe_name(name):
        raise ConfigError(f"--name {name}: letters, digits, _ and -, at most 64")
    path = Path(out) if out is not None else None
    note_pending()
    folder = path is not None and (str(out).endswith("/") or path.is_dir())
    base = path if folder or path is None else path.parent
    parts = doing.export(
        doing.Request(
            tuple(interfaces or ()),
            netns,
            all_netns,
            deployment,
            name,
            all_settings,
            entries,
            copy_to,
            base,
        ),
        progress=note if os.isatty(2) else lambda _text: None,
    )
    chosen = [one for one in parts if not one.empty] if folder else [doing.together(parts)]
    for one in chosen:
        for each in one.left_out:
            note(f"note: not exported: {each.what}: {each.why}")
    from datetime import datetime, timezone

    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    texts = [(one, export_text.text(one, taken_at=now)) for one in chosen]
    written = _write(texts, path, folder=folder)
    if as_json:
        made: list[dict[str, Any]] = [
            export_text.to_json(one, toml=toml, file=file)
            for (one, toml), file in zip(texts, written, strict=True)
        ]
        print_json({"deployments": made})
        return
    if out is None:
        for _, toml in texts:
            import sys

            sys.stdout.write(toml)
        return
    for (one, _), file in zip(texts, written, strict=True):
        print_line(f"{file}: deployment {one.name}, {_counts(one)}")
    if not texts:
        print_line("nothing runs that a file could say")


def _counts(one: Exported) -> str:
    counts = ((one.programs, "program"), (one.interfaces, "interface"), (one.redirects, "redirect"))
    return ", ".join(f"{len(some)} {word}{'' if len(some) == 1 else 's'}" for some, word in counts)


def _write(texts: list[tuple[Exported, str]], out: Path | None, *, folder: bool) -> list[str | None]:
    from xdpctl.errors import ConfigError

    if out is None:
        return [None for _ in texts]
    written: list[str | None] = []
    for one, toml in texts:
        path = out / f"{one.name}.toml" if folder else out
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            fresh.write_text(toml, encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise ConfigError(f"can't write {path}: {(error.strerror or str(error)).lower()}") from error
        written.append(str(path))
    return written
