"""`xdpctl snapshot`: one observation of the machine as JSON, for `xdpctl doctor --snapshot` elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated, Optional

import typer

app = typer.Typer()


@app.command()
def snapshot(
    netns: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it on 3.10
        typer.Option("--netns", metavar="NAME", help="Only this network namespace (a name, or pid:N)."),
    ] = None,
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="Every network namespace that can be seen (the default).")
    ] = False,
    statistics: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--statistics",
            metavar="IFACE",
            help="Add the driver's own counters of this interface (may be repeated).",
        ),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace hardware and IP addresses by pseudonyms.")
    ] = False,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of standard output."),
    ] = None,
) -> None:
    """Observe this machine across its network namespaces, and write it down as JSON.

    What the doctor judges by: links and their drivers, queues and features, attached programs and where they
    redirect to, the kernel. Reads only; without root, what the kernel does not tell is listed under "problems".

    Examples:
        xdpctl snapshot > host.json

        xdpctl snapshot --redact -o host.json

        xdpctl doctor --snapshot host.json
    """
    from xdpctl.cli.output import note
    from xdpctl.errors import ConfigError
    from xdpctl.host import jsonform
    from xdpctl.host.collect import collect

    if netns is not None and all_netns:
        raise ConfigError("--netns and --all-netns exclude each other")
    taken = collect(netns=netns or "all", statistics_of=statistics or (), pools=True, tc_redirects=True)
    text = jsonform.text(jsonform.dump(taken, redact=redact))
    if output is None:
        sys.stdout.write(text)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"can't write {output}: {error.strerror}") from error
    spaces, links = len(taken.namespaces), sum(1 for _ in taken.links())
    note(f"observed {links} links in {spaces} network namespace{'s' if spaces != 1 else ''}")
    for problem in taken.problems:
        note(f"unknown: {problem.what}: {problem.why}")
