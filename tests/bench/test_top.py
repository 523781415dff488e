"""What `xdpctl top` costs: CPU time of the live screen at 2 Hz over 512 veths with programs and frames, in one core."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest
from bench import MEASURED, ROOT, SHORT, Measured, batch, run

from xdpctl.trace.frames import Port, ethernet

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
