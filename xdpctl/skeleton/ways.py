"""The ways of being attached: a bpf_link where the kernel has one for the hook, else what came before.

That is rtnetlink's IFLA_XDP, a filter on clsact, or (libbpf's business) a perf event.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Protocol

from xdpctl.bpf import net, pins, query
from xdpctl.bpf.failure import attach_failed
from xdpctl.errors import AttachError, KernelError, UnsupportedError
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.log import capture
from xdpctl.netlink import netns as namespaces

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from xdpctl.bpf.link import Link
    from xdpctl.netlink.netns import NetnsRef


class Way(Protocol):
    """One way of being attached."""

    via: str

    @property
    def link_fd(self) -> int | None:
        """Descriptor of the bpf_link; None: it is none."""
        ...

    def update(self, program_fd: int) -> None:
        """Put another program there, atomically."""
        ...

    def close(self, *, detach: bool) -> None:
        """Let go of it; with `detach` it is off when this returns."""
        ...


class ByLink:
    """A bpf_link of ours."""

    via = "link"

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def link_fd(self) -> int | None:
        """See `Way`."""
        return self._link.fd

    def update(self, program_fd: int) -> None:
        """See `Way`."""
        self._link.update(program_fd)

    def close(self, *, detach: bool) -> None:
        """See `Way`."""
        try:
            if detach:
                self._link.detach()
        except AttachError as error:
            # EOPNOTSUPP: links of tracing have no detach, closing the last descriptor ends them; ENODEV: device gone
            if error.errno not in {errno.EOPNOTSUPP, errno.ENODEV, errno.ENOENT, errno.EINVAL}:
                raise
        finally:
            self._link.close()


class ByLibbpf:
    """A ``struct bpf_link`` of libbpf's making, from the program's section name (bpf_program__attach)."""

    via = "link"

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        fd = int(lib().bpf_link__fd(pointer))
        self._fd = (
            fd if fd >= 0 and pins.kind_of(fd) == "link" else None
        )  # else a perf event's, before Linux 5.15

    @property
    def link_fd(self) -> int | None:
        """See `Way`."""
        return self._fd

    def update(self, program_fd: int) -> None:
        """See `Way`."""
        raise UnsupportedError(
            "an update of a tracing program in place",
            needs="a link that can be updated",
            has=f"one of program {query.program_info(program_fd).name}'s type",
            hint="attach the new one, then detach the old one",
        )

    def close(self, *, detach: bool) -> None:
        """See `Way`; a tracing link ends with its last descriptor."""
        del detach
        pointer, self._pointer = self._pointer, 0
        if pointer:
            lib().bpf_link__destroy(pointer)


class XdpByNetlink:
    """XDP by rtnetlink, for kernels before 5.9."""

    via = "netlink"
    link_fd = None

    def __init__(self, ifindex: int, program_fd: int, mode: str, where: NetnsRef) -> None:
        self._ifindex, self._flags = ifindex, uapi.XDP_MODE_FLAGS[mode]
        self._program_fd = os.dup(program_fd)
        self._netns = _Netns(where)
        try:
            net.xdp_attach(ifindex, program_fd, self._flags | uapi.XDP_FLAGS_UPDATE_IF_NOEXIST)
        except BaseException:
            self._let_go()
            raise

    def update(self, program_fd: int) -> None:
        """See `Way`."""
        self._exchange(program_fd)
        before, self._program_fd = self._program_fd, os.dup(program_fd)
        os.close(before)

    def _exchange(self, program_fd: int) -> None:
        """Put another program in the place of ours, and only there."""
        with self._netns.enter():
            try:
                flags = self._flags | uapi.XDP_FLAGS_REPLACE
                net.xdp_attach(self._ifindex, program_fd, flags, expected_fd=self._program_fd)
            except UnsupportedError:  # before 5.7 nobody can name the program to be replaced
                net.xdp_attach(self._ifindex, program_fd, self._flags)

    def close(self, *, detach: bool) -> None:
        """See `Way`."""
        try:
            if detach:
                self._exchange(-1)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        os.close(self._program_fd)
        self._netns.close()


class ByFilter:
    """A bpf filter on a clsact qdisc."""

    via = "clsact"
    link_fd = None

    def __init__(self, ifindex: int, hook: str, program_fd: int, where: NetnsRef, priority: int) -> None:
        self._ifindex, self._hook = ifindex, hook
        self._netns = _Netns(where)
        try:
            net.tc_hook_create(ifindex)
            made = net.tc_attach(ifindex, hook, program_fd, priority=priority, handle=1 if priority else 0)
        except BaseException:
            self._netns.close()
            raise
        self.priority, self.handle = made.priority, made.handle

    def update(self, program_fd: int) -> None:
        """See `Way`: cls_bpf_change() swaps it under RCU."""
        with self._netns.enter():
            net.tc_attach(
                self._ifindex,
                self._hook,
                program_fd,
                priority=self.priority,
                handle=self.handle,
                replace=True,
            )

    def close(self, *, detach: bool) -> None:
        """See `Way`; the qdisc stays, others may use it."""
        try:
            if detach:
                with self._netns.enter():
                    net.tc_detach(self._ifindex, self._hook, priority=self.priority, handle=self.handle)
        except AttachError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV, errno.EINVAL}:  # gone meanwhile
                raise
        finally:
            self._netns.close()


class _Netns:
    """A namespace that is held open: what rtnetlink attached must be detached from inside."""

    def __init__(self, where: NetnsRef) -> None:
        self._fd = namespaces.open_nsfs(where)
        self._ref = where._replace(path=f"/proc/self/fd/{self._fd}", current=False)

    def enter(self) -> AbstractContextManager[NetnsRef]:
        return namespaces.enter(self._ref)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def by_section(program_pointer: int, name: str, section: str, action: str) -> ByLibbpf:
    """Attach a program where its section name says (bpf_program__attach).

    Raises:
        UnsupportedError: libbpf knows no way for this section, or the kernel has no such hook.
        AttachError: the kernel refused.
        PrivilegeError: CAP_PERFMON or CAP_BPF is missing.
    """
    with capture() as lines:
        try:
            return ByLibbpf(int(lib().bpf_program__attach(program_pointer)))
        except CallError as why:
            raise _refused(why, name, section, action, lines) from why


def _refused(why: CallError, name: str, section: str, action: str, lines: list[str]) -> KernelError:
    said = next((one.partition("libbpf: ")[2] or one for one in reversed(lines)), None)
    if why.code in {errno.EOPNOTSUPP, errno.ESRCH, errno.ENOENT, 524}:
        return UnsupportedError(
            action,
            needs=f"a hook that section {section} names",
            has="a kernel or libbpf that knows none",
            errno=why.code,
            hint=said,
        )
    return attach_failed(action, why, program=name, needs=("CAP_PERFMON", "CAP_BPF"))
