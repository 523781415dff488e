"""Processes run side by side; none outlives its pool."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from xdpctl.build.pool import Pool


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_output_and_exit_status_come_back_by_key():
    with Pool[str]() as pool:
        pool.start("good", ["sh", "-c", "echo out; echo err >&2"])
        pool.start("bad", ["sh", "-c", "exit 7"])
        pool.start("killed", ["sh", "-c", "kill -9 $$"])
        ended = {one.key: one for one in (pool.wait(), pool.wait(), pool.wait())}
    assert ended["good"].output == "out\nerr\n"
    assert {key: one.returncode for key, one in ended.items()} == {"good": 0, "bad": 7, "killed": -9}


def test_more_output_than_a_pipe_holds_does_not_block():
    with Pool[int]() as pool:
        pool.start(0, [sys.executable, "-c", "print('x' * 1000000)"])
        assert len(pool.wait().output) == 1000001


def test_processes_run_at_the_same_time():
    start = time.monotonic()
    with Pool[int]() as pool:
        for key in range(4):
            pool.start(key, ["sleep", "0.5"])
        for _ in range(4):
            pool.wait()
    assert time.monotonic() - start < 1.5


def test_leaving_the_pool_kills_what_still_runs():
    with Pool[int]() as pool:
        pool.start(0, ["sleep", "60"])
        pid = pool._running[0].process.pid
    assert not alive(pid)


def test_an_interrupt_while_waiting_kills_what_runs():
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    pids = []

    def wait_interrupted():
        with Pool[int]() as pool:
            pool.start(0, ["sleep", "60"])
            pids.append(pool._running[0].process.pid)
            timer.start()
            pool.wait()

    with pytest.raises(KeyboardInterrupt):
        wait_interrupted()
    timer.join()
    assert not alive(pids[0])


def test_an_interrupt_while_starting_is_held_until_the_process_is_known(monkeypatch):
    import subprocess

    real = subprocess.Popen
    pids = []

    def interrupted(*arguments, **options):
        made = real(*arguments, **options)
        pids.append(made.pid)
        os.kill(os.getpid(), signal.SIGINT)  # between fork and the pool's own note of it
        return made

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), Pool[int]() as pool:
        pool.start(0, ["sleep", "60"])
    assert len(pids) == 1
    assert not alive(pids[0])


def test_a_program_that_is_not_there_is_an_os_error():
    with Pool[int]() as pool:
        with pytest.raises(FileNotFoundError):
            pool.start(0, ["/does/not/exist"])
        assert len(pool) == 0


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Pool[int]() as pool:
            pool.start(0, ["sh", "-c", "kill -INT $PPID; echo done"])
            assert pool.wait().output == "done\n"
    finally:
        signal.signal(signal.SIGINT, before)
