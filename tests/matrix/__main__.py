"""``python -m tests.matrix``: the oracle and the kernel tests on Debian's kernels, in guests, as one report.

Ends with 1 on any miss, false alarm, fix that doesn't help, failed test or guest that died; with 2 when it can't run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import fetch, report
from .guest import ROOT, Guest, Outcome, boot

SECONDS = 900.0
"""Deadline of one guest: its oracle takes 1 to 2 minutes, its tests the rest."""

ORACLE = "python3 -m tests.kernel.oracle --json $OUT/oracle.json"
TESTS = (
    "python3 -m pytest -p no:cacheprovider -q --durations=15 --junitxml=$OUT/tests.xml "
    "--basetemp=/tmp/pytest tests/kernel --deselect tests/kernel/test_oracle.py"
)


def _command(what: tuple[str, ...], series: str) -> str:
    """What the guest runs; each part runs whatever became of the one before, the first failure counts."""
    steps = []
    if series == "6.12":
        steps.append(f"modprobe -a -q psample macsec; insmod {fetch.netdevsim()}")
    if "oracle" in what:
        steps.append(ORACLE)
    if "tests" in what:
        steps.append(TESTS)
    return "worst=0; " + "; ".join(f"{{ {step}; }} || worst=$?" for step in steps) + "; exit $worst"


def _frozen(work: Path) -> Path:
    """A copy of what git would commit, and of the compiled programs, for all guests."""
    copy = work / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    if (ROOT / "build").exists():
        shutil.copytree(ROOT / "build", copy / "build")
    # guests can't keep bytecode, and take seconds to make it at each start of xdpctl
    subprocess.run([sys.executable, "-m", "compileall", "-q", "xdpctl", "tests"], cwd=copy, check=True)
    return copy


def _boot(series: str, what: tuple[str, ...], work: Path) -> Outcome:
    guest = Guest(
        kernel=fetch.kernel(series),
        tools=fetch.tools(),
        command=_command(what, series),
        checkout=work / "checkout",
        shared=work / series,
        seconds=SECONDS,
        # emulated CPUs: what takes a millisecond elsewhere takes tens here
        environment={"ORACLE_PATIENCE": "2", "XDPCTL_TEST_SLOW": "1"},
    )
    print(f"{series}: booting {guest.kernel.release}", flush=True)
    outcome = boot(guest)
    print(f"{series}: {outcome.reason} after {outcome.seconds:.0f} s", flush=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument(
        "--kernel", action="append", choices=list(fetch.KERNELS), help="only this one (repeatable)"
    )
    parser.add_argument(
        "--what", default="oracle,tests", help="oracle, tests or both (default), with a comma"
    )
    parser.add_argument("--jobs", type=int, default=2, help="guests at a time, at most 2")
    parser.add_argument(
        "--work", type=Path, help="keep the guests' files there (default: a temporary folder)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--html", type=Path, metavar="FILE")
    parser.add_argument("--fetch-only", action="store_true", help="fill the cache and stop")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("the matrix makes taps and namespaces for its guests: run it as root", file=sys.stderr)
        return 2
    kernels = asked.kernel or list(fetch.KERNELS)
    what = tuple(asked.what.split(","))
    started = time.monotonic()
    try:
        fetch.tools()
        for series in kernels:
            fetch.kernel(series)
        if "6.12" in kernels:
            fetch.netdevsim()
    except fetch.FetchError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 2
    if asked.fetch_only:
        return 0
    work = asked.work or Path(tempfile.mkdtemp(prefix="xdpctl-matrix-"))
    try:
        _frozen(work)
        with ThreadPoolExecutor(max_workers=min(max(asked.jobs, 1), 2)) as pool:
            outcomes = list(pool.map(lambda series: _boot(series, what, work), kernels))
        made = report.gather(outcomes, work, seconds=time.monotonic() - started)
    finally:
        if asked.work is None:
            shutil.rmtree(work, ignore_errors=True)
    print(report.table(made))
    if asked.json:
        asked.json.write_text(json.dumps(made, indent=1) + "\n")
    if asked.html:
        asked.html.write_text(report.page(made))
    return 0 if made["good"] else 1


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
