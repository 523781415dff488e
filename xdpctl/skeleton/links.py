"""One attachment of a skeleton's program: it lasts until it is closed, unless it is pinned.

Nothing is detached because Python collects garbage: an attachment that was forgotten stays to the end of the process,
and a ResourceWarning names it.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from xdpctl.bpf import pins, query
from xdpctl.errors import AttachError, ConfigError, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.bpf.query import LinkInfo
    from xdpctl.skeleton.programs import Program
    from xdpctl.skeleton.ways import Way


class Link:
    """One attachment; leaving its ``with`` block detaches it, unless it was pinned.

    Attributes:
        program: name of the program that is attached.
        where: the hook in words (``xdp of eth0``).
        mode: native, generic or offload of an XDP program, else None.
        via: link, netlink or clsact.
        note: a remark on how it came about: that ``auto`` became generic, and why.
        pinned: path of the pin, None where there is none.
    """

    __slots__ = ("_way", "mode", "note", "pinned", "program", "via", "where")

    def __init__(
        self, way: Way, program: str, where: str, *, mode: str | None = None, note: str | None = None
    ) -> None:
        self._way: Way | None = way
        self.program = program
        self.where = where
        self.mode = mode
        self.via = way.via
        self.note = note
        self.pinned: Path | None = None

    def __repr__(self) -> str:
        return f"<Link of {self.program} to {self.where}{'' if self.attached else ', detached'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_way", None) is not None and self.pinned is None:
            warnings.warn(
                f"{self.program} stays attached to {self.where} until the process ends:"
                " its link was neither closed nor pinned",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self._way = None  # its descriptor stays open on purpose

    @property
    def attached(self) -> bool:
        """Whether this object still holds it."""
        return self._way is not None

    def _required(self) -> Way:
        if self._way is None:
            raise ConfigError(f"{self.program} is not attached to {self.where} any more, by this link")
        return self._way

    def _link_fd(self, action: str) -> int:
        fd = self._required().link_fd
        if fd is None:
            raise UnsupportedError(
                action, needs="an attachment by a bpf_link", has=f"one by {self.via}, on this kernel"
            )
        return fd

    @property
    def fd(self) -> int:
        """Descriptor of the bpf_link.

        Raises:
            UnsupportedError: it is attached without one.
        """
        return self._link_fd("a descriptor of the link")

    @property
    def id(self) -> int:
        """The kernel's id of the bpf_link; raises as `fd`."""
        return self.info().id

    def info(self) -> LinkInfo:
        """What the kernel says about the bpf_link; raises as `fd`."""
        return query.link_info(self.fd)

    def pin(self, name: str) -> Path:
        """Pin it below xdpctl's directory of the bpffs, so that it outlives the process.

        Args:
            name: ``edge/eth0``: components of letters, digits and ``_-@:+,=``, no dots.

        Returns:
            path of the pin.

        Raises:
            AttachError: something is pinned there, or this is pinned already.
            ConfigError: the name can't be that of a pin.
            UnsupportedError: no bpffs, or it is attached without a link.
            PrivilegeError: CAP_BPF is missing.
        """
        if self.pinned is not None:
            raise AttachError(f"{self.where} is pinned already, as {self.pinned}", hint="unpin() it first")
        path = pins.below(pins.root(), *name.split("/"))
        pins.pin(self._link_fd(f"a pin {name}"), path)
        self.pinned = path
        return path

    def unpin(self) -> None:
        """Remove the pin; the attachment lasts as long as this link then."""
        if self.pinned is not None:
            pins.unpin(self.pinned)
            self.pinned = None

    def update(self, program: Program) -> None:
        """Put another program in its place, atomically: no packet passes without one.

        Args:
            program: of this or another loaded skeleton, of the same type and attach type.

        Raises:
            AttachError: the kernel refused.
            UnsupportedError: a tracing program can't be replaced.
        """
        self._required().update(program.fd)
        self.program = program.name

    def detach(self) -> None:
        """Detach now, pinned or not, and remove the pin.

        Raises:
            ConfigError: it was let go of before.
            AttachError: the kernel refused.
        """
        way = self._required()
        self.unpin()
        self._way = None
        way.close(detach=True)

    def close(self) -> None:
        """Detach, unless it is pinned: then only let go of it. Safe to repeat."""
        way, self._way = self._way, None
        if way is not None:
            way.close(detach=self.pinned is None)
