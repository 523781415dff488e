"""A systemd unit that brings a deployment up at boot and keeps it so: systemd.exec(5), capabilities(7).

The service runs as uid 0, which owns the bpffs and /run/xdpctl, and has none of root's capabilities but those named.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdpctl.deploy.desired import Deployment
    from xdpctl.deploy.load import Loaded

FOLDER = Path("/etc/systemd/system")
WATCHDOG_SECONDS = 60
START_SECONDS = 120
"""To compile, load and attach, besides waiting for interfaces."""
LOCK_SECONDS = 60
FIRST_WITH_CAP_BPF = 39
"""CAP_BPF's number: /proc/sys/kernel/cap_last_cap tells whether the kernel has it (5.8)."""
VOLATILE = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 - told to the user
TUNABLES = tuple(f"/proc/{one}" for one in "acpi asound bus fs irq mtrr scsi sys sysrq-trigger".split())
"""What writes to the kernel besides /sys: namespace.c of systemd, protect_kernel_tunables_proc_table."""
HOMES = tuple(f"/{one}" for one in ("home", "root", "run/user"))


@dataclass(frozen=True, slots=True)
class Request:
    """What is to run, and how."""

    files: tuple[Path, ...]
    """As the user named them: files and folders."""
    command: tuple[str, ...]
    """argv that starts xdpctl, absolute."""
    variables: Mapping[str, str]
    """--var."""
    environment: Mapping[str, str]
    """Variables of the caller's environment that the files use."""
    once: bool = False
    """Apply at boot and end; else drift is watched and healed."""
    watchdog: int = WATCHDOG_SECONDS
    has_cap_bpf: bool = True
    needs: tuple[Path, ...] = ()
    """Other files that the command is made of: the interpreter, its library, this package."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit file."""

    name: str
    """``xdpctl-edge.service``."""
    text: str
    capabilities: tuple[tuple[str, str], ...]
    """Each with its reason."""
    notes: tuple[str, ...]
    """What the user should know before relying on it."""


def name_of(deployment: str) -> str:
    """How its unit is called."""
    return f"xdpctl-{deployment}.service"


def capabilities(wanted: Deployment, *, has_cap_bpf: bool) -> tuple[tuple[str, str], ...]:
    """What applying and healing need, and why."""
    found = [
        ("CAP_BPF", "load programs, make maps and links (bpf(2))"),
        ("CAP_NET_ADMIN", "attach to interfaces, change devices' settings"),
        ("CAP_PERFMON", "the verifier judges as for root; a tracepoint tells why an attach is refused"),
    ]
    reasons = []
    spaces = _spaces(wanted)
    if not has_cap_bpf:
        found = found[1:2]
        reasons.append("bpf(2), which has no capability of its own before Linux 5.8")
    if spaces:
        reasons.append(f"enter network namespaces (setns(2)): {', '.join(spaces)}")
    if any(one.hook != "xdp" for wish in wanted.interfaces for one in wish.attach):
        reasons.append("see whose programs stand on a TC hook (BPF_PROG_GET_FD_BY_ID)")
    if wanted.redirects:
        reasons.append("see where programs redirect to (BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID)")
    if wanted.adopt:
        reasons.append("adopt: hold somebody else's program (BPF_PROG_GET_FD_BY_ID)")
    if reasons:
        found.append(("CAP_SYS_ADMIN", "; ".join(reasons)))
    return tuple(found)


def _spaces(wanted: Deployment) -> list[str]:
    named = {one.netns for one in wanted.interfaces} | {one.netns for one in wanted.redirects}
    return sorted(one for one in named if one)


