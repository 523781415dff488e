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
    known = {_essence(one) for one in planned}
    return [one for one in now if _essence(one) not in known]


def _essence(change: Change) -> str:
    """What a change does, without why and without the namespace's inode: one text, so that many are compared fast."""
    sides = dict(change.before), dict(change.after)
    told = (change.kind, change.netns, change.target, change.ifindex, *sides)
    return json.dumps(told, sort_keys=True)
