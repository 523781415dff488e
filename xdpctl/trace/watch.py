"""What the kernel says about XDP as it happens: the ``xdp:*`` tracepoints, from our own tracefs instance.

A redirect that fails at run time answers nobody; only these events tell. An instance has its own ring buffer,
so neither other tracers nor we disturb each other. Mirrors include/trace/events/xdp.h. Which events exist
differs between kernels (xdp_redirect_map_err is gone by 6.18, bpf_xdp_link_attach_failed came with 6.6), so
those that exist are used.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import PrivilegeError, UnsupportedError, errno_name
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from typing_extensions import Self

TRACEFS = Path("/sys/kernel/tracing")

XDP_EVENTS = (
    "xdp_redirect",
    "xdp_redirect_err",
    "xdp_redirect_map",
    "xdp_redirect_map_err",
    "xdp_devmap_xmit",
    "xdp_bulk_tx",
    "xdp_exception",
    "xdp_cpumap_enqueue",
    "bpf_xdp_link_attach_failed",
)

# "          python-1234    [001] b.s2.  99.123456: xdp_redirect_err: prog_id=7 action=REDIRECT ..."
# the flags column is missing with some trace options; a task's name may hold blanks and dashes
_LINE = re.compile(
    r"^\s*(?P<task>.+)-(?P<pid>\d+)\s+\[(?P<cpu>\d+)\].*?\s(?P<time>\d+\.\d+): (?P<name>\w+): (?P<text>.*)$"
)
_FIELD = re.compile(r"(\w+)=(\S+)")


@dataclass(frozen=True, slots=True)
class Event:
    """One tracepoint hit."""

    name: str
    pid: int
    """Of the task that ran, which for a softirq is whichever was interrupted."""
    cpu: int
    text: str
    """The kernel's own words, without task and time."""
    fields: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """A numeric field, 0 where this kernel's event lacks it."""
        try:
            return int(self.fields.get(name, "0"), 0)
        except ValueError:
            return 0

    @property
    def errno(self) -> str | None:
        """Name of the errno in `err`, None where there is none."""
        return errno_name(self.number("err"))

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def parse(line: str) -> Event | None:
    """One line of ``trace_pipe``; None for what is not an event (lost-events remarks, headers)."""
    found = _LINE.match(line)
    if found is None:
        return None
    text = found["text"]
    return Event(found["name"], int(found["pid"]), int(found["cpu"]), text, dict(_FIELD.findall(text)))


def _place(event: str) -> str:
    return event if "/" in event else f"xdp/{event}"


class Watch:
    """A tracefs instance that records the xdp tracepoints while it is open.

    Args:
        tracefs: where a tracefs is mounted.
        events: names under ``events/xdp``, or ``group/name``; those this kernel lacks are left out.
        drops_of: also record ``skb:kfree_skb`` for this ethertype (where a generic or lost frame ends).

    Raises:
        UnsupportedError: no tracefs there, or a kernel without these events.
        PrivilegeError: not permitted.
    """

    def __init__(
        self, *, tracefs: Path = TRACEFS, events: Iterable[str] = XDP_EVENTS, drops_of: int | None = None
    ) -> None:
        self._instances = tracefs / "instances"
        if not (tracefs / "events" / "xdp").is_dir():
            raise UnsupportedError(
                "watching XDP", needs="a mounted tracefs with xdp tracepoints", has=f"nothing in {tracefs}",
                hint=f"mount -t tracefs tracefs {tracefs}",
            )  # fmt: skip
        self._sweep()
        self.path = self._instances / f"xdpctl-{os.getpid()}-{os.urandom(2).hex()}"
        try:
            self.path.mkdir()
        except PermissionError as error:
            raise PrivilegeError(
                f"making {self.path}", capability="CAP_DAC_OVERRIDE or root", errno=error.errno
            ) from error
        self._pipe = -1
        try:
            self._write("buffer_size_kb", "64")
            self.events = tuple(one for one in events if (self.path / "events" / _place(one)).is_dir())
            for one in self.events:
                self._write(f"events/{_place(one)}/enable", "1")
            if drops_of is not None:
                # the event's protocol field is in host order: trace prints and compares ntohs(skb->protocol)
                self._write("events/skb/kfree_skb/filter", f"protocol == {drops_of}")
                self._write("events/skb/kfree_skb/enable", "1")
            self._pipe = os.open(self.path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        except BaseException:
            self.close()
            raise
        self._rest = ""

    def _write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def _sweep(self) -> None:
        """Remove instances of processes that were killed: an instance outlives its maker."""
        for path in self._instances.glob("xdpctl-*-*"):
            if not Path("/proc", path.name.split("-")[1]).exists():
                with contextlib.suppress(OSError):
                    path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop recording and remove the instance."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def fileno(self) -> int:
        """The descriptor of trace_pipe, for select and poll."""
        return self._pipe

    def read(self) -> Iterator[Event]:
        """The events since the last call, without waiting."""
        while True:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                return
            lines = (self._rest + chunk.decode(errors="replace")).split("\n")
            self._rest = lines.pop()
            for line in lines:
                event = parse(line)
                if event is not None:
                    yield event

    def wait(self, seconds: float) -> list[Event]:
        """The events since the last call; waits for the first one, at most `seconds`."""
        end = time.monotonic() + seconds
        while True:
            events = list(self.read())
            left = end - time.monotonic()
            if events or left <= 0:
                return events
            # a reader of trace_pipe is woken in batches on older kernels: don't rely on it alone
            select.select([self], [], [], min(left, 0.02))
