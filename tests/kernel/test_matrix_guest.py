"""A guest of the matrix that hangs or dies is a failure with its console, in time, and nothing of it goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.matrix.fetch import KernelFiles, Tools
from tests.matrix.guest import Guest, supervise

pytestmark = [pytest.mark.kernel, pytest.mark.shared]


@pytest.fixture
def machine(tmp_path):
    """``machine(lines, seconds) -> Outcome`` of a script that stands where QEMU is started."""

    def run(lines: str, seconds: float):
        guest = Guest(
            KernelFiles("5.10", "5.10.0", tmp_path), Tools(tmp_path), "", tmp_path, tmp_path, seconds
        )
        script = tmp_path / "outside.sh"
        script.write_text(lines)
        return supervise(guest, script)

    return run


def running(mark: str) -> list[str]:
    """Processes whose command line has the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it ended
            continue
    return found


def test_one_that_hangs_is_ended_at_its_deadline_with_all_that_it_started(machine):
    mark = f"31{os.getpid()}.5"  # seconds that nobody else sleeps
    script = f"echo the last words\ntrap '' TERM INT HUP\n(setsid sleep {mark} &)\nsleep {mark}\n"
    started = time.monotonic()
    outcome = machine(script, 1.0)
    assert time.monotonic() - started < 20
    assert not outcome.ok
    assert outcome.reason.startswith("no answer within 1 s:")
    assert "the last words" in outcome.reason
    end = time.monotonic() + 5
    while running(mark):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_that_dies_tells_its_console(machine):
    outcome = machine("echo Kernel panic - not syncing; exit 3", 20.0)
    assert not outcome.ok
    assert outcome.reason == "died (exit 3):\nKernel panic - not syncing"


def test_one_that_hangs_while_it_powers_off_has_given_its_answer(machine, tmp_path):
    outcome = machine(f"echo 0 > {tmp_path}/rc; sleep 60", 1.0)
    assert (outcome.ok, outcome.reason) == (True, "command ended 0")
