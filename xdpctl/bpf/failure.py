"""What a refused BPF call means: errno, capabilities and the interface's name, put into one of our errors."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import AttachError, KernelError, MapError, PrivilegeError, errno_text

if TYPE_CHECKING:
    from xdpctl.libbpf.library import CallError

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""Bits of CapEff (linux/capability.h)."""


def lacks(*capabilities: str) -> list[str]:
    """Those of `capabilities` that this thread does not have in effect; CAP_SYS_ADMIN stands for the BPF ones."""
    try:
        with Path("/proc/thread-self/status").open("rb") as status:
            effective = next(int(line.split()[1], 16) for line in status if line.startswith(b"CapEff:"))
    except (OSError, StopIteration, ValueError):
        return []
    admin = bool(effective >> CAPABILITIES["CAP_SYS_ADMIN"] & 1)
    return [
        name
        for name in capabilities
        if not effective >> CAPABILITIES[name] & 1 and not (admin and name in {"CAP_BPF", "CAP_PERFMON"})
    ]


def denied(action: str, why: CallError, *capabilities: str) -> PrivilegeError | None:
    """A PrivilegeError if `why` is EPERM and one of `capabilities` is indeed missing, else None."""
    if why.code != errno.EPERM:
        return None
    missing = lacks(*capabilities)
    if missing:
        return PrivilegeError(action, capability=" and ".join(missing), errno=why.code)
    bpf = [name for name in capabilities if name != "CAP_NET_ADMIN"]
    if bpf and in_user_namespace():
        return PrivilegeError(
            action,
            capability=f"{' and '.join(bpf)} in the initial user namespace, not in one below it",
            errno=why.code,
            hint="run it on the host, or in a container that shares its user namespace",
        )
    return None


def in_user_namespace() -> bool:
    """Whether this process is root of something less than the machine: bpf(2) asks for the initial user namespace."""
    try:
        return Path("/proc/self/uid_map").read_bytes().split() != [b"0", b"0", b"4294967295"]
    except OSError:
        return False


def refused(action: str, why: CallError, *capabilities: str) -> KernelError:
    """The error for a call that nothing more special is known about."""
    return denied(action, why, *capabilities) or KernelError(
        f"{action}: {errno_text(why.code)}", errno=why.code
    )


def interface(ifindex: int) -> str:
    """Name of the interface in this thread's namespace, or ``ifindex N`` where there is none."""
    import socket  # 5 ms that only an error needs

    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"ifindex {ifindex}"


def attach_failed(
    action: str,
    why: CallError,
    *,
    ifindex: int | None = None,
    program: str | None = None,
    mode: str | None = None,
    extack: str | None = None,
    needs: tuple[str, ...] = ("CAP_NET_ADMIN", "CAP_BPF"),
) -> KernelError:
    """The error for a refused attach, update or detach; `action` reads on into the errno ("attach ... to eth0")."""
    lost = denied(action, why, *needs)
    if lost:
        return lost
    reason = f"{extack}: {errno_text(why.code)}" if extack else errno_text(why.code)
    return AttachError(
        f"{action}: {reason}",
        program=program,
        interface=interface(ifindex) if ifindex else None,
        mode=mode,
        errno=why.code,
        extack=extack,
    )


def map_failed(action: str, why: CallError, hint: str | None = None) -> KernelError:
    """The error for a refused map operation."""
    lost = denied(action, why, "CAP_BPF")
    return lost or MapError(f"{action}: {errno_text(why.code)}", errno=why.code, hint=hint)
