"""pytest plugin ``-p forks --forks N``: collect once, then fork N processes and give them a file of tests at a time.

pytest-xdist does the same with N interpreters that each import and collect everything. In an emulated guest that
takes longer than many of the tests; here the children start with all of it in memory.
"""

from __future__ import annotations

import gc
import os
import time
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zygote

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORT, NEXT = range(2)
"""What a child says: a report (serialised), or that it wants the next file."""


def pytest_addoption(parser):
    parser.addoption(
        "--forks", type=int, default=0, metavar="N", help="run files of tests in N forked processes"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    count = session.config.getoption("--forks")
    if not count or session.config.option.collectonly or session.testsfailed:
        return None
    _Parent(session).run(count)
    return True


LONG = ("test_lab", "test_deploy", "test_configs", "test_migrate", "test_map")
"""Files of few tests that take long each; started last, one of them would end alone."""


FIRST = "test_driver_hardware.py"
"""The NICs of a guest: others wait for them."""


def _order(items: Sequence[pytest.Item]) -> tuple[bool, bool, int]:
    name = items[0].path.name
    return name != FIRST, not name.startswith(LONG), -len(items)


def _nobody_else() -> None:
    """With XDPCTL_ALONE_AFTER: until that file says that what ran beside the tests has ended, or for ten minutes."""
    path, end = os.environ.get("XDPCTL_ALONE_AFTER"), time.monotonic() + 600
    while path is not None and not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.2)


class _Child(NamedTuple):
    pid: int
    wire: Connection
    number: int


class _Parent:
    """Hands out files, the longest first, and reports what comes back as if it had run it."""

    def __init__(self, session) -> None:
        self._session = session
        self._config = session.config
        files: dict[tuple[bool, str], list[pytest.Item]] = {}
        for item in session.items:
            alone = item.get_closest_marker("alone") is not None
            files.setdefault((alone, item.nodeid.split("::", 1)[0]), []).append(item)
        together = sorted((items for (alone, _), items in files.items() if not alone), key=_order)
        alone = [items for (alone, _), items in files.items() if alone]
        self._files: Sequence[list[pytest.Item]] = together + alone
        self._waiting = deque(range(len(together)))
        self._last = deque(range(len(together), len(self._files)))
        self._given: dict[int, list[str]] = {}
        """By child: tests that it was given and has not ended, in order."""
        self._numbers = 0
        self._base = session.config._tmp_path_factory.getbasetemp()

    def run(self, count: int) -> None:
        """Run all tests in `count` children."""
        where = self._base / "zygote"
        warm = zygote.start(where)
        os.environ[zygote.WHERE] = str(where)
        zygote.read_kernel()
        # a collection of a child's would touch, and so copy, all that it shares with this process
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        try:
            self._run(count)
            self._waiting = self._last  # by one child
            if self._waiting:
                _nobody_else()
                self._run(1)
        finally:
            warm.kill()
            warm.wait()

    def _run(self, count: int) -> None:
        children = {one.wire: one for one in (self._fork() for _ in range(count))}
        while children:
            for wire in wait(list(children)):
                child = children[wire]
                try:
                    said, what = wire.recv()
                except (EOFError, ConnectionResetError):
                    del children[wire]
                    wire.close()
                    _, status = os.waitpid(child.pid, 0)
                    if self._given[child.number]:
                        self._died(child, status)
                        again = self._fork()
                        children[again.wire] = again
                    continue
                if said == NEXT:
                    self._give(child)
                elif said == REPORT:
                    report = self._config.hook.pytest_report_from_serializable(config=self._config, data=what)
                    if report.when == "teardown":
                        self._given[child.number].remove(report.nodeid)
                    self._config.hook.pytest_runtest_logreport(report=report)

    def _give(self, child: _Child) -> None:
        index = self._waiting.popleft() if self._waiting else None
        if index is not None:
            self._given[child.number] += [item.nodeid for item in self._files[index]]
        child.wire.send(index)

    def _died(self, child: _Child, status: int) -> None:
        """Every test that its child did not end has failed: the first while it ran, the others unrun."""
        how = f"its process ended with {os.waitstatus_to_exitcode(status)}"
        for at, nodeid in enumerate(self._given.pop(child.number)):
            text = how if at == 0 else f"not run: {how} in an earlier test"
            report = pytest.TestReport(
                nodeid, (nodeid.split("::", 1)[0], None, nodeid), {}, "failed", text, "call"
            )
            self._config.hook.pytest_runtest_logreport(report=report)

    def _fork(self) -> _Child:
        ours, theirs = Pipe()
        number = self._numbers
        self._numbers += 1
        self._given[number] = []
        pid = os.fork()
        if pid == 0:
            ours.close()
            code = 1
            try:
                _work(self._session, self._files, theirs, self._base / f"fork{number}")
                code = 0
            finally:
                os._exit(code)
        theirs.close()
        return _Child(pid, ours, number)


def _work(session, files: Sequence[list[pytest.Item]], wire: Connection, base) -> None:
    """In a child: run files until there is none; the next is asked for early, so that session fixtures stay."""
    config = session.config
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:  # its files are shared with the other children
        capture.stop_global_capturing()
        capture.start_global_capturing()
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.unregister(terminal)
    os.environ.pop("XDPCTL_TEST_LOG", None)  # the parent writes it
    base.mkdir()
    config._tmp_path_factory._basetemp = base
    config.pluginmanager.register(_Reporter(config, wire))

    def ask() -> list[pytest.Item]:
        wire.send((NEXT, None))
        index = wire.recv()
        return [] if index is None else files[index]

    items = deque(ask())
    while items:
        item = items.popleft()
        if not items:
            items.extend(ask())
        config.hook.pytest_runtest_protocol(item=item, nextitem=items[0] if items else None)


class _Reporter:
    """A child's reports go to the parent."""

    def __init__(self, config, wire: Connection) -> None:
        self._config, self._wire = config, wire

    def pytest_runtest_logreport(self, report) -> None:
        self._wire.send(
            (REPORT, self._config.hook.pytest_report_to_serializable(config=self._config, report=report))
        )
