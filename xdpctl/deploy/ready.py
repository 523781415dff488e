"""From a deployment to a plan for this machine: observe, resolve, compare, judge; nothing is changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xdpctl.deploy import plan as planning
from xdpctl.deploy import state
from xdpctl.deploy.desired import Deployment, DeploymentError
from xdpctl.deploy.observe import RARE, Observed, observe, with_elements
from xdpctl.deploy.resolve import Resolved, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.deploy.plan import Plan
    from xdpctl.deploy.state import Stored
    from xdpctl.obj.model import ObjFile

STEP_SECONDS = 0.1


def looked(desired: Deployment, objects: Mapping[str, ObjFile]) -> tuple[Resolved, Observed]:
    """The deployment's things on this machine, and the machine.

    Raises:
        DeploymentError: something named is not there, or contradicts itself.
        NetlinkError, PrivilegeError: the machine can't be read.
    """
    tc = any(one.hook != "xdp" for wish in desired.interfaces for one in wish.attach)
    rare = any(getattr(wish.settings, planning.FIELDS[kind]) for wish in desired.interfaces for kind in RARE)
    observed = observe(desired.name, tc=tc, settings=rare)
    found = resolve(desired, objects, observed.snapshot)
    if found.wrong:
        raise DeploymentError(found.wrong)
    wanted = {
        pin
        for one in found.instances.values()
        for use in one.maps
        if use.entries is not None
        for pin in observed.maps
        if pin == use.pin or pin.rpartition("@")[0] == use.base
    }
    return found, with_elements(observed, desired.name, wanted) if wanted else observed


def make(desired: Deployment, objects: Mapping[str, ObjFile], *, rules: bool = True) -> Plan:
    """The plan for this machine as it is now.

    Args:
        desired: the deployment.
        objects: what its programs' objects say.
        rules: ask doctor's rules about the machine as it would be; what [[redirect]]s with ensure need comes of it.

    Raises:
        DeploymentError: the deployment contradicts itself or the machine.
    """
    found, observed = looked(desired, objects)
    made = planning.of_resolved(found, observed)
    if rules and (found.redirects or any(one.kind.endswith((".attach", ".update")) for one in made.changes)):
        from xdpctl.deploy import judge

        return judge.judged(made, found, observed, objects)
    return made


def wait_for(desired: Deployment, objects: Mapping[str, ObjFile]) -> None:
    """Wait until the interfaces are there that may come later, each as long as it may take.

    Raises:
        DeploymentError: one did not come.
    """
    from xdpctl.deploy.desired import Wrong
    from xdpctl.errors import XdpctlError
    from xdpctl.netlink import interfaces, netns

    del objects
    begun = time.monotonic()
    for wish in desired.interfaces:
        if not wish.wait or wish.name is None:
            continue
        while True:
            try:
                with netns.enter(wish.netns):
                    interfaces.ifindex(wish.name)
                break
            except XdpctlError as error:
                if time.monotonic() - begun >= wish.wait:
                    told = f"{wish.name} did not come within {wish.wait:g} s"
                    raise DeploymentError([Wrong(wish.place, told)]) from error
            time.sleep(STEP_SECONDS)


def objects_of(desired: Deployment) -> dict[str, ObjFile]:
    """What the objects of a deployment that was applied say.

    Raises:
        ObjectError, NotFoundError: one is gone from where it was kept.
    """
    from xdpctl.obj import reader

    return {one.name: reader.read(one.object) for one in desired.programs}


def empty(name: str) -> Deployment:
    """A deployment that wants nothing: what destroying leads to."""
    return Deployment(name)


def of_stored(stored: Stored) -> tuple[Deployment, dict[str, ObjFile]]:
    """A generation's deployment and what its objects say."""
    return stored.deployment, objects_of(stored.deployment)


__all__ = ["empty", "looked", "make", "objects_of", "of_stored", "state", "wait_for"]
