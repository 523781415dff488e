"""What the tracers' commands share: options, the times of reports, and how one is printed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import complete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xdpctl.trace.tracer import Missing

Duration = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.0, help="End after this long; 0: at Ctrl-C.")
]
Interval = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Report this often.")]
Interfaces = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    typer.Option(
        "--iface", metavar="IFACE", help="Only these (names or globs).", autocompletion=complete.interface
    ),
]
Netns = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="NAME",
        help="Only this network namespace; without it and --iface, all of them.",
        autocompletion=complete.namespace,
        is_eager=True,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document a line and report.")]


def ticks(duration: float, interval: float) -> Iterator[None]:
    """Wait until each report is due, the last one at the end of `duration`; Ctrl-C ends it like the end of time."""
    start = time.monotonic()
    number = 1
    while True:
        due = start + number * interval
        last = bool(duration) and due >= start + duration
        if last:
            due = start + duration
        try:
            time.sleep(max(0.0, due - time.monotonic()))
        except KeyboardInterrupt:
            yield
            return
        yield
        if last:
            return
        number += 1


def say(missing: Iterable[Missing], lost: int = 0) -> None:
    """What can't be told on this kernel, and what was lost."""
    from xdpctl.cli.output import note

    for one in missing:
        note(f"note: this kernel has no tracepoint {one.tracepoint} as known: not told: {one.tells}")
    if lost:
        note(f"note: {lost} events could not be counted")


def print_report(
    kind: str,
    lost: int,
    seconds: float,
    document: dict[str, Any],
    render: Callable[[], None],
    *,
    as_json: bool,
) -> None:
    """One report: a line of JSON, or what `render` prints."""
    if as_json:
        import json

        head = {"trace": kind, "time": round(time.time(), 3), "seconds": round(seconds, 3)}
        sys.stdout.write(json.dumps({**head, **document, "lost": lost}) + "\n")
    else:
        render()
        say((), lost)
    sys.stdout.flush()


def rate(count: int, seconds: float) -> str:
    """``1,234/s``."""
    return f"{count / seconds:,.0f}/s" if seconds > 0 else ""


def duration_of(ns: int) -> str:
    """``512 ns``, ``1.2 ms``."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"
