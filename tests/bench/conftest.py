"""Benches run in namespaces of their own, so that no measured command needs a wrapper to be safe."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import bench
import pytest

CLONE_NEWNS, CLONE_NEWNET, MS_REC, MS_PRIVATE = 0x00020000, 0x40000000, 0x4000, 0x40000


@pytest.fixture(scope="session", autouse=True)
def own_namespaces():
    """Private mounts, an empty network and a bpffs for this process; all ends with it."""
    assert os.geteuid() == 0, "benches need root"
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS | CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
    assert libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None) == 0
    assert libc.mount(b"bpf", b"/sys/fs/bpf", b"bpf", 0, None) == 0
    for folder in ("/run/netns", "/run/xdpctl"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        assert libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None) == 0
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def pytest_sessionfinish():
    if bench.MEASURED:
        print("\n" + bench.save())
