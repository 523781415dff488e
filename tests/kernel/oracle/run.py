"""One pass over the table: predict, act, fix, act again, take the fix back."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdpctl.doctor.finding import Status
from xdpctl.lab.watch import Watch
from xdpctl.libbpf import libc
from xdpctl.netlink import netns

from . import advice, predict
from .acts import ETHERTYPE, Act, Happened, Redirect
from .bpf import Refused
from .ground import HIDDEN, Ground, NotHere

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from multiprocessing.context import BaseContext

    from .predict import Prediction
    from .scenario import Scenario

AGREES, MISS, FALSE_ALARM, WRONG_REASON, UNDECIDED = (
    "agrees",
    "miss",
    "false alarm",
    "wrong reason",
    "undecided",
)
ONE_END_SILENT, LIVE_DIFFERS = "one end silent", "live differs"
NOT_HERE, NOT_ASKED = "not here", "not asked"
VERIFIED, USELESS, NONE_OFFERED = "verified", "does not help", "none offered"


@dataclass(frozen=True)
class Row:
    """One scenario's outcome on this kernel."""

    scenario: str
    verdict: str
    predicted: str = ""
    happened: str = ""
    fixed: str = ""
    """verified, none offered, or why it doesn't help; empty where nothing was to be fixed."""
    note: str = ""
    advice: tuple[str, ...] = ()
    """Alternatives in words that don't help."""
    extack: str | None = None
    words: str = ""
    fix: tuple[str, ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    unsteady: str = ""
    """What was off the first time, where a second look found nothing off: a wait too short, a packet lost."""

    @property
    def good(self) -> bool:
        return (
            self.verdict in (AGREES, NOT_HERE, NOT_ASKED)
            and self.fixed in ("", VERIFIED, NONE_OFFERED)
            and not self.advice
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


OF_LENGTH = ("redirect.target-mtu", "redirect.veth-peer-mtu", "redirect.target-no-sg")
"""Findings that need to know the frames' length."""


def compare(said: Prediction, happened: Happened, *, undecidable: bool) -> tuple[str, str]:
    """The verdict on a prediction, and in words what is off."""
    if said.status is Status.UNKNOWN:
        return (AGREES, "") if undecidable else (UNDECIDED, "the rules could have known")
    if happened.works:
        return (FALSE_ALARM, "it works") if said.status is Status.FAIL else (AGREES, "")
    if said.status is not Status.FAIL:
        return MISS, f"the kernel: {happened}"
    if happened.errno not in said.errnos:
        return WRONG_REASON, f"errno {happened.errno}, not {', '.join(map(str, said.errnos))}"
    told = {one.extack for one in said.of(Status.FAIL) if one.errno == happened.errno}
    if happened.extack and happened.extack not in told:
        return WRONG_REASON, f"the kernel says {happened.extack!r}"
    return AGREES, ""


def one(scenario: Scenario, ground: Ground, watch: Watch, *, truth_only: bool = False) -> Row:
    """Build, predict, act, fix, act, take back."""
    start = time.monotonic()
    try:
        scenario.build(ground)
    except NotHere as why:
        return Row(scenario.name, NOT_HERE, note=str(why))
    except Refused as why:
        return Row(scenario.name, NOT_HERE, note=f"this kernel refuses the set-up: {why}")
    said = predict.Prediction(()) if truth_only else predict.predict(scenario.act, ground)
    happened = scenario.act.perform(ground, watch)
    if truth_only:
        seconds = round(time.monotonic() - start, 3)
        return Row(
            scenario.name,
            NOT_ASKED,
            "",
            str(happened),
            extack=happened.extack,
            words=happened.words,
            seconds=seconds,
        )
    verdict, note = compare(said, happened, undecidable=scenario.undecidable is not None)
    if verdict == AGREES and isinstance(scenario.act, Redirect) and scenario.act.map and scenario.act.fill:
        note = _as_it_runs(scenario.act, ground, watch, said)
        verdict = LIVE_DIFFERS if note else AGREES
    if verdict == AGREES and _into_a_pair(scenario.act, ground):
        note = predict.ends(scenario.act, said, ground)
        verdict = ONE_END_SILENT if note else AGREES
    fixed, steps, off = "", said.fixes, ()
    if not happened.works and said.status is Status.FAIL:
        off = advice.check(scenario.act, said, ground, watch)
        fixed = verify(scenario, ground, watch, said) if steps else NONE_OFFERED
        if fixed == VERIFIED and all(fix.inverse for fix in steps):  # so it fails again by now
            off += advice.commands(scenario.act, said, ground, watch)
    return Row(
        scenario.name,
        verdict,
        str(said),
        str(happened),
        fixed,
        note,
        advice=off,
        extack=happened.extack,
        words=happened.words,
        fix=tuple(map(predict.shown, steps)),
        findings=tuple(finding.to_json() for finding in said.findings),
        seconds=round(time.monotonic() - start, 3),
    )


def _as_it_runs(act: Redirect, ground: Ground, watch: Watch, said: Prediction) -> str:
    """Asked about the program once it is attached, doctor says what it said before; else what is off."""
    seen: list[Prediction] = []
    happened = act.perform(ground, watch, lambda: seen.append(predict.watched(act, ground)))
    if not seen:  # the attach was refused already
        return ""
    before = {(one.id, one.errno) for one in said.of(Status.FAIL) if one.id not in OF_LENGTH}
    now = {(one.id, one.errno) for one in seen[0].of(Status.FAIL)}
    return "" if before == now else f"attached, doctor says {sorted(map(str, now))}; the kernel: {happened}"


def _into_a_pair(act: Act, ground: Ground) -> bool:
    """A native redirect into a veth whose other end can be seen."""
    if not isinstance(act, Redirect) or act.mode != "native":
        return False
    if act.length > predict.ONE_BUFFER:  # what is said of such frames alone, nobody says of the pair
        return False
    if act.map and not act.fill:  # no frame goes there
        return False
    wire = ground.nics[act.target].wire
    return wire is not None and ground.nics[wire].wire == act.target and ground.nics[wire].space != HIDDEN


def verify(scenario: Scenario, ground: Ground, watch: Watch, said: Prediction) -> str:
    """Whether the fix makes the act work, doctor content, and its inverse brings the failure back."""
    for fix in said.fixes:
        problem = predict.apply(fix)
        if problem is not None:
            return f"{predict.shown(fix)}: {problem}"
    again = scenario.act.perform(ground, watch)
    after = predict.predict(scenario.act, ground)
    if not again.works and _the_rest(said, after, again):
        return VERIFIED
    if not again.works:
        return f"{USELESS}: {again}"
    if after.status is Status.FAIL:
        return f"works, but doctor still says {after}"
    if all(fix.inverse for fix in said.fixes):
        for fix in reversed(said.fixes):
            problem = predict.apply(fix, back=True)
            if problem is not None:
                return f"taking back {predict.shown(fix)}: {problem}"
        back = scenario.act.perform(ground, watch)
        if back.works:
            return "taking it back leaves it working"
    return VERIFIED


def _the_rest(said: Prediction, after: Prediction, again: Happened) -> bool:
    """Whether what was fixed is gone, and what fails now was foretold beside it, without a fix."""
    without = {one.id: one.errno for one in said.of(Status.FAIL) if not one.fix}
    still = {one.id for one in after.of(Status.FAIL)}
    return bool(still) and still <= set(without) and again.errno in {without[one] for one in still}


def run(table: Iterable[Scenario], *, truth_only: bool = False) -> Iterator[Row]:
    """Every scenario's row, as it is known; with `truth_only` doctor isn't asked."""
    ground = Ground()
    try:
        with Watch(drops_of=ETHERTYPE) as watch:
            for scenario in table:
                try:
                    yield _twice_if_off(scenario, ground, watch, truth_only=truth_only)
                finally:
                    ground.clear()
    finally:
        ground.close()


def _twice_if_off(scenario: Scenario, ground: Ground, watch: Watch, *, truth_only: bool) -> Row:
    """A row that is off is acted out once more on cleared ground; what holds counts, what doesn't is told."""
    row = one(scenario, ground, watch, truth_only=truth_only)
    if row.good:
        return row
    ground.clear()
    again = one(scenario, ground, watch, truth_only=truth_only)
    if not again.good:
        return again
    first = "; ".join(text for text in (row.verdict, row.happened, row.fixed, row.note, *row.advice) if text)
    return replace(again, unsteady=first)


class _Hands:
    """Hands scenarios to processes: those of NICs first, one of a segment at a time, and the others beside them.

    A NIC's link takes seconds to come up, over and over: begun late, they would end alone. With XDPCTL_NICS_FREE they
    begin when that file is there: others use the NICs until then.
    """

    def __init__(self, forked: BaseContext, table: Sequence[Scenario]) -> None:
        self._queues: dict[str | None, list[Scenario]] = {}
        for one in table:
            self._queues.setdefault(one.segment, []).append(one)
        self._names = sorted(self._queues, key=lambda name: (name is None, -len(self._queues[name])))
        self._lock = forked.Lock()
        self._taken = forked.RawArray("i", len(self._names))
        self._busy = forked.RawArray("b", len(self._names))

    def scenarios(self) -> Iterator[Scenario]:
        """Until none is left that nobody has taken."""
        free_from = os.environ.get("XDPCTL_NICS_FREE")
        while True:
            nics = free_from is None or Path(free_from).exists()
            with self._lock:
                left = [
                    place
                    for place, name in enumerate(self._names)
                    if self._taken[place] < len(self._queues[name])
                ]
                free = next(
                    (
                        place
                        for place in left
                        if not self._busy[place] and (nics or self._names[place] is None)
                    ),
                    None,
                )
                if free is not None:
                    name = self._names[free]
                    chosen = self._queues[name][self._taken[free]]
                    self._taken[free] += 1
                    self._busy[free] = name is not None
            if not left:
                return
            if free is None:
                time.sleep(0.05)
                continue
            try:
                yield chosen
            finally:
                self._busy[free] = 0


def run_together(table: Sequence[Scenario], jobs: int, *, truth_only: bool = False) -> Iterator[Row]:
    """The same by several processes, each on ground of its own: most of the time goes by waiting for RCU.

    Raises:
        RuntimeError: a process ended early; what it said stands before it.
    """
    forked = multiprocessing.get_context("fork")
    results = forked.SimpleQueue()
    hands = _Hands(forked, table)

    def work() -> None:
        # namespaces named in mounts of one's own: the others' would be observed with every prediction
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount("tmpfs", "/run/netns", "tmpfs")
        # the machine is what has a name: the namespaces of other processes, and a guest's NICs at rest, are half of
        # what an observation costs
        discover = netns.discover
        netns.discover = lambda include_processes=True: discover(include_processes=False)
        netns.hidden_processes = lambda: 0
        try:
            for row in run(hands.scenarios(), truth_only=truth_only):
                results.put(row)
        finally:
            results.put(None)

    # a collection of a worker's would touch, and so copy, all that it shares with this process
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    workers = [forked.Process(target=work, daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    left = jobs
    while left:
        row = results.get()
        if row is None:
            left -= 1
        else:
            yield row
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the oracle ended early")
