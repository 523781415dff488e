"""Which namespace is it that a link calls link-netnsid N? (RTM_GETNSID, asked pair by pair of observed namespaces)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.errors import KernelError
from xdpctl.host.model import Problem
from xdpctl.netlink import netns, rtnl, wire
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_QUESTIONS = 20_000
"""A machine where more would be needed (hundreds of namespaces, each tied to one we can't see) gets an answer
with unknown peers rather than none."""


@dataclass(frozen=True, slots=True)
class Asker:
    """An observed namespace: its inode, an open nsfs file, and the ids that its links mention."""

    inode: int
    descriptor: int
    ref: netns.NetnsRef
    needed: frozenset[int]


def resolve(askers: list[Asker], problems: list[Problem]) -> Mapping[tuple[int, int], int]:
    """Inode of the namespace that (inode, nsid) means, for every id needed that is an observed namespace's.

    The kernel tells one namespace's id for another one, not the reverse. The namespace with most ids goes
    first, and each then tries those that are tied to it, so that a host with its containers takes two questions
    a container, not one for every pair.
    """
    known: dict[tuple[int, int], int] = {}
    tied: dict[int, list[int]] = {}
    by_inode = {one.inode: one for one in askers}
    order = sorted(askers, key=lambda one: -len(one.needed))
    questions = 0
    for asker in order:
        missing = set(asker.needed)
        if not missing:
            continue
        try:
            with netns.enter(asker.ref), wire.Socket(wire.NETLINK_ROUTE) as route:
                for other in _candidates(asker, tied, order, by_inode):
                    if not missing:
                        break
                    questions += 1
                    if questions > MOST_QUESTIONS:
                        problems.append(
                            Problem("namespace ids", f"more than {MOST_QUESTIONS} pairs to ask about")
                        )
                        return known
                    nsid = rtnl.nsid_of(other.descriptor, route)
                    if nsid is None:
                        continue
                    known[asker.inode, nsid] = other.inode
                    missing.discard(nsid)
                    tied.setdefault(other.inode, []).append(asker.inode)
        except KernelError as error:
            problems.append(
                Problem(f"namespace ids of {asker.ref.label or 'the current netns'}", error.message)
            )
    return known


def _candidates(
    asker: Asker, tied: Mapping[int, list[int]], order: list[Asker], by_inode: Mapping[int, Asker]
) -> Iterator[Asker]:
    first = tied.get(asker.inode, ())
    yield from (by_inode[inode] for inode in first)
    yield from (one for one in order if one.inode != asker.inode and one.inode not in first)
