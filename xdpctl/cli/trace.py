"""``xdpctl trace``: what happens to packets right now, counted in the kernel while the command runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import complete

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xdpctl.trace.tracer import Missing

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

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


@app.callback()
def trace() -> None:
    """Watch packets being redirected, dropped, or waiting in qdiscs; nothing stays attached afterwards.

    xdpctl trace redirect --duration 5

    xdpctl trace drops --iface macvtap0

    xdpctl trace qdisc --iface eth0 --json
    """


def _ticks(duration: float, interval: float) -> Iterator[None]:
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


def _say(missing: Iterable[Missing], lost: int = 0) -> None:
    from xdpctl.cli.output import note

    for one in missing:
        note(f"note: this kernel has no tracepoint {one.tracepoint} as known: not told: {one.tells}")
    if lost:
        note(f"note: {lost} events could not be counted")


def _report(
    kind: str,
    report: Any,
    seconds: float,
    document: dict[str, Any],
    render: Callable[[], None],
    *,
    as_json: bool,
) -> None:
    if as_json:
        import json

        head = {"trace": kind, "time": round(time.time(), 3), "seconds": round(seconds, 3)}
        sys.stdout.write(json.dumps({**head, **document, "lost": report.lost}) + "\n")
    else:
        render()
        _say((), report.lost)
    sys.stdout.flush()


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}/s" if seconds > 0 else ""


@app.command()
def redirect(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    per_frame: Annotated[
        bool, typer.Option("--per-frame", help="Count every redirected frame too: costs each some 25 ns.")
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
        _say(tracer.missing)
        if per_frame:
            note("note: --per-frame runs a program for every redirected frame, some 25 ns each")
        before, snapshot = tracer.read(), None
        for _ in _ticks(duration, interval):
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
                        _rate(one.sent, seconds),
                        _rate(one.dropped, seconds),
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
            _report("redirect", since, seconds, document, render, as_json=as_json)


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


@app.command()
def drops(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show lost packets with reason and place; at rings, how full the ring was at each loss.

    xdpctl trace drops --duration 5 --iface macvtap0
    """
    from xdpctl.cli.output import note, print_line, print_table
    from xdpctl.trace.devices import chosen, namespace_labels
    from xdpctl.trace.drops import DropTrace

    wanted = chosen(interfaces or (), in_netns=netns)
    with DropTrace() as tracer:
        _say(tracer.missing)
        if not tracer.reasons:
            note(
                "note: this kernel gives no drop reasons (Linux 5.17 does), so drops at rings are not told apart"
            )
        before = tracer.read()
        for _ in _ticks(duration, interval):
            now = tracer.read()
            since, seconds = now.minus(before).about(wanted), now.at - before.at
            before = now
            labels = namespace_labels()

            def render(since: Any = since, labels: Any = labels, seconds: float = seconds) -> None:
                if not since.drops:
                    print_line("no drops")
                    return
                rows = [
                    [
                        one.device.label(labels) if one.device else "",
                        "" if one.queue is None else str(one.queue),
                        one.reason or "",
                        str(one.place) if one.place else one.via,
                        one.program or "",
                        str(one.packets),
                        _rate(one.packets, seconds),
                    ]
                    for one in since.drops
                ]
                print_table(("DEVICE", "QUEUE", "REASON", "PLACE", "PROGRAM", "PACKETS", "RATE"), rows)
                for ring in since.rings:
                    print_line(_ring_line(ring, labels))

            document = {
                "drops": [one.to_json(labels) for one in since.drops],
                "rings": [one.to_json(labels) for one in since.rings],
            }
            _report("drops", since, seconds, document, render, as_json=as_json)


