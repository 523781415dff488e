"""`top` against frames sent, exactly: verdicts, redirects, runs, drops; the screen by its keys; and a clean end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from kernels import LOST, RELEASE
from live import running, until

from xdpctl.bpf.program import program_by_id
from xdpctl.errors import NotFoundError
from xdpctl.netlink import netns
from xdpctl.trace import sampler as sampling
from xdpctl.trace.frames import Port, ethernet
from xdpctl.trace.sampler import Sampler
from xdpctl.trace.tick import tick

pytestmark = pytest.mark.kernel

FRAMES = 50
FRAME = ethernet(b"xdpctl-top", destination="02:00:00:00:00:77")
ROWS, COLUMNS = 30, 110
COMMAND = [sys.executable, "-m", "xdpctl.cli"]


class Rig:
    """source s1 (far) - s0 (here, runs the program) ... t0 (here) - t1 (behind)."""

    def __init__(self, world) -> None:
        self.here, self.far, self.behind = (world.namespace() for _ in range(3))
        world.veth("s0", "s1", netns_a=self.here, netns_b=self.far)
        world.veth("t0", "t1", netns_a=self.here, netns_b=self.behind)
        self.world = world
        with netns.enter(self.far):
            self.port = Port("s1")

    def send(self) -> None:
        for _ in range(FRAMES):
            self.port.send(FRAME)

    def seen(self, come=None, **options):
        """The tick in which the frames are sent, once `come(tick)`."""
        with Sampler(["s0", "t0"], in_netns=self.here, **options) as sampler:
            before = sampler.sample()
            self.send()
            found = []
            until(lambda: found.append(tick(before, sampler.sample())) or come is None or come(found[-1]))
            return found[-1]


@pytest.fixture(scope="module")
def rig(world_of_module):
    made = Rig(world_of_module)
    yield made
    made.port.close()


def link(found, name):
    return next(one for one in found.interfaces if one.facts.name == name)


def test_a_redirect_that_is_lost_is_a_route_with_its_errno_and_every_frame_of_it(rig):
    with running("redirect", "s0", netns_name=rig.here, target="t0"):
        found = rig.seen(
            lambda now: sum(one.lost for one in now.routes) >= FRAMES <= link(now, "s0").counts.rx_packets
        )
    (route,) = found.routes
    assert (route.way, route.source.name, route.target.name) == ("redirect", "s0", "t0")
    assert (route.sent, route.lost, dict(route.errnos)) == (0, FRAMES, {LOST[0]: FRAMES})
    assert route.error_rate == 1
    assert route.program.startswith("xdp_redirect")
    assert link(found, "s0").counts.rx_packets == FRAMES


def test_a_redirect_that_arrives_is_a_route_without_errors(rig):
    with (
        running("pass", "t1", netns_name=rig.behind),
        running("redirect", "s0", netns_name=rig.here, target="t0"),
    ):
        found = rig.seen(
            lambda now: sum(one.sent for one in now.routes) >= FRAMES <= link(now, "t0").counts.tx_packets
        )
    (route,) = found.routes
    assert (route.sent, route.lost, dict(route.errnos), route.error_rate) == (FRAMES, 0, {}, 0)
    assert link(found, "s0").verdicts["redirect"] == FRAMES
    assert link(found, "t0").counts.tx_packets == FRAMES


@pytest.mark.parametrize(
    ("program", "verdict"),
    [("pass", "pass"), ("drop", "drop"), ("tx-swap", "tx"), ("redirect_map", "aborted")],
)
def test_each_verdict_of_a_native_program_is_counted(rig, program, verdict):
    """redirect_map's slots are empty: XDP_ABORTED, which veth counts among its drops."""
    with (
        running("pass", "s1", netns_name=rig.far),  # the other end takes what XDP_TX sends back
        running(program, "s0", netns_name=rig.here),
    ):
        found = rig.seen(lambda now: sum(filter(None, link(now, "s0").verdicts.values())) >= FRAMES)
    facts = link(found, "s0").facts
    assert (facts.mode, facts.kind, facts.driver) == ("native", "veth", "veth")
    expected = dict.fromkeys(("pass", "drop", "tx", "redirect", "aborted"), 0) | {verdict: FRAMES}
    assert link(found, "s0").verdicts == expected
    assert link(found, "t0").verdicts is None