def make(request: Request, loaded: Loaded) -> Unit:
    """The unit of a deployment.

    Args:
        request: what is to run.
        loaded: the deployment, read from the same files.
    """
    wanted = loaded.deployment
    given = capabilities(wanted, has_cap_bpf=request.has_cap_bpf)
    touched = [
        *loaded.files,
        *(one.object for one in wanted.programs),
        Path(request.command[0]),
        *request.needs,
    ]
    touched += [Path(one.source) for one in wanted.programs if one.source]
    notes = _notes(request, wanted, touched)
    lines = [
        "# Made by `xdpctl unit`; to change it, make it anew, or add a drop-in (systemctl edit).",
        "",
        "[Unit]",
        f"Description=XDP and TC programs of deployment {_plain(wanted.name)}",
        "Documentation=https://docs.kernel.org/bpf/",
        "# Interfaces are there or come (wait = ...); what filters is in place before anything counts as online.",
        "After=network-pre.target systemd-modules-load.service systemd-udevd.service",
        "Before=network-online.target",
        f"RequiresMountsFor={' '.join(_item(one) for one in _folders(touched))}",
        "# What protects a host is tried again for ever.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *_service(request, wanted),
        "",
        "# Programs, maps and links outlive the service: they are pinned, and its state must outlive it too.",
        "RuntimeDirectory=xdpctl",
        "RuntimeDirectoryMode=0755",
        "RuntimeDirectoryPreserve=yes",
        "CacheDirectory=xdpctl",
        "Environment=XDG_CACHE_HOME=/var/cache TMPDIR=/var/cache/xdpctl",
        *(f"Environment={_item(f'{key}={value}')}" for key, value in sorted(request.environment.items())),
        "UMask=0022",
        "# Before Linux 5.11 maps count as locked memory.",
        "LimitMEMLOCK=infinity",
        "",
        "# Capabilities instead of root: uid 0 owns the bpffs and /run/xdpctl, and may do nothing else of root's.",
        *(f"#   {name}: {_plain(why)}" for name, why in given),
        f"CapabilityBoundingSet={' '.join(name for name, _ in given)}",
        "NoNewPrivileges=yes",
        *_confinement(wanted, touched),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
        "# For `xdpctl check-boot`; systemd does not read sections that begin with X-.",
        "[X-Xdpctl]",
        f"Deployment={_plain(wanted.name)}",
        *(f"File={_plain(str(absolute(one)))}" for one in request.files),
        *(f"Variable={_plain(f'{key}={value}')}" for key, value in sorted(request.variables.items())),
    ]
    return Unit(name_of(wanted.name), "\n".join(lines) + "\n", given, tuple(notes))


def _service(request: Request, wanted: Deployment) -> list[str]:
    command = " ".join(map(_word, request.command))
    files = " ".join(_word(str(absolute(one))) for one in request.files)
    variables = "".join(
        f" --var {_word(f'{key}={value}')}" for key, value in sorted(request.variables.items())
    )
    validate = f"ExecStartPre={command} validate{variables} {files}"
    apply = f"{command} apply --resume --yes --wait {LOCK_SECONDS}{variables} {files}"
    wait = sum(one.wait for one in wanted.interfaces)
    start = f"TimeoutStartSec={round(START_SECONDS + LOCK_SECONDS + wait)}"
    restart = ["Restart=on-failure", "RestartSec=5s"]
    if request.once:
        return ["Type=oneshot", "RemainAfterExit=yes", validate, f"ExecStart={apply}", f"ExecReload={apply}", start,
                *restart]  # fmt: skip
    return [
        "Type=notify",
        "NotifyAccess=main",
        validate,
        "# --resume: what a crash left half done is finished first.",
        f"ExecStartPre={apply}",
        "# Told by the kernel, not polled; a look at each beat of the watchdog besides.",
        f"ExecStart={command} drift --watch --heal --wait {LOCK_SECONDS} {_word(wanted.name)}",
        f"ExecReload={apply}",
        "# Stopping leaves the programs attached: `xdpctl destroy` takes them off.",
        f"WatchdogSec={request.watchdog}",
        start,
        "TimeoutStopSec=30",
        *restart,
    ]


