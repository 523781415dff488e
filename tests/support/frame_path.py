"""Where benches measure what a frame costs: two veth pairs, an object compiled for it, and one CPU."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
from operator import sub, truediv
from typing import TYPE_CHECKING

from bench import run

from xdpctl.bpf.object import Object
from xdpctl.build.compile import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

REDIRECT = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); }
	out SEC(".maps");
SEC("xdp") int onto(struct xdp_md *ctx) { return bpf_redirect_map(&out, 0, 0); }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
char _license[] SEC("license") = "GPL";
"""
"""Frames go to the device in the devmap's slot 0; behind it they may be dropped."""


@contextlib.contextmanager
def frame_path(folder: Path, source: str) -> Iterator[Object]:
    """Pairs ca, cb and cc, cd, all up; the object, opened; and this thread on the last CPU that it may use."""
    text = folder / "cost.bpf.c"
    text.write_text(source)
    (built,) = build([text], folder)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        for a, b in (("ca", "cb"), ("cc", "cd")):
            run("ip", "link", "add", a, "type", "veth", "peer", "name", b)
            for name in (a, b):
                run("ip", "link", "set", name, "up")
        with Object.open(built.object) as opened:
            yield opened
    finally:
        for name in ("ca", "cc"):
            subprocess.run(["ip", "link", "del", name], check=False)
        os.sched_setaffinity(0, before)


def turns(
    rounds: int,
    watchers: dict[str, Callable[[], AbstractContextManager]],
    nanoseconds: Callable[[str], float],
) -> dict[str, list[float]]:
    """ns a frame by watcher, a figure a round, each round's order turned.

    "untraced" and "control", which is a second untraced one, are added: see `beside`.
    """
    every = {"untraced": contextlib.nullcontext, **watchers, "control": contextlib.nullcontext}
    took: dict[str, list[float]] = {one: [] for one in every}
    for number in range(rounds):
        order = list(every)
        turned = number % len(order)
        for one in order[turned:] + order[:turned]:
            with every[one]():
                took[one].append(nanoseconds(one))
    return took


def beside(took: dict[str, list[float]], one: str) -> tuple[list[float], list[float]]:
    """(a watcher's figures, those without any from the same rounds): from round to round the machine drifts."""
    return took[one], [statistics.mean(pair) for pair in zip(took["untraced"], took["control"], strict=True)]


def added(took: dict[str, list[float]], one: str) -> float:
    """ns a frame that a watcher adds: median over the rounds."""
    return statistics.median(map(sub, *beside(took, one)))


def ratio(took: dict[str, list[float]], one: str) -> float:
    """A frame's time with a watcher to that without: median over the rounds."""
    return statistics.median(map(truediv, *beside(took, one)))


def medians(took: dict[str, list[float]]) -> dict[str, float]:
    """ns a frame by watcher."""
    return {one: statistics.median(values) for one, values in took.items()}
