"""`xdpctl unit`: the service's own commands, run with the capabilities and mounts that the unit leaves them."""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import os
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attachments import detach, programs_of
from deployments import SOURCE, assert_same, destroy, forget_all, machine

from xdpctl.deploy import unit
from xdpctl.deploy.load import load

pytestmark = pytest.mark.kernel

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 0x4000, 0x40000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
NUMBERS = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
LAST = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
LONG = 120
"""Seconds: a guest of the matrix takes many to start an interpreter."""
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


@pytest.fixture
def host(world):
    """The namespace that stands for the machine, with va and vb; another one is beside it."""
    inside = world.namespace()
    world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    return inside


def made(path, **more):
    """(unit, its [Service] with every value of a key) of a file."""
    request = unit.Request(
        (path,), (sys.executable, "-m", "xdpctl.cli"), {}, {}, has_cap_bpf=unit.has_cap_bpf(), **more
    )
    text = unit.make(request, load([path]))
    service: dict[str, list[str]] = {}
    for line in text.text.partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            service.setdefault(key, []).append(value)
    return text, service


def _call(result):
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def confined(netns, capabilities):
    """What systemd does between fork and exec: a function for `subprocess`."""
    kept = {NUMBERS[name] for name in capabilities}
    space = os.open(f"/run/netns/{netns}", os.O_RDONLY)

    def confine():
        _call(LIBC.setns(space, CLONE_NEWNET))
        _call(LIBC.unshare(CLONE_NEWNS))
        _call(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        for where in (
            b"/sys",
            b"/",
        ):  # ProtectSystem=strict, ReadOnlyPaths=/sys; bpffs and /run/xdpctl are mounts
            _call(LIBC.mount(b"none", where, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None))
        with contextlib.suppress(
            OSError, ValueError
        ):  # LimitMEMLOCK=infinity, which counts before 5.11 alone
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
        LIBC.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # MemoryDenyWriteExecute=yes, where the kernel can (6.3)
        for number in range(LAST + 1):
            if number not in kept:
                _call(LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0))
        _call(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))

    return confine


class Beats:
    """A socket as systemd's, and what came."""

    def __init__(self, folder, opened):
        self.path = str(folder / "notify")
        self.socket = opened
        self.socket.bind(self.path)
        self.socket.settimeout(LONG)

    def next(self, wanted):
        """Wait for a message; others are let by."""
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            if wanted in self.socket.recv(4096).decode().split("\n"):
                return
        raise AssertionError(f"{wanted} did not come")


@pytest.fixture
def beats(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        yield Beats(tmp_path, opened)


@contextlib.contextmanager
def running(service, confine, beats, *, watchdog):
    """The service after its ExecStartPre lines, as systemd runs it."""
    capabilities = service["CapabilityBoundingSet"][0]
    for line in (
        service["ExecStartPre"] if watchdog < 1 else service["ExecStartPre"][1:]
    ):  # validate once is enough
        done = subprocess.run(
            shlex.split(line), preexec_fn=confine, check=False, capture_output=True, text=True, timeout=LONG,
            cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, (capabilities, line, done.stdout, done.stderr)
    child = subprocess.Popen(
        shlex.split(service["ExecStart"][0]),
        preexec_fn=confine,  # noqa: PLW1509 - the tests' process has one thread
        cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "NOTIFY_SOCKET": beats.path, "WATCHDOG_USEC": str(int(watchdog * 1e6))},
    )  # fmt: skip
    try:
        beats.next("READY=1")
        status = Path(f"/proc/{child.pid}/status").read_text()
        mask = sum(1 << NUMBERS[one] for one in capabilities.split())
        assert f"CapEff:\t{mask:016x}\n" in status
        assert "NoNewPrivs:\t1\n" in status
        yield child
    finally:
        child.terminate()
        try:
            output, _ = child.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            child.kill()
            output, _ = child.communicate(timeout=LONG)
        child.output = output


def until(true, what):
    limit = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.02)


