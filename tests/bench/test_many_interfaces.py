"""One object to many interfaces: against a shell loop of xdp-loader, and against bare libbpf calls."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from bench import ROOT, SHORT, batch, compare, run

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
PASS = str(ROOT / "build/bpf/pass.bpf.o")
ROUNDS = 3 if SHORT else 7
PAIRS = 128


@pytest.fixture(scope="module", autouse=True)
def veths():
    """128 veth pairs, many0..many127 up."""
    batch(*(f"link add many{n} type veth peer name peer{n}" for n in range(PAIRS)))
    batch(*(f"link set {end}{n} up" for n in range(PAIRS) for end in ("many", "peer")))
    yield
    batch(*(f"link del many{n}" for n in range(PAIRS)))


def xdpctl_once() -> float:
    """The one command; detaching is not measured."""
    start = time.perf_counter()
    run(XDPCTL, "attach", "--mode", "native", "many*", PASS)
    taken = time.perf_counter() - start
    run(XDPCTL, "detach", "many*")
    return taken


def xdp_loader_loop() -> float:
    """The loop that an engineer would write, in one shell."""
    start = time.perf_counter()
    run(
        "sh",
        "-c",
        f"n=0; while [ $n -lt {PAIRS} ]; do xdp-loader load -m native many$n {PASS} || exit; n=$((n+1));done",
    )
    taken = time.perf_counter() - start
    subprocess.run(["xdp-loader", "unload", "many0", "--all"], check=False, capture_output=True)
    batch(*(f"link set many{n} xdp off" for n in range(PAIRS)))
    return taken


def test_128_veths_in_one_command_take_a_fifth_of_a_loop_of_xdp_loader():
    assert shutil.which("xdp-loader"), "the package xdp-tools is missing: .ci/setup dev installs it"
    compare(
        f"attach to {PAIRS} veths",
        xdpctl_once,
        "shell loop of xdp-loader",
        xdp_loader_loop,
        limit=0.2,
        rounds=ROUNDS,
    )
