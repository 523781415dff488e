"""Looks at a machine again and again, cheaply: one RTM_GETSTATS dump a look; what changes seldom is read on change.

Links are listed anew when rtnetlink tells of a change, or when BPF programs or links came or went (an attach by
bpf_link notifies nobody). The tracers of redirects and drops count in the kernel meanwhile. Everything that is held
is a file descriptor: however the process ends, nothing stays attached or switched on.
"""

from __future__ import annotations

import contextlib
import fnmatch
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xdpctl.bpf.statistics import Runs, counting, ids
from xdpctl.errors import KernelError, NotFoundError, XdpctlError
from xdpctl.netlink import ethtool_ioctl, netns, notifications, rtnl, wire
from xdpctl.netlink.link_stats import link_counters
from xdpctl.trace.tick import Key, LinkFacts, ProgramRuns, Sample
from xdpctl.trace.xdp_actions import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from typing_extensions import Self

    from xdpctl.host.pool_model import ListedPool
    from xdpctl.trace.drops import DropReport, DropTrace
    from xdpctl.trace.redirect import RedirectReport, RedirectTrace

    _T = TypeVar("_T")

RunTimes = Literal["off", "sample", "always"]
"""Whether the kernel counts programs' runs: never, while a window is open (`Sampler.window`), or all the time."""

SELDOM_SECONDS = 5.0
"""Between two looks for namespaces, their names, and TC programs."""
OWN = "this command"
"""Where the tracers' own programs run."""
RUN_NS = 70
"""What counting a run costs it at most: 20 ns, and 70 where reading the clock is slow (a virtual machine)."""
MOST_OF_A_CPU = 0.01
"""What counting runs may cost altogether; see `Sampler.share`."""
TC_TYPES = frozenset(("sched_cls", "sched_act"))


class _Space:
    """The links of one network namespace. Its sockets keep the namespace alive until they are closed."""

    def __init__(self, ref: netns.NetnsRef, patterns: Sequence[str]) -> None:
        self.ref = ref
        self._patterns = patterns
        self.raw: list[rtnl.RawLink] = []
        self.links: dict[int, LinkFacts] = {}
        with contextlib.ExitStack() as made, netns.enter(ref):
            self._route = made.enter_context(wire.Socket(wire.NETLINK_ROUTE))
            self._heard = made.enter_context(notifications.Listener((notifications.LINKS,)))
            self.verdicts = Reader(ethtool_ioctl.control_socket())
            made.callback(self.verdicts.close)
            self.look()
            self._held = made.pop_all()

    def close(self) -> None:
        self._held.close()

    @property
    def gone(self) -> bool:
        """Whether its name leads elsewhere by now, or nowhere."""
        try:
            return Path(self.ref.path).stat().st_ino != self.ref.inode
        except OSError:
            return True

    def changed(self) -> bool:
        """Whether rtnetlink told of a change of a link."""
        return bool(list(self._heard.notices(0)))

    def look(self) -> None:
        """List the links."""
        self.raw = rtnl.links(self._route)
        self.links = {one.ifindex: self._facts(one) for one in self.raw if self._chosen(one)}

    def counters(self) -> dict[int, tuple[int, ...]]:
        """Of every link, by ifindex."""
        return link_counters(self._route)

    def _chosen(self, link: rtnl.RawLink) -> bool:
        return not self._patterns or any(matches(link, one) for one in self._patterns)

    def _facts(self, one: rtnl.RawLink) -> LinkFacts:
        program = one.xdp.native or one.xdp.generic or one.xdp.offload or 0
        old = self.links.get(one.ifindex)
        driver = one.kind
        if one.xdp and driver is None:
            driver = old.driver if old is not None and old.name == one.name else None
            driver = driver or self.verdicts.driver(one.name)
        up = bool(one.flags & 1)
        return LinkFacts(
            self.ref.inode, one.ifindex, one.name, one.kind, up, one.xdp.attached, program, driver
        )


def matches(link: rtnl.RawLink, pattern: str) -> bool:
    """Whether a name or glob means the link."""
    return link.name == pattern or pattern in link.altnames or fnmatch.fnmatchcase(link.name, pattern)