@pytest.mark.skipif(NUMBERS["CAP_BPF"] > LAST, reason="CAP_BPF came with Linux 5.8")
def test_xdp_is_applied_and_healed_without_root_and_without_sys_admin(
    world, host, beats, compile_c, tmp_path
):
    obj = compile_c(SOURCE)
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{obj}"\n'
        "[program.maps.table]\nentries = { 5 = 6 }\n"
        '[[interface]]\nname = "va"\nmtu = 1400\nfeatures = { gro = true }\nwait = "5s"\n'
        '[[interface.attach]]\nprogram = "guard"\n'
    )
    before = machine(host)
    _, service = made(path)
    assert service["CapabilityBoundingSet"] == ["CAP_BPF CAP_NET_ADMIN CAP_PERFMON"]
    with running(
        service, confined(host, service["CapabilityBoundingSet"][0].split()), beats, watchdog=1
    ) as child:
        applied = machine(host)
        assert programs_of(host, "va") == ["deployed_xdp"]
        for _ in range(3):
            beats.next("WATCHDOG=1")
        detach("va", netns=host)
        until(lambda: programs_of(host, "va") == ["deployed_xdp"], "the program did not come back")
        world.ip("link set va mtu 1300", host)
        world.run("ethtool", "-K", "va", "gro", "off", netns=host)
        until(lambda: machine(host)["links"] == applied["links"], "the settings did not come back")
        beats.next("WATCHDOG=1")
    assert child.returncode == 0, child.output
    assert "healed by" in child.output
    assert programs_of(host, "va") == ["deployed_xdp"], "stopping the service leaves it there"
    destroy("edge")
    assert_same(before, host)


def test_tc_in_another_namespace_needs_sys_admin_and_nothing_more(world, host, beats, compile_c, tmp_path):
    other = world.namespace()
    world.veth("vo", "vop", netns_a=other, netns_b=other)
    obj = compile_c(SOURCE)
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{obj}"\n'
        f'[[interface]]\nname = "vo"\nnetns = "{other}"\nmtu = 1400\n'
        '[[interface.attach]]\nprogram = "guard"\nhook = "ingress"\n[[interface.attach]]\nprogram = "guard"\n'
    )
    before = machine(other)
    text, service = made(path)
    why = dict(text.capabilities)["CAP_SYS_ADMIN"]
    assert f"enter network namespaces (setns(2)): {other}" in why
    assert "TC hook" in why
    with running(
        service, confined(host, service["CapabilityBoundingSet"][0].split()), beats, watchdog=60
    ) as child:
        assert sorted(programs_of(other, "vo")) == ["deployed_tc", "deployed_xdp"]
        detach("vo", netns=other, all=True)
        until(
            lambda: sorted(programs_of(other, "vo")) == ["deployed_tc", "deployed_xdp"],
            "the programs did not come back",
        )
    assert child.returncode == 0, child.output
    destroy("edge")
    assert_same(before, other)


def test_systemd_itself_has_nothing_to_say_against_the_unit(compile_c, tmp_path):
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[deployment]\nname = "edge"\n[[program]]\nname = "guard"\nobject = "{compile_c(SOURCE)}"\n'
        '[[interface]]\nname = "va"\nnetns = "blue"\nnapi = { threaded = true }\n'
        '[[interface.attach]]\nprogram = "guard"\n'
    )
    for once in (False, True):
        text, _ = made(path, once=once)
        file = tmp_path / text.name
        file.write_text(text.text)
        parsed = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
        parsed.optionxform = str
        parsed.read_string(text.text)
        assert parsed.sections() == ["Unit", "Service", "Install", "X-Xdpctl"]
        if shutil.which("systemd-analyze") is not None:
            done = subprocess.run(
                ["systemd-analyze", "verify", str(file)],
                check=False,
                capture_output=True,
                text=True,
                timeout=LONG,
            )
            assert (done.returncode, done.stdout + done.stderr) == (0, "")
