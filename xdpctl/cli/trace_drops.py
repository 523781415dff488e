"""``xdpctl trace drops``: lost packets by reason and place, and the ring they found no room in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.trace.loss_counters import Losses


def drops(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show lost packets with reason and place; at rings, how full the ring was at each loss.

    Beside them the devices' own counters of loss that grew, and how many packets no tracepoint told of.

    xdpctl trace drops --duration 5 --iface macvtap0
    """
    from xdpctl.cli.output import note, print_line, print_table
    from xdpctl.netlink import netns as namespaces
    from xdpctl.trace.devices import chosen, namespace_labels
    from xdpctl.trace.drops import DropTrace
    from xdpctl.trace.loss_counters import losses, read

    wanted = chosen(interfaces or (), in_netns=netns)
    with DropTrace() as tracer:
        say(tracer.missing)
        if not tracer.reasons:
            note(
                "note: this kernel gives no drop reasons (Linux 5.17 does), so drops at rings are not told apart"
            )
        with namespaces.enter(netns) as where:
            places = namespaces.discover(include_processes=False) if wanted is None else [where]
        before, counted = tracer.read(), read(wanted, places)
        for _ in ticks(duration, interval):
            now = tracer.read()
            everything, seconds = now.minus(before), now.at - before.at
            since, then, counted = everything.about(wanted), counted, read(wanted, places)
            # told from before the first reading of the counters to behind the second: drops go on meanwhile
            grown, before = losses(then, counted, tracer.read().minus(before)), now
            labels = namespace_labels()

            def render(
                since: Any = since, labels: Any = labels, seconds: float = seconds, grown: Any = grown
            ) -> None:
                if not since.drops:
                    print_line("no drops")
                    for one in grown:
                        print_line(_losses_line(one, labels))
                    return
                rows = [
                    [
                        one.device.label(labels) if one.device else "",
                        "" if one.queue is None else str(one.queue),
                        one.reason or "",
                        str(one.place) if one.place else one.via,
                        one.program or "",
                        str(one.packets),
                        rate(one.packets, seconds),
                    ]
                    for one in since.drops
                ]
                print_table(("DEVICE", "QUEUE", "REASON", "PLACE", "PROGRAM", "PACKETS", "RATE"), rows)
                for ring in since.rings:
                    print_line(_ring_line(ring, labels))
                for one in grown:
                    print_line(_losses_line(one, labels))

            document = {
                "drops": [one.to_json(labels) for one in since.drops],
                "rings": [one.to_json(labels) for one in since.rings],
                "counters": [one.to_json(labels) for one in grown],
            }
            print_report("drops", since.lost, seconds, document, render, as_json=as_json)


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
            (ring.not_full, "AT A RING THAT WAS NOT FULL (a race, or a frame too long for the receiver)"),
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


def _losses_line(one: Losses, labels: Mapping[int, str]) -> str:
    """One sentence: the counters that grew, and whether a reason was told for as many packets."""
    grew = ", ".join(f"{counter.name} +{counter.delta}" for counter in one.counters)
    means = {counter.means for counter in one.counters if counter.means} if one.untold else set()
    told = f"; {one.untold} of these no tracepoint tells of" if one.untold else "; told above"
    return f"{one.device.label(labels)} counts {grew}{told}" + "".join(f" ({text})" for text in sorted(means))
