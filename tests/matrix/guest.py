"""One guest: a kernel of `fetch`, QEMU's NICs, a command; its files come back through a shared folder.

QEMU runs in a network namespace of its own, where the taps behind the NICs are: nothing that a guest sends can
leave it. A guest that hangs is ended at its deadline, with the tail of its console as the reason.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from . import fetch

ROOT = Path(__file__).resolve().parents[2]

MODULES = (
    "veth", "tun", "bridge", "macvlan", "macvtap", "8021q", "ifb", "vxlan", "bonding", "sch_ingress", "cls_bpf",
    "act_mirred", "netkit", "dummy", "af_packet", "igb", "vmxnet3", "e1000e", "virtio_net",
)  # fmt: skip
"""Loaded before the command; what a kernel doesn't have is simply not there (netkit before 6.7)."""


QUICK = (
    "mitigations=off rcupdate.rcu_expedited=1 tsc=reliable audit=0 nowatchdog no5lvl apparmor=0"
    " hardened_usercopy=off randomize_kstack_offset=off kfence.sample_interval=0 iomem=relaxed"
)
"""Kernel parameters that spare an emulated CPU work, and let `igb_done` reach its registers; none of them touches what
is tested."""


@dataclass(frozen=True)
class Nic:
    """One NIC on the guest's bus: QEMU device words, and the segment (a bridge outside) it is plugged into."""

    name: str
    device: str
    segment: str
    mac: str
    queues: int = 1


NICS = (
    Nic("igb-a", "igb,addr=0xa", "igb", "52:54:00:00:01:01"),
    Nic("igb-b", "igb,addr=0xc", "igb", "52:54:00:00:01:02"),
    Nic("virtio-mq", "virtio-net-pci,mq=on,vectors=18", "virtio", "52:54:00:00:02:01", queues=8),
    Nic("virtio-sq", "virtio-net-pci", "virtio", "52:54:00:00:02:02"),
    Nic("virtio-fixed", "virtio-net-pci,ctrl_guest_offloads=off", "virtio", "52:54:00:00:02:03"),
    Nic("vmxnet3", "vmxnet3", "vmx", "52:54:00:00:03:01"),
    Nic("e1000e", "e1000e", "vmx", "52:54:00:00:03:02"),
)
"""The bus of every guest; scenarios find a NIC by its MAC."""


@dataclass
class Guest:
    """A guest to be booted."""

    kernel: fetch.KernelFiles
    tools: fetch.Tools
    command: str
    """Shell words, run as root in `checkout` (read-only inside)."""
    checkout: Path
    """The command's working folder. A copy: a guest caches what it reads, and edits under it tear files apart."""
    shared: Path
    """Writable on both sides; the command finds it in $OUT."""
    seconds: float
    """Deadline for the whole life of the guest."""
    python: Path = Path(sys.executable)
    """Its folder is where the command finds ``python3``."""
    nics: Sequence[Nic] = NICS
    memory: str = "4G"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a guest ended."""

    series: str
    ok: bool
    reason: str
    seconds: float
    console: Path


def _script(guest: Guest) -> str:
    """What runs inside, before and around the command."""
    modprobe = guest.tools.bin / "modprobe"
    exports = {
        "PATH": f"{guest.tools.bin}:{guest.python.parent}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
        "OUT": str(guest.shared),
        "HOME": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(guest.checkout),
        "XDPCTL_GUEST": guest.kernel.series,
        **guest.environment,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    lines += [
        f"echo {modprobe} > /proc/sys/kernel/modprobe",
        f"modprobe -a -q {' '.join(MODULES)} 2>/dev/null",
        "mount -t bpf bpf /sys/fs/bpf 2>/dev/null",
        # a Debian kernel's configuration lies there; libbpf and inspect read it
        f"mount -t tmpfs boot /boot && cp {guest.kernel.image.parent}/config-* /boot/ 2>/dev/null",
        f"cd {shlex.quote(str(guest.checkout))}",
        "python3 -S tests/matrix/igb_done.py &",
        f"( {guest.command} ) > $OUT/stdout 2> $OUT/stderr",
        "echo $? > $OUT/rc",
    ]
    return "\n".join(lines) + "\n"


def _wiring(nics: Sequence[Nic]) -> str:
    """Shell lines that make the taps and bridges, in the namespace QEMU runs in."""
    lines = ["set -e", "ip link set lo up"]
    for segment in dict.fromkeys(nic.segment for nic in nics):
        lines += [
            # no memory of addresses makes it a hub: a frame may come back to its sender's own address
            f"ip link add br-{segment} type bridge mcast_snooping 0 ageing_time 0",
            f"ip link set br-{segment} mtu 9000 up",
        ]
    for index, nic in enumerate(nics):
        multi = " multi_queue" if nic.queues > 1 else ""
        lines += [
            f"ip tuntap add dev tap{index} mode tap vnet_hdr{multi}",
            f"ip link set tap{index} mtu 9000 master br-{nic.segment} up",
        ]
    lines.append("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done")
    return "\n".join(lines)


def _devices(nics: Sequence[Nic]) -> str:
    words = []
    for index, nic in enumerate(nics):
        queues = f",queues={nic.queues}" if nic.queues > 1 else ""
        words += [
            f"-netdev tap,id=n{index},ifname=tap{index},script=no,downscript=no,vhost=off{queues}",
            f"-device {nic.device},netdev=n{index},mac={nic.mac}",
        ]
    return " ".join(words)


def boot(guest: Guest) -> Outcome:
    """Boot, run, power off; bounded by `guest.seconds`. Needs root."""
    guest.shared.mkdir(parents=True, exist_ok=True)
    for name in ("rc", "stdout", "stderr"):
        (guest.shared / name).unlink(missing_ok=True)
    script = guest.shared / "inside.sh"
    script.write_text(_script(guest))
    outside = guest.shared / "outside.sh"
    vng = [
        str(Path(sys.executable).parent / "vng"), "--verbose", "--disable-kvm", "--cpus", "2", "--memory", guest.memory,
        "--run", str(guest.kernel.image), "--user", "root", f"--rwdir={guest.shared}",
        "--qemu", str(guest.tools.bin / "qemu-system-x86_64"),
        "--append", QUICK, "--exec", f"sh {script}", f"--qemu-opts={_devices(guest.nics)}",
    ]  # fmt: skip
    outside.write_text(_wiring(guest.nics) + "\nexec " + shlex.join(vng) + "\n")
    return supervise(guest, outside)


def supervise(guest: Guest, outside: Path) -> Outcome:
    """Run the script around a guest in namespaces of its own; at the deadline everything in them is ended."""
    console = guest.shared / "console"
    started = time.monotonic()
    environment = {
        **os.environ,
        "PATH": f"{guest.tools.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with console.open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL",
             "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", str(outside)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(guest.seconds)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            if process.poll() is None:
                # the namespace's init dies with it, and so does everything in its PID namespace
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
    took = time.monotonic() - started
    code = (guest.shared / "rc").read_text().strip() if (guest.shared / "rc").exists() else None
    if code is not None:
        return Outcome(guest.kernel.series, code == "0", f"command ended {code}", took, console)
    tail = console.read_text(errors="replace").strip().splitlines()[-15:]
    reason = f"no answer within {guest.seconds:.0f} s" if late else f"died (exit {process.returncode})"
    return Outcome(
        guest.kernel.series, ok=False, reason=reason + ":\n" + "\n".join(tail), seconds=took, console=console
    )
