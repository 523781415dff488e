"""XDP and clsact attachments of a device by netlink, through libbpf's netlink.c (rtnetlink IFLA_XDP, TCA_BPF)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import extack
from xdpctl.bpf.failure import attach_failed, interface
from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.log import capture
from xdpctl.libbpf.opts import TcHook, TcOpts, XdpAttachOpts, XdpQueryOpts

if TYPE_CHECKING:
    from xdpctl.errors import KernelError


class XdpQuery(NamedTuple):
    """XDP of one device. None: nothing there, or not told."""

    mode: str
    """none, native, generic, offload, or multi (more than one at once)."""
    native_id: int | None
    generic_id: int | None
    offload_id: int | None
    features: frozenset[str] | None
    """Of uapi.XDP_FEATURES; None: libbpf before 1.2 or a kernel before 6.3 does not say."""
    zc_max_segs: int | None
    """Fragments that AF_XDP zero-copy takes; None: libbpf before 1.3, a kernel before 6.6, or no zero-copy."""


def xdp_attach(ifindex: int, program_fd: int, flags: int = 0, *, expected_fd: int | None = None) -> None:
    """Attach or detach an XDP program by netlink (do_setlink, dev_change_xdp_fd in net/core).

    Args:
        ifindex: in this thread's network namespace.
        program_fd: of the program; -1 detaches. Detaching where nothing is, or in another mode, does nothing
            and is no error.
        flags: uapi.XDP_FLAGS_*: a mode, or 0 for the kernel's choice; UPDATE_IF_NOEXIST refuses (EBUSY) to replace.
        expected_fd: replace or detach only this program (Linux 5.7), else EEXIST.

    Raises:
        AttachError: the kernel refused; its sentence in `extack`.
        UnsupportedError: `expected_fd` on a kernel that does not know it.
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    opts = XdpAttachOpts(old_prog_fd=expected_fd) if expected_fd is not None else None
    with capture() as lines:
        try:
            lib().bpf_xdp_attach(ifindex, program_fd, flags, opts)
        except CallError as why:
            said = extack.from_log(lines)
            if expected_fd is not None and why.code == errno.EINVAL and said is None:
                from xdpctl.bpf.features import probe

                if not probe("xdp_link"):  # of 5.9, the nearest that can be tried
                    raise UnsupportedError(
                        "naming the XDP program to be replaced", needs="Linux 5.7", has="an older one"
                    ) from why
            mode = next((mode for mode, bit in uapi.XDP_MODE_FLAGS.items() if flags & bit), None)
            what = "detach of XDP from" if program_fd < 0 else "attach to"
            raise attach_failed(
                f"{what} {interface(ifindex)}" + (f" in {mode} mode" if mode else ""),
                why,
                ifindex=ifindex,
                mode=mode,
                extack=said,
                needs=("CAP_NET_ADMIN",),
            ) from why


def xdp_query(ifindex: int) -> XdpQuery:
    """What XDP a device runs and can (bpf_xdp_query); it dumps all links: for one device, not for many.

    Raises:
        AttachError: the kernel refused.
    """
    opts = XdpQueryOpts()
    try:
        lib().bpf_xdp_query(ifindex, 0, opts)
    except CallError as why:
        raise attach_failed(f"query of XDP on {interface(ifindex)}", why, ifindex=ifindex) from why
    mode = uapi.XDP_ATTACHED[opts.attach_mode] if opts.attach_mode < len(uapi.XDP_ATTACHED) else "multi"
    version = lib().version
    # one program: the kernel repeats its id in IFLA_XDP_PROG_ID and in that of its mode (rtnl_xdp_fill)
    features = frozenset(name for bit, name in enumerate(uapi.XDP_FEATURES) if opts.feature_flags >> bit & 1)
    from xdpctl.bpf.features import probe

    told = version >= (1, 2) and (bool(opts.feature_flags) or probe("netdev_genl"))
    return XdpQuery(
        mode=mode,
        native_id=opts.drv_prog_id or None,
        generic_id=opts.skb_prog_id or None,
        offload_id=opts.hw_prog_id or None,
        features=features if told else None,
        zc_max_segs=opts.xdp_zc_max_segs or None if version >= (1, 3) else None,
    )


class ClsactFilter(NamedTuple):
    """A bpf classifier in direct-action mode on clsact."""

    handle: int
    priority: int
    program_id: int


