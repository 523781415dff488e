"""What the commands about deployments share: options, how a plan looks, progress, and what was left half done."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdpctl.deploy.change import Change
    from xdpctl.deploy.plan import Plan

FILES = typer.Argument(metavar="FILE...", help="TOML files, or folders of *.toml; together one deployment.")
VARIABLES = typer.Option("--var", metavar="NAME=VALUE", help="Value of ${NAME}; may be repeated.")
WAIT = typer.Option(
    "--wait", metavar="SECONDS", help="Wait so long for another command that changes the machine."
)
YES = typer.Option("--yes", "-y", help="Don't ask.")


def parse_variables(texts: list[str] | tuple[str, ...] | None) -> dict[str, str]:
    """``NAME=VALUE`` of every --var.

    Raises:
        ConfigError: one is not of this form.
    """
    from xdpctl.errors import ConfigError

    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--var {text}: not of the form NAME=VALUE", hint="--var uplink=eth0")
        found[name] = value
    return found


def name_of(incomplete: str) -> list[str]:
    """Completion: deployments of this boot."""
    try:
        from xdpctl.deploy import state

        return [one for one in state.names() if one.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - a completion that fails offers nothing
        return []


_SIGNS = {"attach": "+", "load": "+", "keep": "+", "pin": "+", "detach": "-", "unload": "-", "release": "-"}
_COLOURS = {"+": "32", "-": "31", "~": "33"}
_COSTS = {
    "nothing": "",
    "traffic": "  [frames may be lost for a moment]",
    "link": "  [the link goes down and up]",
}


def change_lines(change: Change, *, colour: bool = False) -> list[str]:
    """One change as a diff: what, from what to what, why, and what it costs."""
    sign = _SIGNS.get(change.kind.partition(".")[2], "~")
    where = f"{change.netns}/{change.target}" if change.netns else change.target
    head = f"{sign} {change.kind} {where}{_details(change)}{_COSTS[change.disturbs]}"
    if colour:
        head = f"\033[{_COLOURS[sign]}m{head}\033[0m"
    return [head, f"    {change.why}"]


def _details(change: Change) -> str:
    room = change.kind.partition(".")[0]
    before: dict[str, Any] = dict(change.before)
    after: dict[str, Any] = dict(change.after)
    if room == "device":
        from xdpctl.deploy.device import shown

        return ": " + ", ".join(f"{key} {shown(before.get(key))} -> {shown(after[key])}" for key in after)
    if room in ("xdp", "tc"):
        program = str(after.get("program") or before.get("program"))
        hook = after.get("at") or (f"{after.get('mode')} XDP" if room == "xdp" else after.get("hook"))
        return f": {_short(program)} on {hook}"
    if change.kind == "program.load":
        return f": {', '.join(one[0] for one in after['functions'])} of {str(after['object']).rpartition('/')[2]}"
    if change.kind == "program.pin":
        return ": " + ", ".join([*after["functions"], *after["maps"]])
    if change.kind == "map.entries":
        entries = after["entries"]
        gone = sum(1 for one in entries.values() if one is None)
        return f": {len(entries) - gone} set, {gone} removed"
    return ""


def _short(key: str) -> str:
    """``FOLDER/FUNCTION`` as people read it: the program, a little of its identity, the function."""
    folder, _, function = key.partition("/")
    name, _, identity = folder.partition("@")
    return f"{name}@{identity[:6]} ({function})" if identity else key


def print_plan(plan: Plan) -> None:
    """The ordered changes as a diff, what would fail, and a summary."""
    from xdpctl.cli.findings import print_findings
    from xdpctl.cli.output import note, plain

    colour = sys.stdout.isatty()
    for change in plan.changes:
        for line in change_lines(change, colour=colour):
            sys.stdout.write((line if colour else plain(line)) + "\n")
    for one in plan.notes:
        note(f"note: {one}")
    print_findings(plan.findings)
    sys.stdout.write(plain(summary(plan)) + "\n")
    sys.stdout.flush()  # before the progress, which goes to stderr


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Around what is told and what is done: that nobody reads it, or that it can't be written, stops no change.

    Raises:
        OutputFailed: at the end, when all is done.
    """
    from xdpctl.cli.main import OutputFailed, Unheard

    told = sys.stdout
    unheard = Unheard(told)
    sys.stdout = unheard
    try:
        yield
        unheard.flush()
    finally:
        sys.stdout = told
    if unheard.failed is not None:
        raise OutputFailed(*unheard.failed.args)


