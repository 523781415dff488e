"""Programs of build/bpf put on interfaces by the plain means of the bpf room, and frames sent past them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.bpf.link import link_xdp
from xdpctl.bpf.object import Object
from xdpctl.libbpf import uapi
from xdpctl.netlink import netns
from xdpctl.netlink.interfaces import ifindex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS = Path(__file__).resolve().parents[2] / "build" / "bpf"


@contextlib.contextmanager
def running(
    name: str, interface: str, *, netns_name: str, generic: bool = False, target: str | None = None
) -> Iterator[Object]:
    """A program of build/bpf on an interface while the block runs; `target` is its target_ifindex."""
    with netns.enter(netns_name), Object.open(PROGRAMS / f"{name}.bpf.o") as made:
        if target is not None:
            rodata = next(one for one in made.maps.values() if one.name.endswith(".rodata"))
            rodata.patch_initial_value(0, ifindex(target).to_bytes(4, "little"))
        made.load()
        (program,) = made.programs.values()
        mode = uapi.XDP_MODE_FLAGS["generic" if generic else "native"]
        with link_xdp(program.fd, ifindex(interface), mode):
            yield made


def until(told: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it comes true in time: softirqs may be left to ksoftirqd on a busy machine."""
    end = time.monotonic() + seconds
    while not told():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
