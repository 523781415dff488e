"""What the deployments of this boot promise: their [[redirect]]s, as links of an observed machine."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from xdpctl.deploy import state
from xdpctl.doctor.topology import Promise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdpctl.deploy.desired import Deployment
    from xdpctl.host.model import Namespace, Snapshot


def applied() -> list[Deployment]:
    """The deployments that stand now.

    Raises:
        ConfigError: the file of one is damaged.
    """
    return [state.existing(name).deployment for name in state.names()]


def of(deployments: Iterable[Deployment], snapshot: Snapshot) -> list[Promise]:
    """Their promises between links that are there; one of links that are gone is drift's to tell."""
    found = []
    for deployment in deployments:
        for wish in deployment.redirects:
            for space in _spaces(wish.netns, snapshot):
                target = snapshot.named(wish.target, space.inode)
                if target is None:
                    continue
                found += [
                    Promise(one.ref, target.ref, deployment.name)
                    for one in space.links
                    if fnmatch.fnmatchcase(one.name, wish.source) and one.ref != target.ref
                ]
    return found


def _spaces(name: str | None, snapshot: Snapshot) -> list[Namespace]:
    if name is None:
        return [one for one in snapshot.namespaces if one.current]
    return [one for one in snapshot.namespaces if one.label and fnmatch.fnmatchcase(one.label, name)]
