"""Deployments of one program on many veths: against a shell loop, against doctor, and how they grow."""

from __future__ import annotations

import itertools
import shutil
import statistics
import time

import pytest
from bench import ROOT, SERIES, SHORT, batch, compare, run

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
PASS = str(ROOT / "build/bpf/pass.bpf.o")
NAMESPACES = 8
VETHS = 512
SIZES = (64, 256, 512, 1024)
ROUNDS = 3
FILE = f"""
[deployment]
name = "bench"
[[program]]
name = "pass"
object = "{PASS}"
[[interface]]
match = "d*"
netns = "dep*"
[[interface.attach]]
program = "pass"
"""


class Host:
    """Eight namespaces with pairs spread evenly, both ends up; every end gets the program."""

    def __init__(self) -> None:
        self.veths = 0
        batch(*(f"netns add dep{n}" for n in range(NAMESPACES)))

    def grow(self, veths: int) -> None:
        """Add pairs until so many ends are there in all."""
        each = 2 * NAMESPACES
        for n in range(NAMESPACES):
            fresh = range(self.veths // each, veths // each)
            batch(*(f"link add d{i}a type veth peer name d{i}b" for i in fresh), netns=f"dep{n}")
            batch(*(f"link set d{i}{end} up" for i in fresh for end in "ab"), netns=f"dep{n}")
        self.veths = veths

    def close(self) -> None:
        batch(*(f"netns del dep{n}" for n in range(NAMESPACES)))


@pytest.fixture
def host():
    made = Host()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(FILE)
    return str(path)


def plan(file: str, code: int) -> float:
    """Seconds of one plan that must end so: 0 nothing to do, 1 changes."""
    start = time.perf_counter()
    run("sh", "-c", f"{XDPCTL} plan {file} > /dev/null; [ $? = {code} ]")
    return time.perf_counter() - start


def applied(file: str, veths: int) -> float:
    """Seconds of applying a plan; making it, that it did what it should, and taking it back, are not measured."""
    run("sh", "-c", f"{XDPCTL} plan --out {file}.json {file} > /dev/null; [ $? = 1 ]")
    start = time.perf_counter()
    done = run(XDPCTL, "apply", "--yes", f"{file}.json")
    taken = time.perf_counter() - start
    assert f"{veths + 1} changes made" in done
    run(XDPCTL, "destroy", "--yes", "--json", "bench")
    return taken


NAMES = [f"d{i}{end}" for i in range(VETHS // NAMESPACES // 2) for end in "ab"]


def loop(one: str) -> float:
    """Seconds of the loop that an engineer would write: a command for interface $i in namespace $ns."""
    each = f"for i in {' '.join(NAMES)}; do {one} || exit; done"
    start = time.perf_counter()
    run("sh", "-c", f"(for ns in $(ls /run/netns | grep ^dep); do {each}; done) > /dev/null 2>&1")
    return time.perf_counter() - start


def xdp_loader_loop() -> float:
    """Attaching by xdp-loader; detaching is not measured."""
    taken = loop(f'ip netns exec $ns xdp-loader load -m native "$i" {PASS}')
    for n in range(NAMESPACES):
        batch(*(f"link set {name} xdp off" for name in NAMES), netns=f"dep{n}")
    return taken


def doctor() -> None:
    """The rules of doctor over all that is there; healthy or not does not matter here."""
    run("sh", "-c", f"{XDPCTL} doctor --all-netns --json > /dev/null || [ $? = 1 ]")


def test_apply_takes_a_tenth_of_a_loop_of_xdp_loader(host, file):
    assert shutil.which("xdp-loader"), "the package xdp-tools is missing: .ci/setup dev installs it"
    host.grow(VETHS)
    compare(
        f"apply one XDP program to {VETHS} veths in {NAMESPACES} namespaces",
        lambda: applied(file, VETHS),
        "shell loop of xdp-loader load",
        xdp_loader_loop,
        limit=0.1,
        rounds=1 if SHORT else 3,
        note="wall time of `xdpctl apply plan.json`, which observes, plans and judges again and journals each change",
    )


def test_a_plan_that_changes_nothing_takes_at_most_twice_as_long_as_doctor(host, file):
    host.grow(VETHS)
    run(XDPCTL, "apply", "--yes", "--json", file)
    compare(
        f"plan that changes nothing, {VETHS} veths in {NAMESPACES} namespaces",
        lambda: plan(file, 0),
        "doctor over the same host",
        doctor,
        limit=2,
        rounds=5,
    )
    run(XDPCTL, "destroy", "--yes", "--json", "bench")


def test_apply_grows_linearly_with_interfaces(host, file):
    curve = []
    for veths in SIZES:
        host.grow(veths)
        applied(file, veths)
        # the least: what else the machine does only adds
        curve.append((veths, min(applied(file, veths) for _ in range(ROUNDS))))
    SERIES["xdpctl apply (ends, not pairs)"] = curve
    slopes = [(t2 - t1) / (n2 - n1) for (n1, t1), (n2, t2) in itertools.pairwise(curve)]
    # quadratic growth would double the slope with each size; timing noise does not
    assert slopes[-1] <= 1.6 * statistics.mean(slopes), f"seconds a veth between sizes {SIZES}: {slopes}"
