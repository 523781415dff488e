"""``xdpctl status``: every XDP and TC program on the interfaces, whoever attached it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from xdpctl.cli import options

if TYPE_CHECKING:
    from xdpctl.attach.model import Attachment

app = typer.Typer()


@app.command()
def status(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.interfaces("Interfaces (names or globs); all by default."),
    ] = None,
    netns: Annotated[Optional[str], options.netns("Look in this network namespace.")] = None,  # noqa: UP045
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="Look in every network namespace, containers' too.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show what is attached: hook, the mode really in force, program, link, owner, since when, runs.

    Run counts need `sysctl kernel.bpf_stats_enabled=1`.
    """
    from xdpctl.attach.status import status as look
    from xdpctl.cli.output import note, print_json, print_line, print_table
    from xdpctl.errors import ConfigError

    if netns is not None and all_netns:
        raise ConfigError("--netns and --all-netns: give one of them")
    found = look(tuple(interfaces or ()), netns=netns, all_netns=all_netns)
    for text in found.notes:
        note(f"note: {text}")
    if as_json:
        print_json(found.to_json())
        return
    if not found.attachments:
        print_line("no XDP or TC programs")
        return
    columns, rows = table(found.attachments)
    print_table(columns, rows)


def table(attachments: tuple[Attachment, ...]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows; columns that would be empty are left out."""
    columns = {
        "INTERFACE": [one.interface for one in attachments],
        "NETNS": [one.netns or "" for one in attachments],
        "HOOK": [one.hook for one in attachments],
        "MODE": [one.mode or "" for one in attachments],
        "VIA": [one.via or "?" for one in attachments],
        "PROGRAM": [one.program.name or "?" for one in attachments],
        "ID": [str(one.program.id) for one in attachments],
        "TAG": [one.program.tag or "?" for one in attachments],
        "LINK": ["" if one.link_id is None else str(one.link_id) for one in attachments],
        "PRIORITY": ["" if one.priority is None else str(one.priority) for one in attachments],
        "OWNER": [one.owner for one in attachments],
        "SINCE": [_when(one) for one in attachments],
        "RUNS": ["" if one.run_count is None else str(one.run_count) for one in attachments],
        "NS/RUN": [_mean(one) for one in attachments],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def _when(one: Attachment) -> str:
    """Local time of the attach, or of the load where only that is known."""
    import time

    when = one.since if one.since is not None else one.loaded_at
    if when is None:
        return "?"
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    return text if one.since is not None else f"loaded {text}"


def _mean(one: Attachment) -> str:
    if not one.run_count or one.run_time_ns is None:
        return ""
    return f"{one.run_time_ns / one.run_count:.0f}"