def _hook(ifindex: int, hook: str) -> TcHook:
    points = {"ingress": uapi.BPF_TC_INGRESS, "egress": uapi.BPF_TC_EGRESS}
    points["both"] = points["ingress"] | points["egress"]
    return TcHook(ifindex=ifindex, attach_point=points[hook])


def tc_hook_create(ifindex: int) -> bool:
    """Give a device a clsact qdisc.

    Returns:
        False where it has one already.

    Raises:
        AttachError: the kernel refused (ENOENT: no CONFIG_NET_SCH_INGRESS; EEXIST is not an error here).
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    with capture() as lines:
        try:
            lib().bpf_tc_hook_create(_hook(ifindex, "both"))
        except CallError as why:
            if why.code == errno.EEXIST:
                return False
            raise _tc_failed(f"add of clsact to {interface(ifindex)}", why, ifindex, lines) from why
    return True


def tc_hook_destroy(ifindex: int) -> bool:
    """Take the clsact qdisc from a device, WITH ALL its filters of both directions, anybody's.

    Returns:
        False where it has none.

    Raises:
        AttachError: the kernel refused.
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    with capture() as lines:
        try:
            lib().bpf_tc_hook_destroy(_hook(ifindex, "both"))
        except CallError as why:
            if why.code in {
                errno.ENOENT,
                errno.EINVAL,
            }:  # EINVAL: no such qdisc (qdisc_lookup in tc_get_qdisc)
                return False
            raise _tc_failed(f"removal of clsact from {interface(ifindex)}", why, ifindex, lines) from why
    return True


def tc_attach(
    ifindex: int, hook: str, program_fd: int, *, priority: int = 0, handle: int = 0, replace: bool = False
) -> ClsactFilter:
    """Add (or replace) a bpf filter in direct-action mode (tc_new_tfilter, cls_bpf_change); clsact must be there.

    Args:
        ifindex: in this thread's network namespace.
        hook: ``ingress`` or ``egress``.
        program_fd: of a sched_cls program.
        priority: 1 to 65535; 0: the kernel chooses (49152 and lower for each new one).
        handle: 0: the kernel chooses (1).
        replace: put it in the place of the filter with this priority and handle, atomically.

    Raises:
        AttachError: refused (EEXIST: taken; EINVAL or ENOENT: no clsact).
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    opts = TcOpts(
        prog_fd=program_fd,
        priority=priority,
        handle=handle,
        flags=uapi.BPF_TC_F_REPLACE if replace else 0,
    )
    with capture() as lines:
        try:
            lib().bpf_tc_attach(_hook(ifindex, hook), opts)
        except CallError as why:
            raise _tc_failed(f"attach to clsact {hook} of {interface(ifindex)}", why, ifindex, lines) from why
    return ClsactFilter(handle=opts.handle, priority=opts.priority, program_id=opts.prog_id)


def tc_detach(ifindex: int, hook: str, *, priority: int, handle: int) -> None:
    """Remove one bpf filter.

    Raises:
        AttachError: refused (ENOENT: there is none).
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    with capture() as lines:
        try:
            lib().bpf_tc_detach(_hook(ifindex, hook), TcOpts(priority=priority, handle=handle))
        except CallError as why:
            raise _tc_failed(
                f"detach from clsact {hook} of {interface(ifindex)}", why, ifindex, lines
            ) from why


def tc_query(ifindex: int, hook: str, *, priority: int, handle: int) -> ClsactFilter | None:
    """The bpf filter with this priority and handle, or None where there is none.

    Raises:
        AttachError: the kernel refused.
    """
    opts = TcOpts(priority=priority, handle=handle)
    with capture() as lines:
        try:
            lib().bpf_tc_query(_hook(ifindex, hook), opts)
        except CallError as why:
            if why.code in {errno.ENOENT, errno.EINVAL}:
                return None
            raise _tc_failed(f"query of clsact {hook} of {interface(ifindex)}", why, ifindex, lines) from why
    return ClsactFilter(handle=opts.handle, priority=opts.priority, program_id=opts.prog_id)


def _tc_failed(action: str, why: CallError, ifindex: int, lines: list[str]) -> KernelError:
    return attach_failed(
        action, why, ifindex=ifindex, extack=extack.from_log(lines), needs=("CAP_NET_ADMIN",)
    )
