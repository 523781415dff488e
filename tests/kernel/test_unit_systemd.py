"""The unit that `xdpctl unit` writes, run by systemd itself as PID 1 of namespaces of its own."""

from __future__ import annotations

import contextlib
import json
import signal

import pytest
from deployments import SOURCE
from systemd import SYSTEMD, CannotBoot, booted

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(SYSTEMD is None, reason="systemd is not installed"),
]

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
EDGE = """
[deployment]
name = "edge"
[[program]]
name = "guard"
object = "guard.bpf.o"
[program.maps.table]
entries = { 5 = 6 }
[[interface]]
name = "va"
mtu = 1400
wait = "5s"
features = { gro = true }
[[interface.attach]]
program = "guard"
"""
ONCE = """
[deployment]
name = "${name}"
[[program]]
name = "guard"
source = "guard.bpf.c"
[program.globals]
limit = 9
[[interface]]
name = "va"
wait = "20s"
[[interface.attach]]
program = "guard"
hook = "ingress"
"""
"""Of a source, which the service compiles; on an interface that comes after it."""
ELSEWHERE = """
[deployment]
name = "edge"
[[program]]
name = "guard"
object = "guard.bpf.o"
[[interface]]
name = "vo"
netns = "blue"
mtu = 1400
features = { gro = true }
napi = { threaded = true }
[[interface.attach]]
program = "guard"
hook = "ingress"
[[interface.attach]]
program = "guard"
"""
PAIR = "ip link add {0} type veth peer name {1} && ip link set {0} up && ip link set {1} up"
UNIT = "xdpctl-edge.service"
STATE = ("ActiveState", "SubState", "Result", "MainPID", "NRestarts", "WatchdogTimestampMonotonic")


class Service:
    """The service on a machine of its own, and what the machine shows of it."""

    def __init__(self, machine, compile_c, text):
        self.machine = machine
        (machine.root / "srv/guard.bpf.o").write_bytes(compile_c(SOURCE).read_bytes())
        (machine.root / "srv/edge.toml").write_text(text)
        machine.run("xdpctl", "unit", "/srv/edge.toml")
        folder = machine.root / f"etc/systemd/system/{UNIT}.d"
        folder.mkdir()
        # nothing but times is another, and where the words go without a journal
        (folder / "test.conf").write_text(
            "[Service]\nWatchdogSec=2\nRestartSec=100ms\nStandardOutput=append:/srv/log\nStandardError=append:/srv/log\n"
        )
        machine.run("systemctl", "daemon-reload")

    def start(self):
        """Start it as a boot does."""
        self.machine.run("systemctl", "enable", UNIT)
        self.machine.run("systemctl", "stop", "network-online.target", "multi-user.target")
        self.machine.run("systemctl", "start", "multi-user.target")
        assert self.state()["ActiveState"] == "active", self.told()

    def state(self):
        return self.machine.show(UNIT, *STATE)

    def told(self):
        """What it has written, and systemd about it."""
        log = self.machine.root / "srv/log"
        return self.machine.said() + (log.read_text() if log.exists() else "")

    def until(self, true, what):
        self.machine.until(true, what, self.told)

    def process(self):
        """/proc/PID of its main process, as PID 1 sees it."""
        return self.machine.root / "proc" / self.state()["MainPID"]

    def kill(self, number):
        self.machine.run("kill", f"-{number}", self.state()["MainPID"])

    def link(self, name="va", netns=None):
        """(MTU, id of the program on XDP or None) of an interface."""
        within = ("-n", netns) if netns else ()
        (shown,) = json.loads(self.machine.run("ip", "-j", *within, "link", "show", name))
        return shown["mtu"], shown.get("xdp", {}).get("prog", {}).get("id")

    def pins(self):
        return self.machine.run("find", "/sys/fs/bpf/xdpctl", "-type", "f").splitlines()


@pytest.fixture
def machine():
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(booted())
        except CannotBoot as why:
            pytest.skip(f"systemd does not boot in namespaces here: {' '.join(str(why).split())[-300:]}")
        yield made


