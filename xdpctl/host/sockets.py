"""Sockets with data that nobody has read, by network namespace: /proc/thread-self/net/{udp,tcp,raw,packet}.

A frame in a receive queue keeps its page (skb->head_frag, or a fragment) from going back to its pool.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.host.pool_model import UnreadSocket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

TABLES = ("udp", "udp6", "tcp", "tcp6", "raw", "raw6", "packet")
MOST = 256
"""Sockets told, those with the most unread first."""


def unread(netns: int) -> list[UnreadSocket]:
    """Those of the namespace that the calling thread is in, the fullest first; without their processes."""
    found: list[UnreadSocket] = []
    for table in TABLES:
        with contextlib.suppress(OSError):
            text = Path("/proc/thread-self/net", table).read_text()
            found += parse(table, text, netns)
    return sorted(found, key=lambda one: -one.unread_bytes)[:MOST]


def parse(table: str, text: str, netns: int) -> Iterator[UnreadSocket]:
    """The rows of one table whose receive queue is not empty."""
    for line in text.splitlines()[1:]:
        row = line.split()
        with contextlib.suppress(ValueError, IndexError):
            if table == "packet":  # sk RefCnt Type Proto Iface R Rmem User Inode
                waiting, inode, local = int(row[6]), int(row[8]), None
            else:  # sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode
                # a listening TCP socket tells connections here, no bytes
                listens = table.startswith("tcp") and row[3] == "0A"
                waiting = 0 if listens else int(row[4].partition(":")[2], 16)
                inode, local = int(row[9]), address(row[1])
            if waiting > 0:
                yield UnreadSocket(netns, table, local, waiting, inode)


def address(text: str) -> str:
    """``020200C0:0386`` as ``192.0.2.2:902``: words of 32 bits in this machine's byte order.

    Raises:
        ValueError: it is no such address.
    """
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if len(raw) not in (4, 16) or not port:
        raise ValueError(text)
    count = len(raw) // 4
    packed = (
        struct.pack(f"={count}I", *struct.unpack(f">{count}I", raw)) if sys.byteorder == "little" else raw
    )
    if count == 1:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]:{int(port, 16)}"


def with_processes(sockets: Collection[UnreadSocket]) -> tuple[UnreadSocket, ...]:
    """The same, each with a process that holds it open, where /proc tells."""
    wanted = {one.inode for one in sockets}
    if not wanted:
        return tuple(sockets)
    holders = _holders(wanted)
    return tuple(replace(one, process=holders.get(one.inode)) for one in sockets)


def _holders(wanted: set[int]) -> Mapping[int, str]:
    """Socket inode -> ``name (pid)`` of a process that has it open."""
    found: dict[int, str] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"{entry.path}/fd"):
                with contextlib.suppress(OSError, ValueError):
                    target = os.readlink(descriptor.path)  # noqa: PTH115 - a hundred thousand of them
                    if not target.startswith("socket:["):
                        continue
                    inode = int(target[8:-1])
                    if inode in wanted and inode not in found:
                        name = Path(entry.path, "comm").read_text().strip()
                        found[inode] = f"{name} ({entry.name})"
        if len(found) == len(wanted):
            break
    return found
