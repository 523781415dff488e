"""``xdpctl`` as a process of its own without the start of an interpreter: a warm process forks for each command line.

The warm process has imported the command line and run nothing, so each command starts from the state that a fresh
interpreter has after its imports: no cache filled (but, in a guest, the kernel's types and symbols), no library opened,
no thread. A guest of the matrix spends seconds
on starting an interpreter; tests about starting (imports, closed streams, privileges, signals) start a real one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

THIRD = ("typer", "rich.console", "rich.table", "pydantic")
"""Libraries whose import takes long; numpy's is left to the command that uses it, for its threads."""


WHERE = "XDPCTL_ZYGOTE"
"""Environment: socket of a warm process for all workers, for an emulated CPU takes a minute to import everything."""
PATIENCE = 300.0
"""Seconds until a warm process must have imported everything."""


def start(socket_path: Path) -> subprocess.Popen[bytes]:
    """Start a warm process that takes any number of workers; the caller kills it at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(socket_path))
        listening.listen(16)
        return _process(listening, "all")


def _process(wire: socket.socket, whom: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, str(wire.fileno()), whom],
        pass_fds=[wire.fileno()], stdin=subprocess.DEVNULL, cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip


class Zygote:
    """A warm process: one of its own, or a part of the one that XDPCTL_ZYGOTE names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._process = None
        if WHERE in os.environ:
            self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._wire.connect(os.environ[WHERE])
        else:
            self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = _process(theirs, "one")
        self._wire.settimeout(PATIENCE)
        assert self._answer() == 0

    def run(
        self, argv: list[str], *, cwd: Path, env: dict[str, str], netns: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one command line with stdin empty; its output comes back as text, as `subprocess.run` gives it."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        # where the caller is now, as a child of its own would be
        here = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns"
        asked = {
            "argv": argv, "cwd": str(cwd), "env": env, "out": str(out), "err": str(err), "mounts": f"{here}/mnt",
            "netns": f"{here}/net" if netns is None else f"/run/netns/{netns}",
        }  # fmt: skip
        self._wire.settimeout(timeout)
        self._wire.send(json.dumps(asked).encode())
        pid = self._answer()
        try:
            code = self._answer()
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._wire.settimeout(20)
            self._answer()
            raise subprocess.TimeoutExpired(
                ["xdpctl", *argv], timeout, out.read_text(), err.read_text()
            ) from None
        texts = [path.read_text() for path in (out, err)]
        out.unlink()
        err.unlink()
        return subprocess.CompletedProcess(["xdpctl", *argv], code, *texts)

    def _answer(self) -> int:
        answer = self._wire.recv(64)
        if not answer:
            raise AssertionError("the warm process is gone")
        return int(answer)

    def close(self) -> None:
        """End the warm process."""
        self._wire.close()
        if self._process is None:
            return
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


def read_kernel() -> None:
    """What each tracer reads first, seconds of an emulated CPU each time: the kernel's types and symbols."""
    from xdpctl.btf import kernel
    from xdpctl.errors import XdpctlError
    from xdpctl.trace import symbols

    symbols.symbols()
    with contextlib.suppress(XdpctlError):  # a kernel that describes no types
        kernel.vmlinux().find("sk_buff")


def _serve(wire: socket.socket, whom: str) -> None:
    for name in THIRD:
        __import__(name)
    import xdpctl

    for module in pkgutil.walk_packages(xdpctl.__path__, "xdpctl."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
    if whom == "all":
        __import__("numpy")  # without threads: tests/conftest.py
        read_kernel()
    # a collection would touch, and so copy, all that the children share with this process
    gc.collect()
    gc.freeze()
    if whom == "one":
        _serve_one(wire)
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that ended need no farewell
    while True:
        worker, _ = wire.accept()
        if os.fork() == 0:
            wire.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve_one(worker)
            os._exit(0)
        worker.close()


def _serve_one(wire: socket.socket) -> None:
    wire.send(b"0")
    while asked := wire.recv(1 << 20):
        pid = os.fork()
        if pid == 0:
            wire.close()
            _command(json.loads(asked))
        wire.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        wire.send(str(os.waitstatus_to_exitcode(status)).encode())


def _command(asked: dict) -> None:
    """In the child: become the command."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _enter(asked["mounts"], 0x00020000)
        for number, name in ((1, "out"), (2, "err")):
            opened = os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="strict", line_buffering=False)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        _enter(asked["netns"], 0x40000000)
        from xdpctl.cli.main import main

        sys.argv = ["xdpctl", *asked["argv"]]
        code = main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - a traceback is what the test is to see
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _enter(namespace: str, kind: int) -> None:
    """Join a namespace by its file; libc is asked here, so that nothing of xdpctl is warmer than imported."""
    import ctypes

    handle = os.open(namespace, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, kind):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(handle)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
