"""``xdpctl driver set`` and ``xdpctl driver tune``: settings of a device changed by name, or for a use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from xdpctl.cli import complete, options
from xdpctl.errors import EXIT_FINDINGS, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xdpctl.deploy.change import Change
    from xdpctl.deploy.device_settled import Settled
    from xdpctl.deploy.tune import Left, Tuning
    from xdpctl.host.model import Link, Snapshot

DISTURBS = {"nothing": "", "traffic": "  (stops traffic for a moment)", "link": "  (takes the link down)"}

IFACE = Annotated[str, typer.Argument(metavar="IFACE", autocompletion=complete.interface)]
NETNS = Annotated[
    Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
    options.netns("Network namespace of the interface."),
]


def _observe(name: str, netns: str | None) -> Link:
    from xdpctl.host.collect import collect

    snapshot = collect(netns=netns or "current", probes=(), settings=True)
    found = next((one for one in snapshot.links() if one.name == name), None)
    if found is None:
        raise NotFoundError("interface", name, known=[one.name for one in snapshot.links()], where=netns)
    return found


def set_(
    iface: IFACE,
    settings: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="Settings; see below.")],
    netns: NETNS = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, change nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Change settings of a device: all of them, or none.

    Values are held against the device's limits before anything is sent; a step that is refused takes back those before.

    up, mtu, rx-ring, tx-ring, rx-buf-len, tcp-data-split, hds-thresh, channels.rx|tx|combined, any feature (gro, tso,
    rx-gro-hw, ...), coalesce.NAME, pause.rx|tx|autoneg, flag.NAME, napi.threaded|defer-hard-irqs|gro-flush-timeout

    xdpctl driver set eth0 rx-ring=2048 channels.combined=4 gro=on mtu=3498

    xdpctl driver set eth0 --dry-run tcp-data-split=off napi.threaded=on
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.deploy import device, device_names

    link = _observe(iface, netns)
    known = device_names.words(link.features or (), link.private_flags or ())
    desired = device.DeviceSettings(**device_names.parse(settings, known))
    changes = device.settings_changes(link, desired, netns=netns)
    notes, became = _make(iface, changes, wanted=not dry_run, quiet=as_json)
    if as_json:
        print_json(
            {
                "interface": link.name,
                "netns": netns,
                "driver": link.driver,
                "applied": bool(changes) and not dry_run,
                "changes": [one.to_json() for one in changes],
                "settings": [one.to_json() for one in became],
                "notes": notes,
            }
        )
    elif not changes:
        print_line(f"{iface} is set so already")


def _make(
    iface: str, changes: Sequence[Change], *, wanted: bool, quiet: bool
) -> tuple[list[str], list[Settled]]:
    """Say what will be done and what that costs, do it if `wanted`, show each setting before and after."""
    from xdpctl.cli.output import note, print_line, print_table
    from xdpctl.deploy.all_or_none import apply_all
    from xdpctl.deploy.change import Context
    from xdpctl.deploy.device import shown
    from xdpctl.deploy.device_settled import planned, settled

    notes: list[str] = []
    if not quiet:
        for one in changes:
            where = "" if one.target == iface else f"{one.target}: "
            print_line(f"{'setting' if wanted else 'would set'} {where}{one.why}{DISTURBS[one.disturbs]}")
        sys.stdout.flush()
    if changes and wanted:
        apply_all(changes, context=Context(tell=notes.append))
    for text in notes:
        note(f"note: {text}")
    became = settled(changes) if wanted else planned(changes)
    if became and not quiet:
        print_table(
            ["INTERFACE", "SETTING", "BEFORE", "AFTER" if wanted else "WOULD BE"],
            [[one.interface, one.setting, shown(one.before), shown(one.after)] for one in became],
        )
    return notes, became


def tune(
    iface: IFACE,
    use: Annotated[
        str,
        typer.Option(
            "--for", metavar="USE", help="xdp-native, xdp-redirect or af-xdp.", autocompletion=complete.use
        ),
    ],
    netns: NETNS = None,
    frags: Annotated[
        bool,
        typer.Option(
            "--frags", help='The program is frags-aware (SEC("xdp.frags")): no MTU limit of one buffer.'
        ),
    ] = False,
    queues: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", min=1, help="af-xdp: receive on N queues, a socket on each."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply it; without, it is only shown.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Set a device as its driver needs it for a use: shown and explained, and with --yes applied, all or nothing.

    The settings are those that clear doctor's findings for the use, and what the device's own figures ask for.
    xdp-native: a native XDP program attaches. xdp-redirect: and frames redirected to the device leave it.
    af-xdp: and sockets get its frames. Exit code 1 when something is in the way that no setting changes.

    xdpctl driver tune eth0 --for xdp-native

    xdpctl driver tune veth0 --for xdp-redirect --yes

    xdpctl driver tune eth0 --for af-xdp --queues 1 --json
    """
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.deploy.tune import USES, Use
    from xdpctl.deploy.tune import tune as tuned

    if use not in USES:
        raise typer.BadParameter(f"{use!r} is not one of {', '.join(USES)}", param_hint="--for")
    if queues is not None and use != "af-xdp":
        raise typer.BadParameter("goes with --for af-xdp only", param_hint="--queues")
    wanted = Use(use, frags, queues)
    snapshot, link = _machine(iface, netns)
    plan = tuned(snapshot, link.ref, wanted)
    if not as_json:
        for line in _told(plan, link, use):
            print_line(line)
    notes, became = _make(iface, plan.changes, wanted=yes, quiet=as_json)
    left, fails = plan.left, plan.fails
    if yes and plan.changes:  # it promised; the machine as it is now has the last word
        again = tuned(*_again(iface, netns), wanted)
        left, fails = (*_promises(again), *again.left), again.fails or bool(again.advice)
    if as_json:
        print_json(
            {
                "interface": link.name,
                "netns": netns,
                "driver": link.driver,
                "for": use,
                "applied": yes and bool(plan.changes),
                "advice": [one.to_json() for one in plan.advice],
                "changes": [one.to_json() for one in plan.changes],
                "settings": [one.to_json() for one in became],
                "left": [one.to_json() for one in left],
                "notes": notes,
            }
        )
    else:
        for line in _left(left):
            print_line(line)
        if plan.changes and not yes:
            print_line("nothing was changed: --yes applies this")
    if fails:
        raise typer.Exit(EXIT_FINDINGS)