def test_verdicts_of_a_generic_program_are_unknown_but_for_what_a_tracepoint_tells(rig):
    with running("drop", "s0", netns_name=rig.here, generic=True):
        found = rig.seen()
    verdicts = link(found, "s0").verdicts
    assert verdicts == {"pass": None, "drop": None, "tx": None, "redirect": None, "aborted": 0}


@pytest.mark.alone
def test_runs_are_counted_while_it_is_asked_for_and_no_longer(rig):
    with running("drop", "s0", netns_name=rig.here) as opened:
        number = next(iter(opened.programs.values())).info().id
        found = rig.seen(lambda now: sum(one.runs for one in now.programs) >= FRAMES, run_times="always")
    (program,) = (one for one in found.programs if one.id == number)
    assert program.runs == FRAMES
    assert 0 < program.cost_ns < 1e8
    assert program.where == ("s0",)
    assert found.counted_seconds == pytest.approx(found.seconds, rel=0.5)
    assert statistics_held() == 0


def test_without_a_window_no_run_is_counted_by_us(rig):
    with Sampler(["s0"], in_netns=rig.here, run_times="sample") as sampler:
        before = sampler.sample()
        assert statistics_held() == 0
        sampler.window(True)
        assert statistics_held() == 1
        sampler.window(False)
        assert statistics_held() == 0
        found = tick(before, sampler.sample())
    assert 0 < found.counted_seconds < found.seconds


def statistics_held(pid="self"):
    """Descriptors that keep run counts switched on."""
    return sum(
        "bpf-stats" in str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()
    )


def test_packets_that_nobody_takes_are_drops_of_their_interface(rig):
    found = rig.seen(lambda now: now.drops.packets >= FRAMES)
    (drop,) = (one for one in found.drops.drops if one.device.name == "s0")
    assert drop.packets == FRAMES
    assert drop.reason == ("UNHANDLED_PROTO" if RELEASE >= (5, 18) else None)


def test_a_program_attached_later_is_seen(rig):
    with Sampler(["s0"], in_netns=rig.here) as sampler:
        assert link(tick(sampler.sample(), sampler.sample()), "s0").facts.mode is None
        with running("pass", "s0", netns_name=rig.here):
            assert link(tick(sampler.sample(), sampler.sample()), "s0").facts.mode == "native"
        assert link(tick(sampler.sample(), sampler.sample()), "s0").facts.mode is None


def test_a_link_that_comes_and_goes_is_seen(rig):
    with Sampler(in_netns=rig.here) as sampler:
        sampler.sample()
        rig.world.veth("late0", "late1", netns_a=rig.here, netns_b=rig.here)
        names = {one.facts.name for one in tick(sampler.sample(), sampler.sample()).interfaces}
        assert {"late0", "late1"} <= names
        rig.world.ip("link del late0", rig.here)
        names = {one.facts.name for one in tick(sampler.sample(), sampler.sample()).interfaces}
        assert not {"late0", "late1"} & names


def test_a_namespace_that_goes_ends_the_watch_in_one_line(world):
    name = world.namespace()
    with Sampler(in_netns=name) as sampler:
        sampler.sample()
        world.ip(f"netns del {name}")
        with pytest.raises(NotFoundError, match=name):
            sampler.sample()


