"""What can be told of drift by who may not look at everything? Differences that are seen, and what is not known.

XDP programs' ids and device settings are anybody's to read; pins take the right to enter the bpffs, TC programs and
other network namespaces CAP_SYS_ADMIN (bpf_prog_get_fd_by_id() in kernel/bpf/syscall.c, netns_install()).
"""

from __future__ import annotations

import os
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.attach import runstate
from xdpctl.bpf import pins
from xdpctl.deploy import plan as planning
from xdpctl.deploy import state
from xdpctl.deploy.drift import Drift, of_change, of_wrong
from xdpctl.deploy.observe import Observed, programs_below
from xdpctl.deploy.resolve import label_of, resolve
from xdpctl.errors import NotFoundError, PrivilegeError, XdpctlError
from xdpctl.host.machine import caller
from xdpctl.netlink import netns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xdpctl.deploy.desired import Deployment
    from xdpctl.deploy.resolve import Hooked
    from xdpctl.deploy.state import Stored
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.obj.model import ObjFile


def pins_hidden(name: str) -> bool:
    """Whether the caller may not look at a deployment's pins: into their folders, or at the first of them."""
    try:
        for top, _, files in os.walk(state.pin_folder(name), onerror=_refused):
            for file in files:
                os.close(pins.open_pin(Path(top, file)))
                return False  # all of them are made alike
    except (PermissionError, PrivilegeError):
        return True
    except NotFoundError:
        pass  # it has just gone
    return False


def _refused(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def all_seen(desired: Deployment) -> bool:
    """Whether nothing that a deployment is about is hidden from the caller."""
    if pins_hidden(desired.name):
        return False
    tc = any(one.hook != "xdp" for wish in desired.interfaces for one in wish.attach)
    spaces = any(one.netns for one in desired.interfaces)
    return not (tc or spaces or desired.redirects) or "CAP_SYS_ADMIN" in caller().capabilities


def look(stored: Stored, desired: Deployment, objects: Mapping[str, ObjFile]) -> list[Drift]:
    """Differences that are certain, and an ``unknown`` for each thing that could not be looked at."""
    from xdpctl.host.collect import collect

    snapshot = collect(netns="all", probes=(), settings=True)
    drifts = []
    visible = []
    for wish in desired.interfaces:
        hidden = list(_hidden(wish.netns, snapshot))
        what = wish.name or " ".join(wish.match) or wish.driver or "interfaces"
        drifts += [_unknown(one, what, f"network namespace {one} can't be looked into") for one in hidden]
        if not hidden:
            visible.append(wish)
    found = resolve(replace(desired, interfaces=tuple(visible), redirects=()), objects, snapshot)
    drifts += map(of_wrong, found.wrong)
    observed = Observed(snapshot, netns.current().inode, stored=stored)
    drifts += map(of_change, planning.settings_alone(found, observed))
    known = _programs(desired.name)
    for one in found.links.values():
        for each in one.hooked:
            drifts += _hook(label_of(snapshot, one.link.netns), one.link, each, known)
    if pins_hidden(desired.name) and desired.programs:
        told = f"{pins.root()} can't be looked into, so that what is pinned there, and what maps hold, can't be told"
        drifts.append(_unknown(None, "pins", told))
    if desired.redirects:
        drifts.append(_unknown(None, "redirects", "whether frames arrive can't be told"))
    return drifts


def _unknown(space: str | None, target: str, told: str) -> Drift:
    return Drift("unknown", space, target, told, healed=False)


def _hook(label: str | None, link: Link, wanted: Hooked, known: Mapping[str, int]) -> Iterator[Drift]:
    """What is wanted on a hook, compared with what is there."""
    name, number = wanted.wish.program, known.get(wanted.key)
    if wanted.wish.hook != "xdp":
        yield _unknown(label, link.name, f"whether {name} is on {wanted.wish.hook} can't be told")
        return
    running = sorted(filter(None, (link.xdp.native, link.xdp.generic, link.xdp.offload)))
    told = f"xdp runs program {', '.join(map(str, running))}"
    if not running:
        yield Drift("missing", label, link.name, f"{name} is not on xdp")
    elif number is None:
        yield _unknown(label, link.name, f"{told}; whether that is {name} can't be told")
    elif number not in running:
        yield Drift("changed", label, link.name, f"{told}, not {name} (program {number})", healed=False)


def _programs(name: str) -> dict[str, int]:
    """``FOLDER/FUNCTION`` -> id: by pins that can be seen, else as was written down when they were loaded."""
    folder = state.pin_folder(name)
    written = {
        f"{path.parent.name}/{path.name}": record.id
        for record in runstate.read().values()
        for path in [Path(record.pin)]
        if record.pin and path.parent.parent == folder / "programs"
    }
    return {**written, **programs_below(folder)}


def _hidden(named: str | None, snapshot: Snapshot) -> Iterator[str]:
    """Namespaces that are meant by a name, or a pattern of names, and may not be entered."""
    if named is None:
        return
    seen = {space.inode for space in snapshot.namespaces}
    if named.startswith(("/", "pid:", "net:[")):
        try:
            hidden = netns.find(named).inode not in seen
        except XdpctlError:
            hidden = True
        if hidden:
            yield named
    elif Path(netns.RUN_NETNS).is_dir() and not os.access(netns.RUN_NETNS, os.R_OK | os.X_OK):
        yield named
    else:
        for one in netns.list_named():
            if one.inode not in seen and fnmatchcase(one.name or "", named):
                yield one.name or named
