"""A device's settings as they should be, and the ordered changes that lead there (pure, but for `apply_all`).

Mirrors what ethtool -G, -L, -K, -C, -A, --set-priv-flags, ip link set mtu/up and netdev napi-set change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdpctl.attach.transaction import held_signals
from xdpctl.deploy.change import Change, Context, Json, execute
from xdpctl.errors import NotFoundError, XdpctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xdpctl.host.model import Link


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What a device should be set to; what is left out stays as it is."""

    up: bool | None = None
    mtu: int | None = None
    rings: Mapping[str, Json] = field(default_factory=dict)
    """rx, tx, rx-mini, rx-jumbo, rx-buf-len, tcp-data-split (on, off, auto), hds-thresh, cqe-size, rx-push, tx-push,
    tx-push-buf-len."""
    channels: Mapping[str, int] = field(default_factory=dict)
    """rx, tx, other, combined."""
    features: Mapping[str, bool] = field(default_factory=dict)
    """By ethtool's kernel names (rx-gro) or its short ones (gro, tso, lro, ...)."""
    coalesce: Mapping[str, Json] = field(default_factory=dict)
    """By ethtool's names: rx-usecs, rx-frames, adaptive-rx, ..."""
    pause: Mapping[str, bool] = field(default_factory=dict)
    """autoneg, rx, tx."""
    private_flags: Mapping[str, bool] = field(default_factory=dict)
    napi: Mapping[str, Json] = field(default_factory=dict)
    """threaded, defer-hard-irqs, gro-flush-timeout (ns), irq-suspend-timeout (ns): for all NAPIs of the device."""


def settings_changes(
    link: Link, desired: DeviceSettings, *, netns: str | None = None, why: str | None = None
) -> list[Change]:
    """The changes that lead from the observed link to the desired settings, in an order that works. Pure.

    Args:
        link: as `host.collect.collect(settings_of=...)` observed it.
        desired: only what differs becomes a change.
        netns: as `netlink.netns.find` takes it, for the changes.
        why: the reason to tell with each; by default what the setting does.

    Raises:
        ConfigError: values that the device can't take: every misfit in one message, one a line.
    """
    raise NotImplementedError  # grows with the commits to come


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
