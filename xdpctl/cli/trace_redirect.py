"""``xdpctl trace redirect``: redirects that fail, by program, from, to, errno and cause."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xdpctl.cli.trace_options import (
    AsJson,
    Duration,
    Interfaces,
    Interval,
    Netns,
    print_report,
    rate,
    say,
    ticks,
)


def redirect(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    per_frame: Annotated[
        bool,
        typer.Option(
            "--per-frame",
            help="Count every redirected frame too: a program runs for each (docs/benchmarks.md: its cost).",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show redirects that fail: by program, from, to, errno and cause, with doctor's fix where it knows one.

    Errors and whole bulks are counted; a frame costs next to nothing.

    xdpctl trace redirect --duration 5 --iface veth0
    """
    from xdpctl.cli.output import note, print_line, print_table
    from xdpctl.doctor import traced
    from xdpctl.trace.devices import chosen, namespace_labels
    from xdpctl.trace.redirect import RedirectTrace

    wanted = chosen(interfaces or (), in_netns=netns)
    with RedirectTrace(per_frame=per_frame) as tracer:
        say(tracer.missing)
        if per_frame:
            note(
                "note: --per-frame runs a program for every redirected frame: about a third of what a bare"
                " redirect takes (docs/benchmarks.md)"
            )
        before, snapshot = tracer.read(), None
        for _ in ticks(duration, interval):
            now = tracer.read()
            since, seconds = now.minus(before).about(wanted), now.at - before.at
            before = now
            labels = namespace_labels()
            if since.dropped and snapshot is None:
                snapshot = _observed()
            told = [(one, traced.explain(one, snapshot)) for one in since.edges]

            def render(told: Any = told, labels: Any = labels, seconds: float = seconds) -> None:
                if not told:
                    print_line("no redirects")
                    return
                rows = [
                    [
                        one.program or (f"id {one.program_id}" if one.program_id else ""),
                        one.source.label(labels) if one.source else "",
                        _target(one, labels),
                        one.event,
                        one.errno or one.verdict or "",
                        rate(one.sent, seconds),
                        rate(one.dropped, seconds),
                        str(one.dropped),
                    ]
                    for one, _ in told
                ]
                print_table(("PROGRAM", "FROM", "TO", "EVENT", "ERRNO", "SENT", "LOST", "FRAMES LOST"), rows)
                for one, why in told:
                    if why is not None:
                        print_line(f"{_target(one, labels) or one.event}: {why.why}")
                        for fix in why.finding.fix if why.finding else ():
                            where = f"in {fix.netns}: " if fix.netns else ""
                            print_line(f"  fix: {where}{' '.join(fix.argv)}  [{why.finding.id}]")

            document = {
                "edges": [
                    {**one.to_json(labels), "cause": why.to_json() if why else None} for one, why in told
                ]
            }
            print_report("redirect", since.lost, seconds, document, render, as_json=as_json)


def _target(one: Any, labels: Any) -> str:
    if one.target is not None:
        return str(one.target.label(labels))
    if one.map_type:
        slot = "" if one.slot is None else f"[{one.slot}]"
        return f"{one.map_type} {one.map_name or one.map_id}{slot}"
    return ""


def _observed() -> Any:
    """The machine, for the findings that name a fix; None where it can't be observed."""
    from xdpctl.errors import XdpctlError
    from xdpctl.host.collect import collect

    try:
        return collect(netns="all")
    except XdpctlError:
        return None
