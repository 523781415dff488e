"""``xdpctl explain``: what an errno, an extack or a line of dmesg means, offline."""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer

from xdpctl.cli import complete, options
from xdpctl.errors import EXIT_FINDINGS, ConfigError

app = typer.Typer(context_settings={"ignore_unknown_options": True})

OPS = ("attach", "redirect", "load")


@app.command(no_args_is_help=True, context_settings={"ignore_unknown_options": True})
def explain(
    query: Annotated[
        list[str],
        typer.Argument(metavar="ERRNO|TEXT", help='ENXIO, -95, "Peer MTU is too large to set XDP", ...'),
    ],
    driver: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(metavar="D", help="Only what this driver (ethtool -i) can mean."),
    ] = None,
    op: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="attach|redirect|load",
            help="What was being done.",
            autocompletion=complete.one_of(*OPS),
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Explain what the kernel answered: candidates ranked, each with how to tell and what clears it.

    xdpctl explain ENXIO --op redirect

    xdpctl explain -95

    xdpctl explain "Peer MTU is too large to set XDP"
    """
    from xdpctl.cli.output import note, print_json
    from xdpctl.doctor.explain import explain as look

    if op is not None and op not in OPS:
        raise ConfigError(f"--op {op}: no such operation", hint=f"one of {', '.join(OPS)}")
    text = " ".join(query)
    unknown = [one for one in query if one.startswith("--")]
    if unknown:
        raise ConfigError(f"no such option: {unknown[0]}", hint="xdpctl explain --help")
    found = look(text, driver=driver, op=op)
    if as_json:
        print_json({"query": text, "candidates": [one.to_json() for one in found]})
    elif found:
        _print(found)
    if not found:
        if not as_json:
            note(f"nothing is known of {text!r}" + (f" for driver {driver}" if driver else ""))
            note(
                "hint: try a part of the message, or the errno alone; xdpctl doctor looks at the machine itself"
            )
        raise typer.Exit(EXIT_FINDINGS)


def _print(found: list) -> None:  # type: ignore[type-arg]
    from xdpctl.cli.output import plain

    bold, off = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    for number, one in enumerate(found, 1):
        cause = one.cause
        errno = "/".join(cause.errno) or "no errno"
        where = f" ({', '.join(cause.drivers[:8])})" if cause.drivers else ""
        lines = [f"{number}. {bold}{cause.op}: {errno}{off}{where}: {cause.why}"]
        if cause.text:
            lines.append(f'   the kernel says, in {cause.heard}: "{cause.text}"')
        elif cause.heard != "nowhere":
            lines.append(f"   shows in: {cause.heard}")
        if cause.versions:
            lines.append(f"   kernels: {cause.versions}")
        lines.append(f"   tell:    {cause.tell}")
        lines.append(f"   fix:     {cause.fix}")
        if cause.finding:
            lines.append(f"   finding: {cause.finding}")
        for line in lines:
            sys.stdout.write((line if bold else plain(line)) + "\n")