def summary(plan: Plan) -> str:
    """``edge: 12 changes, 2 of them disturb traffic``."""
    waits = f"; waits for {', '.join(plan.waiting)}" if plan.waiting else ""
    if not plan.changes:
        return f"{plan.deployment.name}: nothing to do{waits}"
    count = len(plan.changes)
    parts = [f"{count} change{'s' if count > 1 else ''}"]
    for which, text in (("traffic", "may lose frames for a moment"), ("link", "take the link down and up")):
        some = sum(1 for one in plan.changes if one.disturbs == which)
        if some:
            parts.append(f"{some} {text}")
    if plan.failing:
        parts.append(f"{len(plan.failing)} would fail")
    return f"{plan.deployment.name}: {', '.join(parts)}{waits}"


def plan_json(plan: Plan) -> dict[str, Any]:
    """The JSON of a plan."""
    return {
        "deployment": plan.deployment.name,
        "changes": [one.to_json() for one in plan.changes],
        "findings": [one.to_json() for one in plan.findings],
        "waiting": list(plan.waiting),
    }


def progress() -> Callable[[int, int, Change], None]:
    """Tells each change on stderr before it is made; many of them only now and then, unless on a terminal."""
    terminal = sys.stderr.isatty()

    def tell(number: int, count: int, change: Change) -> None:
        if not terminal and count > 50 and number % 50:
            return
        from xdpctl.cli.output import plain

        where = f"{change.netns}/{change.target}" if change.netns else change.target
        with contextlib.suppress(OSError):  # whoever reads it may have gone: no reason to stop half-way
            sys.stderr.write(
                f"[{number + 1:{len(str(count))}}/{count}] {plain(change.kind)} {plain(where)}\n"
            )

    return tell


def agree(plan: Plan, *, yes: bool) -> None:
    """Ask on a terminal before what disturbs traffic.

    Raises:
        typer.Exit: the answer was no.
    """
    disturbing = [one for one in plan.changes if one.disturbs != "nothing"]
    if yes or not disturbing or not sys.stdin.isatty():
        return
    if not typer.confirm("make these changes?", err=True):
        raise typer.Exit(1)


def note_pending() -> None:
    """Say what is half done, where a command only looks."""
    from xdpctl.cli.output import note
    from xdpctl.deploy import apply

    half = apply.pending()
    if half is not None:
        with contextlib.closing(half):
            note(f"note: {half.told}; `xdpctl apply --resume` or `--undo` comes first")


def settle_pending(*, resume: bool = False, undo: bool = False) -> str | None:
    """Finish or take back what was left half done, as asked; a word about it, None: there was nothing.

    Raises:
        InterruptedError_: something is half done and nobody said what to do about it.
        XdpctlError: it could not be done.
    """
    from xdpctl.deploy import apply

    found = apply.pending()
    if found is None:
        return None
    if not resume and not undo and sys.stdin.isatty():
        answer = typer.prompt(f"{found.told}: finish it or undo it?", type=str, default="finish", err=True)
        resume, undo = answer.startswith("f"), answer.startswith("u")
    if not resume and not undo:
        apply.require_nothing_pending()
    with contextlib.closing(found):
        if resume or found.committed:
            made = apply.resume(found, progress())
            if undo:
                return f"{found.deployment}: was complete already; `xdpctl rollback {found.deployment}` goes back"
            return f"{found.deployment}: finished, {len(made)} changes made"
        undone = apply.undo(found, progress=progress())
    return f"{found.deployment}: {len(undone)} changes taken back"
