"""One object to many interfaces: against a shell loop of xdp-loader, and against bare libbpf calls."""

from __future__ import annotations

import ctypes
import shutil
import socket
import subprocess
import time
from pathlib import Path
from unittest import mock

import pytest
from bench import ROOT, SHORT, batch, compare, run

from xdpctl.attach.prepare import prepare
from xdpctl.attach.request import AttachRequest
from xdpctl.attach.run import commit
from xdpctl.bpf.object import Object

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
PASS = str(ROOT / "build/bpf/pass.bpf.o")
ROUNDS = 5 if SHORT else 9
PAIRS = 128
XDP_FLAGS_UPDATE_IF_NOEXIST, XDP_FLAGS_DRV_MODE = 1, 4


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


def attach_phase() -> float:
    """From the loaded object to the last pinned link; parsing, opening and loading are not in it."""
    loaded = []
    load = Object.load

    def load_and_look(self):
        load(self)
        loaded.append(time.perf_counter())

    request = AttachRequest(object=Path(PASS), interfaces=("many*",), mode="native")
    with prepare(request) as prepared, mock.patch.object(Object, "load", load_and_look):
        commit(prepared)
        taken = time.perf_counter() - loaded[0]
    run(XDPCTL, "detach", "many*")
    return taken


@pytest.fixture
def bare_program():
    """The same program, loaded with nothing but ctypes; yields the library and the descriptor."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name in ("bpf_object__open_file", "bpf_object__next_program"):
        getattr(libbpf, name).restype = ctypes.c_void_p
    opened = ctypes.c_void_p(libbpf.bpf_object__open_file(PASS.encode(), None))
    assert libbpf.bpf_object__load(opened) == 0
    program = ctypes.c_void_p(libbpf.bpf_object__next_program(opened, None))
    yield libbpf, libbpf.bpf_program__fd(program)
    libbpf.bpf_object__close(opened)


def test_the_attach_phase_takes_at_most_twice_a_bare_loop_over_bpf_xdp_attach(bare_program):
    libbpf, fd = bare_program
    indexes = [socket.if_nametoindex(f"many{n}") for n in range(PAIRS)]

    def bare() -> float:
        start = time.perf_counter()
        for ifindex in indexes:
            assert (
                libbpf.bpf_xdp_attach(ifindex, fd, XDP_FLAGS_UPDATE_IF_NOEXIST | XDP_FLAGS_DRV_MODE, None)
                == 0
            )
        taken = time.perf_counter() - start
        for ifindex in indexes:
            libbpf.bpf_xdp_detach(ifindex, XDP_FLAGS_DRV_MODE, None)
        return taken

    compare(
        f"attach phase, {PAIRS} veths",
        attach_phase,
        "ctypes loop over bpf_xdp_attach",
        bare,
        limit=2,
        rounds=ROUNDS,
        note="links, pinned so that they outlive the command, against bare netlink attaches",
    )
