"""``xdpctl pool``: page pools, what they have out, and shutdowns that wait for pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import options
from xdpctl.errors import EXIT_FINDINGS, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdpctl.doctor.page_pools import Pool
    from xdpctl.doctor.pool_look import Leak, Look
    from xdpctl.host.model import Snapshot
    from xdpctl.trace.pool_records import PoolEvent

app = typer.Typer(
    no_args_is_help=True, help="Page pools: what is in flight, and memory that doesn't come back."
)

Interfaces = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    options.interfaces("Interfaces (names or globs); all by default."),
]
Netns = Annotated[
    Optional[str],  # noqa: UP045
    options.netns("Only this network namespace; every one that can be seen by default."),
]
LookFor = Annotated[
    float,
    typer.Option(
        "--duration",
        metavar="SECONDS",
        help="Trace for so long what netlink does not list; 0: don't. A waiting shutdown shows within a second.",
    ),
]


@app.command("list")
def list_(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: LookFor = 1.2,
    as_json: options.AsJson = False,
) -> None:
    """List page pools by device, queue and NAPI.

    Netlink lists those of some drivers (6.8); the others are traced for a moment, and a pool that only recycles
    meanwhile is not seen (a veth's is).

    xdpctl pool list

    xdpctl pool list --json veth0
    """
    from xdpctl.cli.output import note, print_json, print_line, print_table
    from xdpctl.doctor.pool_look import select

    seen = _look(netns, duration)
    pools = select(seen.pools, interfaces or ())
    if as_json:
        print_json({"pools": [one.to_json() for one in pools], **_told(seen)})
        return
    _notes(seen)
    if not pools:
        print_line("no page pools seen")
        note("note: none seen does not mean none there: drivers list few, and a quiet one traces nothing")
        return
    print_table(*table(pools))


@app.command()
def show(
    number: Annotated[str, typer.Argument(metavar="ID", help="As `xdpctl pool list` shows it.")],
    netns: Netns = None,
    duration: LookFor = 1.2,
    as_json: options.AsJson = False,
) -> None:
    """Show all that is known of one pool: its statistics, what they mean, and who may hold its pages."""
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.doctor.page_holders import holders
    from xdpctl.doctor.pool_look import named

    seen = _look(netns, duration)
    pool = named(seen, number)
    held = holders(seen.snapshot, pool) if pool.waits else ()
    if as_json:
        print_json({"pool": pool.to_json(), "holders": [one.to_json() for one in held], **_told(seen)})
        return
    _notes(seen)
    for name, value in pool.to_json().items():
        if value is not None and name not in ("statistics", "health", "age_at_least"):
            print_line(f"{name.replace('_', ' '):20} {value}")
    for name, count in (pool.statistics or {}).items():
        print_line(f"  {name.replace('_', '-'):26} {count}")
    health = pool.health()
    if health is not None:
        if health.served is not None:
            print_line(f"{health.served:.1%} of its pages were handed out without asking the page allocator")
        if health.recycled is not None:
            print_line(f"{health.recycled:.1%} of the pages given back were recycled")
        for low in health.low:
            print_line(f"{low.name.replace('_', '-')} {low.share:.1%}: {low.means}")
    for one in held:
        print_line(f"may be held by {one}")
    if pool.waits and not held:
        print_line("who holds its pages: unknown")


@app.command()
def leaks(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: LookFor = 1.2,
    as_json: options.AsJson = False,
) -> None:
    """Show pools whose pages don't come back, and who may hold them. Exit code 1 when there are any.

    A pool that was destroyed waits for its last page; a live one should have no more out than its rings and caches
    hold.
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.doctor.pool_look import leaks as find
    from xdpctl.doctor.pool_look import look, select

    before = look(netns=netns, seconds=0) if duration > 0 else None
    seen = _look(netns, duration)
    chosen = {id(one) for one in select(seen.pools, interfaces or ())}
    found = [one for one in find(seen, before=before) if id(one.pool) in chosen]
    if as_json:
        print_json({"leaks": [one.to_json() for one in found], **_told(seen)})
    else:
        _notes(seen)
        for one in found:
            for line in leak_lines(one):
                print_line(line)
        if not found:
            print_line(f"{len(chosen)} page pools seen, none waits for pages")
    if found:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def watch(
    interfaces: Interfaces = None,
    netns: Netns = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Between two readings.")] = 1.0,
    duration: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="SECONDS", help="End after so long; by default with Ctrl-C."),
    ] = None,
    count: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="N", help="End after so many readings."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Follow pages in flight, how fast they are taken and given back, and shutdowns as they happen.

    xdpctl pool watch --count 5 veth0
    """
    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.trace.pools import PoolTracer

    if interval <= 0 or (duration is not None and duration <= 0):
        raise ConfigError("--interval and --duration are seconds above 0")
    if as_json and count is None and duration is None:
        raise ConfigError(
            "--json prints one document at the end: say when that is", hint="add --count or --duration"
        )
    document: dict[str, Any] = {"readings": [], "events": []}
    with PoolTracer() as tracer:
        follow = Follow(tracer, netns, interfaces or (), interval)
        if not as_json:
            note("watching; a pool shows once it takes or gives back pages")
        for kind, told in follow.steps(count, duration):
            if kind == "event":
                document["events"] += [told] if as_json else []
                if not as_json:
                    print_line(event_line(told))
            elif as_json:
                document["readings"].append(told)
            else:
                for line in reading_lines(told):
                    print_line(line)
    if as_json:
        document["lost_pools"], document["lost_events"] = follow.lost
        print_json(document)


class Follow:
    """Readings and events of a tracer, in the order they come, as their JSON."""

    def __init__(self, tracer: Any, netns: str | None, interfaces: Sequence[str], interval: float) -> None:
        from xdpctl.host.collect import collect

        self._tracer = tracer
        self._interfaces = interfaces
        self._interval = interval
        self._snapshot: Snapshot = collect(netns=netns or "all", probes=(), pools=True)
        self._inodes = {one.inode for one in self._snapshot.namespaces} if netns else None
        self.lost = (0, 0)

    def steps(self, count: int | None, duration: float | None) -> Any:
        """Yield ("event" or "reading", its JSON) until so many readings or seconds are over."""
        import time

        from xdpctl.doctor import pool_look
        from xdpctl.doctor.page_pools import merged

        start = time.monotonic()
        due, number = start, 0
        before: Sequence[Pool] = ()
        lying = pool_look.lying_pools(self._tracer, self._snapshot)
        at = 0.0
        while True:
            reading = self._tracer.read()
            yield from self._events(reading.events)
            self.lost = (reading.lost_pools, reading.lost_events)
            pools = self._chosen(merged(self._snapshot, reading.pools, lying, now=reading.at))
            pools = pool_look.rates(pools, before, reading.at - at)
            yield "reading", {"at": round(reading.at, 3), "pools": [one.to_json() for one in pools]}
            before, at, number = pools, reading.at, number + 1
            due += self._interval
            end = start + duration if duration is not None else None
            if (count is not None and number >= count) or (end is not None and time.monotonic() >= end):
                return
            while (left := min(due, end or due) - time.monotonic()) > 0:
                yield from self._events(self._tracer.events(left))
            lying = pool_look.lying_pools(self._tracer, self._snapshot)

    def _chosen(self, pools: Sequence[Pool]) -> list[Pool]:
        from xdpctl.doctor.pool_look import select

        return [
            one
            for one in select(pools, self._interfaces)
            if self._inodes is None or one.netns_inode in self._inodes
        ]

    def _events(self, events: Sequence[PoolEvent]) -> Any:
        from xdpctl.doctor.pool_look import event_pool

        for one in events:
            pool = event_pool(self._snapshot, one)
            if self._chosen([pool]):
                yield (
                    "event",
                    {
                        "at": round(one.at, 3),
                        "kind": one.kind,
                        "inflight": one.inflight,
                        "pool": pool.to_json(),
                    },
                )


def _look(netns: str | None, duration: float) -> Look:
    from xdpctl.doctor.pool_look import look

    if not 0 <= duration <= 3600:
        raise ConfigError("--duration is 0 to 3600 seconds")
    return look(netns=netns, seconds=duration)


def _told(seen: Look) -> dict[str, Any]:
    return {
        "lost_pools": seen.lost_pools,
        "lost_events": seen.lost_events,
        "notes": list(seen.notes),
        "problems": [{"what": one.what, "why": one.why} for one in seen.snapshot.problems],
    }


def _notes(seen: Look) -> None:
    from xdpctl.cli.output import note

    for text in seen.notes:
        note(f"note: {text}")
    if seen.lost_pools or seen.lost_events:
        note(f"note: no room was left for {seen.lost_pools} pools and {seen.lost_events} events")


def table(pools: Sequence[Pool]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows; columns that would be empty are left out."""
    columns = {
        "DEVICE": [one.label for one in pools],
        "NETNS": [one.netns or "" for one in pools],
        "QUEUE": [_cell(one.queue) for one in pools],
        "NAPI": [_cell(one.napi) for one in pools],
        "ID": [_cell(one.id) for one in pools],
        "STATE": [one.state.value for one in pools],
        "IN FLIGHT": [_cell(one.inflight) for one in pools],
        "MEMORY": [_memory(one.inflight_bytes) for one in pools],
        "DETACHED": ["" if one.age is None else _age(one) for one in pools],
        "HOLD": [_cell(one.hold) for one in pools],
        "RELEASE": [_cell(one.release) for one in pools],
        "RECYCLED": [_recycled(one) for one in pools],
        "FROM": [one.source for one in pools],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def leak_lines(leak: Leak) -> list[str]:
    """What is shown of one leak."""
    pool = leak.pool
    name = f"page pool {pool.id}" if pool.id is not None else "a page pool"
    of = f" of {pool.label}" + (f" (netns {pool.netns})" if pool.netns else "")
    queue = f", queue {pool.queue}" if pool.queue is not None else ""
    pages = f"{pool.inflight} page{'' if pool.inflight == 1 else 's'} out ({_memory(pool.inflight_bytes)})"
    if (pool.inflight or 0) < 0:
        pages = f"{-(pool.inflight or 0)} more pages came back than went out"
    if leak.why == "destroyed":
        head = f"{name}{of}{queue}: {pages}, destroyed {_age(pool)} ago, {pool.state.value}"
    else:
        head = f"{name}{of}{queue}: {pages}, more than its rings and caches hold" + (
            ", and growing" if leak.why == "growing" else ""
        )
    held = [f"  may be held by {one}" for one in leak.holders]
    return [head, *(held or ["  held by: unknown"])]


def event_line(event: dict[str, Any]) -> str:
    """One step of a pool's life as a line."""
    pool = event["pool"]
    number = f" {pool['id']}" if pool["id"] is not None else ""
    whose = (
        pool["interface"] or pool["device"] or (f"memory {pool['mem_id']}" if pool["mem_id"] else "no device")
    )
    if event["kind"] != "attempt":
        what = f"{event['kind']}, memory {pool['mem_id']}"
    elif event["inflight"] == 0:
        what = f"freed at attempt {pool['attempts']}, hold {pool['hold']} = release {pool['release']}"
    elif event["inflight"] < 0:
        what = f"{event['inflight']} in flight: more came back than went out; it is never freed"
    else:
        what = f"shutdown attempt {pool['attempts']}: {event['inflight']} in flight"
    return f"{event['at']:.3f}  pool{number} of {whose}: {what}"


def reading_lines(reading: dict[str, Any]) -> list[str]:
    """A reading's pools, one line each."""
    lines = []
    for one in reading["pools"]:
        whose = one["interface"] or one["device"] or "no device"
        rates = (
            f", hold {one['hold_per_second']:.0f}/s, release {one['release_per_second']:.0f}/s"
            if one["hold_per_second"] is not None
            else ""
        )
        number = f" {one['id']}" if one["id"] is not None else ""
        lines.append(
            f"{reading['at']:.3f}  pool{number} of {whose}: {one['state']}, {one['inflight']} in flight{rates}"
        )
    return lines


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


def _recycled(pool: Pool) -> str:
    health = pool.health()
    return f"{health.recycled:.1%}" if health is not None and health.recycled is not None else ""


def _age(pool: Pool) -> str:
    return f"{'over ' if pool.age_at_least else ''}{pool.age or 0:.0f} s"


def _memory(count: int | None) -> str:
    if count is None:
        return ""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(count) >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"
