"""What kernel tests stand on: a private mount and network namespace, throwaway namespaces, veths and objects.

Everything made here ends with the pytest process even when it is killed: /run/netns, /run/xdpctl and the bpffs
are private mounts, and the namespaces are only held by them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import rtnetlink
from kernels import EMULATED, NEEDS

from xdpctl.build.compile import build

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 0x2
ROOT = Path(__file__).resolve().parents[2]

SHARED = (
    "test_attach_interrupt.py", "test_bad_input.py", "test_build_unprivileged.py", "test_check_boot.py",
    "test_configs.py", "test_deploy_*.py", "test_doctor_story.py", "test_driver_[st]*.py", "test_export.py",
    "test_host_snapshot.py", "test_inspect_command.py", "test_lab*.py", "test_map_*.py", "test_metrics.py",
    "test_migrate*.py", "test_pool_command.py", "test_skeleton.py", "test_stats.py", "test_top*.py",
    "test_trace_command.py", "test_validate_*.py", "test_trace_life.py", "test_unit_*.py",
)  # fmt: skip
"""Files about what xdpctl makes of a kernel's answers, not about the answers, which others test on every kernel.
Single tests of that sort in other files are marked ``shared``, and those marked ``shared(4)`` are cut into four.

Of these each guest of the matrix runs a share (XDPCTL_SHARE, ``0/24`` is the first of 24), for an emulated CPU
takes seconds for each; ``python -m tests.matrix --all`` runs every one in every guest, which takes hours.
"""


def pytest_collection_modifyitems(config, items):
    """Leave out what this kernel has nothing for, and of the shared files what another guest runs."""
    lacking = [item for item in items if not all(has(one.args[0]) for one in item.iter_markers("needs"))]
    _leave_out(config, items, lacking)
    if "XDPCTL_SHARE" not in os.environ:
        return
    mine, shares = map(int, os.environ["XDPCTL_SHARE"].split("/"))
    others = []
    for item in items:
        mark = item.get_closest_marker("shared")
        of = mark.args[0] if mark is not None and mark.args else shares
        taken_in_turns = mark is not None or any(item.path.match(one) for one in SHARED)
        if taken_in_turns and zlib.crc32(item.nodeid.encode()) % of != mine % of:
            others.append(item)
    _leave_out(config, items, others)


@functools.cache
def has(name):
    """Whether this kernel has what a test needs."""
    return NEEDS[name]()


def _leave_out(config, items, some):
    if some:
        config.hook.pytest_deselected(items=some)
        left_out = set(map(id, some))
        items[:] = [item for item in items if id(item) not in left_out]


_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _mount(kind: str, where: str) -> None:
    Path(where).mkdir(parents=True, exist_ok=True)
    try:
        _check(_libc.mount(kind.encode(), where.encode(), kind.encode(), 0, None))
    except OSError as error:
        if error.errno != errno.EBUSY:  # the same file system is mounted right there
            raise


@pytest.fixture(scope="session", autouse=True)
def isolated():
    """Private mounts, an empty network namespace and a temporary folder for this process and what it starts."""
    with tempfile.TemporaryDirectory(prefix="xdpctl-tests-") as folder, pytest.MonkeyPatch.context() as patch:
        # verifier logs are kept for the user to read: the tests' go with this folder
        Path(folder).chmod(0o711)  # some tests act as nobody
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield from _isolated()


def _isolated():
    assert os.geteuid() == 0, "kernel tests need root"
    before = {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "net")}
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET))
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    for where in ("/run/netns", "/run/xdpctl"):
        _mount("tmpfs", where)
    _mount("bpf", "/sys/fs/bpf")
    _mount("tracefs", "/sys/kernel/tracing")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    yield
    for kind, flag in (("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS)):
        _check(_libc.setns(before[kind], flag))
        os.close(before[kind])


@contextlib.contextmanager
def _inside(netns: str):
    """This thread, and what it starts, in a named namespace."""
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), -1
    try:
        there = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        _check(_libc.setns(there, CLONE_NEWNET))
        yield
    finally:
        _check(_libc.setns(home, CLONE_NEWNET))
        os.close(home)
        if there >= 0:
            os.close(there)


@dataclass
class World:
    """Namespaces and interfaces of one test, removed at its end."""

    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    namespaces: list[str] = field(default_factory=list)

    def run(
        self, *argv: str, netns: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, in a namespace entered by setns alone (so /sys/fs/bpf stays visible)."""
        # nsenter would do it, but in an emulated guest a program takes longer to start than to run
        with _inside(netns) if netns is not None else contextlib.nullcontext():
            done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{argv} ended {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def ip(self, words: str, netns: str | None = None) -> str:
        """``ip`` with words split at blanks."""
        return self.run("ip", *words.split(), netns=netns).stdout

    def ip_batch(self, netns: str, *lines: str) -> None:
        """Several ``ip`` command lines by one process."""
        with _inside(netns):
            done = subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(lines) + "\n",
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
        assert done.returncode == 0, done.stderr

    def namespace(self, name: str | None = None) -> str:
        """A fresh namespace, its lo up, IPv6 autoconfiguration quiet."""
        name = name or f"xt{self.tag}{len(self.namespaces)}"
        # as ip(8) does it; but in an emulated guest a program takes longer to start than to run
        anchor = Path("/run/netns", name)
        anchor.touch(exist_ok=False)
        self.namespaces.append(name)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _check(_libc.unshare(CLONE_NEWNET))
            _check(_libc.mount(b"/proc/thread-self/ns/net", os.fsencode(anchor), None, MS_BIND, None))
            with contextlib.suppress(OSError):  # a kernel without IPv6
                Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            with rtnetlink.open_socket() as route:
                rtnetlink.set_link(route, 1, state="up")
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)
        return name

    def veth(
        self,
        a: str,
        b: str,
        *,
        netns_a: str | None = None,
        netns_b: str | None = None,
        up: bool = True,
        **more: int,
    ):
        """A veth pair; `more` may give numrxqueues, numtxqueues, mtu (both ends)."""
        assert more.keys() <= {"mtu", "numrxqueues", "numtxqueues"}, more
        queues = more.get("numrxqueues"), more.get("numtxqueues")
        with contextlib.ExitStack() as stack:
            spaces = []
            for name in (netns_a, netns_b):
                path = f"/run/netns/{name}" if name else "/proc/thread-self/ns/net"
                spaces.append(os.open(path, os.O_RDONLY))
                stack.callback(os.close, spaces[-1])
            route = stack.enter_context(rtnetlink.open_socket())
            one, other = (
                rtnetlink.End(name, mtu=more.get("mtu"), queues=queues, netns=space)
                for name, space in zip((a, b), spaces, strict=True)
            )
            rtnetlink.new_veth(route, one, other)
        if up:
            self.up(a, netns_a)
            self.up(b, netns_b)

    def up(self, interface: str, netns: str | None = None) -> None:
        """``ip link set INTERFACE up``."""
        with (
            _inside(netns) if netns is not None else contextlib.nullcontext(),
            rtnetlink.open_socket() as route,
        ):
            rtnetlink.set_link(route, socket.if_nametoindex(interface), state="up")

    def close(self) -> None:
        """Remove every namespace (with them their interfaces)."""
        for name in self.namespaces:
            anchor = Path("/run/netns", name)
            if anchor.exists():  # a test may have removed it
                _libc.umount2(os.fsencode(anchor), MNT_DETACH)
                anchor.unlink()