def _ring_line(ring: Any, labels: Any) -> str:
    """One sentence: which ring, how full, who lost packets there."""
    where = ring.device.label(labels) if ring.device else f"map {ring.map_id}"
    what = f"{ring.qdisc or ring.kind} of {where}, {'CPU' if ring.kind == 'cpumap' else 'queue'} {ring.queue}"
    if ring.taken is None:
        return f"{what}: {ring.drops} lost; its state can't be read on this kernel"
    verdicts = [
        f"{count} {word}"
        for count, word in (
            (ring.full, "while it ran empty" if ring.kind == "xsk-fill" else "at a full ring"),
            (ring.freeing, "within a batch of full"),
            (ring.not_full, "AT A RING THAT WAS NOT FULL"),
            (ring.unreadable, "unread"),
        )
        if count
    ]
    cpus = sorted({one.cpu for one in ring.producers})
    queues = sorted({one.source_queue for one in ring.producers if one.source_queue is not None})
    by = f"; lost by CPU {', '.join(map(str, cpus))}" if cpus else ""
    by += f", source queues {', '.join(map(str, queues))}" if queues else ""
    return (
        f"{what}: {', '.join(verdicts)}; {ring.taken.least} to {ring.taken.most} of {ring.size} taken,"
        f" {ring.unread.least} to {ring.unread.most} unread{by}"
    )


@app.command()
def qdisc(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show how long packets stay in qdiscs, who sends them, and which have been waiting.

    xdpctl trace qdisc --iface eth0 --duration 5
    """
    from xdpctl.cli.output import print_line, print_table
    from xdpctl.netlink import netns as namespaces
    from xdpctl.trace.devices import chosen, namespace_labels
    from xdpctl.trace.qdisc import QdiscTrace

    wanted = chosen(interfaces or (), in_netns=netns)
    with QdiscTrace(wanted) as tracer:
        _say(tracer.missing)
        with namespaces.enter(netns) as where:
            inode = where.inode
        before = tracer.read()
        for _ in _ticks(duration, interval):
            now = tracer.read()
            since, seconds = now.minus(before), now.at - before.at
            before = now
            labels = namespace_labels()
            devices = {one.device for one in since.residences if one.device.netns == inode}
            with namespaces.enter(netns):
                live = {
                    (one.ifindex, queue.queue): queue
                    for one in devices
                    for queue in tracer.queues(one.ifindex)
                }

            def render(
                since: Any = since, labels: Any = labels, live: Any = live, seconds: float = seconds
            ) -> None:
                if not since.residences and not since.waiting:
                    print_line("nothing sent")
                    return
                rows = []
                for one in since.residences:
                    kind = live.get((one.device.ifindex, one.queue)) if one.device.netns == inode else None
                    both = one.all
                    rows.append(
                        [
                            one.device.label(labels),
                            str(one.queue),
                            (kind.kind + (" (lockless)" if kind.lockless else "")) if kind else "",
                            _rate(both.packets, seconds),
                            _time(both.percentile(0.5)),
                            _time(both.percentile(0.99)),
                            _time(both.most_ns),
                            str(one.other.packets),
                            str(one.by_softirq),
                        ]
                    )
                heads = (
                    "DEVICE",
                    "QUEUE",
                    "QDISC",
                    "SENT",
                    "P50",
                    "P99",
                    "MAX",
                    "BY OTHER CPU",
                    "BY SOFTIRQ",
                )
                print_table(heads, rows)
                for waits in since.waiting:
                    print_line(
                        f"{waits.device.label(labels)} queue {waits.queue}: {waits.packets} waiting,"
                        f" the first for {_time(waits.oldest_ns)}"
                    )

            document = {
                "queues": [
                    {
                        **one.to_json(labels),
                        "qdisc": found.to_json()
                        if one.device.netns == inode
                        and (found := live.get((one.device.ifindex, one.queue))) is not None
                        else None,
                    }
                    for one in since.residences
                ],
                "waiting": [one.to_json(labels) for one in since.waiting],
                "dropped": since.dropped,
                "taken_apart": since.taken_apart,
            }
            _report("qdisc", since, seconds, document, render, as_json=as_json)


def _time(ns: int) -> str:
    """``512 ns``, ``1.2 ms``."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"
