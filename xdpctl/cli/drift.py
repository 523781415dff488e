"""``xdpctl drift``: what differs from what was applied, now or as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from xdpctl.cli import options
from xdpctl.cli.deployment import WAIT, name_of

if TYPE_CHECKING:
    from xdpctl.deploy.drift import Answer, Drift

    Seen = dict[str, tuple[Drift, ...]]
    """By deployment: what a watch has told of."""

app = typer.Typer()
UNKNOWN = "unknown"
"""Kind of what can't be looked at, and is no difference."""


@app.command()
def drift(
    name: Annotated[
        Optional[str],  # noqa: UP045 - typer reads annotations at run time, on Python 3.10 too
        typer.Argument(
            metavar="[NAME]", help="The deployment; without it, all of them.", autocompletion=name_of
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and tell when something changes.")] = False,
    heal: Annotated[bool, typer.Option("--heal", help="Put right what can be.")] = False,
    wait: Annotated[float, WAIT] = 0.0,
    as_json: options.AsJson = False,
) -> None:
    """Compare deployments with the machine: missing, foreign, duplicate programs, stale pins, changed settings.

    Exit code 1 when something differs (after --heal: still differs), 10 when that can't be told without more rights.
    --watch waits for the kernel's notifications.

    xdpctl drift

    xdpctl drift --watch --heal edge
    """
    from xdpctl.cli.output import note
    from xdpctl.deploy import state
    from xdpctl.errors import EXIT_FINDINGS, PrivilegeError

    if name is not None:
        state.existing(name)
    names = [name] if name is not None else state.names()
    if watch:
        from xdpctl.deploy.watch import beat_seconds
        from xdpctl.deploy.watch import watch as go_on

        beat = beat_seconds()
        # a command that holds the lock for long ends no watch: who waits for it still feeds the watchdog
        patience = max(wait, 10.0) if beat is None else min(max(wait, 10.0), beat / 4)
        seen: Seen = {}
        go_on(names, lambda known: _watched(known, seen, heal=heal, wait=patience, as_json=as_json))
        return
    left = _told(names, heal=heal, wait=wait, as_json=as_json)
    if left - {UNKNOWN}:
        raise typer.Exit(EXIT_FINDINGS)
    if left:
        note("hint: run it as root, with sudo")
        raise typer.Exit(PrivilegeError.exit_code)


def _watched(known: list[str], seen: Seen, *, heal: bool, wait: float, as_json: bool) -> str | None:
    """One look of many; destroyed deployments are taken out of `known`."""
    import sys

    from xdpctl.cli.output import note
    from xdpctl.deploy.lock import LockedError
    from xdpctl.deploy.watch import DONE, LATER
    from xdpctl.errors import NotFoundError

    said = None
    _drop_destroyed(known)
    try:
        if known:
            _told(known, heal=heal, wait=wait, as_json=as_json, seen=seen)
    except LockedError as error:
        note(f"{error.message}: looked at when it has ended")
        said = LATER
    except NotFoundError:
        if not _drop_destroyed(known):
            raise
        said = LATER
    sys.stdout.flush()  # it goes on for days
    return said if known else DONE


def _drop_destroyed(known: list[str]) -> bool:
    """Whether some were destroyed since."""
    from xdpctl.cli.output import note
    from xdpctl.deploy import state

    stored = {one: state.current(one) for one in known}
    gone = [name for name, one in stored.items() if one is None or one.destroyed]
    for name in gone:
        note(f"{name}: destroyed, and watched no more")
        known.remove(name)
    return bool(gone)


def _told(names: list[str], *, heal: bool, wait: float, as_json: bool, seen: Seen | None = None) -> set[str]:
    """Look, heal, tell; kinds of what differs (still).

    Args:
        names: the deployments.
        heal: put right what can be.
        wait: seconds to wait for another command.
        as_json: tell it as JSON.
        seen: of a watch, what was told already and can't be healed: neither told nor tried a second time.
    """
    import time

    from xdpctl.cli.output import note, print_json, print_line
    from xdpctl.deploy import apply as doing
    from xdpctl.deploy import healing, lock
    from xdpctl.deploy.drift import look
    from xdpctl.errors import PrivilegeError

    quiet = seen is not None
    until = time.monotonic() + wait
    while True:
        doing.wait_until_settled(wait)
        stamp = lock.taken()
        answers = [look(one) for one in names]
        # what another command was in the midst of is no drift
        alone = lock.taken() == stamp and doing.pending() is None
        if alone or not any(one.drifts for one in answers) or time.monotonic() >= until:
            break
    if seen is not None:
        answers = [one for one in answers if one.drifts != seen.get(one.deployment, ())]
        seen.update({one.deployment: () if heal else one.drifts for one in answers})
    healed: dict[str, int] = {}
    if heal and any(one.drifts for one in answers):
        try:
            healed = healing.heal([one.deployment for one in answers if one.drifts], wait=wait)
        except PrivilegeError as error:
            if seen is None:
                raise
            note(f"can't be healed here: {error.message}")
            seen.update({one.deployment: one.drifts for one in answers})
    after = [look(one.deployment) if one.drifts else one for one in answers] if healed else answers
    if seen is not None and healed:
        left = [one for one in after if one.drifts]
        # what could be healed is tried at every look: somebody may have done it again
        stubborn = [one for one in left if any(each.healed for each in one.drifts)]
        seen.update({one.deployment: one.drifts for one in left if one not in stubborn})
        if any(one.drifts in [each.drifts for each in answers] for one in stubborn):
            time.sleep(1)  # healing wakes the watch, too
    if as_json:
        if not quiet or any(one.drifts for one in answers):
            print_json(
                {
                    "deployments": [
                        {
                            "name": one.deployment,
                            "drifts": [each.to_json() for each in one.drifts],
                            "healed": healed.get(one.deployment),
                            "left": [each.to_json() for each in now.drifts] if healed else None,
                        }
                        for one, now in zip(answers, after, strict=True)
                    ]
                }
            )
    else:
        for one, now in zip(answers, after, strict=True):
            _print(one, now, healed.get(one.deployment), quiet=quiet)
        if not answers and not quiet:
            print_line("nothing was applied in this boot")
    return {each.kind for one in after for each in one.drifts}


def _print(found: Answer, after: Answer, healed: int | None, *, quiet: bool) -> None:
    from xdpctl.cli.output import print_line

    for each in found.drifts:
        where = f"{each.netns}/{each.target}" if each.netns else each.target
        print_line(f"{found.deployment}: {each.kind:9} {where}: {each.message}")
    if healed is not None:
        count = len(after.drifts)
        left = f", {count} difference{'s are' if count > 1 else ' is'} left" if count else ""
        print_line(f"{found.deployment}: healed by {healed} change{'' if healed == 1 else 's'}{left}")
    elif not found.drifts and not quiet:
        print_line(f"{found.deployment}: as applied")
