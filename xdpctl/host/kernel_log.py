"""What the kernel's log tells of page pools (syslog(2)): page_pool_release_retry() and page_pool_inflight() say it.

Also what netdev_wait_allrefs_any() says of a device that can't be removed (net/core/dev.c).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.errors import errno_name
from xdpctl.host.model import Problem
from xdpctl.host.pool_model import KernelMessage
from xdpctl.libbpf import libc

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_BYTES = 1 << 20
"""Of the log's end that are read; the kernel's default buffer has 256 KiB."""
MOST_MESSAGES = 64

_LINE = re.compile(r"^(?:<\d+>)?(?:\[\s*(?P<at>\d+\.\d+)\](?:\[\s*\w+\])? )?(?P<text>.*)$")
_STALLED = re.compile(r"stalled pool shutdown:? (?:id (\d+), )?(-?\d+) inflight (\d+) sec")
_NEGATIVE = re.compile(r"Negative\((-?\d+)\) inflight packet-pages")
_WAITS = re.compile(r"unregister_netdevice: waiting for (\S+) to become free\. Usage count = (-?\d+)")


def messages(problems: list[Problem]) -> tuple[KernelMessage, ...] | None:
    """What the log says now; None with a problem where it may not be read (kernel.dmesg_restrict)."""
    try:
        data = libc.kernel_log(MOST_BYTES)
    except OSError as error:
        why = (
            "needs CAP_SYSLOG (kernel.dmesg_restrict)"
            if error.errno == 1
            else str(errno_name(error.errno or 0))
        )
        problems.append(Problem("kernel log", why))
        return None
    return tuple(parse(data.decode(errors="replace").splitlines()))


def parse(lines: Iterable[str]) -> list[KernelMessage]:
    """The last message about each pool and device, oldest first, with how often it was said."""
    found: dict[tuple[str, object], KernelMessage] = {}
    for line in lines:
        one = _message(line)
        if one is None:
            continue
        key = (one.kind, one.pool_id if one.kind == "stalled" else one.device)
        before = found.pop(key, None)
        found[key] = one if before is None else replace(one, count=before.count + 1)
    return list(found.values())[-MOST_MESSAGES:]


def _message(line: str) -> KernelMessage | None:
    if "inflight" not in line and "unregister_netdevice" not in line:
        return None
    whole = _LINE.match(line)
    if whole is None:
        return None
    at = float(whole["at"]) if whole["at"] else None
    text = whole["text"]
    if (said := _STALLED.search(text)) is not None:
        number = int(said[1]) if said[1] else None
        return KernelMessage("stalled", text, at, number, int(said[2]), int(said[3]))
    if (said := _NEGATIVE.search(text)) is not None:
        return KernelMessage("negative", text, at, pages=int(said[1]))
    if (said := _WAITS.search(text)) is not None:
        return KernelMessage("device-waits", text, at, device=said[1])
    return None
