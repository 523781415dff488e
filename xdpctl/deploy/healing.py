"""A deployment is put back to what was applied: the plan that drift found, carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.deploy import apply, drift
from xdpctl.deploy.lock import locked

if TYPE_CHECKING:
    from collections.abc import Sequence


def heal(names: Sequence[str], *, wait: float = 0.0) -> dict[str, int]:
    """Heal deployments; how many changes each took.

    Raises:
        LockedError: another command is changing the machine.
        XdpctlError: a change was refused; that deployment is as it was before.
    """
    from xdpctl.deploy.observe import link_pins, observe

    done = {}
    with locked(wait=wait):
        apply.require_nothing_pending()
        for name in names:
            answer = drift.look(name)
            stale = [one for one in answer.drifts if one.kind == "stale-pin"]
            count = 0
            if stale:
                programs = set(observe(name).programs.values())
                count += len(drift.clear_stale(link_pins(), programs))
            if answer.plan is not None and answer.plan.changes:
                count += len(apply.run(answer.plan).changes)
            done[name] = count
    return done
