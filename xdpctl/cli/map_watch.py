"""``xdpctl map watch``: how entries change, with rates."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.map_data import MAP, NETNS, opened, ref

if TYPE_CHECKING:
    from xdpctl.skeleton.changes_seen import Tick


def watch(
    name: MAP,
    keys: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Argument(metavar="[KEY...]", help="Only these."),
    ] = None,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Between two looks.", min=0.05, max=86400)
    ] = 1.0,
    count: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="Stop after so many intervals; else at Ctrl-C.", min=1),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="Show the N fastest entries.", min=1)] = 20,
    netns: NETNS = None,
    as_json: options.AsJson = False,
) -> None:
    """Show which entries change, and how much a second; of per-CPU maps the sums.

    --json prints one object an interval, each on its line.

    xdpctl map watch eth0/actions --count 3

    xdpctl map watch blocked4 203.0.113.0/24 --interval 0.5
    """
    import json

    from xdpctl.cli.output import print_line
    from xdpctl.skeleton.changes_seen import look, tick

    with opened(name, netns) as of:
        wanted = None
        if keys and of.shape.key is not None:
            wanted = [of.shape.key.parse(one, path="key") for one in keys]
        about = ref(of)
        before, then = look(of, wanted), time.monotonic()
        left = count
        while left is None or left > 0:
            time.sleep(interval)
            now, at = look(of, wanted), time.monotonic()
            seen = tick(of.shape, before, now, at - then)
            before, then = now, at
            if as_json:
                sys.stdout.write(json.dumps({"map": about, **_told(seen, limit)}) + "\n")
                sys.stdout.flush()
            else:
                for line in _lines(seen, limit):
                    print_line(line)
                sys.stdout.flush()
            left = None if left is None else left - 1


def _told(seen: Tick, limit: int) -> dict[str, Any]:
    return {
        "seconds": round(seen.seconds, 3),
        "entries": seen.entries,
        "added": seen.added,
        "deleted": seen.deleted,
        "changed": [{"key": one.key, "value": one.value, "rates": one.rates} for one in seen.changed[:limit]],
        "more": max(0, len(seen.changed) - limit),
    }


def _lines(seen: Tick, limit: int) -> list[str]:
    from xdpctl.skeleton.forms import shown

    head = time.strftime("%H:%M:%S") + f"  {seen.entries} entries"
    head += f", {seen.added} new" if seen.added else ""
    head += f", {seen.deleted} gone" if seen.deleted else ""
    lines = [head + ("" if seen.changed else ", nothing changes")]
    for one in seen.changed[:limit]:
        rates = " ".join(f"{name + '=' if name else ''}{rate:+.6g}/s" for name, rate in one.rates.items())
        lines.append(f"  {shown(one.key)}  {shown(one.value)}  {rates}".rstrip())
    if len(seen.changed) > limit:
        lines.append(f"  and {len(seen.changed) - limit} more")
    return lines
