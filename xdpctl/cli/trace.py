"""``xdpctl trace``: what happens to packets right now, counted in the kernel while the command runs."""

from __future__ import annotations

import typer

from xdpctl.cli.trace_drops import drops
from xdpctl.cli.trace_pool import pool
from xdpctl.cli.trace_qdisc import qdisc
from xdpctl.cli.trace_redirect import redirect

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def trace() -> None:
    """Watch packets redirected, dropped, waiting in qdiscs, and page pools; nothing stays attached afterwards.

    xdpctl trace redirect --duration 5

    xdpctl trace drops --iface macvtap0

    xdpctl trace qdisc --iface eth0 --json

    xdpctl trace pool --duration 5
    """


for _command in (redirect, drops, qdisc, pool):
    app.command()(_command)
