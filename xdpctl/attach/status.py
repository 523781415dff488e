"""Every XDP and TC attachment of a namespace, or of all of them: what `xdpctl status` answers."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, NamedTuple

from xdpctl.attach.observe import Observer
from xdpctl.errors import NetlinkError, NotFoundError, PrivilegeError
from xdpctl.netlink import netns as namespaces
from xdpctl.netlink import rtnl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xdpctl.attach.model import Attachment
    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.netlink.rtnl import RawLink


class Status(NamedTuple):
    """What is attached, and what could not be seen."""

    attachments: tuple[Attachment, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``{"attachments": [...]}``."""
        return {"attachments": [one.to_json() for one in self.attachments]}


def status(interfaces: Sequence[str] = (), *, netns: str | None = None, all_netns: bool = False) -> Status:
    """Every attachment to these interfaces (names or globs; none given: all), whoever made it.

    What may not be read without privileges is left out and named in `notes`.

    Raises:
        NotFoundError: no such namespace, or no interface of that name in any namespace that was looked at.
        PrivilegeError: the one namespace asked for can't be entered.
        NetlinkError: the kernel does not list its links.
    """
    observer = Observer()
    where: Iterable[NetnsRef | str | None] = [netns]
    if all_netns:
        where = namespaces.discover(include_processes=True)
    found: list[Attachment] = []
    seen: set[str] = set()
    matched: set[str] = set()
    for one in where:
        try:
            with namespaces.enter(one) as ref:
                links = rtnl.links()
                seen.update(link.name for link in links)
                chosen = _choose(links, interfaces, matched)
                found += observer.everything(chosen, ref)
        except (PrivilegeError, NotFoundError, NetlinkError) as error:
            if not all_netns:
                raise
            observer.note(error.message)
    for pattern in interfaces:
        if pattern not in matched:
            raise NotFoundError("interface", pattern, known=seen)
    if not interfaces:
        _note_stale(observer)
    return Status(tuple(found), tuple(observer.notes))


def _choose(links: list[RawLink], patterns: Sequence[str], matched: set[str]) -> list[RawLink]:
    if not patterns:
        return links
    chosen = []
    for link in links:
        hits = [
            one
            for one in patterns
            if fnmatch.fnmatchcase(link.name, one) or one == link.name or one in link.altnames
        ]
        matched.update(hits)
        if hits:
            chosen.append(link)
    return chosen


def _note_stale(observer: Observer) -> None:
    """Say which pins hold links whose device is gone."""
    # reading pins costs system calls that nothing else needed where nothing is attached: look only if there are any
    stale = [one for one in observer.pins.values() if one.ifindex is None]
    for one in stale:
        observer.note(
            f"{one.path} is stale: {one.interface} is gone; `xdpctl detach {one.interface}` removes it"
        )
