"""Why libbpf or the kernel refused an object, out of libbpf's log: the table of what its messages mean."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from xdpctl.bpf import features, verifier
from xdpctl.bpf.failure import denied
from xdpctl.errors import MapError, ObjectError, PrivilegeError, UnsupportedError, XdpctlError, errno_text
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from pathlib import Path

    from xdpctl.bpf.object import Object

_PROGRAM_FAILED = re.compile(r"prog '([^']+)': BPF program load failed: (.*)")
_NO_TYPE = re.compile(r"prog '([^']+)': missing BPF prog type, check ELF section name '([^']*)'")
_MAP_FAILED = re.compile(r"map '([^']+)': (failed to create.*|failed to auto-pin.*)")
_PIN_MISMATCH = re.compile(r"couldn't reuse pinned map at '([^']+)': parameter mismatch")
_KFUNC = re.compile(r"extern \((?:func|var) ksym\) '([^']+)': (not found in kernel or module BTFs|.*)")
_KCONFIG = re.compile(r"extern '(CONFIG_\w+)' \(strong\): not resolved")
_NO_TARGET = re.compile(r"prog '([^']+)': attach program FD is not set")
_FUNCTION = re.compile(r"prog '([^']+)': failed to find kernel BTF type ID of '([^']+)'")
_NOISE = re.compile(
    r"failed to load object|failed to perform CO-RE relocations|Error in bpf_create_map_xattr.*Retrying"
    r"|failed to prepare load attributes|prog '[^']+': failed to load: "
)


_SECTIONS = tuple(
    (re.compile(pattern), feature)
    for pattern, feature in (
        (r"xdp\.frags(/|$)", "frags"),
        (r"xdp/devmap", "devmap_program"),
        (r"xdp/cpumap", "cpumap_program"),
        (r"tcx/", "tcx"),
        (r"netkit/", "netkit"),
        (r"[^/]+\.s(/|$)", "sleepable"),
    )
)
"""What a section asks of the kernel by an attach type or a load flag, which older kernels refuse without a word."""


def _said(lines: list[str]) -> str | None:
    """The last warning that says something, without libbpf's prefix."""
    for line in reversed(lines):
        text = line.removeprefix("libbpf: ").strip()
        if text and not _NOISE.search(text):
            return text
    return None


def _find(pattern: re.Pattern[str], lines: list[str]) -> re.Match[str] | None:
    return next((found for line in reversed(lines) if (found := pattern.search(line))), None)


def open_failed(path: Path, why: CallError, lines: list[str]) -> XdpctlError:
    """The error for an object that libbpf can't read."""
    if any("legacy map definitions" in line for line in lines):
        return ObjectError(
            f'{path} has maps in SEC("maps"), the old form, which libbpf 1.0 dropped',
            hint='define them in SEC(".maps") with __uint(type, ...) and __type(key, ...)',
        )
    said = _said(lines) or why.strerror
    return ObjectError(f"{path} is not a BPF object that libbpf can read: {said}")


def load_failed(owner: Object, why: CallError, lines: list[str], verifier_log: str) -> XdpctlError:
    """The error for an object that could not be loaded.

    Args:
        owner: the object.
        why: libbpf's result.
        lines: what it said during the load.
        verifier_log: what the kernel wrote, "" if nothing.
    """
    path = owner.path
    if found := _find(_NO_TYPE, lines):
        return ObjectError(
            f"program {found[1]} of {path.name} has the section name {found[2]}, which tells libbpf no program type",
            hint="name the type: --type xdp, or --type sched_cls",
        )
    if found := _find(_PROGRAM_FAILED, lines):
        return _program_failed(owner, found[1], why, verifier_log)
    if found := _find(_PIN_MISMATCH, lines):
        return MapError(
            f"a map of {path.name} differs in type or size from the one pinned at {found[1]}",
            errno=why.code,
            hint=f"rm {found[1]}, if nobody uses it",
        )
    if found := _find(_MAP_FAILED, lines):
        return _map_failed(owner, found, why)
    lost = denied(f"load {path.name}", why, "CAP_BPF", "CAP_NET_ADMIN")
    if lost:
        return lost
    if why.code == errno.EPERM:
        return _memlock(f"load {path.name}", why) or ObjectError(
            f"{path.name} could not be loaded: {_said(lines) or errno_text(why.code)}"
        )
    if found := _find(_KFUNC, lines):
        return UnsupportedError(
            f"{path.name}", needs=f"the kernel function {found[1]}", has="a kernel without it in its BTF"
        )
    if found := _find(_FUNCTION, lines):
        return UnsupportedError(
            f"program {found[1]} of {path.name}",
            needs=f"the kernel function {found[2]}",
            has="a kernel that has no BTF of such a function",
        )
    if found := _find(_NO_TARGET, lines):
        program = owner.programs.get(found[1])
        return ObjectError(
            f"program {found[1]} of {path.name} ({program.section if program else 'freplace'}) replaces a function of"
            " another program, and it is not told of which"
        )
    if any("failed to find valid kernel BTF" in line for line in lines):
        return UnsupportedError(
            path.name,
            needs="the kernel's BTF (CONFIG_DEBUG_INFO_BTF)",
            has="a kernel without /sys/kernel/btf/vmlinux",
        )
    if any("failed to open system Kconfig" in line for line in lines):
        return UnsupportedError(
            path.name,
            needs="the kernel's configuration (/proc/config.gz or /boot/config-...), for its __kconfig variables",
            has="a system without it",
        )
    if found := _find(_KCONFIG, lines):
        return UnsupportedError(
            path.name, needs=f"the kernel option {found[1]}", has="a kernel that has it not set"
        )
    return ObjectError(f"{path.name} could not be loaded: {_said(lines) or why.strerror}")


