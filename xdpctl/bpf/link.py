"""bpf_links: one attachment of one program, that ends when nobody holds it (BPF_LINK_CREATE, kernel/bpf/syscall.c)."""

from __future__ import annotations

import errno
import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import extack, pins, query
from xdpctl.bpf.failure import attach_failed, interface
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import LinkCreateOpts, LinkUpdateOpts
from xdpctl.libbpf.syscalls import BPF_LINK_CREATE, LinkCreateAttr, bpf

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from xdpctl.errors import KernelError


class Link:
    """A bpf_link held by a file descriptor; unless pinned, closing the last one detaches."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def id(self) -> int:
        """The kernel's id of it."""
        return self.info().id

    def info(self) -> query.LinkInfo:
        """What the kernel says about it."""
        return query.link_info(self.fd)

    def update(self, program_fd: int, *, expected_fd: int | None = None) -> None:
        """Put another program in its place, atomically: no packet passes without one.

        Args:
            program_fd: the new program.
            expected_fd: refuse (EPERM) if another program than this is there now.

        Raises:
            AttachError: the kernel refused (EPERM: not the expected program; ENOLINK: detached or device gone;
                EINVAL: not the same program or attach type).
        """
        opts = LinkUpdateOpts()
        if expected_fd is not None:
            opts.flags, opts.old_prog_fd = uapi.BPF_F_REPLACE, expected_fd
        try:
            lib().bpf_link_update(self.fd, program_fd, opts)
        except CallError as why:
            raise attach_failed(
                f"update of link {self.id}",
                why,
                ifindex=self.info().ifindex,
                program=_program_name(program_fd),
            ) from why

    def detach(self) -> None:
        """Detach now, whoever else holds it; it stays as an empty link until let go (Linux 5.9).

        Raises:
            AttachError: the kernel refused.
        """
        try:
            lib().bpf_link_detach(self.fd)
        except CallError as why:
            raise attach_failed(f"detach of link {self.id}", why, ifindex=self.info().ifindex) from why

    def pin(self, path: Path) -> None:
        """Pin it, so that it outlives us; see `pins.pin`."""
        pins.pin(self.fd, path)

    def close(self) -> None:
        """Let go of it; safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def open_link(which: Path | int) -> Link:
    """The link pinned at a path, or with an id.

    Raises:
        NotFoundError: there is none.
        ConfigError: something else is pinned there.
        PrivilegeError: CAP_SYS_ADMIN (by id) or permission is missing.
    """
    if isinstance(which, int):
        return Link(query.open_id("link", which))
    return Link(pins.open_pin(which, "link"))


def _program_name(fd: int) -> str:
    try:
        return query.program_info(fd).name
    except CallError:
        return f"fd {fd}"


@functools.cache
def _with_flags(flags: int) -> LinkCreateOpts:
    return LinkCreateOpts(flags=flags)


def link_xdp(program_fd: int, ifindex: int, flags: int = 0) -> Link:
    """Attach an XDP program to a device by a link (bpf_xdp_link_attach in net/core/dev.c, Linux 5.9).

    Args:
        program_fd: of the loaded program.
        ifindex: in this thread's network namespace.
        flags: one of uapi.XDP_FLAGS_{SKB,DRV,HW}_MODE, or 0 for the kernel's choice.

    Raises:
        UnsupportedError: the kernel has no XDP links.
        AttachError: the kernel refused; with its reason in `extack` where it can be recovered (Linux 6.6).
        PrivilegeError: CAP_NET_ADMIN or CAP_BPF is missing.
    """
    opts = _with_flags(flags) if flags else None
    create = lib().bpf_link_create
    try:
        return Link(create(program_fd, ifindex, uapi.XDP, opts))
    except CallError as why:
        first = why
        if why.code == errno.EPERM:  # asking again needs more privilege still
            raise _xdp_failed(why, program_fd, ifindex, flags, None) from why
    # The link hides the kernel's sentence from us: ask again with the tracepoint open. Should it work this time
    # (what was in the way has gone), that is the answer.
    with extack.reason() as spoken:
        try:
            return Link(create(program_fd, ifindex, uapi.XDP, opts))
        except CallError as why:
            first = why
    if first.code == errno.EINVAL and spoken() is None:
        from xdpctl.bpf import features

        if not features.probe("xdp_link"):
            raise UnsupportedError("an XDP link", needs="Linux 5.9", has="an older one") from first
    raise _xdp_failed(first, program_fd, ifindex, flags, spoken()) from first


def _xdp_failed(why: CallError, program_fd: int, ifindex: int, flags: int, said: str | None) -> KernelError:
    name = _program_name(program_fd)
    mode = next((mode for mode, bit in uapi.XDP_MODE_FLAGS.items() if flags & bit), None)
    return attach_failed(
        f"attach of {name} to {interface(ifindex)}" + (f" in {mode} mode" if mode else ""),
        why,
        ifindex=ifindex,
        program=name,
        mode=mode,
        extack=said,
    )


class Order(NamedTuple):
    """Where a program goes among those of a tcx or netkit hook (BPF_F_BEFORE, BPF_F_AFTER; linux/bpf_mprog.h)."""

    before: bool = False
    """Before what is named, or first of all where nothing is; else after it, or last."""
    program_id: int | None = None
    link_id: int | None = None
    revision: int = 0
    """Refuse (ESTALE) unless the hook's revision is this; 0: any."""


