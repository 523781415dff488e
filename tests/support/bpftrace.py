"""bpftrace as the peer of a bench: the machine's own, or Debian's package unpacked privately; nothing is installed."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("bpftrace", "libbpfcc")
"""Its other libraries are those that clang brings."""
READY = 'interval:ms:300 { printf("ready\\n"); }'
"""Probes are attached in their order, so this one last. (BEGIN would need uprobes.)"""
MOUNTED = """
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
exec "$0" -e "$1"
"""
WRAPPER = """#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH=$(dirname "$here"/unpacked/usr/lib/*/libbcc.so.0) exec "$here/unpacked/usr/bin/bpftrace" "$@"
"""


def command() -> str | None:
    """Path of a bpftrace that runs; None: there is none, and none could be fetched."""
    found = shutil.which("bpftrace")
    if found:
        return found
    base = os.environ.get("XDPCTL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "xdpctl")
    folder = Path(base).expanduser() / "bpftrace"
    wrapper = folder / "bpftrace"
    if not wrapper.exists() and not _fetched(folder, wrapper):
        return None
    works = subprocess.run([wrapper, "--version"], check=False, capture_output=True, timeout=30)
    return str(wrapper) if works.returncode == 0 else None


def _fetched(folder: Path, wrapper: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["apt-get", "download", "-q", *PACKAGES], cwd=folder, check=True, capture_output=True, timeout=120
        )
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
    return True


@contextlib.contextmanager
def running(path: str, script: str) -> Iterator[None]:
    """A script at work, once it says that its probes are attached; in mounts of its own."""
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", MOUNTED, path, script + READY],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        end, told = time.monotonic() + 30, b""
        while b"ready" not in told:
            assert process.poll() is None, "bpftrace ended"
            assert time.monotonic() < end, "bpftrace did not start"
            if select.select([process.stdout], [], [], 0.1)[0]:
                told += os.read(process.stdout.fileno(), 4096)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