def _program_failed(owner: Object, name: str, why: CallError, log: str) -> XdpctlError:
    program = owner.programs.get(name)
    # BTF that the kernel refused (no error by itself) leaves its own log in the same memory
    if log.strip() and not log.startswith("magic: 0xeb9f"):
        return verifier.rejected(
            name,
            owner.path,
            log,
            section=program.section if program else None,
            truncated=why.code == errno.ENOSPC,
        )
    kind = program.type if program else "unspec"
    action = f"load program {name} of {owner.path.name}"
    tracing = {"tracing", "kprobe", "raw_tracepoint", "tracepoint", "perf_event", "lsm"}
    lost = denied(action, why, "CAP_BPF", "CAP_PERFMON" if kind in tracing else "CAP_NET_ADMIN")
    if lost:
        return lost
    if why.code == errno.EPERM and kind in {"tracing", "ext", "lsm"} and not features.probe("fentry"):
        return UnsupportedError(
            f"program {name} of {owner.path.name} ({program.section if program else kind})",
            needs="a kernel with BPF trampolines (fentry, fexit, freplace, lsm)",
            has="one that refuses them",
            errno=why.code,
        )
    if why.code == errno.EPERM:
        memlock = _memlock(action, why)
        if memlock:
            return memlock
    if kind in uapi.PROG_TYPES:
        try:
            known = lib().libbpf_probe_bpf_prog_type(uapi.PROG_TYPES.index(kind), None)
        except CallError:
            known = 1
        if not known:
            return UnsupportedError(
                f"program {name} of {owner.path.name}",
                needs=f"a kernel with {kind} programs",
                has="one without",
                errno=why.code,
            )
    if why.code == errno.EINVAL and program is not None:
        for pattern, asked in _SECTIONS:
            if pattern.match(program.section) and not features.probe(asked):
                feature = features.FEATURES[asked]
                return UnsupportedError(
                    f"program {name} of {owner.path.name} ({program.section})",
                    needs=f"{feature.since} ({feature.what})",
                    has="a kernel without",
                    errno=why.code,
                )
    return ObjectError(
        f"the kernel refused program {name} of {owner.path.name} ({kind}) before verifying it: {errno_text(why.code)}",
        hint="an attach type, flag or attach target that this kernel does not know"
        if why.code == errno.EINVAL
        else None,
    )


def _memlock(action: str, why: CallError) -> PrivilegeError | None:
    """EPERM with all capabilities and no verifier log: kernels before 5.11 charge BPF memory to RLIMIT_MEMLOCK.

    libbpf raises the limit by itself, but may not be allowed to (CAP_SYS_RESOURCE).
    """
    import resource

    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or features.probe("memcg_accounting"):
        return None
    return PrivilegeError(
        action,
        capability=f"more locked memory than RLIMIT_MEMLOCK's {soft} bytes (kernels before 5.11)",
        errno=why.code,
        hint="ulimit -l unlimited",
    )


def _map_failed(owner: Object, found: re.Match[str], why: CallError) -> XdpctlError:
    name, path = found[1], owner.path
    one = owner.maps.get(name)
    action = f"map {name} of {path.name}"
    lost = denied(f"create {action}", why, "CAP_BPF")
    if lost:
        return lost
    memlock = _memlock(f"create {action}", why) if why.code == errno.EPERM else None
    if memlock:
        return memlock
    if found[2].startswith("failed to auto-pin"):
        return MapError(f"{action} could not be pinned: {errno_text(why.code)}", errno=why.code)
    hint = None
    if one is not None and one.type in {"array_of_maps", "hash_of_maps"} and why.code == errno.EINVAL:
        hint = "a map of maps needs its inner map: __array(values, struct { ... })"
    elif one is not None and one.max_entries == 0:
        hint = f"it has max_entries = 0: --map {name}=max_entries=N"
    elif one is not None and why.code == errno.E2BIG:
        hint = f"{one.max_entries} entries are too many" + (
            " for a cpumap on these CPUs" if one.type == "cpumap" else ""
        )
    return MapError(
        f"{action} ({one.type if one else 'map'}) could not be created: {errno_text(why.code)}",
        errno=why.code,
        hint=hint,
    )
