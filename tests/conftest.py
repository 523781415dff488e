"""What holds for all tests: property tests are judged by what they find, never by how long one example takes."""

import os
import time
from pathlib import Path

from hypothesis import settings

# a machine that is busy, or emulated, is no failure; in CI the same examples each time, at a developer's new ones
settings.register_profile("xdpctl", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("xdpctl")

# numpy's threads would share the file system's view, and a process with such threads can't go back to its mounts
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_BEGAN = time.monotonic()


def pytest_runtest_logreport(report):
    """With XDPCTL_TEST_LOG, a line a test as it ends: what a guest had done by the time it was ended."""
    path = os.environ.get("XDPCTL_TEST_LOG")
    if path is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when == "call" or report.outcome != "passed":
        with Path(path).open("a") as log:
            took = f"{time.monotonic() - _BEGAN:7.1f} {report.duration:6.2f}"
            log.write(f"{took} {report.outcome:7} {report.when:8} {report.nodeid}\n")
            if report.failed:
                log.write("".join(f"    {line}\n" for line in report.longreprtext.splitlines()[-40:]))
