"""NAPI settings of a whole device, where netlink has none: /sys/class/net/D of the thread's own network namespace.

gro_flush_timeout is old, napi_defer_hard_irqs came with 5.9, threaded with 5.12; the netdev family sets single NAPIs
from 6.13 on, and threaded from 6.17 on.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from xdpctl.errors import NetlinkError, PrivilegeError, UnsupportedError, errno_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILES = {
    "threaded": "threaded",
    "defer-hard-irqs": "napi_defer_hard_irqs",
    "gro-flush-timeout": "gro_flush_timeout",
}
"""Setting -> file; timeouts are nanoseconds."""


@contextlib.contextmanager
def _folder() -> Iterator[tuple[int, bool]]:
    """(class/net of some sysfs, whether it certainly is this namespace's)."""
    from xdpctl.libbpf import detached

    certain = True
    try:
        root = detached.sysfs()
    except OSError:
        certain = False  # no right to mount: the one that is there, if it fits
        root = os.open("/sys", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder = os.open("class/net", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    finally:
        os.close(root)
    try:
        yield folder, certain
    finally:
        os.close(folder)


def _text(folder: int, path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 64).decode(errors="replace").strip()
    finally:
        os.close(descriptor)


def _one(folder: int, name: str, ifindex: int, *, certain: bool) -> dict[str, int]:
    if "/" in name or (not certain and _text(folder, f"{name}/ifindex") != str(ifindex)):
        return {}
    found = {}
    for setting, file in FILES.items():
        with contextlib.suppress(OSError, ValueError):
            found[setting] = int(_text(folder, f"{name}/{file}"))
    return found


def read(links: Iterable[tuple[int, str]]) -> dict[int, dict[str, int]]:
    """Settings by ifindex; what a kernel or device does not have is left out.

    Args:
        links: (ifindex, name) each.

    Raises:
        NetlinkError: there is no sysfs at all.
    """
    found: dict[int, dict[str, int]] = {}
    wanted = list(links)
    if not wanted:
        return found
    try:
        with _folder() as (folder, certain):
            for ifindex, name in wanted:
                with contextlib.suppress(OSError):
                    settings = _one(folder, name, ifindex, certain=certain)
                    if settings:
                        found[ifindex] = settings
    except OSError as error:
        raise NetlinkError(
            f"reading /sys/class/net: {errno_text(error.errno or 0)}", errno=error.errno
        ) from error
    return found


def write(ifindex: int, name: str, setting: str, value: int) -> None:
    """Change a setting of all NAPIs of a device.

    Raises:
        UnsupportedError: this kernel has no such file, or /sys is another namespace's.
        PrivilegeError: not permitted, or /sys is mounted read-only.
        NetlinkError: the kernel refused.
    """
    action = f"setting {setting} of {name}"
    try:
        with _folder() as (folder, certain):
            if not certain and _text(folder, f"{name}/ifindex") != str(ifindex):
                raise UnsupportedError(action, needs="a /sys of its network namespace", has="another one's")
            descriptor = os.open(f"{name}/{FILES[setting]}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
            try:
                os.write(descriptor, str(value).encode())
            finally:
                os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise PrivilegeError(action, capability="CAP_NET_ADMIN", errno=error.errno) from error
        if error.errno == errno.EROFS:
            raise PrivilegeError(
                action,
                capability="a writable /sys",
                errno=error.errno,
                hint="it is mounted read-only, as in most containers: run it outside of the container",
            ) from error
        if error.errno == errno.ENOENT:
            raise UnsupportedError(action, needs="a newer kernel", has="one without that file") from error
        # dev_set_threaded() of a device without NAPIs
        bare = setting == "threaded" and error.errno == errno.EOPNOTSUPP
        hint = (
            "it has no NAPI now; a veth gets one with native XDP, or with GRO while it is up"
            if bare
            else None
        )
        raise NetlinkError(
            f"{action}: {errno_text(error.errno or 0)}", errno=error.errno, hint=hint
        ) from error
