"""``xdpctl attach``: one program of an object onto one or more interfaces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from xdpctl.cli import complete, options
from xdpctl.cli.preflight import Checks, explain_refusal, judged
from xdpctl.errors import AttachError, ConfigError
from xdpctl.obj import shipped

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer()

LARGE = 100_000
"""Entries that take long enough to be told about."""


@app.command(no_args_is_help=True)
def attach(
    words: Annotated[
        list[str],
        options.interfaces("Interfaces (names or globs), and last the object file.", "IFACE... OBJ"),
    ],
    mode: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Option(
            metavar="native|generic|offload|auto",
            help="XDP mode: native unless said otherwise; auto falls back to generic, and says so.",
            autocompletion=complete.one_of("native", "generic", "offload", "auto"),
        ),
    ] = None,
    hook: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="xdp|ingress|egress",
            help="Where it runs; by default what the program's type and section say.",
            autocompletion=complete.one_of("xdp", "ingress", "egress"),
        ),
    ] = None,
    netns: Annotated[Optional[str], options.netns("Network namespace of the interfaces.")] = None,  # noqa: UP045
    program: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NAME",
            help="Program, where the object has several.",
            autocompletion=complete.program_of_object,
        ),
    ] = None,
    type_: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Program type (xdp, tc, ...), where the section name tells none.",
            autocompletion=complete.program_type,
        ),
    ] = None,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="NAME=VALUE", help="Set a global variable before loading."),
    ] = None,
    maps: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--map", metavar="NAME=PIN|max_entries=N", help="Use a pinned map, or size one."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Upgrade in place what is there: no packet passes without a program."),
    ] = False,
    migrate: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="[MAP=]reuse|copy|recreate|fail",
            help="When a pinned map differs from the object's: use it as it is, carry its entries over by field name, "
            "start empty, or stop (the default).",
            autocompletion=complete.one_of("reuse", "copy", "recreate", "fail"),
        ),
    ] = None,
    via: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="link|netlink|tcx|clsact",
            help="How: XDP by link, TC by tcx, unless the kernel has none.",
            autocompletion=complete.one_of("link", "netlink", "tcx", "clsact"),
        ),
    ] = None,
    before: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NAME|ID", help="TC: run before this program.", autocompletion=complete.attached_program
        ),
    ] = None,
    after: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="NAME|ID", help="TC: run after this program.", autocompletion=complete.attached_program
        ),
    ] = None,
    first: Annotated[bool, typer.Option("--first", help="TC: run first.")] = False,
    last: Annotated[bool, typer.Option("--last", help="TC: run last (the default).")] = False,
    redirect_to: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="IFACE",
            help="Where it redirects to, when only its runs can tell (may be repeated).",
            autocompletion=complete.interface,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Attach although something is known to fail.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Run the fixes of what stands against it first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --fix: don't ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Attach a program: XDP natively by a pinned link, TC by tcx. All interfaces, or none.

    Before anything changes, the same rules as `xdpctl doctor` are asked, about the devices it redirects to as well:
    what would fail stops it.

    xdpctl attach eth0 prog.o

    xdpctl attach 'veth*' builtin:count

    xdpctl attach --hook ingress --first eth0 tc.o

    xdpctl attach --replace --migrate copy eth0 new.o
    """
    from xdpctl.attach.request import AttachRequest, Position, merge_maps, parse_map, parse_migrate

    interfaces, obj = _split(words)
    places = [
        place
        for place in (
            Position("before", before) if before is not None else None,
            Position("after", after) if after is not None else None,
            Position("first") if first else None,
            Position("last") if last else None,
        )
        if place is not None
    ]
    if len(places) > 1:
        raise ConfigError(f"--{places[0].place} and --{places[1].place}: one place can be asked for")
    request = AttachRequest(
        object=obj,
        interfaces=tuple(interfaces),
        netns=netns,
        mode=mode,
        hook=hook,
        via=via,
        program=program,
        type=type_,
        settings=tuple(settings or ()),
        maps=merge_maps(parse_map(one) for one in maps or ()),
        replace=replace,
        position=places[0] if places else None,
        migrate=tuple(parse_migrate(one) for one in migrate or ()),
    )
    if yes and not fix:
        raise ConfigError("--yes is for --fix", hint="add --fix")
    checks = Checks(tuple(redirect_to or ()), force=force, fix=fix, yes=yes)
    _run(request, checks, as_json=as_json)


def _run(request, checks: Checks, *, as_json: bool) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - imported lazily
    from xdpctl.attach.prepare import prepare
    from xdpctl.attach.run import commit
    from xdpctl.cli.output import note, print_json, print_line

    with prepare(request) as prepared:
        found = judged(prepared, checks)
        try:
            attachments = commit(prepared, progress=_progress())
        except AttachError as error:
            explain_refusal(error, found)
            raise
        for text in prepared.notes:
            note(f"note: {text}")
        replaced = [step.old is not None for step in prepared.steps]
        moved = prepared.migration.reports if prepared.migration is not None else []
    for one in attachments:
        if one.note:
            note(f"note: {one.interface}: {one.note}")
    if as_json:
        shape = {"attachments": [one.to_json() for one in attachments]}
        if moved:
            shape["maps"] = [one.to_json() for one in moved]
        print_json(shape)
        return
    for report in moved:
        print_line(report.describe())
    for one, was in zip(attachments, replaced, strict=True):
        details = [f"program {one.program.id}", f"link {one.link_id}" if one.link_id else f"via {one.via}"]
        if one.priority is not None:
            details.append(f"priority {one.priority}")
        how = f"{one.mode} XDP" if one.hook == "xdp" else one.hook
        verb = "replaced in place by" if was else "runs"
        print_line(f"{one.interface}: {how} {verb} {one.program_name} ({', '.join(details)})")


def _progress() -> Callable[[str, int, int], None] | None:
    """A line on a terminal that says how far a large map is copied."""
    if not sys.stderr.isatty():
        return None

    def tell(name: str, done: int, total: int) -> None:
        if total >= LARGE:
            end = "\n" if done == total else ""
            sys.stderr.write(f"\rmap {name}: {done} of {total} entries copied{end}")
            sys.stderr.flush()

    return tell


def _split(words: list[str]) -> tuple[list[str], Path]:
    """Interfaces, and the object behind them."""
    *interfaces, last = words
    if not interfaces:
        if Path(last).is_file():
            raise ConfigError("no interface given", hint=f"xdpctl attach IFACE {last}")
        raise ConfigError("no object file given: it comes last", hint=f"xdpctl attach {last} prog.o")
    obj = shipped.resolve(Path(last))
    if not obj.exists():
        misplaced = next((one for one in interfaces if "." in one and Path(one).is_file()), None)
        if misplaced is not None:
            others = " ".join(one for one in words if one != misplaced)
            raise ConfigError(
                f"the object comes last, not {last}", hint=f"xdpctl attach {others} {misplaced}"
            )
    return interfaces, obj
