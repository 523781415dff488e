"""``xdpctl driver``: the settings of the devices that XDP runs on."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from xdpctl.cli import driver_set, options

app = typer.Typer(no_args_is_help=True, help="Settings of the devices that XDP runs on.")

app = typer.Typer(no_args_is_help=True, help="Settings of the devices that XDP runs on.")

DISTURBS = {"nothing": "", "traffic": "  (stops traffic for a moment)", "link": "  (takes the link down)"}


@app.callback()
def driver() -> None:
    """Settings of the devices that XDP runs on."""


app.command("set", no_args_is_help=True)(driver_set.set_)
app.command("tune", no_args_is_help=True)(driver_set.tune)


@app.command()
def show(
    interfaces: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        options.interfaces("Interfaces (names or globs); all by default."),
    ] = None,
    netns: Annotated[
        Optional[str],  # noqa: UP045
        options.netns("Look in this network namespace."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how devices are set, at most what, and the room that XDP has on them.

    xdpctl driver show eth0

    xdpctl driver show 'veth*' --json
    """
    from xdpctl.cli.driver_sheet import lines
    from xdpctl.cli.output import print_json, print_line
    from xdpctl.doctor.sheet import sheet
    from xdpctl.host.collect import collect
    from xdpctl.netlink import interfaces as known
    from xdpctl.netlink import netns as spaces

    with spaces.enter(netns):
        chosen = {number for _name, number in known.expand(interfaces or ())} if interfaces else None
        names = {name for number, name in known.names().items() if chosen is None or number in chosen}
    snapshot = collect(netns=netns or "current", statistics_of=names, probes=(), settings=True)
    sheets = [sheet(snapshot, one) for one in snapshot.links() if chosen is None or one.ifindex in chosen]
    if as_json:
        problems = [{"what": one.what, "why": one.why} for one in snapshot.problems]
        print_json({"devices": sheets, "problems": problems})
        return
    for place, one in enumerate(sheets):
        if place:
            print_line("")
        for line in lines(one):
            print_line(line)
