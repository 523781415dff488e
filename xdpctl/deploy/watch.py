"""Drift as it happens: the kernel's notifications wake a look at the machine, nothing is polled.

rtnetlink tells of links (and of XDP attached by netlink), qdiscs and filters, ethtool netlink of device settings, and
inotify of pins. A link that somebody detaches by force (BPF_LINK_DETACH) tells nobody: that is seen with the next
event, or at the next beat of systemd's watchdog, which asks for a look anyway.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.attach import ownership, runstate
from xdpctl.bpf import pins
from xdpctl.deploy import state
from xdpctl.errors import NotFoundError, PrivilegeError
from xdpctl.libbpf import inotify
from xdpctl.netlink import netns
from xdpctl.netlink.notify import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

QUIET_SECONDS = 0.2
"""Events that come together are looked at together."""
DONE, LATER = "done", "later"
LATER_SECONDS = 1.0
"""Between looks while another command keeps the machine locked, which ends without a word."""
MOST_SECONDS = 2.0
"""A machine that never falls quiet is looked at all the same."""


def watch(names: Sequence[str], look: Callable[[list[str]], Any]) -> None:
    """Look at deployments now, and again whenever something was told; until SIGTERM or Ctrl-C.

    Args:
        names: the deployments.
        look: called with them, and may take some out; DONE ends it, LATER asks to be called again soon.

    Raises:
        XdpctlError: it can't be listened, or the look fails.
    """
    with _Stopping() as stopping:
        try:
            _until_stopped(list(names), look, stopping)
        except KeyboardInterrupt:
            if not stopping.came:
                raise
            _notify("STOPPING=1")  # SIGTERM came amidst healing, which has taken back what it had begun


class _Stopping:
    """Whether SIGTERM came; a pipe wakes up who waits, which a handler alone does not (PEP 475)."""

    def __init__(self) -> None:
        self.came = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._come)
        return self

    def _come(self, *_: object) -> None:
        self.came = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        os.close(self.fd)
        os.close(self._write)


def _until_stopped(chosen: list[str], look: Callable[[list[str]], Any], stopping: _Stopping) -> None:
    beat = beat_seconds()
    told_ready = False

    def looked() -> float:
        """Seconds until the next look, if nothing comes before."""
        said = look(chosen)
        stopping.came = stopping.came or said == DONE
        return LATER_SECONDS if said == LATER else beat if beat is not None else 3600.0

    while not stopping.came:
        # everything is opened anew where namespaces and folders may have come or gone
        with Watcher(_spaces()) as watcher:
            fd = inotify.watch(_folders(chosen))
            try:
                watcher.also(fd)
                watcher.also(stopping.fd)
                patience = looked()
                if not told_ready:
                    _notify("READY=1")
                    told_ready = True
                while not stopping.came:
                    _notify("WATCHDOG=1")
                    if watcher.wait(patience):
                        spent = 0.0
                        while not stopping.came and watcher.wait(QUIET_SECONDS) and spent < MOST_SECONDS:
                            spent += QUIET_SECONDS
                        _notify("WATCHDOG=1")
                        break
                    _notify("WATCHDOG=1")
                    if beat is not None or patience == LATER_SECONDS:
                        patience = looked()
            finally:
                os.close(fd)
    _notify("STOPPING=1")


def _spaces() -> list[Any]:
    """Namespaces to listen in: all that the caller may enter (CAP_SYS_ADMIN), or its own alone."""
    found = []
    for one in netns.discover(include_processes=False):
        try:
            with netns.enter(one if not one.current else None):
                found.append(one)
        except (PrivilegeError, NotFoundError):
            continue
    return found


def _folders(names: Sequence[str]) -> list[Path]:
    """Where pins, names of namespaces and the journal of another command come and go."""
    found = [Path(netns.RUN_NETNS), runstate.folder(), pins.root(), ownership.links_folder()]
    for top in (ownership.links_folder(), *(state.pin_folder(one) for one in names)):
        found += [Path(folder) for folder, _, _ in os.walk(top)]
    return [one for one in found if one.is_dir()]


def beat_seconds() -> float | None:
    """Half the time that systemd's watchdog waits for a beat (sd_watchdog_enabled(3)); None: there is none."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdecimal() and int(text) else None


def _notify(text: str) -> None:
    """Tell systemd (sd_notify(3)), where it started us."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(text.encode(), f"\0{where[1:]}" if where.startswith("@") else where)
        except OSError:
            return
