"""What this kernel has of what an object needs: `gather` asks it once, into the `KernelFacts` that a verdict judges.

Without root the answers come from the kernel's BTF and from files; with CAP_BPF each program type, map type, helper
and attach target that the object uses is tried with a program of two instructions. Nothing of the object is loaded.
"""

from __future__ import annotations

import os
import sys
from dataclasses import field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.btf import kernel as btf_kernel
from xdpctl.btf.kernel import BTF_FOLDER
from xdpctl.btf.parse import FUNC, TYPEDEF, VAR
from xdpctl.errors import ObjectError, PrivilegeError, UnsupportedError, XdpctlError
from xdpctl.obj import probes
from xdpctl.obj.poisoned import poisoned
from xdpctl.obj.sections import attach_function
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdpctl.btf.parse import Btf
    from xdpctl.obj.model import ObjExtern, ObjFile, ObjProgram

NAME_MAX = 255
"""Bytes of a file name."""


@dataclass(frozen=True, slots=True)
class PinnedMap:
    """A map that lies where a map of the object would be pinned, and so would be reused."""

    path: Path
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What of this machine decides whether one object loads. An answer that is missing in a mapping is unknown."""

    release: str
    """As uname(2) has it."""
    libbpf: tuple[int, int] | None
    """None: there is no libbpf."""
    byte_order: str
    possible_cpus: int
    nr_cpus: int | None
    """CONFIG_NR_CPUS, the limit of a cpumap (kernel_max of sysfs, plus 1)."""
    btf: bool
    """The kernel describes its types (/sys/kernel/btf/vmlinux)."""
    privileged: bool
    """Things could be tried (CAP_BPF)."""
    externs: Mapping[str, bool] = field(default_factory=dict)
    """Kfunc, kernel variable or CONFIG_ name -> the kernel has it."""
    config: bool | None = None
    """Its configuration can be read (/proc/config.gz or /boot/config-RELEASE); None: not asked."""
    targets: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    """(attach type, function) -> None: programs load there; ``missing``, or the errno's name where they don't."""
    program_types: Mapping[str, bool] = field(default_factory=dict)
    map_types: Mapping[str, bool] = field(default_factory=dict)
    helpers: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """(program type, helper) -> allowed there."""
    frags: bool | None = None
    poisoned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Program -> fields and enumerators that it reaches and the kernel's BTF lacks."""
    pinned: Mapping[str, PinnedMap] = field(default_factory=dict)
    """Map -> what lies at its pin path."""
    pin_root: Path | None = None


def gather(obj: ObjFile, *, pin_root: Path | None = None, probe: bool = True) -> KernelFacts:
    """Ask this kernel what a verdict on the object needs to know.

    Args:
        obj: the object.
        pin_root: folder of a bpffs where maps that are pinned by name would lie.
        probe: try program types, helpers and targets, where we may.
    """
    kernel = _kernel_btf(obj)
    may_try = probe and probes.allowed()
    wanted = [one for one in obj.programs if one.type is not None and one.autoload]
    facts = KernelFacts(
        release=os.uname().release,
        libbpf=_libbpf(),
        byte_order=sys.byteorder,
        possible_cpus=_cpus("possible"),
        nr_cpus=_nr_cpus(),
        btf=(BTF_FOLDER / "vmlinux").exists(),
        privileged=may_try,
        externs={
            one.name: found for one in obj.externs for found in (_has(one, kernel),) if found is not None
        },
        config=_config() is not None if any(one.kind == "kconfig" for one in obj.externs) else None,
        targets=_targets(wanted, kernel, may_try=may_try),
        poisoned=poisoned(obj, wanted, kernel),
        pin_root=pin_root,
    )
    return _tried(obj, wanted, facts, kernel) if may_try else facts


def _tried(obj: ObjFile, wanted: list[ObjProgram], facts: KernelFacts, kernel: Btf | None) -> KernelFacts:
    program_types = {one.type: probes.program_type(one.type) for one in wanted if one.type is not None}
    map_types = {one.type: probes.map_type(one.type) for one in obj.maps}
    helpers: dict[tuple[str, str], bool] = {}
    for one in wanted:
        btf_id = _target_id(one, kernel)
        for helper in one.helpers:
            key = (one.type or "", helper)
            if key not in helpers:
                found = probes.helper(one, helper, btf_id)
                if found is not None:
                    helpers[key] = found
    return replace(
        facts,
        program_types={name: found for name, found in program_types.items() if found is not None},
        map_types={name: found for name, found in map_types.items() if found is not None},
        helpers=helpers,
        frags=probes.frags() if any(one.frags for one in wanted) else None,
        pinned=_pinned(obj, facts.pin_root),
    )


def _libbpf() -> tuple[int, int] | None:
    try:
        from xdpctl.libbpf.library import version

        return version()
    except (XdpctlError, OSError):
        return None