def test_every_namespace_is_watched_where_that_is_asked_for_also_those_that_come_later(world, monkeypatch):
    monkeypatch.setattr(sampling, "SELDOM_SECONDS", 0.0)
    first = world.namespace()
    world.veth("a0", "a1", netns_a=first, netns_b=first)
    with Sampler(["a*"], all_netns=True, run_times="off") as sampler:
        now = sampler.sample()
        assert {now.labels[one.netns] for one in now.links.values()} == {first}
        second = world.namespace()
        world.veth("a0", "a1", netns_a=second, netns_b=second)
        now = sampler.sample()
        assert {now.labels[one.netns] for one in now.links.values()} == {first, second}
        world.ip(f"netns del {second}")
        now = sampler.sample()
        assert {now.labels[one.netns] for one in now.links.values()} == {first}


def test_without_privileges_the_counters_of_links_are_told_and_what_is_missing_is_named():
    told = as_nobody(without_privileges)
    assert told["counters"] > 0
    assert [told["programs"], told["redirects"], told["drops"]] == [None, None, None]
    for word in ("run times", "redirects", "drops", "programs"):
        assert any(one.startswith(f"{word} are not told: ") for one in told["notes"]), told["notes"]


def without_privileges():
    with Sampler() as sampler:
        now = sampler.sample()
    return {
        "counters": len(now.counters), "programs": now.programs, "redirects": now.redirects, "drops": now.drops,
        "notes": now.notes,
    }  # fmt: skip


