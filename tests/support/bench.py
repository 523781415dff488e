"""Comparisons in one run: rounds take turns, medians, one ratio; and the page that tells the figures.

``python tests/support/bench.py`` writes docs/benchmarks.md (and its plot) from build/bench.json, as
``make bench`` does after a whole run; with ``--add`` lines that this run did not measure stay.
XDPCTL_BENCH=short takes fewer rounds and smaller worlds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "build" / "bench.json"
SHORT = os.environ.get("XDPCTL_BENCH") == "short"
HEADING = """# Benchmarks

Written by `make bench`. Each line is xdpctl against a peer in the same run: their rounds take turns, the
times are medians, and the run fails when a ratio exceeds the most that it may be. A frame's ratio is the median of
the rounds' own. The times are those of one machine ({machine}); the ratios travel better."""
HEAD = ["what", "xdpctl", "peer", "peer's time", "ratio", "at most"]


@dataclass(frozen=True)
class Measured:
    """One comparison: median seconds of both, their ratio, and the most that the ratio may be."""

    what: str
    peer: str
    ours_seconds: float
    peer_seconds: float
    ratio: float
    limit: float
    rounds: int
    note: str = ""

    def row(self) -> list[str]:
        """Cells under HEAD."""
        ours, peer = _time(self.ours_seconds), _time(self.peer_seconds)
        return [self.what, ours, self.peer, peer, f"{self.ratio:.2f}", f"{self.limit:.2f}"]


def _time(seconds: float) -> str:
    """``12.3 ms``; what a single frame takes in ns."""
    return f"{seconds * 1000:.1f} ms" if abs(seconds) >= 1e-5 else f"{seconds * 1e9:.0f} ns"


os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # a user's xdpctl finds its bytecode, as typer's always is there

MEASURED: list[Measured] = []
SERIES: dict[str, list[tuple[float, float]]] = {}
"""Name of a curve -> (x, seconds) points."""


def run(*argv: str) -> str:
    """A command's stdout; it must end with 0."""
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{argv} ended {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def batch(*lines: str, netns: str | None = None) -> None:
    """Many ``ip`` commands at once."""
    prefix = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    subprocess.run(
        [*prefix, "ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, timeout=300
    )


def timed(job: Callable[[], float | None]) -> float:
    """Seconds that a job took: what it returns, else its wall time."""
    start = time.perf_counter()
    said = job()
    return time.perf_counter() - start if said is None else said


def compare(
    what: str,
    ours: Callable[[], float | None],
    peer_name: str,
    peer: Callable[[], float | None],
    *,
    limit: float,
    rounds: int,
    note: str = "",
) -> Measured:
    """Do both jobs in turns after one unmeasured round each; record the medians and assert their ratio."""
    jobs = (ours, peer)
    for job in jobs:
        timed(job)
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append(timed(jobs[which]))
    mine, theirs = (statistics.median(one) for one in taken)
    measured = Measured(what, peer_name, mine, theirs, mine / theirs, limit, rounds, note)
    MEASURED.append(measured)
    assert measured.ratio <= limit, f"{what}: {measured.ratio:.2f} times {peer_name}, at most {limit} wanted"
    return measured


def save() -> str:
    """Write build/bench.json; returns the table for a terminal."""
    FIGURES.parent.mkdir(exist_ok=True)
    told = {"measured": [asdict(one) for one in MEASURED], "series": SERIES}
    FIGURES.write_text(json.dumps(told, indent=2) + "\n")
    lines = [HEAD, *(one.row() for one in MEASURED)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def plot(series: dict[str, list[tuple[float, float]]], x_name: str, y_name: str) -> str:
    """A small SVG: points and lines from the origin, one colour a curve."""
    width, height, left, bottom = 640, 360, 64, 44
    x_most = max(x for curve in series.values() for x, _ in curve)
    y_most = max(y for curve in series.values() for _, y in curve)

    def at(x: float, y: float) -> str:
        return (
            f"{left + x / x_most * (width - left - 24):.1f},"
            f"{height - bottom - y / y_most * (height - bottom - 24):.1f}"
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left},16 V{height - bottom} H{width - 16}" fill="none" stroke="#444"/>',
        f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">{x_name}</text>',
        f'<text x="12" y="12">{y_name}</text>',
    ]
    ticks = sorted({x for curve in series.values() for x, _ in curve})
    for x in ticks:
        spot = at(x, 0).split(",")[0]
        parts.append(f'<text x="{spot}" y="{height - bottom + 16}" text-anchor="middle">{x:g}</text>')
    for part in range(1, 5):
        y = y_most * part / 4
        spot = at(0, y).split(",")[1]
        parts.append(f'<text x="{left - 6}" y="{spot}" text-anchor="end">{y:.2f}</text>')
        parts.append(f'<path d="M{left},{spot} H{width - 16}" stroke="#ddd"/>')
    for number, (name, curve) in enumerate(sorted(series.items())):
        colour = ("#1f5fbf", "#bf5b1f", "#2f8f4f", "#7a3fb0")[number % 4]
        parts.append(
            f'<polyline points="{" ".join(at(x, y) for x, y in curve)}" fill="none" stroke="{colour}" '
            'stroke-width="2"/>'
        )
        parts += [
            '<circle cx="{}" cy="{}" r="3" fill="{}"/>'.format(*at(x, y).split(","), colour) for x, y in curve
        ]
        parts.append(f'<text x="{left + 12}" y="{30 + 16 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def page(told: dict, plots: list[str], earlier: str = "") -> str:
    """docs/benchmarks.md; lines and notes of an earlier page stay where nothing newer was measured."""
    measured = [Measured(**one) for one in told["measured"]]
    whats = {one.what for one in measured}
    old = [line for line in earlier.splitlines() if line.startswith("| ")][2:]
    kept = [line for line in old if line.split(" | ")[0].removeprefix("| ") not in whats]
    notes = [line for line in earlier.splitlines() if line.startswith("- **")]
    notes = [line for line in notes if line.removeprefix("- **").split("**")[0] not in whats]
    lines = [HEAD, ["---"] * len(HEAD)]
    body = "\n".join(
        [*(f"| {' | '.join(line)} |" for line in lines), *kept]
        + [f"| {' | '.join(one.row())} |" for one in measured]
    )
    notes = "\n".join([*notes, *(f"- **{one.what}**: {one.note}" for one in measured if one.note)])
    pictures = "\n\n".join(f"![{name}]({name})" for name in plots)
    machine = (
        f"Linux {os.uname().release.split('-')[0]}, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs"
    )
    return (
        "\n\n".join(part for part in (HEADING.format(machine=machine), body, notes, pictures) if part) + "\n"
    )


if __name__ == "__main__":
    told = json.loads(FIGURES.read_text())
    docs = ROOT / "docs" / "benchmarks.md"
    earlier = docs.read_text() if "--add" in sys.argv else ""
    plots = ["benchmarks.svg"] if "benchmarks.svg" in earlier else []
    if told["series"]:
        (ROOT / "docs" / "benchmarks.svg").write_text(plot(told["series"], "veth pairs", "seconds"))
        plots = ["benchmarks.svg"]
    docs.write_text(page(told, plots, earlier))
