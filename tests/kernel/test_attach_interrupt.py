"""Ctrl-C at any moment of an attach: all interfaces have the program, or none, and no pin is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from attachments import BPFFS, agree, attach, detach, nothing_left, pins, xdp

from xdpctl.bpf.link import Link

pytestmark = pytest.mark.kernel

MANY = 50
ENDS = (0, 130, -signal.SIGINT)
"""Done before the signal came; told in words; killed while Python itself starts or ends (130 to a shell, too)."""


@pytest.fixture(scope="module")
def passing(compile_c):
    return compile_c(xdp("pass"), "pass")


@pytest.fixture
def many(world):
    """A namespace with fifty veth pairs v0 w0, v1 w1, ..."""
    inside = world.namespace()
    lines = "\n".join(f"link add v{n} type veth peer name w{n}" for n in range(MANY)) + "\n"
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{inside}", "ip", "-batch", "-"],
        input=lines,
        text=True,
        check=True,
        timeout=60,
    )
    return inside


def start(netns, obj, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "xdpctl.cli", "attach", "--netns", netns, *more, "v*", str(obj)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def all_or_none(world, netns, process) -> int:
    """The exit code, after checking what is attached; all of it then is detached."""
    out, err = process.communicate(timeout=30)
    in_python = "Traceback" in err and f"{os.sep}xdpctl{os.sep}" not in err
    assert "Traceback" not in err or in_python, err
    attached = len(agree(world, netns))
    assert attached in (0, MANY)
    if attached == 0:
        assert nothing_left()
        assert out == ""
        assert process.returncode != 0
        return 130 if in_python else process.returncode  # Python had not come to our code yet
    assert len(pins()) == MANY
    detach("v*", netns=netns)
    assert nothing_left()
    return process.returncode


@pytest.mark.parametrize("count", [1, 7, 24, 49])
def test_amidst_attaching_everything_is_taken_back(world, many, passing, count):
    process = start(many, passing)
    folder = BPFFS / "links"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(folder.rglob("*-xdp-*"))) >= count:
            break
    process.send_signal(signal.SIGINT)
    assert all_or_none(world, many, process) in ENDS


@pytest.mark.parametrize("delay", [0.05, 0.12, 0.2, 0.3])
def test_at_any_other_moment_too(world, many, passing, delay):
    process = start(many, passing)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    assert all_or_none(world, many, process) in ENDS


def test_sigterm_takes_everything_back_and_ends_the_process(world, many, passing):
    process = start(many, passing)
    folder = BPFFS / "links"
    while process.poll() is None and not folder.exists():
        time.sleep(0.0005)
    process.send_signal(signal.SIGTERM)
    assert all_or_none(world, many, process) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interrupted_upgrade_puts_the_old_programs_back(world, passing, compile_c, monkeypatch, at):
    inside = world.namespace()
    for number in range(3):
        world.veth(f"v{number}", f"w{number}", netns_a=inside, netns_b=inside)
    attach(passing, "v*", netns=inside)
    before = agree(world, inside)
    calls = []
    update = Link.update

    def update_and_interrupt(self, *arguments, **options):
        update(self, *arguments, **options)
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Link, "update", update_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        attach(compile_c(xdp("drop", "XDP_DROP")), "v*", netns=inside, replace=True)
    assert agree(world, inside) == before
    assert len(calls) == 2 * at, "as many taken back as made"
    detach("v*", netns=inside)
    assert nothing_left()