def _cpus(which: str) -> int:
    """CPUs of a sysfs list such as ``0-3,8``."""
    try:
        text = Path(f"/sys/devices/system/cpu/{which}").read_text().strip()
        count = 0
        for part in text.split(","):
            first, _, last = part.partition("-")
            count += int(last or first) - int(first) + 1
    except (OSError, ValueError):
        return os.cpu_count() or 1
    return count


def _nr_cpus() -> int | None:
    try:
        return int(Path("/sys/devices/system/cpu/kernel_max").read_text()) + 1
    except (OSError, ValueError):
        return None


def _kernel_btf(obj: ObjFile) -> Btf | None:
    """The kernel's types, if the object needs them at all."""
    needs = obj.core_relocations or any(one.kind in ("kfunc", "ksym") for one in obj.externs)
    if not needs and not any(attach_function(one.section) for one in obj.programs):
        return None
    return vmlinux()


@cache
def vmlinux() -> Btf | None:
    """The kernel's own types, read once a process (40 ms); None: it does not describe them."""
    try:
        return btf_kernel.vmlinux()
    except (UnsupportedError, PrivilegeError, ObjectError):
        return None


def _modules(kernel: Btf, name: str, *kinds: int) -> bool:
    """Whether a module's BTF describes a name, as libbpf looks there after vmlinux."""
    from xdpctl.btf.parse import parse

    for module in btf_kernel.modules():
        try:
            blob = (BTF_FOLDER / module).read_bytes()
            # a name of the module's own stands in its own strings
            if b"\0" + name.encode() + b"\0" in blob and parse(blob, base=kernel).find(name, *kinds):
                return True
        except (OSError, ObjectError):
            continue
    return False


def _has(one: ObjExtern, kernel: Btf | None) -> bool | None:
    """Whether libbpf's bpf_object__resolve_externs would find it."""
    if one.kind == "kconfig":
        return _has_config(one.name)
    if one.kind == "ksym" and one.type is None:
        return _has_symbol(one.name)
    if one.kind not in ("kfunc", "ksym") or kernel is None:
        return None
    kind = FUNC if one.kind == "kfunc" else VAR
    return kernel.find(one.name, kind) is not None or _modules(kernel, one.name, kind)


def _has_config(name: str) -> bool | None:
    if name in ("LINUX_KERNEL_VERSION", "LINUX_HAS_BPF_COOKIE", "LINUX_HAS_SYSCALL_WRAPPER"):
        return True
    if not name.startswith("CONFIG_"):
        return False
    text = _config()
    return text is not None and b"\n" + name.encode() + b"=" in b"\n" + text


def _config() -> bytes | None:
    """The kernel's configuration where libbpf looks; None: it fails for every CONFIG_ extern, weak or not."""
    import gzip

    try:
        return gzip.decompress(Path("/proc/config.gz").read_bytes())
    except OSError:
        try:
            return Path(f"/boot/config-{os.uname().release}").read_bytes()
        except OSError:
            return None


def _has_symbol(name: str) -> bool | None:
    needle = f" {name}\n".encode()
    try:
        with Path("/proc/kallsyms").open("rb") as symbols:
            return any(line.endswith(needle) for line in symbols)
    except OSError:
        return None


def _target_id(one: ObjProgram, kernel: Btf | None) -> int | None:
    """BTF id of the kernel function or tracepoint that a program is for."""
    if kernel is None or one.attach_target is None:
        return None
    wanted = attach_function(one.section)
    if wanted is None:
        return None
    found = kernel.find(wanted, TYPEDEF if wanted.startswith("btf_trace_") else FUNC)
    return found.id if found is not None else None


def _targets(
    wanted: list[ObjProgram], kernel: Btf | None, *, may_try: bool
) -> dict[tuple[str, str], str | None]:
    found: dict[tuple[str, str], str | None] = {}
    for one in wanted:
        function = attach_function(one.section)
        if function is None or one.attach_target is None or one.attach_type is None or kernel is None:
            continue
        key = (one.attach_type, one.attach_target)
        if key in found:
            continue
        btf_id = _target_id(one, kernel)
        if btf_id is None:
            if not _modules(kernel, function, FUNC, TYPEDEF):
                found[key] = "missing"
        elif may_try:
            answer = probes.target(one, btf_id)
            if answer is not probes.UNSURE:
                found[key] = answer
        else:
            found[key] = None
    return found


def _pinned(obj: ObjFile, root: Path | None) -> dict[str, PinnedMap]:
    found: dict[str, PinnedMap] = {}
    for one in obj.maps:
        if root is None or one.pin is None:
            continue
        path = root / one.pin
        try:
            if len(os.fsencode(one.pin)) > NAME_MAX or not path.exists():
                continue
            from xdpctl.bpf.map import open_map

            pinned = open_map(path)
            info = pinned.info()
            pinned.close()
        except (XdpctlError, OSError):
            continue
        found[one.name] = PinnedMap(
            path, info.type, info.key_size, info.value_size, info.max_entries, info.flags
        )
    return found
