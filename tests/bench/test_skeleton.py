"""A skeleton in a running process: opening, setting a constant and loading, against the same libbpf calls made bare."""

from __future__ import annotations

import ctypes
import os
import time

import pytest
from bench import ROOT, SHORT, compare

from xdpctl import Skeleton

ROUNDS = 7 if SHORT else 21
LOADS = 20 if SHORT else 60
LIMIT = 1.5


def bare(path: str):
    """open, load and close by ctypes alone."""
    libbpf = ctypes.CDLL(os.environ.get("XDPCTL_LIBBPF") or "libbpf.so.1", use_errno=True)
    open_, load, close = libbpf.bpf_object__open_file, libbpf.bpf_object__load, libbpf.bpf_object__close
    open_.restype, open_.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_void_p]
    load.argtypes, close.argtypes, close.restype = [ctypes.c_void_p], [ctypes.c_void_p], None
    name = path.encode()
    set_print = libbpf.libbpf_set_print
    set_print.restype, set_print.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def job() -> float:
        listener = set_print(None)  # xdpctl hears what libbpf says: that is no part of the bare calls
        start = time.perf_counter()
        for _ in range(LOADS):
            opened = open_(name, None)
            assert opened
            assert load(opened) == 0
            close(opened)
        taken = (time.perf_counter() - start) / LOADS
        set_print(listener)
        return taken

    return job


def skeleton(path: str):
    """The same by a skeleton."""

    def job() -> float:
        start = time.perf_counter()
        for _ in range(LOADS):
            with Skeleton.open(path) as skel:
                skel.load()
        return (time.perf_counter() - start) / LOADS

    return job


@pytest.mark.parametrize("name", ["blocklist", "count", "redirect_map"])
def test_opening_and_loading_a_skeleton_costs_little_more_than_libbpf(name):
    path = str(ROOT / "build" / "bpf" / f"{name}.bpf.o")
    compare(
        f"open and load {name}.bpf.o in a running process",
        skeleton(path),
        "bare libbpf calls by ctypes",
        bare(path),
        limit=LIMIT,
        rounds=ROUNDS,
    )
