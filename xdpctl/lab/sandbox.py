"""A place to make mistakes in: mounts and network namespaces that end with the process, however it ends.

/run/netns, /run/xdpctl and /sys/fs/bpf are mounts of our own in a mount namespace of our own (unshare(2),
mount_namespaces(7)), so named namespaces, their interfaces, and pinned programs and links are held by nothing
but this process: when it is gone, even by SIGKILL, the kernel takes all of it away.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import ConfigError, PrivilegeError, XdpctlError
from xdpctl.libbpf import libc
from xdpctl.netlink import netns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

MOUNTS = (
    ("sysfs", "/sys"),  # a new one shows the new network namespace's interfaces
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("tmpfs", "/run/netns"),
    ("tmpfs", "/run/xdpctl"),
)


class LabError(XdpctlError):
    """A step of a lab did not go as it should have."""


class Sandbox:
    """Private mounts and an empty network namespace, while it is open; commands run inside it.

    Raises:
        PrivilegeError: on entering, without root.
    """

    def __init__(self) -> None:
        self._back: list[tuple[int, int]] = []
        self._folder = ""

    def __enter__(self) -> Self:
        self._folder = os.getcwd()  # noqa: PTH109 - kept to go back to, as it is
        before = [
            (os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), flag)
            for kind, flag in (("net", libc.CLONE_NEWNET), ("mnt", libc.CLONE_NEWNS))
        ]
        try:
            libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET)
        except OSError as error:
            for descriptor, _ in before:
                os.close(descriptor)
            raise _refused(error) from error
        self._back = before
        try:
            libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
            for kind, where in MOUNTS:
                Path(where).mkdir(parents=True, exist_ok=True)
                libc.mount(kind, where, kind)
        except OSError as error:
            self.__exit__()
            raise _refused(error) from error
        except BaseException:
            self.__exit__()
            raise
        self.run("ip link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor, flag in self._back:
            libc.setns(descriptor, flag)
            os.close(descriptor)
        self._back = []
        with contextlib.suppress(OSError):  # going to another mount namespace leaves us in its root
            os.chdir(self._folder)

    def silence(self, name: str) -> None:
        """Switch IPv6 off in a named namespace; see `silence`."""
        silence(name)

    def run(
        self,
        command: str,
        *,
        inside: str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in here; see `run`."""
        return run(command, inside=inside, check=check, env=env)


def silence(name: str) -> None:
    """Switch IPv6 off in a named namespace, so that its interfaces send nothing of their own."""
    with netns.enter(name), contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        for which in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def run(
    command: str,
    *,
    inside: str | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command, split as a shell would but run by none; stdout and stderr come together.

    Args:
        command: the command line; this interpreter's own folder is searched first, so `xdpctl` is ours.
        inside: a named namespace to run it in, entered by setns alone: ``ip netns exec`` hides the bpffs.
        check: whether to raise when it fails.
        env: variables to add.

    Raises:
        ConfigError: no such command.
        LabError: it failed, or took longer than a minute.
    """
    argv = shlex.split(command)
    if inside is not None:
        argv = ["nsenter", f"--net=/run/netns/{inside}", *argv]
    folder = Path(sys.executable).parent
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            env={
                **os.environ,
                "PATH": f"{folder}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
                "LC_ALL": "C.UTF-8",
                **(env or {}),
            },
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"{argv[0]}: no such command", hint="make setup installs what is missing"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{command}: not finished after {error.timeout:.0f} s") from error
    if check and done.returncode:
        raise LabError(f"{command}: ended with {done.returncode}: {done.stdout.strip()}")
    return done


def _refused(error: OSError) -> PrivilegeError:
    return PrivilegeError("making namespaces and mounts", capability="CAP_SYS_ADMIN", errno=error.errno)
