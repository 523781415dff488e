"""What `xdpctl top` costs: CPU time of the screen at 2 Hz over 512 veths with programs and frames; time of a frame."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest
from bench import MEASURED, ROOT, SHORT, Measured, batch, run
from frame_path import REDIRECT, frame_path, medians, ratio, turns

from xdpctl.bpf import net
from xdpctl.cli.top import Looks
from xdpctl.libbpf import uapi
from xdpctl.trace.frames import Port, ethernet, udp4
from xdpctl.trace.sampler import Sampler

XDPCTL = str(ROOT / ".venv/bin/xdpctl")
PASS = str(ROOT / "build/bpf/pass.bpf.o")
PAIRS, SECONDS = 256, 5 if SHORT else 15
ROWS, COLUMNS = 60, 200
FRAME = ethernet(b"bench", destination="02:00:00:00:00:77")
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def veths():
    """256 pairs, a native program on one end of each, so that the driver's verdict counters are read too."""
    batch(*(f"link add many{n} type veth peer name peer{n}" for n in range(PAIRS)))
    batch(*(f"link set {end}{n} up" for n in range(PAIRS) for end in ("many", "peer")))
    run(XDPCTL, "attach", "--mode", "native", "many*", PASS)
    yield
    run(XDPCTL, "detach", "many*")
    batch(*(f"link del many{n}" for n in range(PAIRS)))


def processor_seconds(pid: int) -> float:
    """CPU time of a process so far, its own and the kernel's on its behalf."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Screen:
    """A terminal that somebody looks at: reads what is drawn."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.frames = 0
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while not self._over.is_set():
            if select.select([self.ours], [], [], 0.1)[0]:
                self.frames += os.read(self.ours, 1 << 16).count(b"xdpctl top")

    def close(self) -> None:
        self._over.set()
        self._reader.join()
        os.close(self.ours)
        os.close(self.theirs)


def sending(over: threading.Event) -> None:
    """A few frames on each link, all the time."""
    ports = [Port(f"peer{n}") for n in range(0, PAIRS, 4)]
    while not over.wait(0.1):
        for port in ports:
            port.send(FRAME)
    for port in ports:
        port.close()


def test_the_live_screen_at_2_hz_over_512_interfaces_takes_below_a_tenth_of_a_core(veths):
    screen, over = Screen(), threading.Event()
    sender = threading.Thread(target=sending, args=(over,))
    sender.start()
    process = subprocess.Popen(
        [XDPCTL, "top", "--interval", "0.5"],
        stdin=screen.theirs, stdout=screen.theirs, stderr=screen.theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while screen.frames < 4:  # it has started, and knows the links
            assert time.monotonic() < end, "nothing is drawn"
            assert process.poll() is None, "xdpctl top ended"
            time.sleep(0.05)
        start, before, frames = time.monotonic(), processor_seconds(process.pid), screen.frames
        time.sleep(SECONDS)
        taken, seconds = processor_seconds(process.pid) - before, time.monotonic() - start
        drawn = screen.frames - frames
    finally:
        process.terminate()
        process.wait(20)
        over.set()
        sender.join()
        screen.close()
    share = taken / seconds
    note = (
        f"{drawn} screens of {COLUMNS} x {ROWS} in {seconds:.1f} s, {2 * PAIRS} interfaces,"
        f" {taken / drawn * 1000:.1f} ms of CPU time each"
    )
    MEASURED.append(
        Measured("top at 2 Hz over 512 interfaces, a second", "one core", share, 1.0, share, 0.1, drawn, note)
    )
    print(note)
    assert drawn >= 2 * SECONDS - 2, note
    assert share <= 0.1, f"{share:.1%} of a core: {note}"


ROUNDS, REDIRECTS = (3, 4_000_000) if SHORT else (5, 6_000_000)
"""Frames of one round take about as long as the time from one look to the next."""


@pytest.fixture
def redirects(tmp_path):
    """Nanoseconds a frame that is redirected into a veth, where a program drops it; this thread on one CPU.

    Handed to the stack it would end in kfree_skb: a lost packet, which is traced one by one (some 180 ns each).
    """
    with frame_path(tmp_path, REDIRECT) as opened:
        opened.load()
        peer = socket.if_nametoindex("cd")
        net.xdp_attach(peer, opened.programs["drop"].fd, uapi.XDP_FLAGS_DRV_MODE)
        opened.maps["out"].update(bytes(4), struct.pack("=I", socket.if_nametoindex("cc")))
        program, ifindex, frame = opened.programs["onto"], socket.if_nametoindex("ca"), udp4(bytes(64))

        def nanoseconds() -> float:
            tested = program.test_run(frame, repeat=REDIRECTS, ifindex=ifindex, live_frames=True)
            return float(tested.duration_ns)

        yield nanoseconds


@contextlib.contextmanager
def looking(cpu: int):
    """What `xdpctl top` does, twice a second, by a thread on another CPU."""
    over, ready = threading.Event(), threading.Event()

    def look() -> None:
        os.sched_setaffinity(0, {cpu})
        with Sampler() as sampler:
            looks = Looks(sampler, 0.5)
            while not over.is_set():
                looks.next(lambda seconds: not over.wait(seconds))
                ready.set()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        over.set()
        thread.join()


def test_what_is_always_on_costs_a_redirected_frame_below_a_twentieth(redirects):
    def nanoseconds(watched: str) -> float:
        if watched == "top":
            for _ in range(2):
                redirects()  # so that it has seen how many runs there are
        return redirects()

    took = turns(ROUNDS, {"top": lambda: looking(min(os.sched_getaffinity(1)))}, nanoseconds)
    times, ns = ratio(took, "top"), medians(took)
    note = (
        f"{ns['untraced']:.0f} ns a frame untraced ({ns['control']:.0f} in the control),"
        f" {ns['top']:.0f} while top looks, its run counts included"
    )
    print(note, {one: [round(each) for each in values] for one, values in took.items()})
    MEASURED.append(
        Measured(
            "frame redirected into a veth, dropped by a program behind it; `top`", "untraced",
            ns["top"] / 1e9, ns["untraced"] / 1e9, times, 1.05, ROUNDS, note,
        )
    )  # fmt: skip
    assert times <= 1.05, note
