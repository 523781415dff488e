"""The machine itself: kernel, CPUs, modules, sysctls, bpf filesystems, and who asks (uname, /proc, /sys)."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.errors import XdpctlError, errno_name
from xdpctl.host.model import Caller, Kernel, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# fmt: off
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
# fmt: on
"""By bit, include/uapi/linux/capability.h."""

SYSCTLS = (
    "kernel.bpf_stats_enabled",
    "kernel.kptr_restrict",
    "kernel.perf_event_paranoid",
    "kernel.unprivileged_bpf_disabled",
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
    "net.core.bpf_jit_limit",
    "net.core.busy_poll",
    "net.core.default_qdisc",
    "net.core.dev_weight",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.netdev_max_backlog",
    "vm.overcommit_memory",
)
"""Those that loading, attaching or forwarding depends on. Some net.core ones exist in the initial namespace only."""

_CONFIG = re.compile(
    r"(?m)^(?P<unset># )?(?P<name>CONFIG_(?:BPF\w*|CGROUP_BPF|XDP_\w+|DEBUG_INFO_BTF\w*|DYNAMIC_FTRACE\w*"
    r"|F(?:TRACE|PROBE)|KPROBES?|KPROBE_EVENTS|FUNCTION_ERROR_INJECTION|HAVE_EBPF_JIT"
    r"|BPF_JIT\w*|HZ|MAX_SKB_FRAGS|NR_CPUS|SMP|PREEMPT\w*|PAGE_POOL\w*|NET_SCH_\w+"
    r"|NET_CLS\w*|NET_ACT_BPF|NETKIT|VETH|TUN|MACVLAN|MACVTAP|IPVLAN|IFB|BRIDGE|BONDING|VLAN_8021Q|VXLAN|DUMMY"
    r"|NETDEVSIM|NET_(?:TEAM|VRF|XGRESS|INGRESS|EGRESS)|IKCONFIG\w*|LWTUNNEL_BPF|UPROBES?))"
    r"(?(unset) is not set|=(?P<value>.*))$"
)


def stable_version(release: str, built: str) -> tuple[int, int, int]:
    """The upstream version in `uname -r`, or the more precise one that Debian tells in `uname -v`.

    Debian names 5.10.262 ``5.10.0-46-amd64`` and says ``#1 SMP Debian 5.10.262-1`` beside it: rules about stable
    backports need the third number.
    """
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if numbers is None:
        return (0, 0, 0)
    version = int(numbers[1]), int(numbers[2]), int(numbers[3] or 0)
    told = re.search(r"Debian (\d+)\.(\d+)\.(\d+)", built)
    if told and version == (int(told[1]), int(told[2]), 0):
        return (*version[:2], int(told[3]))
    return version


def kernel(problems: list[Problem], probes: Collection[str] | None = None) -> Kernel:
    """The running kernel, its probed features and the part of its configuration that concerns us.

    Args:
        problems: grows by what can't be read.
        probes: names of the features to try out, None: all.
    """
    name = os.uname()
    version = stable_version(name.release, name.version)
    return Kernel(
        release=name.release,
        version=version,
        machine=name.machine,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        btf=Path("/sys/kernel/btf/vmlinux").exists() if Path("/sys/kernel").exists() else None,
        features=_features(problems, probes),
        config=config(),
    )


def _features(problems: list[Problem], probes: Collection[str] | None) -> Mapping[str, bool | None]:
    from xdpctl.bpf import features

    try:
        return {
            name: features.answer(name).supported
            for name in (features.FEATURES if probes is None else probes)
        }
    except (XdpctlError, OSError) as error:
        problems.append(Problem("kernel features", str(error)))
        return {}


def config() -> Mapping[str, str] | None:
    """The lines of /proc/config.gz that concern BPF and networking ("n" where not set), None without that file."""
    import zlib

    try:
        return _config_of(Path("/proc/config.gz").read_bytes())
    except (OSError, EOFError, zlib.error):
        return None


@lru_cache(maxsize=1)
def _config_of(packed: bytes) -> Mapping[str, str]:
    """The same from the file's bytes: they stay the same while a process looks again and again (--fix, --probe)."""
    import gzip

    text = gzip.decompress(packed).decode(errors="replace")
    return {one["name"]: "n" if one["unset"] else one["value"].strip('"') for one in _CONFIG.finditer(text)}


def caller() -> Caller:
    """The effective user and capabilities of this thread (/proc/thread-self/status, CapEff)."""
    mask = 0
    for line in _lines("/proc/thread-self/status") or ():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
    names = (
        CAPABILITIES[bit] if bit < len(CAPABILITIES) else f"CAP_{bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )
    return Caller(os.geteuid(), tuple(names))


def cpus() -> tuple[int, int]:
    """CPUs online, and CPUs that may ever come up (/sys/devices/system/cpu/{online,possible})."""
    counts = []
    for which in ("online", "possible"):
        text = "".join(_lines(f"/sys/devices/system/cpu/{which}") or ())
        counts.append(_listed(text) or os.cpu_count() or 1)
    return counts[0], max(counts)


def _listed(text: str) -> int:
    """How many a list such as ``0-3,5`` names."""
    count = 0
    for part in text.strip().split(","):
        first, _dash, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            count += int(last or first) - int(first) + 1
    return count


def modules() -> tuple[str, ...] | None:
    """Loaded modules, sorted; None where the kernel has none of that (CONFIG_MODULES) or does not say."""
    lines = _lines("/proc/modules")
    return None if lines is None else tuple(sorted(line.split(" ", 1)[0] for line in lines))


def bpffs() -> tuple[str, ...]:
    """Mount points of bpf filesystems (/proc/thread-self/mounts)."""
    found = []
    for line in _lines("/proc/thread-self/mounts") or ():
        words = line.split(" ")
        if len(words) > 2 and words[2] == "bpf":
            found.append(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words[1]))
    return tuple(dict.fromkeys(found))


def sysctls(problems: list[Problem]) -> dict[str, str]:
    """The values of `SYSCTLS` that exist and are readable here."""
    found: dict[str, str] = {}
    for name in SYSCTLS:
        try:
            text = _read("/proc/sys/" + name.replace(".", "/")).decode(errors="replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(Problem(f"sysctl {name}", errno_name(error.errno) or str(error)))
        else:
            found[name] = text.strip()
    return found


def _lines(path: str) -> list[str] | None:
    try:
        return _read(path).decode(errors="surrogateescape").splitlines()
    except OSError:
        return None


def _read(path: str) -> bytes:
    """A file of /proc or /sys: a score of them are read with every look, and pathlib takes most of the time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole = os.read(fd, _PIECE)
        while piece := os.read(fd, _PIECE):
            whole += piece
        return whole
    finally:
        os.close(fd)


_PIECE = 1 << 16