def _machine(iface: str, netns: str | None) -> tuple[Snapshot, Link]:
    """The device, and all namespaces: what it needs may be a peer's setting."""
    from xdpctl.host.collect import collect
    from xdpctl.netlink import netns as spaces

    wanted = spaces.current() if netns is None else spaces.find(netns)
    snapshot = collect(netns="all", probes=("frags",), settings=True, pools=True)
    space = snapshot.namespace(wanted.inode)
    if space is None:
        raise NotFoundError("network namespace", netns or "")
    found = snapshot.named(iface, space.inode)
    if found is None:
        raise NotFoundError("interface", iface, known=[one.name for one in space.links], where=netns)
    return snapshot, found


def _again(iface: str, netns: str | None) -> tuple[Snapshot, Any]:
    snapshot, link = _machine(iface, netns)
    return snapshot, link.ref


def _promises(again: Tuning) -> list[Left]:
    """What was set, and still is asked for."""
    from xdpctl.deploy.tune import Left

    return [
        Left(f"still, after it was set: {one.why}", fails=True, finding=one.finding) for one in again.advice
    ]


def _told(plan: Tuning, link: Link, use: str) -> Iterable[str]:
    if not plan.advice:
        state = "no setting helps" if plan.fails else f"set as {use} needs it"
        yield f"{link.name} ({link.driver or 'no driver'}): {state}"
        return
    yield f"{link.name} ({link.driver or 'no driver'}) for {use}:"
    for one in plan.advice:
        yield f"  {one.command}"
        yield f"    {one.why}{f'  [{one.finding}]' if one.finding else ''}"


def _left(left: Iterable[Left]) -> Iterable[str]:
    for one in left:
        yield f"{'not a setting' if one.fails else 'note'}: {one.why}{f'  [{one.finding}]' if one.finding else ''}"
        for way in one.ways:
            yield f"    {way}"
