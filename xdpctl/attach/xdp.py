"""XDP onto a device, by a pinned link or by netlink (dev_xdp_attach in net/core/dev.c).

A link can't be overwritten by accident and is replaced by one update; netlink is for kernels before 5.9, for systems
without a bpffs, and where a program that netlink attached is to be replaced (the kernel takes no link there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.attach import pinned
from xdpctl.attach.strategy import Change
from xdpctl.bpf import net
from xdpctl.bpf.program import program_by_id
from xdpctl.errors import NotFoundError, UnsupportedError
from xdpctl.libbpf import uapi
from xdpctl.skeleton import modes

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.strategy import Loaded, Target
    from xdpctl.attach.transaction import Transaction

FLAGS = uapi.XDP_MODE_FLAGS


def in_mode(target: Target, attach: Callable[[str], Change]) -> Change:
    """Attach in the mode that was asked; for ``auto`` natively, or else generic with the reason told.

    Raises:
        AttachError: refused.
    """
    change, note = modes.in_mode(target.mode or "native", attach)
    return change if note is None else Change(change.via, change.mode, change.link_id, change.pin, note=note)


class XdpLink:
    """XDP by a pinned bpf_link (Linux 5.9).

    Args:
        or_netlink: attach by netlink where the kernel has no links.
    """

    via = "link"

    def __init__(self, *, or_netlink: bool = False) -> None:
        self._or_netlink = or_netlink

    def attach(self, program: Loaded, target: Target, changes: Transaction) -> Change:
        """See `Strategy`."""

        def attach_in(mode: str) -> Change:
            link = modes.link(program.fd, target.ifindex, mode)
            return pinned.keep(link, target, changes, via="link", mode=mode)

        try:
            return in_mode(target, attach_in)
        except UnsupportedError as error:
            if not self._or_netlink or "link" not in error.feature:
                raise
            return XdpNetlink().attach(program, target, changes)

    def replace(self, program: Loaded, target: Target, old: Attachment, changes: Transaction) -> Change:
        """See `Strategy`."""
        return pinned.replace(program, target, old, changes, via="link")

    def detach(self, old: Attachment) -> str | None:
        """See `Strategy`."""
        return pinned.detach(old)


class XdpNetlink:
    """XDP by rtnetlink's IFLA_XDP; replacing one program by naming it (XDP_FLAGS_REPLACE) needs Linux 5.7."""

    via = "netlink"

    def attach(self, program: Loaded, target: Target, changes: Transaction) -> Change:
        """See `Strategy`."""

        def attach_in(mode: str) -> Change:
            net.xdp_attach(target.ifindex, program.fd, FLAGS[mode] | uapi.XDP_FLAGS_UPDATE_IF_NOEXIST)
            changes.add(f"xdp of {target.where}", lambda: _exchange(target.ifindex, mode, program.fd, -1))
            return Change("netlink", mode)

        return in_mode(target, attach_in)

    def replace(self, program: Loaded, target: Target, old: Attachment, changes: Transaction) -> Change:
        """See `Strategy`."""
        mode = old.mode or "native"
        before = changes.program(old.program.id)
        _exchange(target.ifindex, mode, before.fd, program.fd)
        changes.add(f"xdp of {target.where}", lambda: _exchange(target.ifindex, mode, program.fd, before.fd))
        return Change("netlink", mode)

    def detach(self, old: Attachment) -> str | None:
        """See `Strategy`."""
        try:
            before = program_by_id(old.program.id)
        except NotFoundError:
            return None  # gone meanwhile
        with before:
            _exchange(old.ifindex, old.mode or "native", before.fd, -1)
        return None


def _exchange(ifindex: int, mode: str, old_fd: int, new_fd: int) -> None:
    """Put `new_fd` (-1: nothing) where `old_fd` is, and only there."""
    try:
        net.xdp_attach(ifindex, new_fd, FLAGS[mode] | uapi.XDP_FLAGS_REPLACE, expected_fd=old_fd)
    except UnsupportedError:  # before 5.7 nobody can name the program to be replaced
        net.xdp_attach(ifindex, new_fd, FLAGS[mode])