def test_systemd_starts_it_watches_it_and_restarts_it(machine, compile_c):
    machine.run("sh", "-c", PAIR.format("va", "vb"))
    service = Service(machine, compile_c, EDGE)
    service.start()
    began = service.state()
    applied = service.link()
    assert applied[0] == 1400
    assert applied[1] is not None

    # what filters is there before anything counts as online
    (at,) = machine.show(UNIT, "ActiveEnterTimestampMonotonic").values()
    (online,) = machine.show("network-online.target", "ActiveEnterTimestampMonotonic").values()
    assert 0 < int(at) <= int(online)

    status = (service.process() / "status").read_text()
    mask = sum(1 << CAPABILITIES[one] for one in ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"))
    assert f"CapEff:\t{mask:016x}\nCapBnd:\t{mask:016x}\n" in status
    assert "NoNewPrivs:\t1\nSeccomp:\t2\n" in status
    lines = map(str.split, (service.process() / "mounts").read_text().splitlines())
    mounts = {where: options[:2] for _, where, _, options, *_ in lines}
    assert {where: mounts[where] for where in ("/", "/sys", "/sys/fs/bpf", "/proc/sys", "/run/xdpctl")} == {
        "/": "ro", "/sys": "ro", "/sys/fs/bpf": "rw", "/proc/sys": "ro", "/run/xdpctl": "rw",
    }  # fmt: skip

    # the kernel tells of a setting, of a link that is detached by force it does not: the next beat sees that
    machine.run("ip", "link", "set", "va", "mtu", "1300")
    service.until(lambda: service.link() == applied, "the setting did not come back")
    (pin,) = (one for one in service.pins() if "/links/" in one)
    machine.run("bpftool", "link", "detach", "pinned", pin)
    assert service.link() == (1400, None)
    service.until(lambda: service.link() == applied, "the program did not come back")
    service.until(lambda: "edge: missing   va: guard is not on xdp" in service.told(), "it was not told")
    service.until(
        lambda: (
            int(service.state()["WatchdogTimestampMonotonic"])
            > int(began["WatchdogTimestampMonotonic"]) + 4_000_000
        ),
        "no beat came",
    )
    now = service.state()
    assert (now["MainPID"], now["NRestarts"], now["SubState"]) == (began["MainPID"], "0", "running")

    # a pin that somebody removes it may not make again: it says so, and goes on
    (pin,) = (one for one in service.pins() if one.endswith("/deployed_xdp"))
    machine.run("rm", pin)
    service.until(lambda: "can't be healed here: " in service.told(), "it was not told")
    assert "edge: unpinned  guard: " in service.told()
    machine.run("xdpctl", "drift", "--heal", "--wait", "10")
    assert pin in service.pins()

    # killed, it is started again, and nothing else has changed
    pins = service.pins()
    service.kill(signal.SIGKILL)
    service.until(lambda: service.state()["NRestarts"] == "1", "it was not restarted")
    assert service.link() == applied
    service.until(lambda: service.state()["ActiveState"] == "active", "it did not come up again")
    assert service.state()["MainPID"] != began["MainPID"]
    # silent, it is ended by the watchdog
    service.kill(signal.SIGSTOP)
    service.until(lambda: service.state()["NRestarts"] == "2", "the watchdog did not bark")
    assert "Watchdog timeout (limit 2s)!" in machine.said()
    service.until(lambda: service.state()["ActiveState"] == "active", "it did not come up again")
    assert service.link() == applied
    assert service.pins() == pins

    # stopped, it leaves all as it is; started again, it finds nothing to do
    machine.run("systemctl", "stop", UNIT)
    assert service.state() == {**service.state(), "ActiveState": "inactive", "Result": "success"}
    assert service.link() == applied
    state = (machine.root / "run/xdpctl/deployments/edge/state.json").read_bytes()
    machine.run("systemctl", "start", UNIT)
    assert (service.link(), service.pins()) == (applied, pins)
    assert (machine.root / "run/xdpctl/deployments/edge/state.json").read_bytes() == state
    machine.run("systemctl", "stop", UNIT)
    machine.run("xdpctl", "destroy", "--yes", "edge")
    assert service.link() == (1500, None)


def test_other_commands_are_no_drift_to_it_and_destroying_ends_it(machine, compile_c):
    blue = "ip netns add blue && " + PAIR.replace("ip ", "ip -n blue ").format("vo", "vp")
    machine.run("sh", "-c", blue)
    service = Service(machine, compile_c, ELSEWHERE)
    service.start()
    began = service.state()
    status = (service.process() / "status").read_text()
    assert f"CapEff:\t{sum(1 << one for one in CAPABILITIES.values()):016x}\n" in status

    def attached():
        return sorted(
            (one["hook"], one["program"]["name"])
            for one in json.loads(machine.run("xdpctl", "status", "--json", "--netns", "blue"))["attachments"]
        )

    both = attached()
    assert [name for _, name in both] == ["deployed_tc", "deployed_xdp"]
    machine.run("xdpctl", "detach", "--netns", "blue", "--all", "vo")
    service.until(lambda: "edge: healed by " in service.told() and attached() == both, "it did not heal")

    # a namespace that goes and comes again reaches the service's own mounts
    machine.run("ip", "netns", "del", "blue")
    service.until(lambda: "no such network namespace: blue" in service.told(), "it was not told")
    machine.run("sh", "-c", blue)
    service.until(lambda: attached() == both, "the new namespace is not as the old one")

    # somebody applies, or reloads, what the file says now: the watch lets them, and keeps that from then on
    file = machine.root / "srv/edge.toml"
    for mtu, command in ((1410, "xdpctl apply --yes /srv/edge.toml"), (1420, f"systemctl reload {UNIT}")):
        file.write_text(
            file.read_text().replace("mtu = 1400", f"mtu = {mtu}").replace("mtu = 1410", f"mtu = {mtu}")
        )
        machine.run(*command.split())
        assert service.link("vo", "blue")[0] == mtu
        machine.run("ip", "-n", "blue", "link", "set", "vo", "mtu", "1300")
        service.until(lambda mtu=mtu: service.link("vo", "blue")[0] == mtu, "the setting did not come back")
    now = service.state()
    assert (now["MainPID"], now["NRestarts"], now["SubState"]) == (began["MainPID"], "0", "running"), (
        service.told()
    )

    machine.run("xdpctl", "destroy", "--yes", "--wait", "10", "edge")
    going = ("active", "deactivating")
    service.until(lambda: service.state()["ActiveState"] not in going, "it watches what is no more")
    assert service.state() == {**now, **service.state(), "ActiveState": "inactive", "Result": "success"}, (
        service.told()
    )
    assert "edge: destroyed, and watched no more" in service.told()
    assert attached() == []
    assert service.link("vo", "blue") == (1500, None)


def test_once_it_compiles_waits_for_the_interface_and_ends(machine):
    folder = machine.root / 'srv/100% of "$HOME"'
    folder.mkdir()
    (folder / "guard.bpf.c").write_text(SOURCE)
    (folder / "edge.toml").write_text(ONCE)
    machine.run("xdpctl", "unit", "--once", "--var", "name=edge", f"/srv/{folder.name}/edge.toml")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "--no-block", UNIT)
    machine.until(lambda: machine.show(UNIT, "MainPID")["MainPID"] != "0", "it does not start")
    machine.run("sh", "-c", PAIR.format("va", "vb"))
    machine.until(
        lambda: machine.show(UNIT, "ActiveState")["ActiveState"] != "activating", "it waits for ever"
    )
    assert machine.show(UNIT, "ActiveState", "SubState", "Result") == {
        "ActiveState": "active", "SubState": "exited", "Result": "success",
    }, machine.said()  # fmt: skip
    told = json.loads(machine.run("xdpctl", "status", "--json"))["attachments"]
    assert [one["program"]["name"] for one in told] == ["deployed_tc"]
    machine.run("systemctl", "stop", UNIT)
    assert json.loads(machine.run("xdpctl", "status", "--json"))["attachments"] == told
