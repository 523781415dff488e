"""``xdpctl detach``: programs off interfaces, and no pin left behind."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from xdpctl.cli import complete, options

app = typer.Typer()


@app.command(no_args_is_help=True)
def detach(
    interfaces: Annotated[
        list[str],
        options.interfaces("Interfaces (names or globs).", "IFACE..."),
    ],
    hook: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(
            metavar="xdp|ingress|egress",
            help="Only from this hook.",
            autocompletion=complete.one_of("xdp", "ingress", "egress"),
        ),
    ] = None,
    mode: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="native|generic|offload",
            help="Only XDP in this mode.",
            autocompletion=complete.one_of("native", "generic", "offload"),
        ),
    ] = None,
    program: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME|ID", help="Only this program.", autocompletion=complete.attached_program),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="From every hook, if several have something.")] = False,
    foreign: Annotated[bool, typer.Option("--foreign", help="Also what xdpctl did not attach.")] = False,
    keep_maps: Annotated[
        bool, typer.Option("--keep-maps", help="Leave maps pinned that the object had pinned by name.")
    ] = False,
    netns: Annotated[Optional[str], options.netns("Network namespace of the interfaces.")] = None,  # noqa: UP045
    as_json: options.AsJson = False,
) -> None:
    """Detach what xdpctl attached; nothing of the asked mode or hook is an error that says what is there.

    xdpctl detach eth0

    xdpctl detach --mode generic eth0
    """
    from xdpctl.attach.detach import detach as take_off
    from xdpctl.attach.request import DetachRequest
    from xdpctl.cli.output import note, print_json, print_line

    done = take_off(
        DetachRequest(
            interfaces=tuple(interfaces),
            netns=netns,
            mode=mode,
            hook=hook,
            program=program,
            all=all_,
            foreign=foreign,
            keep_maps=keep_maps,
        )
    )
    for text in done.notes:
        note(f"note: {text}")
    if as_json:
        print_json(done.to_json())
        return
    for one in done.attachments:
        how = f"{one.mode} XDP" if one.hook == "xdp" else one.hook
        print_line(f"{one.interface}: detached {one.program_name} (program {one.program.id}) from {how}")
    for path in done.stale:
        print_line(f"removed stale pin {path}")
    for path in done.map_pins:
        print_line(f"removed map pin {path}")