def as_nobody(act):
    """What `act` returns in a child without any privilege; modules are imported before, as root."""
    act_once = Sampler()
    act_once.sample()
    act_once.close()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            said = act()
        except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
            said = {"error": repr(error)}
        os.write(writer, json.dumps(said).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return said


def test_two_at_once_count_the_same(rig):
    with (
        running("redirect", "s0", netns_name=rig.here, target="t0"),
        Sampler(["s0"], in_netns=rig.here) as one,
        Sampler(["s0"], in_netns=rig.here) as other,
    ):
        before = one.sample(), other.sample()
        rig.send()
        ticks = []

        def come():
            ticks[:] = [tick(was, by.sample()) for was, by in zip(before, (one, other), strict=True)]
            return all(sum(route.lost for route in now.routes) >= FRAMES for now in ticks)

        assert until(come)
    assert [[(route.lost, route.sent) for route in now.routes] for now in ticks] == [[(FRAMES, 0)]] * 2


def test_once_prints_every_section(rig, xdpctl):
    with running("pass", "s0", netns_name=rig.here):
        done = xdpctl("top", "--once", "--interval", "0.1", "--netns", rig.here, check=True)
    sections = re.findall(r"^[A-Z]{4,}(?=$|:)", done.stdout, re.MULTILINE)
    assert sections == ["INTERFACES", "PROGRAMS", "REDIRECTS", "POOLS", "DROPS"]
    assert re.search(r"^s0 +native +xdp_pass ", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--iface", "s00"), "no such interface: s00"),
        (("--netns", "nowhere"), "no such network namespace: nowhere"),
        (("--sort", "size"), "can't sort by size"),
        (("--interval", "0"), "--interval is a time"),
        (("--netns", "a", "--all-netns"), "give one of them"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(rig, xdpctl, words, said):
    done = xdpctl("top", "--once", *words, netns=rig.here)
    assert done.returncode == 2
    assert said in done.stderr


def programs_of(pid):
    """Ids of the BPF programs that a process holds."""
    texts = [one.read_text() for one in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return {int(found[1]) for text in texts if (found := re.search(r"^prog_id:\t(\d+)", text, re.MULTILINE))}


def loaded(number):
    try:
        program_by_id(number).close()
    except NotFoundError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_lines_add_up_to_the_frames_sent_and_a_signal_leaves_nothing_attached(rig, number):
    with (
        running("redirect", "s0", netns_name=rig.here, target="t0"),
        subprocess.Popen(
            [*COMMAND, "top", "--json", "--interval", "0.1", "--netns", rig.here, "--iface", "s0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        lines = [json.loads(process.stdout.readline())]
        held = programs_of(process.pid)
        rig.send()
        lost = received = 0
        while lost < FRAMES or received < FRAMES:
            lines.append(json.loads(process.stdout.readline()))
            lost = sum(route["lost"] for line in lines for route in line["redirects"])
            received = sum(line["interfaces"][0]["rx_packets"] for line in lines)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
        lines += [json.loads(line) for line in rest.splitlines()]
    assert (process.returncode, errors) == (0, "")
    assert sum(route["lost"] for line in lines for route in line["redirects"]) == FRAMES
    assert sum(line["interfaces"][0]["rx_packets"] for line in lines) == FRAMES
    assert len(held) > 2
    assert until(lambda: not any(map(loaded, held)))


class Terminal:
    """A terminal with `xdpctl top` on it."""

    def __init__(self, *words: str) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(self._theirs)
        # readline, where something imported it, hands its idea of the size on to processes
        without_size = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
        self.process = subprocess.Popen(
            [*COMMAND, "top", *words], stdin=self._theirs, stdout=self._theirs, stderr=self._theirs,
            env={**without_size, "TERM": "xterm-256color"}, start_new_session=True,
        )  # fmt: skip
        self.drawn = ""

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while select.select([self._ours], [], [], max(0, end - time.monotonic()))[0]:
            self.drawn += os.read(self._ours, 1 << 16).decode()
            if time.monotonic() > end:
                return

    def screen(self, told) -> list[str]:
        """The lines of the first picture from now on of which `told(lines)` holds."""
        end = time.monotonic() + 60
        self.drawn = ""
        while time.monotonic() < end:
            self.read(0.2)
            for picture in self.drawn.split("\x1b[H")[1:]:
                lines = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", picture).replace("\r", "").split("\n")
                if len(lines) == ROWS and told(lines):
                    return lines
        raise AssertionError(f"not drawn: {self.drawn[-4000:]}")

    @property
    def settings(self):
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


def order(lines):
    """Names of the interfaces in the order shown."""
    return [name for line in lines if (name := line.split("  ")[0].strip()) in ("lo", "s0", "t0")]


def test_the_screen_starts_sorts_by_keys_and_gives_the_terminal_back(rig):
    terminal = Terminal("--netns", rig.here, "--interval", "0.2", "--sort", "name")
    try:
        lines = terminal.screen(lambda lines: "by name" in lines[0] and order(lines))
        assert order(lines) == ["lo", "s0", "t0"]
        assert lines[-1].startswith("q end")
        assert terminal.settings != terminal.before  # keys come at once, and are not echoed
        terminal.press("r")
        lines = terminal.screen(lambda lines: "least first" in lines[0])
        assert order(lines) == ["t0", "s0", "lo"]
        terminal.press("rl")
        terminal.screen(lambda lines: "by lost" in lines[0])
        terminal.press("\x1b[Bp")
        terminal.screen(lambda lines: "by packets" in lines[0])
        terminal.drawn = ""
        terminal.press("q")
        assert terminal.process.wait(60) == 0
        terminal.read(0.1)
        assert terminal.drawn.rstrip().endswith("\x1b[?1049l")
        assert "\x1b[?25h" in terminal.drawn
        assert terminal.settings == terminal.before
    finally:
        terminal.close()


def test_ctrl_c_gives_the_terminal_back_too(rig):
    terminal = Terminal("--netns", rig.here, "--interval", "0.2")
    try:
        terminal.screen(order)
        terminal.drawn = ""
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(60) == 0
        terminal.read(0.1)
        assert "\x1b[?1049l" in terminal.drawn
        assert "Traceback" not in terminal.drawn
        assert terminal.settings == terminal.before
    finally:
        terminal.close()


def test_a_terminal_that_can_draw_nothing_gets_plain_reports(rig):
    done = subprocess.run(
        [*COMMAND, "top", "--count", "2", "--interval", "0.1", "--netns", rig.here],
        capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=60,
        env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    assert done.stdout.count("INTERFACES") == 2
