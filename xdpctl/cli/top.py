"""``xdpctl top``: links, verdicts, programs, redirects, pools and drops on one screen, a few times a second."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from xdpctl.cli import complete, options
from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.trace.sampler import Sampler
    from xdpctl.trace.tick import Sample, Tick

app = typer.Typer()

FIRST_WINDOW = 0.02
"""Seconds in which runs are counted to see how many there are."""


@app.command()
def top(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.only(),
    ] = None,
    netns: Annotated[
        Optional[str],  # noqa: UP045
        options.netns("Watch this network namespace."),
    ] = None,
    all_netns: Annotated[
        bool, typer.Option("--all-netns", help="Watch every network namespace, containers' too.")
    ] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between two looks.")] = 0.5,
    count: Annotated[int, typer.Option(min=0, metavar="N", help="End after so many looks; 0: at q.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Print one look, and end.")] = False,
    sort: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="packets, bytes, lost, time, cost, name, or a verdict: pass, drop, tx, redirect, aborted.",
            autocompletion=complete.one_of(
                *"packets bytes lost time cost name pass drop tx redirect aborted".split()
            ),
        ),
    ] = "packets",
    run_times: Annotated[
        Literal["sample", "always", "off"],
        typer.Option(
            help="Count programs' runs as much of the time as costs below 1% of a CPU, always, or not at all."
        ),
    ] = "sample",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line and look.")] = False,
) -> None:
    """Show what happens now: frames and verdicts by interface, cost by program, redirects that fail, pools, drops.

    Keys: p b l t c n and 1 to 5 sort, r turns the order round, arrows scroll, blank holds the picture, q ends.
    A "?" is what the kernel and the driver do not count. Nothing stays attached afterwards.

    xdpctl top

    xdpctl top --once --iface 'veth*'
    """
    from xdpctl.cli.top_view import SORTS

    if not 0.05 <= interval <= 3600:
        raise ConfigError("--interval is a time from 0.05 s to an hour")
    if sort not in SORTS:
        raise ConfigError(f"can't sort by {sort}", hint=f"one of {', '.join(SORTS)}")
    if netns is not None and all_netns:
        raise ConfigError("--netns and --all-netns: give one of them")
    from xdpctl.cli.ending import ends_by_signal
    from xdpctl.trace.sampler import Sampler

    with (
        ends_by_signal(),
        Sampler(interfaces or (), in_netns=netns, all_netns=all_netns, run_times=run_times) as sampler,
    ):
        looks = Looks(sampler, interval)
        most = 1 if once else count
        if not (once or as_json) and _is_screen():
            from xdpctl.cli.top_screen import live

            live(looks, sort, most)
        else:
            _print(looks, sort, most, as_json=as_json)


def _is_screen() -> bool:
    """Whether there is a terminal that can be drawn on."""
    import os

    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Looks:
    """Looks at the machine in regular intervals.

    Args:
        sampler: what looks.
        interval: seconds between two.
    """

    def __init__(self, sampler: Sampler, interval: float) -> None:
        self.sampler = sampler
        self.interval = interval
        if sampler.run_times == "sample":
            sampler.window(True)
            sampler.sample()
            time.sleep(FIRST_WINDOW)
        self._last: Sample = sampler.sample()
        self._due = time.monotonic() + interval

    def next(self, wait: Callable[[float], bool]) -> Tick | None:
        """What happened until the next look is due.

        Args:
            wait: waits so many seconds; False: the user wants something else (the look is still due then).

        Returns:
            None: `wait` said no.
        """
        from xdpctl.trace.tick import tick

        if not self._wait_until(self._due - self.interval * self.sampler.share, wait):
            return None
        self.sampler.window(True)
        if not self._wait_until(self._due, wait):
            return None
        before, self._last = self._last, self.sampler.sample()
        # a look that came late (a busy machine, a stopped process) makes no crowd of looks
        self._due = max(self._due + self.interval, time.monotonic() + self.interval / 2)
        return tick(before, self._last)

    @staticmethod
    def _wait_until(due: float, wait: Callable[[float], bool]) -> bool:
        left = due - time.monotonic()
        return left <= 0 or wait(left)


def _print(looks: Looks, sort: str, count: int, *, as_json: bool) -> None:
    """Plain reports, one after the other."""
    from xdpctl.cli.output import note

    said: set[str] = set()

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return True

    number = 0
    while not count or number < count:
        found = looks.next(wait)
        if found is None:
            continue
        number += 1
        for text in found.notes:
            if text not in said:
                said.add(text)
                note(f"note: {text}")
        if as_json:
            import json

            from xdpctl.trace.tick_json import document

            sys.stdout.write(json.dumps(document(found)) + "\n")
        else:
            report(found, sort)
        sys.stdout.flush()


def report(found: Tick, sort: str) -> None:
    """Every section as a plain table."""
    from xdpctl.cli.output import note, print_line, print_table
    from xdpctl.cli.top_view import tables

    for number, table in enumerate(tables(found, sort)):
        if number:
            print_line("")
        if table.length:
            rows = [[cell.text for cell in row] for row in table.rows()]
            print_table([one.head for one in table.columns], rows, title=table.title)
        else:
            print_line(f"{table.title}: {table.remark}")
    if found.lost:
        note(f"note: {found.lost} events could not be counted")
