"""A plan in a file: what was shown is what is applied, unless the machine has changed meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xdpctl.deploy import state
from xdpctl.deploy.change import Change
from xdpctl.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.deploy.desired import Deployment
    from xdpctl.deploy.plan import Plan

FORMAT = 1
LARGEST = 1 << 28


def write(path: Path, plan: Plan) -> None:
    """Write a plan.

    Raises:
        ConfigError: the file can't be written.
    """
    document = {
        "xdpctl_plan": FORMAT,
        "deployment": state.deployment_to_json(plan.deployment),
        "changes": [one.to_json() for one in plan.changes],
    }
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {(error.strerror or str(error)).lower()}") from error


def is_plan(path: Path) -> bool:
    """Whether a file is to be read as a plan."""
    return path.suffix == ".json"


def read(path: Path) -> tuple[Deployment, tuple[Change, ...]]:
    """The deployment and the changes of a plan.

    Raises:
        ConfigError: it can't be read, or is no plan.
    """
    try:
        with path.open(encoding="utf-8") as file:
            document: Any = json.loads(file.read(LARGEST))
        if document["xdpctl_plan"] > FORMAT:
            raise ConfigError(
                f"{path} is a plan of format {document['xdpctl_plan']}, this xdpctl knows {FORMAT}"
            )
        return (
            state.deployment_from_json(document["deployment"]),
            tuple(Change.from_json(one) for one in document["changes"]),
        )
    except OSError as error:
        raise ConfigError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{path} is no plan of xdpctl: {why}", hint="xdpctl plan --out plan.json FILE"
        ) from error


def unforeseen(planned: tuple[Change, ...], now: tuple[Change, ...]) -> list[Change]:
    """Changes that are needed now and were not planned: the machine has changed."""
    by_target: dict[tuple[object, ...], list[Change]] = {}
    for one in planned:
        by_target.setdefault(_about(one), []).append(one)
    return [one for one in now if not any(_same(one, other) for other in by_target.get(_about(one), ()))]


def _about(change: Change) -> tuple[object, ...]:
    return change.kind, change.netns, change.target, change.ifindex


def _same(one: Change, other: Change) -> bool:
    """Whether both do the same to the same thing; why, and the namespace's inode, do not matter."""
    # what was read from a file has lists where the planner has tuples: then the JSON decides
    return (one.before == other.before and one.after == other.after) or _essence(one) == _essence(other)


def _essence(change: Change) -> str:
    sides = dict(change.before), dict(change.after)
    told = (change.kind, change.netns, change.target, change.ifindex, *sides)
    return json.dumps(told, sort_keys=True)