FIRST, LAST = Order(before=True), Order()


def link_tcx(program_fd: int, ifindex: int, attach_type: int, *, order: Order = LAST) -> Link:
    """Attach a sched_cls program to tcx of a device (tcx_link_attach in kernel/bpf/tcx.c, Linux 6.6).

    Args:
        program_fd: of the program; it may be loaded with any expected attach type from 6.6 on.
        ifindex: in this thread's network namespace.
        attach_type: uapi.TCX_INGRESS or TCX_EGRESS.
        order: among the programs that are there.

    Raises:
        UnsupportedError: the kernel has no tcx.
        AttachError: refused (ENOENT: the relative is not there; ESTALE: revision; ERANGE: hook is full).
        PrivilegeError: CAP_NET_ADMIN or CAP_BPF is missing.
    """
    return _link_ordered(program_fd, ifindex, attach_type, order, feature="tcx", since="Linux 6.6")


def link_netkit(program_fd: int, ifindex: int, attach_type: int, *, order: Order = LAST) -> Link:
    """Attach to a netkit device (netkit_link_attach in drivers/net/netkit.c, Linux 6.7).

    Args as `link_tcx`, with uapi.NETKIT_PRIMARY or NETKIT_PEER; `ifindex` is the primary's.

    Raises:
        UnsupportedError: the kernel has no netkit.
        AttachError: refused (EACCES: the device is the peer; EINVAL: it is no netkit).
        PrivilegeError: CAP_NET_ADMIN or CAP_BPF is missing.
    """
    return _link_ordered(program_fd, ifindex, attach_type, order, feature="netkit", since="Linux 6.7")


def _link_ordered(
    program_fd: int, ifindex: int, attach_type: int, order: Order, *, feature: str, since: str
) -> Link:
    flags = uapi.BPF_F_BEFORE if order.before else uapi.BPF_F_AFTER
    relative = order.link_id or order.program_id or 0
    if relative:
        flags |= uapi.BPF_F_ID
    if order.link_id:
        flags |= uapi.BPF_F_LINK
    try:
        if lib().version >= (1, 3):
            opts = LinkCreateOpts(flags=flags)
            kind = getattr(opts, feature)
            kind.relative_id, kind.expected_revision = relative, order.revision
            return Link(lib().bpf_link_create(program_fd, ifindex, attach_type, opts))
        attr = LinkCreateAttr(
            prog_fd=program_fd,
            target_fd=ifindex,
            attach_type=attach_type,
            flags=flags,
            relative=relative,
            expected_revision=order.revision,
        )
        return Link(bpf(BPF_LINK_CREATE, attr))
    except CallError as why:
        from xdpctl.bpf import features

        if why.code == errno.EINVAL and not features.probe(feature):
            raise UnsupportedError(
                feature, needs=since, has="an older or smaller kernel", errno=why.code
            ) from why
        name = _program_name(program_fd)
        hook = uapi.name_of(uapi.ATTACH_TYPES, attach_type).replace("_", " ")
        raise attach_failed(
            f"attach of {name} to {hook} of {interface(ifindex)}", why, ifindex=ifindex, program=name
        ) from why


def link_raw_tracepoint(program_fd: int, tracepoint: str) -> Link:
    """Attach a raw_tracepoint or tp_btf program (BPF_RAW_TRACEPOINT_OPEN, Linux 4.17).

    Args:
        program_fd: of the program.
        tracepoint: its name (``xdp_exception``); "" for tp_btf, which names it at load.

    Raises:
        AttachError: refused (ENOENT: no such tracepoint).
        PrivilegeError: CAP_PERFMON or CAP_BPF is missing.
    """
    try:
        return Link(lib().bpf_raw_tracepoint_open(tracepoint.encode() or None, program_fd))
    except CallError as why:
        name = _program_name(program_fd)
        raise attach_failed(f"attach of {name} to tracepoint {tracepoint}", why, program=name) from why
