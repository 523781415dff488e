"""Changes that are made all, or none: what came before a refused one is taken back, last first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.attach.transaction import held_signals
from xdpctl.deploy.change import Change, Context, execute
from xdpctl.errors import NotFoundError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def apply_all(
    changes: Sequence[Change],
    progress: Callable[[Change], None] = lambda _change: None,
    context: Context | None = None,
) -> None:
    """Execute changes in order; when one is refused, take back those before it, last first, and raise.

    Args:
        changes: from `settings_changes`, or any others.
        progress: hears each change before it is made, and each inverse before it is.
        context: what executions share.

    Raises:
        XdpctlError: the refusal, its message telling what was put back and what could not be.
    """
    shared = context if context is not None else Context()
    done: list[Change] = []
    with held_signals() as signals:
        try:
            for change in changes:
                signals.check()
                progress(change)
                done.append(
                    change
                )  # a refused one may have got half-way; its inverse does nothing where it did not
                execute(change, shared)
            signals.check()
        except BaseException as error:
            problems, undone = _take_back(done, progress, shared)
            if isinstance(error, XdpctlError):
                if undone:
                    error.message += f"; put back: {', '.join(undone)}"
                if problems:
                    error.message += f"; NOT put back: {'; '.join(problems)}"
            elif problems:
                raise XdpctlError(f"interrupted, and NOT put back: {'; '.join(problems)}") from error
            raise


def _take_back(
    done: Sequence[Change], progress: Callable[[Change], None], context: Context
) -> tuple[list[str], list[str]]:
    """(what could not be put back, what was), in words; of a device that is gone nothing is left to put back."""
    problems: list[str] = []
    undone: list[str] = []
    for place, change in enumerate(reversed(done)):
        inverse = change.inverse()
        if place:
            progress(inverse)
        try:
            execute(inverse, context)
        except NotFoundError:
            continue
        except XdpctlError as error:
            problems.append(error.message)
        else:
            if place:  # the refused one itself changed nothing, in general
                undone.append(change.spelled)
    return problems, undone
