"""What every way of attaching has in common: a loaded program, a target, and a change that can be taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.attach.model import Attachment
    from xdpctl.attach.transaction import Transaction


class Loaded(NamedTuple):
    """A program in the kernel, ready to be attached."""

    fd: int
    id: int
    name: str
    tag: str
    load_time_ns: int


class Target(NamedTuple):
    """One hook of one interface of the current namespace."""

    interface: str
    ifindex: int
    kind: str | None
    """IFLA_INFO_KIND."""
    netns: str | None
    """Label of the namespace, None for the caller's unnamed one."""
    netns_inode: int
    hook: str
    """One of model.HOOKS."""
    mode: str | None = None
    """native, generic, offload, auto; None on TC hooks."""

    @property
    def where(self) -> str:
        """``veth0``, or ``veth0 in namespace blue``."""
        return f"{self.interface} in namespace {self.netns}" if self.netns else self.interface

    def command(self, *words: str) -> str:
        """A command line for hints, run in the target's namespace."""
        enter = f"ip netns exec {self.netns} " if self.netns and ":" not in self.netns else ""
        return enter + " ".join(words)


class Change(NamedTuple):
    """An attachment just made or replaced: what came of it."""

    via: str
    mode: str | None = None
    link_id: int | None = None
    pin: Path | None = None
    priority: int | None = None
    handle: int | None = None
    made_clsact: bool = False
    note: str | None = None


class Strategy(Protocol):
    """One way of attaching to one kind of hook.

    `attach` and `replace` register their undoing with the transaction before they return, and leave nothing behind
    when they raise.
    """

    via: str

    def attach(self, program: Loaded, target: Target, changes: Transaction) -> Change:
        """Put a program where none is in the way.

        Raises:
            AttachError: the kernel refused.
        """
        ...

    def replace(self, program: Loaded, target: Target, old: Attachment, changes: Transaction) -> Change:
        """Put a program in the place of another, atomically.

        Raises:
            AttachError: the kernel refused; the old one runs on.
        """
        ...

    def detach(self, old: Attachment) -> str | None:
        """Take an attachment away, with its pin; a remark about it, if there is one.

        Raises:
            AttachError: the kernel refused.
        """
        ...
