"""Attachments that a pinned bpf_link holds: what XDP links, tcx and netkit have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.attach import ownership
from xdpctl.attach.strategy import Change
from xdpctl.bpf import pins
from xdpctl.bpf.link import open_link
from xdpctl.errors import AttachError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.strategy import Loaded, Target
    from xdpctl.attach.transaction import Transaction
    from xdpctl.bpf.link import Link


def keep(link: Link, target: Target, changes: Transaction, *, via: str, mode: str | None = None) -> Change:
    """Pin a link that was just made, so that it outlives us; where that fails, it goes.

    Raises:
        AttachError, UnsupportedError, PrivilegeError: it could not be pinned.
    """
    link_id = link.id
    path = ownership.link_pin(target.netns_inode, target.ifindex, target.interface, target.hook, link_id)
    try:
        link.pin(path)
    finally:
        link.close()  # the last descriptor, if it could not be pinned: it detaches
    changes.add(f"{target.hook} of {target.where}", lambda: _drop(path))
    return Change(via, mode, link_id, path)


def _drop(path: Path) -> None:
    with open_link(path) as link:
        pins.unpin(path)
        link.detach()


def replace(program: Loaded, target: Target, old: Attachment, changes: Transaction, *, via: str) -> Change:
    """Update the link that holds `old`: no packet passes without a program (BPF_LINK_UPDATE).

    A link of somebody else is updated all the same, and pinned as ours too: then it stays when its maker goes.

    Raises:
        AttachError: the kernel refused, or the program there has changed meanwhile.
        PrivilegeError: CAP_SYS_ADMIN is missing (it opens programs and foreign links by id).
    """
    assert old.link_id is not None  # noqa: S101 - what is via a link has one
    which: Path | int = old.pin if old.pin is not None else old.link_id
    before = changes.program(old.program.id)
    _update(which, before.fd, program.fd)
    changes.add(f"{target.hook} of {target.where}", lambda: _update(which, program.fd, before.fd))
    if old.pin is not None:
        return Change(via, old.mode, old.link_id, old.pin)
    pin = ownership.link_pin(target.netns_inode, target.ifindex, target.interface, target.hook, old.link_id)
    with open_link(which) as link:
        link.pin(pin)
    changes.add(f"pin {pin}", lambda: pins.unpin(pin))
    note = f"link {old.link_id} was made by somebody else, who may still hold it"
    return Change(via, old.mode, old.link_id, pin, note=note)


def _update(which: Path | int, old_fd: int, new_fd: int) -> None:
    with open_link(which) as link:
        link.update(new_fd, expected_fd=old_fd)


def detach(old: Attachment) -> str | None:
    """Detach a link and remove its pin.

    Raises:
        AttachError: the kernel refused.
        PrivilegeError: CAP_SYS_ADMIN is missing for a link of somebody else.
    """
    assert old.link_id is not None  # noqa: S101 - as above
    try:
        with open_link(old.pin if old.pin is not None else old.link_id) as link:
            # letting go of the pin would do, but later, from a kernel worker: after this call nothing runs any more
            link.detach()
    except NotFoundError:
        return None  # gone meanwhile
    except AttachError as error:
        if old.pin is None or error.errno not in _GONE:
            raise
    if old.pin is not None:
        pins.unpin(old.pin)
        return None
    return f"whoever made link {old.link_id} may still hold it, empty"


_GONE = (19, 67, 95)
"""ENODEV, ENOLINK: the device went; EOPNOTSUPP: no BPF_LINK_DETACH before 5.9, there letting go of the pin detaches."""