class Sampler:
    """Takes samples while it is open.

    Args:
        interfaces: names or globs; none: every link.
        in_netns: the namespace to watch; None: the caller's.
        all_netns: watch every namespace that can be seen.
        run_times: see `RunTimes`.

    Attributes:
        share: part of the time in which runs should be counted, so that counting costs little: less, the more runs
            there were when they were counted last.
        run_times: as asked, or "always" where kernel.bpf_stats_enabled is on, or "off" where it can't be switched on.

    Raises:
        NotFoundError: no such namespace or interface; near names in the hint.
        PrivilegeError: the namespace may not be entered.
        NetlinkError: links can't be listed.
    """

    def __init__(
        self,
        interfaces: Iterable[str] = (),
        *,
        in_netns: str | None = None,
        all_netns: bool = False,
        run_times: RunTimes = "sample",
    ) -> None:
        self._patterns = tuple(interfaces)
        self._all = all_netns
        self._whole = not self._patterns and in_netns is None
        self._notes: dict[str, str] = {}
        self._spaces: dict[int, _Space] = {}
        self._labels: dict[int, str] = {}
        self._looked_at = self._labelled_at = self._tc_at = 0.0
        self._before: tuple[list[int], list[int]] = ([], [])
        self._tc: dict[int, tuple[str, ...]] = {}
        self._tc_stale = True
        self._names: dict[int, str | None] = {}
        self._runs = Runs()
        self._own: set[int] = set()
        self._total: tuple[int, float] | None = None
        self.share = 1.0
        self._held = contextlib.ExitStack()
        self._window = contextlib.ExitStack()
        self._counted, self._opened_at = 0.0, None if run_times != "always" else time.monotonic()
        self.run_times: RunTimes = run_times
        try:
            self._find_spaces(in_netns)
            self._check_patterns()
            self._start_counting()
            self._redirects: RedirectTrace | None = self._attempt("redirects", self._trace_redirects)
            self._drops: DropTrace | None = self._attempt("drops", self._trace_drops)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach, switch off, let go; safe to repeat."""
        self._window.close()
        self._held.close()
        for one in self._spaces.values():
            one.close()
        self._spaces = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What can't be looked at, and why, as far as it is known yet."""
        return tuple(self._notes.values())

    @property
    def tracing(self) -> dict[str, bool]:
        """Tracer -> whether it is there."""
        return {"redirects": self._redirects is not None, "drops": self._drops is not None}

    # -- what is set up once ----------------------------------------------------------------------------------

    def _find_spaces(self, in_netns: str | None) -> None:
        if not self._all:
            with netns.enter(in_netns) as ref:
                self._spaces[ref.inode] = _Space(ref, self._patterns)
            return
        self._looked_at = time.monotonic()
        found = {one.inode: one for one in netns.discover()}
        for inode in self._spaces.keys() - found.keys():
            self._spaces.pop(inode).close()
        for inode, ref in found.items():
            if inode not in self._spaces:
                with contextlib.suppress(KernelError, NotFoundError):  # gone since, or not ours to enter
                    self._spaces[inode] = _Space(ref, self._patterns)

    def _check_patterns(self) -> None:
        known = [link for space in self._spaces.values() for link in space.raw]
        for pattern in self._patterns:
            if not any(matches(link, pattern) for link in known):
                raise NotFoundError("interface", pattern, known=[link.name for link in known])

    def _start_counting(self) -> None:
        with contextlib.suppress(OSError):
            if Path("/proc/sys/kernel/bpf_stats_enabled").read_text(encoding="ascii").strip() != "0":
                self.run_times = "always"
                return
        if self.run_times == "off":
            return
        try:
            if self.run_times == "always":
                self._held.enter_context(counting())
            else:
                with counting():  # so that what keeps us from it is told at once
                    pass
        except XdpctlError as why:
            self._note("run times", why)
            self.run_times = "off"

    def _trace_redirects(self) -> RedirectTrace:
        from xdpctl.trace.redirect import RedirectTrace

        made = self._held.enter_context(RedirectTrace())
        self._own |= made.program_ids()
        self._say_missing(made.missing)
        return made

    def _trace_drops(self) -> DropTrace:
        from xdpctl.trace.drops import DropTrace

        made = self._held.enter_context(DropTrace(xdp=False))
        self._own |= made.program_ids()
        self._say_missing(made.missing)
        return made

    def _say_missing(self, missing: Iterable[tuple[str, str]]) -> None:
        for tracepoint, tells in missing:
            self._notes[tracepoint] = f"this kernel has no tracepoint {tracepoint}: not told: {tells}"

    def _note(self, what: str, why: XdpctlError) -> None:
        self._notes[what] = f"{what} are not told: {why.message}"

    def _attempt(self, what: str, do: Callable[[], _T]) -> _T | None:
        try:
            found = do()
        except XdpctlError as why:
            self._note(what, why)
            return None
        return found

    # -- windows ----------------------------------------------------------------------------------------------

    def window(self, wanted: bool) -> None:
        """Begin, or end, a time in which runs are counted, where `run_times` is "sample"; else nothing happens."""
        if self.run_times != "sample" or wanted == (self._opened_at is not None):
            return
        if wanted:
            self._window.enter_context(counting())
            self._opened_at = time.monotonic()
        else:
            self._window.close()
            self._counted = self._counted_seconds(time.monotonic())
            self._opened_at = None

    def _counted_seconds(self, now: float) -> float:
        if self.run_times == "always":
            return now
        return self._counted + (now - self._opened_at if self._opened_at is not None else 0.0)

    def _adjust_share(self, runs: int, counted: float) -> None:
        before, self._total = self._total, (runs, counted)
        if before is not None and counted > before[1]:
            rate = max(0, runs - before[0]) / (counted - before[1])
            self.share = max(0.01, min(1.0, MOST_OF_A_CPU / (rate * RUN_NS / 1e9))) if rate else 1.0

    # -- a look -----------------------------------------------------------------------------------------------

    def sample(self) -> Sample:
        """Look once; a window ends with it, unless all of the time is to be counted.

        Raises:
            NotFoundError: the namespace watched has gone.
            NetlinkError: links can't be read.
        """
        now = time.monotonic()
        runs = self._attempt("programs", self._runs.read)
        counted_seconds = self._counted_seconds(time.monotonic())
        self._adjust_share(sum(one for one, _ in runs.values()) if runs is not None else 0, counted_seconds)
        if self.share < 1:
            self.window(False)  # what follows takes longer than the window
        self._keep_up(now)
        counters: dict[Key, tuple[int, ...]] = {}
        verdicts: dict[Key, dict[str, int]] = {}
        links: dict[Key, LinkFacts] = {}
        for inode, space in self._spaces.items():
            read = space.counters()
            for ifindex, facts in space.links.items():
                key = (inode, ifindex)
                links[key] = facts
                if ifindex in read:
                    counters[key] = read[ifindex]
                if facts.mode is not None and facts.mode != "generic":
                    counted = space.verdicts.read(ifindex, facts.name, facts.driver)
                    if counted is not None:
                        verdicts[key] = counted
        at = time.monotonic()
        redirects = self._redirects.read() if self._redirects is not None else None
        drops = self._drops.read() if self._drops is not None else None
        self._label(redirects, drops, at)
        return Sample(
            at=at,
            time=time.time(),
            links=links,
            counters=counters,
            verdicts=verdicts,
            programs=None if runs is None else self._described(runs, links),
            counted_seconds=counted_seconds,
            redirects=self._about(redirects, links),
            drops=self._drops_about(drops, links),
            pools=self._pools(),
            boottime=time.clock_gettime(time.CLOCK_BOOTTIME),
            labels=self._labels,
            notes=self.notes,
        )

    def _keep_up(self, now: float) -> None:
        """List links anew where something changed."""
        if self._all and now - self._looked_at >= SELDOM_SECONDS:
            self._find_spaces(None)
        for inode, space in list(self._spaces.items()):
            if space.gone:
                self._spaces.pop(inode).close()
                if not self._all:
                    raise NotFoundError("network namespace", space.ref.label, hint="it has gone meanwhile")
        changed = self._bpf_changed()
        for space in self._spaces.values():
            heard = space.changed()
            if heard or changed:
                space.look()
                self._tc_stale = self._tc_stale or heard
        if self._tc_stale and now - self._tc_at >= SELDOM_SECONDS:
            self._tc_at, self._tc_stale = now, False
            self._tc = self._attempt("TC programs", self._find_tc) or {}

    def _bpf_changed(self) -> bool:
        try:
            there = (ids("program"), ids("link"))
        except XdpctlError:
            return False
        if there == self._before:
            return False
        self._before, self._tc_stale = there, True
        return True

    def _find_tc(self) -> dict[int, tuple[str, ...]]:
        """Links and hooks that TC programs run on, by program."""
        from xdpctl.attach.observe import Observer

        if not any(one.type in TC_TYPES for one in self._runs.known.values()):
            return {}
        found: dict[int, tuple[str, ...]] = {}
        for space in self._spaces.values():
            with netns.enter(space.ref) as ref:
                raw = [one for one in space.raw if one.ifindex in space.links]
                for one in Observer().everything(raw, ref):
                    if one.hook != "xdp":
                        at = found.get(one.program.id, ())
                        found[one.program.id] = (*at, f"{one.interface} {one.hook}")
        return found

    def _described(
        self, runs: dict[int, tuple[int, int]], links: dict[Key, LinkFacts]
    ) -> dict[int, ProgramRuns]:
        """Programs with their names and places; with --iface or --netns only those on the links that are shown."""
        where: dict[int, tuple[str, ...]] = dict(self._tc)
        if self._whole:
            where |= dict.fromkeys(self._own, (OWN,))
        for facts in links.values():
            if facts.program_id:
                where[facts.program_id] = (*where.get(facts.program_id, ()), facts.name)
        known = self._runs.known
        return {
            number: ProgramRuns(
                number, known[number].type, self._name(number), *counted, where.get(number, ())
            )
            for number, counted in runs.items()
            if self._whole or number in where
        }

    def _name(self, number: int) -> str | None:
        if number not in self._names:
            from xdpctl.attach.observe import whole_name

            info = self._runs.known[number]
            try:
                self._names[number] = whole_name(info)
            except XdpctlError:
                self._names[number] = info.name or None
        return self._names[number]

    def _about(self, report: RedirectReport | None, links: dict[Key, LinkFacts]) -> RedirectReport | None:
        if report is None or (self._all and not self._patterns):
            return report
        kept = report.about(frozenset(links))
        if self._whole:
            return kept
        # a cpumap's events name no device: whose they are is not known
        return replace(kept, edges=tuple(one for one in kept.edges if one.source or one.target))

    def _drops_about(self, report: DropReport | None, links: dict[Key, LinkFacts]) -> DropReport | None:
        if report is None or (self._all and not self._patterns):
            return report
        return report.about(frozenset(links))

    def _label(self, redirects: RedirectReport | None, drops: DropReport | None, now: float) -> None:
        """Look for names of namespaces, if one is not known yet."""
        seen = set(self._spaces)
        for edge in redirects.edges if redirects else ():
            seen |= {device.netns for device in (edge.source, edge.target) if device is not None}
        seen |= {one.device.netns for one in drops.drops if one.device is not None} if drops else set()
        if seen <= self._labels.keys() or (self._labels and now - self._labelled_at < SELDOM_SECONDS):
            return
        from xdpctl.trace.devices import namespace_labels

        self._labelled_at, self._labels = now, namespace_labels()

    def _pools(self) -> tuple[ListedPool, ...] | None:
        from xdpctl.host.pools import pools_here

        found: list[ListedPool] = []
        for inode, space in self._spaces.items():
            with contextlib.suppress(KernelError, NotFoundError, OSError), netns.enter(space.ref):
                here = pools_here(inode, [], space.ref.label)
                if here is None:
                    return None
                found += [one for one in here if not self._patterns or one.ifindex in space.links]
        return tuple(found)
