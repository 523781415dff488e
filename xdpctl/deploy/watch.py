"""Drift as it happens: the kernel's notifications wake a look at the machine, nothing is polled.

rtnetlink tells of links (and of XDP attached by netlink), qdiscs and filters, ethtool netlink of device settings, and
inotify of pins. A link that somebody detaches by force (BPF_LINK_DETACH) tells nobody: that is seen with the next
event, or at the next beat of systemd's watchdog, which asks for a look anyway.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.attach import ownership
from xdpctl.bpf import pins
from xdpctl.deploy import state
from xdpctl.libbpf import inotify
from xdpctl.netlink import netns
from xdpctl.netlink.notify import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUIET_SECONDS = 0.2
"""Events that come together are looked at together."""
MOST_SECONDS = 2.0
"""A machine that never falls quiet is looked at all the same."""


def watch(names: Sequence[str], look: Callable[[list[str]], Any]) -> None:
    """Look at deployments now, and again whenever something was told; until SIGTERM or Ctrl-C.

    Raises:
        XdpctlError: it can't be listened, or the look fails.
    """
    stopping = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    beat = _watchdog_seconds()
    chosen = list(names)
    told_ready = False
    while not stopping.is_set():
        # everything is opened anew where namespaces and folders may have come or gone
        with Watcher(_spaces()) as watcher:
            fd = inotify.watch(_folders(chosen))
            try:
                watcher.also(fd)
                look(chosen)
                if not told_ready:
                    _notify("READY=1")
                    told_ready = True
                while not stopping.is_set():
                    _notify("WATCHDOG=1")
                    if watcher.wait(beat if beat is not None else 3600.0):
                        spent = 0.0
                        while watcher.wait(QUIET_SECONDS) and spent < MOST_SECONDS:
                            spent += QUIET_SECONDS
                        break
                    if beat is not None:
                        look(chosen)
            finally:
                os.close(fd)


def _spaces() -> list[Any]:
    return list(netns.discover(include_processes=False))


def _folders(names: Sequence[str]) -> list[Path]:
    """Where pins and names of namespaces come and go."""
    found = [Path(netns.RUN_NETNS), pins.root(), ownership.links_folder()]
    for top in (ownership.links_folder(), *(state.pin_folder(one) for one in names)):
        found += [Path(folder) for folder, _, _ in os.walk(top)]
    return [one for one in found if one.is_dir()]


def _watchdog_seconds() -> float | None:
    """Half the time that systemd waits for a beat (sd_watchdog_enabled(3)); None: it does not."""
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
