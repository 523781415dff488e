"""Prometheus and promtool: the machine's own, or Debian's package unpacked privately; nothing is installed.

``python tests/support/prometheus.py`` fetches it ahead: kernel tests run where there is no way out.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

PACKAGE = "prometheus"
"""Installed, it would start a server of its own; both its programs need the C library alone."""
PROGRAMS = ("prometheus", "promtool")


def commands() -> dict[str, str] | None:
    """Program -> path of one that runs; None: they are not there, and could not be fetched."""
    found = {one: shutil.which(one) for one in PROGRAMS}
    if not all(found.values()):
        base = os.environ.get("XDPCTL_CACHE") or Path(
            os.environ.get("XDG_CACHE_HOME") or "~/.cache", "xdpctl"
        )
        folder = Path(base).expanduser() / PACKAGE
        if not folder.exists() and not _fetched(folder):
            return None
        found = {one: str(folder / "usr" / "bin" / one) for one in PROGRAMS}
    for path in found.values():
        try:
            works = subprocess.run([path, "--version"], check=False, capture_output=True, timeout=30)
        except OSError:
            return None
        if works.returncode:
            return None
    return {name: path for name, path in found.items() if path}


def _fetched(folder: Path) -> bool:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # the parent's network: a process of kernel tests has left its own for an empty one
    outside = ("nsenter", f"--net=/proc/{os.getppid()}/ns/net") if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        try:
            subprocess.run(
                [*outside, "apt-get", "download", "-q", PACKAGE],
                cwd=made,
                check=True,
                capture_output=True,
                timeout=120,
            )
            (package,) = Path(made).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, Path(made, "unpacked")], check=True, timeout=60)
            Path(made, "unpacked").rename(folder)
        except (OSError, ValueError, subprocess.SubprocessError):
            return folder.exists()  # another process has been faster
    return True


class Server:
    """A Prometheus on 127.0.0.1:9090 of the network namespace that it is made in; `folder` gets its data and log.

    Args:
        path: the program.
        configuration: of prometheus.yml, which YAML lets be JSON.
    """

    def __init__(self, path: str, folder: Path, configuration: str) -> None:
        file = folder / "prometheus.yml"
        file.write_text(configuration)
        self._log = folder / "prometheus.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    path, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn",
                    "--web.listen-address=127.0.0.1:9090",
                ],
                stdout=log, stderr=log, cwd=folder, env={**os.environ, "GOMAXPROCS": "1"},
            )  # fmt: skip

    def ready(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, self.said()
            with contextlib.suppress(OSError):
                if self._got("/-/ready")[0] == 200:
                    return
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def said(self) -> str:
        """Warnings and errors of its log."""
        return self._log.read_text()

    def ask(self, path: str, **words: str):
        """The data of an answer of its API; it must be one of success, without warnings."""
        status, text = self._got(f"/api/v1/{path}?{urlencode(words)}")
        told = json.loads(text)
        assert (status, told["status"]) == (200, "success"), (words, told)
        assert not told.get("warnings"), (words, told)
        return told["data"]

    def _got(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", 9090, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(30)


if __name__ == "__main__":
    sys.exit(commands() is None)
