"""systemd as PID 1 of namespaces of its own: a machine that boots, beside this one and without touching it.

Its root is this machine's, read-only; /run, /tmp, /var, /srv, /etc/systemd and /dev are its own, as are sysfs, bpffs,
tracefs and the network. Its cgroups lie below one that is made for it. It logs into a pipe instead of the kernel's log.
All of it ends with the context, or with the test's process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = next(
    (one for one in map(Path, ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")) if one.exists()), None
)
"""None: it is not installed."""
LONG = 30.0
"""Seconds that nothing here takes."""
PIPE = 1 << 20
F_SETPIPE_SZ = 1031

OWN = ("/run", "/tmp", "/var", "/srv", "/etc/systemd")
TARGETS = "sysinit basic shutdown network-pre network-online multi-user default".split()

CGROUP = """
set -e
mount -t cgroup2 cgroup2 {folder}
mkdir {folder}/{name}
echo $$ > {folder}/{name}/cgroup.procs
umount {folder}
exec unshare --pid --fork --kill-child --mount --mount-proc --uts --ipc --net --cgroup sh -c {setup}
"""
"""In a mount namespace of its own: the machine need not have cgroup2 mounted, and sees nothing of this."""

REMOVE = """
mount -t cgroup2 cgroup2 {folder} || exit
[ ! -d {folder}/{name} ] || find {folder}/{name} -depth -type d -exec rmdir {{}} +
"""

SETUP = """
set -e
mount --make-rprivate /
mkdir {shared}/dev
mount -t tmpfs -o mode=755 dev {shared}/dev
mkdir {shared}/dev/checkout
mount --bind {checkout} {shared}/dev/checkout
for one in null zero full random urandom tty; do
    touch {shared}/dev/$one
    mount --bind /dev/$one {shared}/dev/$one
done
mkdir {shared}/dev/shm {shared}/dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts {shared}/dev/pts
ln -s pts/ptmx {shared}/dev/ptmx
ln -s /proc/self/fd {shared}/dev/fd
touch {shared}/dev/kmsg
mount --bind {shared}/kmsg {shared}/dev/kmsg
mount --move {shared}/dev /dev
mount -o remount,bind,ro /
for one in {own}; do mount -t tmpfs -o mode=755 tmpfs $one; done
chmod 1777 /tmp /dev/shm
mkdir -m 1777 /var/tmp
ln -s /run /var/run
mkdir -p /var/cache /var/lib /var/log /run/netns /etc/systemd/system
[ -e {checkout}/xdpctl ] || {{ mkdir -p {checkout}; mount --bind /dev/checkout {checkout}; }}  # it was in /tmp
umount /dev/checkout
rmdir /dev/checkout
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -o bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --make-rshared /
cd /etc/systemd/system
for one in {targets}; do
    printf '[Unit]\\nDescription=%s\\n' $one > $one.target
done
for one in sysinit basic shutdown; do printf 'DefaultDependencies=no\\n' >> $one.target; done
printf 'Wants=multi-user.target\\n' >> default.target
printf 'Wants=network-online.target\\n' >> multi-user.target
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=xdpctl-test SYSTEMD_UNIT_PATH=/etc/systemd/system \\
    SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere \\
    {systemd} --system --log-target=kmsg --log-level=info --show-status=no
"""
"""What stands for the boot loader. /proc/sys is the whole machine's but for its net: PID 1 would raise limits there."""


class CannotBoot(Exception):  # noqa: N818 - no error of what is tested: a machine without cgroup2, say
    """systemd does not start in namespaces here."""


class Machine:
    """A machine whose PID 1 is `pid` here."""

    def __init__(self, pid: int, log: int) -> None:
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")
        """Its files, seen from here."""
        self._log = log
        self._said = ""

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command inside writes to stdout, when it ends well."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--wdns=/", *argv],
            check=False, capture_output=True, text=True, timeout=LONG, stdin=subprocess.DEVNULL,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{argv} ended {done.returncode}: {done.stdout}{done.stderr}\n{self.said()}")
        return done.stdout

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit (systemctl show)."""
        told = self.run("systemctl", "show", unit, *(f"--property={one}" for one in names))
        return dict(line.partition("=")[::2] for line in told.splitlines())

    def said(self) -> str:
        """All that its systemd has logged."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._log, 1 << 16):
                self._said += part.decode(errors="replace")
        return self._said

    def until(self, true: Callable[[], object], what: str, told: Callable[[], str] | None = None) -> None:
        """Wait until it comes true.

        Raises:
            AssertionError: it does not; with what systemd, or `told`, said.
        """
        end = time.monotonic() + LONG
        while not true():
            assert time.monotonic() < end, f"{what}\n{(told or self.said)()}"
            time.sleep(0.05)  # asking starts two programs


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A machine on which systemd runs, and nothing else.

    Raises:
        CannotBoot: with what was said.
    """
    name = f"xdpctl-test-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        # where the bind mounts come from: not below /tmp, which may be hidden by then
        shared = stack.enter_context(tempfile.TemporaryDirectory(prefix="xdpctl-systemd-"))
        folder = f"{shared}/cgroup"
        Path(folder).mkdir()
        os.mkfifo(f"{shared}/kmsg")
        log = os.open(f"{shared}/kmsg", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, log)
        with contextlib.suppress(OSError):
            fcntl.fcntl(log, F_SETPIPE_SZ, PIPE)
        setup = SETUP.format(
            shared=shared,
            checkout=shlex.quote(str(ROOT)),
            own=" ".join(OWN),
            targets=" ".join(TARGETS),
            systemd=SYSTEMD,
        )
        script = CGROUP.format(folder=folder, name=name, setup=shlex.quote(setup))
        stack.callback(_remove, REMOVE.format(folder=folder, name=name), name)
        holder = subprocess.Popen(
            [*"setpriv --pdeathsig KILL unshare --mount sh -c".split(), script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(holder.wait)
        stack.callback(holder.kill)
        try:
            machine = Machine(_child(holder, log), log)
            stack.callback(_kill, machine.pid)
            machine.until((machine.root / "run/systemd/private").exists, "systemd does not answer")
            machine.run("systemctl", "is-system-running", "--wait")
        except (AssertionError, OSError, subprocess.TimeoutExpired) as why:
            raise CannotBoot(str(why)) from why
        yield machine


def _child(holder: subprocess.Popen[bytes], log: int) -> int:
    """The process that `unshare --fork` has made, by its number here."""
    machine = Machine(0, log)
    path = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")

    def found() -> list[str]:
        assert holder.poll() is None, machine.said()
        comm = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        return path.read_text().split() if comm == "unshare" else []

    machine.until(found, "no namespaces")
    return int(found()[0])


def _kill(pid: int) -> None:
    """End PID 1, and with it every process of its namespace."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)


def _remove(script: str, name: str) -> None:
    """Remove the cgroup: the last of its processes may take a moment to leave it."""
    end = time.monotonic() + LONG
    while True:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], check=False, capture_output=True, text=True
        )
        if done.returncode == 0:
            return
        assert time.monotonic() < end, f"cgroup {name} can't be removed: {done.stderr}"
        time.sleep(0.02)
