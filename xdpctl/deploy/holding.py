"""What executions of changes keep open between each other: namespaces, and programs behind their pins."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any

from xdpctl.attach.strategy import Loaded
from xdpctl.attach.transaction import HeldSignals, Transaction
from xdpctl.bpf import pins
from xdpctl.deploy import state
from xdpctl.deploy.change import namespace
from xdpctl.errors import NetlinkError, NotFoundError
from xdpctl.netlink import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xdpctl.deploy.change import Change, Context
    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.netlink.rtnl import RawXdp
    from xdpctl.netlink.wire import Socket


class Holding:
    """Open descriptors, and where the calling thread is."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.programs: dict[str, Loaded] = {}
        self.spaces: set[object] = set()
        """Namespaces that were looked up."""
        self.inside: NetnsRef | None = None
        """The namespace that the thread is in."""
        self.pins: dict[int, dict[tuple[int, str], list[Path]]] = {}
        """Pins of links, by inode of the namespace they were made in, then by ifindex and hook."""
        self.xdps: dict[tuple[int, int], RawXdp] = {}
        """Programs by the device's namespace (inode) and ifindex: as dumped, and not changed since."""
        self.sockets: dict[int, Socket] = {}
        """rtnetlink, by inode of the namespace."""
        self._way_back = contextlib.ExitStack()
        self.transaction = Transaction(HeldSignals())
        """Strategies note here how to take things back; the journal does that, so it is never asked to."""

    def close(self) -> None:
        """Let go of everything, back in the caller's namespace."""
        self.leave()
        self.transaction.close()
        self.stack.close()
        self.programs.clear()
        self.sockets.clear()

    def leave(self) -> None:
        """Back to the caller's namespace."""
        self._way_back.close()
        self.inside = None

    def go(self, change: Change, context: Context) -> NetnsRef:
        """Into the namespace of a change, to stay until another is asked for."""
        key = change.netns, change.space
        if key not in self.spaces:
            self.leave()  # names are looked up from where the caller is
            self.spaces.add(key)
        ref = namespace(change, context)
        if self.inside is None or self.inside.inode != ref.inode:
            self.leave()
            self._way_back.enter_context(netns.enter(ref))
            self.inside = ref
        return ref

    def xdp(self, change: Change) -> RawXdp:
        """XDP on the link that a change is about, since its last change; the thread must be in its namespace.

        The first asked of a namespace brings all of them in one dump; each is good for one change.

        Raises:
            NotFoundError: it is gone.
        """
        from xdpctl.netlink import rtnl, wire

        inode = self.inside.inode if self.inside is not None else 0
        sock = self.sockets.get(inode)
        if sock is None:
            sock = self.sockets[inode] = self.stack.enter_context(wire.Socket(wire.NETLINK_ROUTE))
            self.xdps.update(((inode, one), xdp) for one, xdp in rtnl.programs_of_links(sock).items())
        known = self.xdps.pop((inode, change.ifindex or 0), None)
        if known is not None:
            return known
        try:
            return rtnl.link(change.ifindex or 0, sock).xdp
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            raise NotFoundError("interface", change.target, where=change.netns, hint="it has gone") from error

    def program(self, deployment: str, key: str) -> Loaded:
        """The pinned program ``FOLDER/FUNCTION``, open.

        Raises:
            NotFoundError: it is not pinned.
        """
        import os

        from xdpctl.bpf import query

        found = self.programs.get(f"{deployment}/{key}")
        if found is None:
            path = state.pin(deployment, key if key.startswith("kept/") else f"programs/{key}")
            fd = pins.open_pin(path, "program")
            self.stack.callback(os.close, fd)
            info = query.program_info(fd)
            found = Loaded(fd, info.id, key.rpartition("/")[2], info.tag, info.load_time_ns)
            self.programs[f"{deployment}/{key}"] = found
        return found

    def forget(self, deployment: str, folder: str) -> None:
        """Let go of the programs of a folder that is about to be unpinned; their descriptors close at the end."""
        for key in [one for one in self.programs if one.startswith(f"{deployment}/{folder}/")]:
            del self.programs[key]


def of(context: Context) -> Holding:
    """The context's, made at the first use."""
    found: Holding | None = context.held.get("deploy")
    if found is None:
        found = context.held["deploy"] = Holding()
    return found


@contextlib.contextmanager
def inside(change: Change, context: Context) -> Iterator[tuple[Holding, NetnsRef]]:
    """In the namespace of a change; the way back is left to the next one, or to `Holding.close`."""
    held = of(context)
    yield held, held.go(change, context)


def side(change: Change, name: str) -> dict[str, Any]:
    """``before`` or ``after`` of a change, as a plain dict."""
    return dict(getattr(change, name))
