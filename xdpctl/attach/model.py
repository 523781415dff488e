"""One program on one hook of one interface: what `attach`, `replace` and `status` answer with.

Records in this room are named tuples: making a dataclass costs half a millisecond, each time a command starts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

MODES = ("native", "generic", "offload")
"""XDP modes as IFLA_XDP tells them apart: XDP_FLAGS_DRV_MODE, _SKB_MODE, _HW_MODE."""

HOOKS = (
    "xdp",
    "tcx-ingress",
    "tcx-egress",
    "clsact-ingress",
    "clsact-egress",
    "netkit-primary",
    "netkit-peer",
)

DISPATCHERS = {"xdp_dispatcher": "libxdp or bpfman", "tc_dispatcher": "bpfman"}
"""Programs that call other tools' programs by slots; replacing one would drop them all."""


class ProgramRef(NamedTuple):
    """A loaded program; name and tag are None where we may not ask for them."""

    id: int
    name: str | None = None
    """The whole C function name where it is known; the kernel keeps 15 characters of it."""
    tag: str | None = None


class Attachment(NamedTuple):
    """A program on a hook."""

    interface: str
    ifindex: int
    netns: str | None
    """Name of the network namespace (or ``pid:N``); None: the caller's, which has no name."""
    netns_inode: int
    hook: str
    """One of `HOOKS`."""
    mode: str | None
    """One of `MODES`: the one in force, whatever was asked; None on TC hooks."""
    via: str | None
    """link, netlink, tcx, clsact or netkit; None: an XDP program where we may not list links."""
    program: ProgramRef
    link_id: int | None = None
    pin: Path | None = None
    owner: str = "other"
    """xdpctl or other."""
    since: float | None = None
    """When it was attached, seconds of the epoch; only known of our own."""
    loaded_at: float | None = None
    """When the program was loaded, seconds of the epoch."""
    run_count: int | None = None
    """Runs of the program, on all its hooks together; None where kernel.bpf_stats_enabled is off."""
    run_time_ns: int | None = None
    priority: int | None = None
    """clsact filter's pref."""
    handle: int | None = None
    note: str | None = None
    """Something to know about how it came about: the mode fell back, a foreign link was taken over."""

    @property
    def ours(self) -> bool:
        """Whether xdpctl made it."""
        return self.owner == "xdpctl"

    @property
    def program_name(self) -> str:
        """The program's name, or its id where the name is not known."""
        return self.program.name or f"program {self.program.id}"

    def describe(self) -> str:
        """``count (program 12, link 5, attached by xdpctl)``: how messages name it."""
        details = [f"program {self.program.id}"] if self.program.name else []
        if self.link_id is not None:
            details.append(f"link {self.link_id}")
        details.append("attached by xdpctl" if self.ours else "not attached by xdpctl")
        return f"{self.program_name} ({', '.join(details)})"

    def to_json(self) -> dict[str, Any]:
        """The shape that ``--json`` prints; times are UTC, ISO 8601."""
        shape: dict[str, Any] = {
            "interface": self.interface,
            "netns": self.netns,
            "ifindex": self.ifindex,
            "hook": self.hook,
            "mode": self.mode,
            "via": self.via,
            "program": {"id": self.program.id, "name": self.program.name, "tag": self.program.tag},
            "link_id": self.link_id,
            "pin": None if self.pin is None else str(self.pin),
            "owner": self.owner,
            "since": iso(self.since),
            "loaded_at": iso(self.loaded_at),
            "run_count": self.run_count,
            "run_time_ns": self.run_time_ns,
            "priority": self.priority,
        }
        if self.note is not None:
            shape["note"] = self.note
        return shape


def iso(when: float | None) -> str | None:
    """Seconds of the epoch as ``2026-01-31T12:00:00Z``."""
    return None if when is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def wall_clock(boottime_ns: int) -> float:
    """Seconds of the epoch for a CLOCK_BOOTTIME stamp of the kernel's (bpf_prog_info.load_time)."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + boottime_ns / 1e9
