"""``xdpctl stats``: the counters that move, per queue and summed, and whether they agree."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import options
from xdpctl.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.host.counters import Movement, Reading

app = typer.Typer()


@app.command()
def stats(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.interfaces("Interfaces (names or globs); all by default."),
    ] = None,
    netns: Annotated[Optional[str], options.netns("Look in this network namespace.")] = None,  # noqa: UP045
    ethtool: Annotated[
        bool, typer.Option("--ethtool", help="The driver's own counters too (ethtool -S).")
    ] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between two readings.")] = 1.0,
    count: Annotated[
        int, typer.Option(min=0, metavar="N", help="End after so many reports; 0: with Ctrl-C.")
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document a line and report.")
    ] = False,
) -> None:
    """Show the rate of every counter that moves, per queue and summed, and whether the counters agree.

    xdpctl stats eth0

    xdpctl stats --ethtool --interval 5 --count 0 'eth*'
    """
    from xdpctl.host.counters import movement, read
    from xdpctl.netlink import interfaces as known
    from xdpctl.netlink import netns as spaces

    if not 0 < interval <= 86400:
        raise ConfigError("--interval is a time above 0 s, and at most a day")
    with spaces.enter(netns):
        names = known.names()
        chosen = {number: name for name, number in known.expand(interfaces)} if interfaces else names
        before = read(chosen, ethtool=ethtool)
        reports = 0
        while not count or reports < count:
            time.sleep(interval)
            after = read(chosen, ethtool=ethtool)
            gone = [name for number, name in chosen.items() if not after.counters[number]]
            if gone and len(gone) == len(chosen):
                raise NotFoundError("interface", gone[0], known=known.names().values(), where=netns)
            moves = {number: movement(before, after, number) for number in chosen}
            _print(chosen, moves, after, as_json=as_json)
            before = after
            reports += 1


def _print(names: Mapping[int, str], moves: Mapping[int, Movement], after: Reading, *, as_json: bool) -> None:
    from xdpctl.cli.output import note, print_line

    if as_json:
        import json

        sys.stdout.write(json.dumps(told(names, moves, after)) + "\n")
    else:
        for problem in after.problems:
            note(f"note: {problem}")
        quiet = True
        for number, move in moves.items():
            for line in lines(names[number], move):
                quiet = False
                print_line(line)
        if quiet:
            print_line("no counter moved")
    sys.stdout.flush()


def told(names: Mapping[int, str], moves: Mapping[int, Movement], after: Reading) -> dict[str, Any]:
    """The JSON document of one report."""
    from dataclasses import asdict

    found = [
        {"interface": names[number], "ifindex": number, **asdict(move)} for number, move in moves.items()
    ]
    return {"interfaces": found, "problems": list(after.problems)}


def lines(name: str, move: Movement) -> list[str]:
    """One link's report for people; [] where nothing moved."""
    if not move.counters and not move.fell:
        return []
    made = [f"{name}  (in {move.seconds:.2f} s)"]
    for one in move.counters:
        words = f"  {one.means}" if one.means else ""
        made.append(f"  {one.source:<9}{one.name:<28}{one.rate:>14,.1f}/s{one.delta:>14,}{words}")
        if one.queues and len(one.queues) > 1:
            made.append(
                "    by queue: " + "  ".join(f"{queue}: {part:,}" for queue, part in one.queues.items())
            )
    if move.fell:
        made.append(f"  less than before (reset, or no counters): {', '.join(move.fell)}")
    for check in move.checks:
        mark = "" if check.holds is None else "ok: " if check.holds else "DIFFERS: "
        made.append(f"  {mark}{check.name}: {check.says}")
    return made