def _confinement(wanted: Deployment, touched: Sequence[Path]) -> list[str]:
    spaces = _spaces(wanted)
    napi = any(one.settings.napi for one in wanted.interfaces)
    writable = ["-/sys/fs/bpf"]
    if os.environ.get("XDPCTL_BPFFS"):
        writable = [f"-{os.environ['XDPCTL_BPFFS']}"]
    if napi:
        writable.append("-/sys/devices")  # before 6.13 by /sys/class/net
    home = "read-only" if _below(touched, HOMES) else "yes"
    return [
        "",
        "ProtectSystem=strict",
        "# pins" + (", and settings of NAPIs" if napi else ""),
        f"ReadWritePaths={' '.join(map(_item, writable))}",
        "# As ProtectKernelTunables=yes would do, which makes bpffs read-only whatever ReadWritePaths says.",
        f"ReadOnlyPaths=/sys {' '.join(f'-{one}' for one in TUNABLES)}",
        "InaccessiblePaths=-/proc/kcore -/proc/kallsyms",
        f"ProtectHome={home}",
        f"PrivateTmp={'no' if _below(touched, VOLATILE[:2]) else 'yes'}",
        "PrivateDevices=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectProc=invisible",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        f"RestrictNamespaces={'net' if spaces else 'yes'}",
        "RemoveIPC=yes",
        "KeyringMode=private",
        "# netlink and the ethtool ioctl; no packet is sent.",
        "RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6",
        "IPAddressDeny=any",
        "SystemCallArchitectures=native",
        *(["# A sysfs of the other namespaces, for settings of NAPIs."] if napi and spaces else []),
        f"SystemCallFilter=@system-service bpf perf_event_open{' fsopen fsconfig fsmount' if napi and spaces else ''}",
        "SystemCallErrorNumber=EPERM",
    ]


def _notes(request: Request, wanted: Deployment, touched: Sequence[Path]) -> list[str]:
    found = [
        f"{path} is gone after a reboot"
        for path in dict.fromkeys(map(absolute, touched))
        if _below([path], VOLATILE)
    ]
    homes = [str(path) for path in dict.fromkeys(map(absolute, touched)) if _below([path], HOMES)]
    if homes:
        found.append(
            f"ProtectHome=read-only, not yes: {', '.join(homes[:3])} lie{'s' if len(homes) == 1 else ''} there"
        )
    sources = [one.name for one in wanted.programs if one.source]
    if sources:
        what = "is a source" if len(sources) == 1 else "are sources"
        found.append(
            f"program {', '.join(sources)} {what}: booting compiles with clang where its cache is empty;"
            " `object = ...` needs no compiler"
        )
    if request.environment:
        names = ", ".join(sorted(request.environment))
        found.append(f"the value of {names} is taken from this shell's environment into the unit")
    late = [str(one.name) for one in wanted.interfaces if one.name and not one.wait]
    if late:
        found.append(
            f'without wait = "30s" the service fails and is tried again every 5 s until {", ".join(late)} '
            f"{'is' if len(late) == 1 else 'are'} there"
        )
    return found


def absolute(path: Path) -> Path:
    """The path from the root, symbolic links left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - must not follow symlinks


def _below(paths: Sequence[Path], tops: Sequence[str]) -> bool:
    return any(str(absolute(one)).startswith(f"{top}/") for one in paths for top in tops)


def _folders(touched: Sequence[Path]) -> list[str]:
    return list(dict.fromkeys(str(absolute(one).parent) for one in touched))


def _plain(text: str) -> str:
    """Text for a value that is no command: a line, with no specifiers."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text).replace("%", "%%")


def _word(text: str) -> str:
    """One word of a command line as systemd.service(5) reads it."""
    return _item(text).replace("$", "$$")


def _item(text: str) -> str:
    """One word of a list."""
    shown = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    shown = "".join(
        one if one.isprintable() else "".join(f"\\x{byte:02x}" for byte in one.encode()) for one in shown
    )
    return f'"{shown}"' if re.search(r"[\s'\"\\;]", shown) or not shown else shown


def has_cap_bpf() -> bool:
    """Whether this kernel knows CAP_BPF and CAP_PERFMON (5.8)."""
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii")) >= FIRST_WITH_CAP_BPF
    except (OSError, ValueError):
        return True
