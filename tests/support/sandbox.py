"""Commands in namespaces of their own: a process holds private mounts and an empty network, commands join it.

It holds a PID namespace too, so that nothing sees the network namespaces of other processes.

Unlike the kernel tests' fixture this leaves the pytest process where it is, and its /sys belongs to the new
network namespace, as on a machine of its own. All ends with the holder, named namespaces and pins included.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
set -e
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
for folder in /run/netns /run/xdpctl; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
ip link set lo up
echo ready
exec sleep 1800
"""


class Sandbox:
    """Runs commands inside the held namespaces, in the project's folder, with .venv/bin first in PATH."""

    def __init__(self, holder: int) -> None:
        self.join = ("nsenter", "--target", str(holder), "--mount", "--net", "--pid", f"--wdns={ROOT}")

    def run(self, command: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run one line of shell; stdout and stderr come together, in the order written."""
        return subprocess.run(
            [*self.join, "bash", "-c", command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            env=_environment(),
        )

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start one line of shell and leave it running; it ends with the sandbox at the latest."""
        return subprocess.Popen(
            [*self.join, "bash", "-c", f"exec {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{ROOT}/.venv/bin:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
    }


@contextlib.contextmanager
def sandbox() -> Iterator[Sandbox]:
    """Namespaces with an lo that is up, a bpffs, and nothing else."""
    holder = subprocess.Popen(
        [*"unshare --mount --net --pid --fork --kill-child --mount-proc".split(), "sh", "-c", HOLD],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n", "could not make namespaces"
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        yield Sandbox(int(children[0]))
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
