"""Labs run as their pages say, and nothing of them stays."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xdpctl.lab import comparison, frames
from xdpctl.lab.mistakes import MISTAKES
from xdpctl.lab.sandbox import LabError, Sandbox
from xdpctl.lab.watch import Watch

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]


def namespaces():
    return [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "net")]


def test_a_sandbox_shows_an_empty_machine_and_gives_the_old_one_back(world):
    mine = world.namespace()
    before, folder = namespaces(), Path.cwd()
    with Sandbox() as sandbox:
        assert sandbox.run("ip -br link").stdout.split()[0] == "lo"
        assert list(Path("/run/netns").iterdir()) == []
        sandbox.run("ip netns add inside")
        assert all(now != then for now, then in zip(namespaces(), before, strict=True))
    assert namespaces() == before
    assert Path.cwd() == folder
    assert [path.name for path in Path("/run/netns").iterdir()] == [mine]


def test_a_command_that_fails_or_is_missing_is_told_in_words():
    with Sandbox() as sandbox:
        with pytest.raises(LabError, match="no-such-device"):
            sandbox.run("ip link show no-such-device")
        with pytest.raises(Exception, match="no-such-command: no such command"):
            sandbox.run("no-such-command")


KILLED = """
import sys, time
from xdpctl.lab.sandbox import Sandbox
from xdpctl.lab.watch import Watch
with Sandbox() as sandbox, Watch():
    sandbox.run("ip netns add left-behind")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_sandbox_leaves_neither_namespaces_nor_trace_instances():
    child = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert child.stdout.readline() == "ready\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert not Path("/run/netns/left-behind").exists()
    instances = Path("/sys/kernel/tracing/instances")
    assert list(instances.glob(f"xdpctl-{child.pid}-*"))  # an instance outlives whoever made it ...
    with Watch():
        pass
    assert not list(instances.glob(f"xdpctl-{child.pid}-*"))  # ... until the next lab sweeps


def test_frames_go_out_by_one_end_and_come_in_by_the_other(world):
    world.veth("va", "vb")
    with contextlib.ExitStack() as held:
        held.callback(world.ip, "link del va")
        left, right = held.enter_context(frames.Port("va")), held.enter_context(frames.Port("vb"))
        for _ in range(3):
            left.send(frames.ethernet(b"a mark"))
        assert right.count(b"a mark", expect=3) == 3
        assert left.count(b"a mark", seconds=0.05) == 0  # what was sent is no arrival


def test_the_demo_goes_as_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "xdpctl.lab.demo"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 frames sent to veth0, 0 arrived at veth_yyy0" in done.stdout
    assert "10 frames sent to veth0, 10 arrived at veth_yyy0" in done.stdout


def test_the_demo_says_where_it_stops_when_something_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "xdpctl.lab.demo", "--objects", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "count.bpf.o" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_demo_without_root_says_what_it_needs():
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "xdpctl.lab.demo"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "CAP_SYS_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_other_tools_lose_frames_in_silence_xdpctl_refuses_beforehand(monkeypatch, tmp_path):
    mistake = next(one for one in MISTAKES if one.title == "Send frames back to a peer that has GRO off")
    monkeypatch.chdir(ROOT)
    silent, told = comparison.answer(mistake, "ip"), comparison.answer(mistake, "xdpctl")
    assert (silent.ended, silent.printed, silent.arrived) == (0, "", 0)
    assert told.ended != 0
    assert "eth1" in told.printed
