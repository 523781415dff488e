"""Which links are ours: those pinned below ``<bpffs>/xdpctl/links``, found again however their device is called now.

A pin lies at ``links/<netns inode>/<ifindex>-<interface>-<hook>-<link id>``. The words in its name are for people
and say how things were when it was made; what counts is the link behind it, which follows its device wherever it goes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import pins
from xdpctl.errors import XdpctlError

if TYPE_CHECKING:
    from collections.abc import Iterator


class PinnedLink(NamedTuple):
    """One of our links, as its pin and the kernel tell."""

    path: Path
    link_id: int
    program_id: int
    ifindex: int | None
    """None: the device is gone, and the pin stale."""
    netns_inode: int | None
    """Where the device was when it was pinned."""
    interface: str
    """What the device was called then."""
    since: float
    """When it was pinned, seconds of the epoch."""


def links_folder() -> Path:
    """Where our links are pinned."""
    return pins.root() / "links"


def maps_folder() -> Path:
    """Where maps are pinned that an object wants pinned by name (LIBBPF_PIN_BY_NAME)."""
    return pins.root() / "maps"


def tail_calls_folder() -> Path:
    """Where program arrays are pinned as long as a program of ours may jump through them.

    The kernel empties one when no descriptor and no pin of it is left, whatever programs still use it
    (prog_array_map_clear() in kernel/bpf/arraymap.c), and tail calls then silently fail.
    """
    return pins.root() / "tail-calls"


def tail_call_pin(program_id: int, map_name: str) -> Path:
    """Path of a program array's pin."""
    return tail_calls_folder() / f"{program_id}-{pins.escaped(map_name)}"


def link_pin(netns_inode: int, ifindex: int, interface: str, hook: str, link_id: int) -> Path:
    """Path of a link's pin; the link's id in it keeps it from ever being taken by a stale one."""
    name = f"{ifindex}-{pins.escaped(interface)}-{hook}-{link_id}"
    return Path(f"{pins.root()}/links/{netns_inode}/{name}")  # at once: joining shows with 128 interfaces


_NAME = re.compile(r"(\d+)-(.*)-(xdp|tcx-ingress|tcx-egress|netkit-primary|netkit-peer)-(\d+)")


class PinName(NamedTuple):
    """What the name of a link's pin says of when it was made."""

    ifindex: int
    interface: str
    hook: str
    link_id: int


def pin_name(name: str) -> PinName | None:
    """The parts of a name that `link_pin` has made; None: it is another's."""
    match = _NAME.fullmatch(name)
    return None if match is None else PinName(int(match[1]), match[2], match[3], int(match[4]))


def pinned_links() -> Iterator[PinnedLink]:
    """Every link of ours; those that may not be opened are left out (see `readable`)."""
    from xdpctl.bpf import query
    from xdpctl.bpf.link import open_link

    for path in pins.walk(links_folder()):
        try:
            since = path.stat().st_mtime
            with open_link(path) as link:
                info = query.link_info(link.fd)
        except (XdpctlError, FileNotFoundError):
            continue  # unpinned meanwhile, or no link at all
        parent = path.parent.name
        yield PinnedLink(
            path=path,
            link_id=info.id,
            program_id=info.program_id,
            ifindex=info.ifindex,
            netns_inode=int(parent) if parent.isdecimal() else None,
            interface=interface_of(path),
            since=since,
        )


def interface_of(pin: Path) -> str:
    """The interface's name in a pin's name, unescaped."""
    import re

    inner = pin.name.partition("-")[2]
    for hook in ("-xdp-", "-tcx-ingress-", "-tcx-egress-", "-netkit-primary-", "-netkit-peer-"):
        name, found, _ = inner.rpartition(hook)
        if found:
            inner = name
            break
    raw = re.sub(rb"\+([0-9a-f]{2})", lambda code: bytes([int(code[1], 16)]), inner.encode())
    return raw.decode(errors="surrogateescape")
