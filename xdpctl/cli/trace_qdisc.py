"""``xdpctl trace qdisc``: how long packets stay in qdiscs, who sends them, and what is stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdpctl.cli.trace_options import (
    AsJson,
    Duration,
    Interfaces,
    Interval,
    Netns,
    duration_of,
    print_report,
    rate,
    say,
    ticks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.trace.standing import Standing


def qdisc(
    interfaces: Interfaces = None,
    netns: Netns = None,
    duration: Duration = 0.0,
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show how long packets stay in qdiscs, who sends them, which wait, and queues that are stuck.

    Stuck is a queue with packets in it that sends nothing between two reports though nobody has stopped it.

    xdpctl trace qdisc --iface eth0 --duration 5
    """
    from xdpctl.cli.output import print_line, print_table
    from xdpctl.netlink import netns as namespaces
    from xdpctl.trace.devices import chosen, namespace_labels
    from xdpctl.trace.qdisc import QdiscTrace
    from xdpctl.trace.standing import judge, lengths

    wanted = chosen(interfaces or (), in_netns=netns)
    with QdiscTrace(wanted) as tracer:
        say(tracer.missing)
        with namespaces.enter(netns) as where:
            inode = where.inode
            places = namespaces.discover(include_processes=False) if wanted is None else [where]
        before, queued = tracer.read(), lengths(tracer, wanted, places)
        for _ in ticks(duration, interval):
            now = tracer.read()
            since, seconds = now.minus(before), now.at - before.at
            then, queued = queued, lengths(tracer, wanted, places)
            sent = {
                (one.device.netns, one.device.ifindex, one.queue): one.all.packets for one in since.residences
            }
            standing = judge(then, queued, seconds, sent)
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
                since: Any = since,
                labels: Any = labels,
                live: Any = live,
                seconds: float = seconds,
                standing: Any = standing,
            ) -> None:
                for one in standing:
                    print_line(_standing_line(one, labels))
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
                            rate(both.packets, seconds),
                            duration_of(both.percentile(0.5)),
                            duration_of(both.percentile(0.99)),
                            duration_of(both.most_ns),
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
                        f" the first for {duration_of(waits.oldest_ns)}"
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
                "standing": [one.to_json(labels) for one in standing],
                "dropped": since.dropped,
                "taken_apart": since.taken_apart,
            }
            print_report("qdisc", since.lost, seconds, document, render, as_json=as_json)


def _standing_line(one: Standing, labels: Mapping[int, str]) -> str:
    """One sentence: how many packets, for how long, and whether that is as it should be."""
    what = (
        f"{one.device.label(labels)} queue {one.queue}: {one.packets} packets in {one.kind}"
        f"{' (lockless)' if one.lockless else ''}, none sent in {one.seconds:.1f} s"
    )
    words = {
        "stuck": "STUCK: nobody has stopped the queue",
        "stopped": "the driver or the stack has stopped the queue",
        "timed": "its qdisc may hold them back",
    }
    return f"{what}: {words[one.verdict]}"
