"""Tracers when something is missing, when they are interrupted, and when they have no room."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live import running, until

from xdpctl.bpf.program import program_by_id
from xdpctl.errors import NotFoundError
from xdpctl.netlink import netns
from xdpctl.trace import drops, qdisc, redirect
from xdpctl.trace.devices import chosen
from xdpctl.trace.frames import Port, ethernet
from xdpctl.trace.loss_counters import losses, read
from xdpctl.trace.tracer import hook

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
FRAME = ethernet(b"x", destination="02:00:00:00:00:99")
XDPCTL = [sys.executable, "-m", "xdpctl.cli"]


@pytest.fixture(scope="module")
def lossy(world_of_module):
    """A veth whose program drops what comes in, in generic mode: (namespace, a port to send from)."""
    here = world_of_module.namespace()
    world_of_module.veth("s0", "s1", netns_a=here, netns_b=here)
    with running("drop", "s0", netns_name=here, generic=True), netns.enter(here), Port("s1") as port:
        yield here, port


def programs_of(pid):
    """Ids of the programs that a process holds."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").glob("*"):
        try:
            found |= set(re.findall(r"^prog_id:\s*(\d+)", path.read_text(), re.MULTILINE))
        except OSError:
            continue
    return {int(one) for one in found}


def loaded(program):
    try:
        program_by_id(program).close()
    except NotFoundError:
        return False
    return True


@pytest.mark.parametrize("tracer", ["redirect", "drops", "qdisc", "pool"])
def test_ctrl_c_ends_a_tracer_and_nothing_stays_attached(tracer):
    child = subprocess.Popen(
        [*XDPCTL, "trace", tracer, "--interval", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        least = {"redirect": 6, "drops": 6, "qdisc": 5, "pool": 5}[tracer]
        held = set()

        def attached():
            held.update(programs_of(child.pid))
            return len(held) >= least

        assert until(attached, 60), child.poll()
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=30)
    finally:
        child.kill()
        child.communicate()
    # amidst an import that compiles text, Python remembers the interrupt and ends by it after all: 130 in a shell
    assert child.returncode in (0, 130, -signal.SIGINT), told
    assert "Traceback" not in told
    assert until(lambda: not any(map(loaded, held)))


@pytest.mark.parametrize("after", [0.0, 0.2])
def test_ctrl_c_while_a_tracer_starts_is_no_error(after):
    child = subprocess.Popen(
        [*XDPCTL, "trace", "drops", "--interval", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    held = set()
    try:
        # before that it is Python that starts
        assert until(lambda: b"libbpf" in Path(f"/proc/{child.pid}/maps").read_bytes(), 60)
        end = time.monotonic() + after
        while time.monotonic() < end:
            held |= programs_of(child.pid)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=30)
    finally:
        child.kill()
        child.communicate()
    assert "internal error" not in told
    assert until(lambda: not any(map(loaded, held)))


def hidden_types(*command):
    """Run a command where the kernel's types can't be seen."""
    script = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *XDPCTL, *command],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip


def test_without_btf_it_is_told_and_what_still_works():
    done = hidden_types("trace", "redirect", "--duration", "1")
    assert done.returncode not in (0, 1)
    assert "/sys/kernel/btf/vmlinux" in done.stderr
    assert "still works" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_tracepoint_is_named_and_the_others_count(lossy, monkeypatch):
    here, port = lossy
    none = hook("bulk_tx", "no_such_tracepoint", "what nobody tells")
    monkeypatch.setattr(drops, "HOOKS", (*(one for one in drops.HOOKS if one.program != "bulk_tx"), none))
    with drops.DropTrace() as trace, netns.enter(here):
        assert ("no_such_tracepoint", "what nobody tells") in trace.missing
        ours = chosen(["s0"])
        port.send(FRAME)
        assert until(lambda: trace.read().about(ours).packets == 1)


def test_with_no_tracepoint_at_all_it_is_unsupported(monkeypatch):
    monkeypatch.setattr(redirect, "HOOKS", (hook("bulk_tx", "no_such_tracepoint", "what nobody tells"),))
    with pytest.raises(Exception, match="no_such_tracepoint"):
        redirect.RedirectTrace()


def small(monkeypatch, name):
    """One entry in a map of the drops tracer."""
    prepare = drops._prepare

    def less(opened):
        prepare(opened)
        opened.map(name).set_max_entries(1)

    monkeypatch.setattr(drops, "_prepare", less)


def test_what_finds_no_room_is_counted_as_lost(lossy, monkeypatch, world):
    _, port = lossy
    small(monkeypatch, "drops")
    other = world.namespace()
    world.veth("o0", "o1", netns_a=other, netns_b=other)
    with (
        drops.DropTrace() as trace,
        netns.enter(other),
        running("drop", "o0", netns_name=other, generic=True),
    ):
        with Port("o1") as second:
            for _ in range(5):
                port.send(FRAME)
                second.send(FRAME)
            # two kinds of drops at least, of which one has an entry
            assert until(lambda: trace.read().lost >= 5)
        assert trace.read().packets + trace.read().lost >= 10


def test_two_tracers_of_a_kind_count_the_same(lossy):
    here, port = lossy
    with netns.enter(here), drops.DropTrace() as one, drops.DropTrace() as other:
        ours = chosen(["s0"])
        for _ in range(20):
            port.send(FRAME)
        assert until(lambda: one.read().about(ours).packets == other.read().about(ours).packets == 20)
    with (
        netns.enter(here),
        qdisc.QdiscTrace(chosen(["s1"])) as first,
        qdisc.QdiscTrace(chosen(["s1"])) as second,
    ):
        for _ in range(20):
            port.send(FRAME)
        counts = [sum(each.all.packets for each in trace.read().residences) for trace in (first, second)]
    assert counts == [20, 20]


def test_a_counter_that_no_tracepoint_explains_stands_beside_the_reasons(world):
    """A redirected frame that the next veth's program drops was never an skb: the driver's own counter alone tells."""
    here = world.namespace()
    world.veth("a0", "a1", netns_a=here, netns_b=here)
    world.veth("b0", "b1", netns_a=here, netns_b=here)
    with netns.enter(here):
        ref, ours = netns.current(), chosen(["b1"])
    with (
        running("redirect", "a0", netns_name=here, target="b0"),
        running("drop", "b1", netns_name=here),
        drops.DropTrace() as trace,
        netns.enter(here),
        Port("a1") as port,
    ):
        before, then = trace.read(), read(ours, [ref])

        def grown():
            found = losses(then, read(ours, [ref]), trace.read().minus(before))
            return [(one, {each.name: each.delta for each in one.counters}) for one in found]

        for _ in range(30):
            port.send(FRAME)
        assert until(lambda: any(names.get("rx_xdp_drops") == 30 for _, names in grown())), grown()
        ((one, _),) = grown()
    assert (one.device.name, one.told, one.untold) == ("b1", 0, 30)
