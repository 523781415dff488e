"""XDP modes: what each asks of the kernel, when ``auto`` may fall back, and why a link was refused (net/core/dev.c)."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from xdpctl.bpf import extack
from xdpctl.bpf.link import link_xdp
from xdpctl.errors import AttachError, ConfigError
from xdpctl.libbpf import uapi

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdpctl.bpf.link import Link

T = TypeVar("T")

MODES = ("native", "generic", "offload", "auto")
CONFLICTS = frozenset({errno.EBUSY, errno.EEXIST, errno.ENODEV, errno.EPERM, errno.ENOMEM, errno.EFAULT})
"""Refusals that another mode would not cure: a fallback to generic would only hide them."""


def check(mode: str) -> str:
    """`mode`, if it is one.

    Raises:
        ConfigError: it is none.
    """
    if mode not in MODES:
        raise ConfigError(f"no such XDP mode: {mode}", hint=f"one of {', '.join(MODES)}")
    return mode


def in_mode(mode: str, attach: Callable[[str], T]) -> tuple[T, str | None]:
    """Attach in a mode; for ``auto`` natively, or else generic with the reason told.

    Args:
        mode: one of `MODES`.
        attach: takes native, generic or offload.

    Returns:
        what `attach` did, and a sentence that says why it is generic where that was not asked for.

    Raises:
        AttachError: refused.
    """
    if mode != "auto":
        return attach(mode), None
    try:
        return attach("native"), None
    except AttachError as error:
        if error.errno in CONFLICTS:
            raise
        made = attach("generic")
        why = error.extack or error.message
        return made, f"native mode was refused ({why}), so it runs in generic mode, which is slower"


def link(program_fd: int, ifindex: int, mode: str) -> Link:
    """Attach by a bpf_link; a refusal tells the kernel's reason, before Linux 6.6 too.

    Raises:
        AttachError, UnsupportedError, PrivilegeError: as `link_xdp`.
    """
    flags = uapi.XDP_MODE_FLAGS[mode]
    try:
        return link_xdp(program_fd, ifindex, flags)
    except AttachError as error:
        if error.extack is None and error.errno not in CONFLICTS and not _kernel_traces_reasons():
            error.extack = extack.ask_rtnetlink(program_fd, ifindex, flags)
            if error.extack is not None:
                error.message = error.message.replace(": ", f": {error.extack}: ", 1)
        raise


def _kernel_traces_reasons() -> bool:
    """Whether this kernel has the tracepoint that told the reason, if there was one to tell (6.6)."""
    events = Path("/sys/kernel/tracing/events/xdp")
    if events.is_dir():
        return (events / extack.TRACEPOINT).is_dir()
    import os

    release = os.uname().release.split(".")
    return tuple(int(one) for one in release[:2] if one.isdecimal()) >= (6, 6)
