"""``xdpctl trace pool``: page pools by `xdpctl pool watch`'s tracer, told as the other tracers tell."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from xdpctl.cli.trace_options import AsJson, Duration, Interfaces, Interval, Netns, print_report

if TYPE_CHECKING:
    from collections.abc import Iterator


def pool(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show page pools: pages in flight, how fast they are taken and given back, and shutdowns that wait for pages.

    A pool that recycles all its pages traces nothing; veths' pools are looked up all the same.

    xdpctl trace pool --duration 5 --iface veth0
    """
    from xdpctl.cli.output import note, print_line
    from xdpctl.cli.pool import Follow, event_line, reading_lines
    from xdpctl.trace.pools import PoolTracer

    with PoolTracer() as tracer:
        follow = Follow(tracer, netns, interfaces or (), interval)
        if not as_json:
            note("watching; a pool shows once it takes or gives back pages")
        events: list[dict[str, Any]] = []
        before, lost = time.monotonic(), 0
        for kind, told in _until_interrupted(follow.steps(None, duration or None)):
            if kind == "event":
                events.append(told)
                if not as_json:
                    print_line(event_line(told))
                continue

            def render(told: dict[str, Any] = told) -> None:
                for line in reading_lines(told):
                    print_line(line)

            now, (pools, records) = time.monotonic(), follow.lost
            document = {"pools": told["pools"], "events": events}
            print_report("pool", pools + records - lost, now - before, document, render, as_json=as_json)
            before, lost, events = now, pools + records, []


def _until_interrupted(steps: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same, ended by Ctrl-C as by the end of time."""
    try:
        yield from steps
    except KeyboardInterrupt:
        return
