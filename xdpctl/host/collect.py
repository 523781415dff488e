"""One observation of the machine, into a Snapshot: what it is, its namespaces, their links, and loaded programs.

Everything comes in dumps, so system calls grow with namespaces, programs and maps, not with links.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from xdpctl.errors import KernelError, NotFoundError, XdpctlError
from xdpctl.host import machine, peers, programs
from xdpctl.host import pools as page_pools
from xdpctl.host.links import Assembler
from xdpctl.host.model import Link, Namespace, Problem, Snapshot, Xdp
from xdpctl.host.namespace import Observed, observe
from xdpctl.netlink import features, netns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from xdpctl.bpf.query import LinkInfo

ALL, CURRENT = "all", "current"


def collect(
    *,
    netns: str = CURRENT,
    statistics_of: Iterable[str] = (),
    probes: Collection[str] | None = None,
    settings: bool = False,
    pools: bool = False,
    tc_redirects: bool = False,
) -> Snapshot:
    """Observe the machine. What can't be read is None, and told in `Snapshot.problems`.

    Args:
        netns: "current", "all" that can be seen, or one by name (as `netlink.netns.find` takes it).
        statistics_of: names of links whose driver counters are read too (in every namespace observed).
        probes: names of the kernel features to try out (bpf.features); None: all. Three of them attach to a
            tracepoint or function and take 15 ms each.
        settings: read coalescing, pause, firmware, NUMA nodes, page pools and NAPI settings too.
        pools: read page pools with their statistics, and what the kernel's log says of them, into `pool_state`.
        tc_redirects: look where the plain redirects of TC programs lead too; they can be many and large.

    Raises:
        NotFoundError: `netns` names a namespace that doesn't exist.
        PrivilegeError: `netns` names one that the caller may not enter.
        NetlinkError: the caller's own namespace can't be read.
    """
    # thousands of objects are made and none of them dies: looking for cycles among them costs a third of the time
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _collect(netns, frozenset(statistics_of), probes, settings, pools, tc_redirects)
    finally:
        if collecting:
            gc.enable()


def _collect(
    which: str,
    statistics_of: Collection[str],
    probes: Collection[str] | None,
    settings: bool,
    pools: bool,
    tc_redirects: bool,
) -> Snapshot:
    problems: list[Problem] = []
    taken_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    loaded = programs.loaded(problems)
    with contextlib.ExitStack() as held:
        observed, descriptors = _namespaces(which, statistics_of, loaded.has_tc(), settings, problems, held)
        known = _peer_namespaces(observed, descriptors, problems)
        pool_state = page_pools.observe([seen.ref for seen in observed], problems) if pools else None
    assembler = Assembler(_feature_names(problems))
    namespaces = tuple(
        Namespace(
            seen.ref.inode,
            seen.ref.name,
            seen.ref.current,
            seen.ref.pid,
            assembler.links(seen, known, loaded.programs),
            seen.cookie,
        )
        for seen in observed
    )
    namespaces = _with_link_ids(namespaces, loaded.links, problems)
    attached = {number for space in namespaces for link in space.links for number in _programs_of(link)}
    leading = programs.redirects(attached, loaded.programs, problems)
    if tc_redirects:
        hooked = {one.program_id for space in namespaces for link in space.links for one in link.tc}
        leading.targets.update(programs.tc_redirects(hooked))
    online, possible = machine.cpus()
    return Snapshot(
        taken_at=taken_at,
        kernel=machine.kernel(problems, probes),
        caller=machine.caller(),
        cpus_online=online,
        cpus_possible=possible,
        namespaces=namespaces,
        programs=loaded.programs,
        redirects=leading.entries,
        redirect_calls=leading.calls,
        redirect_maps=leading.maps,
        redirect_targets=leading.targets,
        modules=machine.modules(),
        bpffs=machine.bpffs(),
        sysctls=machine.sysctls(problems),
        problems=tuple(problems),
        pool_state=pool_state,
    )


def _namespaces(
    which: str,
    statistics_of: Collection[str],
    tcx: bool,
    settings: bool,
    problems: list[Problem],
    held: contextlib.ExitStack,
) -> tuple[list[Observed], dict[int, int]]:
    """The answers of every namespace wanted, and an open nsfs file of each by inode."""
    if which == CURRENT:
        wanted = [netns.current()]
    elif which == ALL:
        wanted = netns.discover(include_processes=True)
        hidden = netns.hidden_processes()
        if hidden:
            who = "1 process does" if hidden == 1 else f"{hidden} processes do"
            lacking = "" if "CAP_SYS_PTRACE" in machine.caller().capabilities else " (needs CAP_SYS_PTRACE)"
            problems.append(Problem("network namespaces", f"{who} not let theirs be seen{lacking}"))
    else:
        wanted = [netns.find(which)]
    observed: list[Observed] = []
    descriptors: dict[int, int] = {}
    for ref in wanted:
        try:
            descriptor = netns.open_nsfs(ref)
            held.callback(os.close, descriptor)
            # from here on by the open file: names and processes may go, the namespace stays
            ref = ref._replace(path=f"/proc/self/fd/{descriptor}")  # noqa: PLW2901
            with netns.enter(ref):
                observed.append(
                    observe(ref, problems, tcx=tcx, statistics_of=statistics_of, settings=settings)
                )
        except NotFoundError:
            if which not in (ALL, CURRENT):
                raise
            continue  # it went away between being seen and being entered: then it is not part of the machine
        except (KernelError, OSError) as error:
            if which != ALL or ref.current:
                raise
            problems.append(Problem(f"netns {ref.label}", str(error)))
        else:
            descriptors[ref.inode] = descriptor
    return observed, descriptors


def _peer_namespaces(
    observed: list[Observed], descriptors: Mapping[int, int], problems: list[Problem]
) -> Mapping[tuple[int, int], int]:
    askers = [
        peers.Asker(
            seen.ref.inode,
            descriptors[seen.ref.inode],
            seen.ref,
            frozenset(one.link_netnsid for one in seen.links if one.link_netnsid is not None),
        )
        for seen in observed
    ]
    return peers.resolve(askers, problems)


def _feature_names(problems: list[Problem]) -> tuple[str, ...]:
    try:
        return features.names()
    except XdpctlError as error:
        problems.append(Problem("names of features", error.message))
        return ()


def _with_link_ids(
    namespaces: tuple[Namespace, ...], held: list[LinkInfo], problems: list[Problem]
) -> tuple[Namespace, ...]:
    """Fill in which bpf_link holds which XDP program.

    The kernel tells a link's ifindex but not its namespace: where links of two namespaces with one ifindex hold
    the same program, nothing tells them apart, and the ids stay None with a problem.
    """
    by_device: dict[tuple[int, int], list[int]] = {}
    for one in held:
        if one.type == "xdp" and one.ifindex is not None:
            by_device.setdefault((one.ifindex, one.program_id), []).append(one.id)
    if not by_device:
        return namespaces
    holders = Counter(
        (link.ifindex, number)
        for space in namespaces
        for link in space.links
        for number in _programs_of(link)
    )
    for (ifindex, number), ids in by_device.items():
        if holders[ifindex, number] > 1:
            problems.append(
                Problem(
                    f"bpf_links {', '.join(map(str, ids))} of program {number}",
                    f"{holders[ifindex, number]} links have ifindex {ifindex} and this program, and the kernel"
                    " does not say whose each is",
                )
            )
    certain = {key: ids[0] for key, ids in by_device.items() if len(ids) == 1 == holders[key]}

    def with_ids(link: Link) -> Link:
        xdp, number = link.xdp, link.ifindex
        if not xdp:
            return link
        held_by = (certain.get((number, one or 0)) for one in (xdp.native, xdp.generic, xdp.offload))
        return replace(link, xdp=Xdp(xdp.native, xdp.generic, xdp.offload, *held_by))

    return tuple(replace(space, links=tuple(map(with_ids, space.links))) for space in namespaces)


def _programs_of(link: Link) -> list[int]:
    """Ids of its XDP programs, of every mode."""
    return [one for one in (link.xdp.native, link.xdp.generic, link.xdp.offload) if one]