@pytest.fixture
def world():
    """A `World` whose namespaces vanish with the test."""
    made = World()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pair(world):
    """A namespace with va and vb, two ends of a pair."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    return inside


@pytest.fixture(scope="session")
def zygote(isolated, tmp_path_factory):
    """The warm process behind `xdpctl`."""
    from zygote import Zygote

    made = Zygote(tmp_path_factory.mktemp("zygote"))
    yield made
    made.close()


@pytest.fixture
def xdpctl(tmp_path, zygote):
    """Run the command line as a user does: ``xdpctl("status", "--json", netns=None) -> CompletedProcess``."""

    def run(
        *argv: str,
        netns: str | None = None,
        check: bool = False,
        env: dict[str, str] | None = None,
        timeout: float = 60,
    ):
        done = zygote.run(
            [*map(str, argv)],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            netns=netns,
            timeout=timeout,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, f"{argv} ended {done.returncode}: {done.stdout}{done.stderr}"
        done.json = lambda: json.loads(done.stdout)
        return done

    return run


@pytest.fixture(scope="module")
def world_of_module(isolated):
    """A `World` for what a module's tests look at together, because it takes the kernel seconds."""
    made = World()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def built():
    """The folder of all programs of bpf/, as ``make build`` leaves it."""
    # a guest's checkout lies elsewhere, so that all would be compiled again, for minutes
    if not EMULATED:
        before = Path.cwd()
        os.chdir(ROOT)  # the same arguments as make's, so that what it made is current
        try:
            build([Path("bpf")], Path("build/bpf"))
        finally:
            os.chdir(before)
    return ROOT / "build/bpf"


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory):
    """``compile_c(source_text, name="x") -> Path``: an object compiled by clang alone, independent of xdpctl build."""
    folder = tmp_path_factory.mktemp("objects")
    arch = os.uname().machine
    multiarch = f"/usr/include/{arch}-linux-gnu"

    def run(source: str, name: str | None = None, *flags: str) -> Path:
        stem = name or f"t{secrets.token_hex(4)}"
        path = folder / f"{stem}.bpf.c"
        path.write_text(source)
        target = folder / f"{stem}.bpf.o"
        # kept by what it was made of: the matrix's guests take minutes for what clang does here in seconds
        made_of = hashlib.sha256("\0".join((source, stem if name else "", *flags)).encode()).hexdigest()[:32]
        kept = ROOT / "build" / "test-objects" / f"{made_of}.bpf.o"
        if kept.exists():
            shutil.copyfile(kept, target)
            return target
        subprocess.run(
            [
                "clang",
                "-g",
                "-O2",
                "-target",
                "bpf",
                "-I",
                multiarch,
                "-I",
                str(ROOT / "bpf" / "include"),
                *flags,
                "-c",
                str(path),
                "-o",
                str(target),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        with contextlib.suppress(OSError):  # a checkout that is read-only
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(target, partial)
            partial.rename(kept)
        return target

    return run


@pytest.fixture(autouse=True)
def _leaves_nothing():
    """No pin stays in the private bpffs after a test."""
    yield
    for path in Path("/sys/fs/bpf").iterdir():
        if path.suffix == ".debug":  # the kernel's own (CONFIG_BPF_PRELOAD)
            continue
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
