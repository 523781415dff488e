"""Diagnosing a host with many interfaces: against the loop an engineer would write, and how it grows."""

from __future__ import annotations

import json
import resource
import time

import pytest
from bench import ROOT, SERIES, SHORT, batch, compare, run

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
NAMESPACES = 8
PAIRS = 256 if SHORT else 512
SIZES = (128, 512, 1024) if SHORT else (64, 128, 256, 512, 1024)
ROUNDS = 2 if SHORT else 5
LEAST = 3
"""Rounds of which the best counts: a busy neighbour only ever adds."""


class Host:
    """Eight namespaces with veth pairs spread evenly, both ends up."""

    def __init__(self) -> None:
        self.pairs = 0
        batch(*(f"netns add host{n}" for n in range(NAMESPACES)))

    def grow(self, pairs: int) -> None:
        """Add pairs until there are this many."""
        for n in range(NAMESPACES):
            names = [f"d{i}" for i in range(self.pairs // NAMESPACES, pairs // NAMESPACES)]
            if names:
                batch(*(f"link add {name} type veth peer name p{name}" for name in names), netns=f"host{n}")
                batch(*(f"link set {end}{name} up" for name in names for end in ("", "p")), netns=f"host{n}")
        self.pairs = pairs

    def close(self) -> None:
        batch(*(f"netns del host{n}" for n in range(NAMESPACES)))


@pytest.fixture
def host():
    made = Host()
    yield made
    made.close()


def doctor() -> float:
    """The one command; healthy or not (exit code 0 or 1) does not matter here."""
    start = time.perf_counter()
    run("sh", "-c", f"{XDPCTL} doctor --all-netns --json > /dev/null || [ $? = 1 ]")
    return time.perf_counter() - start


def links_judged() -> int:
    """How many links the answer is about."""
    return json.loads(run("sh", "-c", f"{XDPCTL} doctor --all-netns --json || [ $? = 1 ]"))["links"]


def shell_loop() -> None:
    """What an engineer would write: three commands an interface, in each namespace."""
    one = 'for i in $(ls /sys/class/net); do ip -d link show "$i"; ethtool -k "$i"; ethtool -l "$i"; done'
    for n in range(NAMESPACES):
        run("ip", "netns", "exec", f"host{n}", "sh", "-c", f"({one}) > /dev/null 2>&1; true")


def test_doctor_over_many_pairs_takes_a_quarter_of_the_shell_loop(host):
    host.grow(PAIRS)
    assert links_judged() >= 2 * PAIRS
    compare(
        f"doctor over {PAIRS} veth pairs in {NAMESPACES} namespaces",
        doctor,
        "loop of ip -d link show, ethtool -k, ethtool -l",
        shell_loop,
        limit=0.25,
        rounds=ROUNDS,
    )


def cpu_seconds() -> float:
    """What the command takes of a CPU, in it and in the kernel for it: neighbours matter less than to wall time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    doctor()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_doctor_grows_linearly_with_interfaces(host):
    curve = []
    for pairs in SIZES:
        host.grow(pairs)
        doctor()
        curve.append((pairs, min(cpu_seconds() for _ in range(max(LEAST, ROUNDS)))))
    SERIES["xdpctl doctor --all-netns"] = curve
    (n1, t1), (n2, t2), (n3, t3) = curve[0], curve[-2], curve[-1]
    early, late = (t2 - t1) / (n2 - n1), (t3 - t2) / (n3 - n2)
    # quadratic growth: (n2 + n3) / (n1 + n2), which is 2.4 and more for these sizes
    assert late <= 1.6 * early, f"seconds a pair, at first {early}, then {late}: {curve}"
