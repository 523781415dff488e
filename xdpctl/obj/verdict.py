"""Would this object load here? `verdict` judges an `ObjFile` by `KernelFacts`; no kernel is asked.

What is predicted, for loader "xdpctl": the outcome of opening the object with libbpf, setting the program type where
the section name is an alias or newer than this libbpf (`obj.sections`), and loading every program that is not
marked ``SEC("?...")``, with nothing else set: no ``--type``, ``--set``, ``--map``, no device to bind to, no
freplace target. For loader "libbpf" nothing is set at all, as `bpftool prog loadall` or any plain loader does.
A `fail` says that this load is refused, or that libbpf would load no program of it; without one it goes through
unless the verifier refuses the logic of a program (bounds, types, loops), which only loading tells. A `warn` loads,
but is not what one would think.
An `unknown` says what to look at where the facts don't decide.

A problem's `where` is the program or map that it is about, so that who loads one program of several knows which
problems are his (`concerning`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xdpctl.obj.helpers import GPL_LICENSES, GPL_ONLY
from xdpctl.obj.mapverdict import listed, map_problems
from xdpctl.obj.model import Problem
from xdpctl.obj.sections import attach_function, version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.obj.kernel import KernelFacts
    from xdpctl.obj.model import ObjFile, ObjProgram
    from xdpctl.obj.sections import SectionMeaning


def with_type(obj: ObjFile, given: SectionMeaning) -> ObjFile:
    """The object as ``--type`` makes it: programs whose section tells no type get the one given."""
    return replace(
        obj,
        programs=tuple(
            replace(
                one,
                type=given.type,
                attach_type=given.attach_type,
                type_from="type",
                frags=given.frags,
                sleepable=given.sleepable,
                hook=given.hook,
            )
            if one.type is None
            else one
            for one in obj.programs
        ),
    )


def verdict(obj: ObjFile, facts: KernelFacts, *, loader: str = "xdpctl") -> list[Problem]:
    """Why the object would not load, the certain reasons first; see the module for what exactly is predicted.

    Args:
        obj: the object.
        facts: what `obj.kernel.gather` found for it.
        loader: ``xdpctl`` or ``libbpf``.
    """
    found = [*_file(obj, facts), *obj.flaws, *_externs(obj, facts)]
    for one in obj.programs:
        if one.autoload:
            found += _section(one, facts, loader)
            found += _program(obj, one, facts)
    for table in obj.maps:
        found += map_problems(table, facts)
    order = {"fail": 0, "unknown": 1, "warn": 2}
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda one: order.get(one.severity, 3))


def fails(problems: Iterable[Problem]) -> bool:
    """Whether any problem keeps the object from loading."""
    return any(one.severity == "fail" for one in problems)


def concerning(problems: Iterable[Problem], obj: ObjFile, program: str) -> list[Problem]:
    """The problems that matter to somebody who loads this program alone: its own, every map's, the object's."""
    others = {one.name for one in obj.programs} - {program}
    # what libbpf refuses on opening matters whichever program is wanted
    return [one for one in problems if one.where not in others or one in obj.flaws]


def _file(obj: ObjFile, facts: KernelFacts) -> Iterator[Problem]:
    if facts.libbpf is None:
        yield Problem(
            "no-libbpf", "fail", "", "there is no libbpf.so.1 to load it with", "apt install libbpf1"
        )
    if obj.byte_order != facts.byte_order:
        yield Problem(
            "byte-order",
            "fail",
            "",
            f"it is {obj.byte_order}-endian, this machine is {facts.byte_order}-endian",
            "compile it with clang -target bpf, which is the byte order of the machine",
        )
    legacy = [one.name for one in obj.maps if one.definition == "legacy"]
    if legacy:
        yield Problem(
            "legacy-maps",
            "fail",
            "",
            f'its maps {listed(legacy)} are defined in SEC("maps"), which libbpf has refused since 1.0',
            'define them in SEC(".maps"), with BTF (clang -g)',
        )
    if obj.core_relocations and not facts.btf:
        yield Problem(
            "no-btf",
            "fail",
            "",
            f"it has {obj.core_relocations} CO-RE relocations, and this kernel does not describe its types",
            "a kernel with CONFIG_DEBUG_INFO_BTF has /sys/kernel/btf/vmlinux",
        )


def _externs(obj: ObjFile, facts: KernelFacts) -> Iterator[Problem]:
    for one in obj.externs:
        if one.kind == "unknown":
            yield Problem(
                "extern-without-btf",
                "fail",
                "",
                f"it refers to {one.name}, which it does not define and BTF does not describe",
                "declare it with __ksym or __kconfig and compile with clang -g, or link its definition in",
            )
            continue
        what, id_ = {
            "kfunc": ("the kfunc", "missing-kfunc"),
            "ksym": ("the kernel variable", "missing-ksym"),
            "kconfig": ("the setting", "missing-kconfig"),
        }[one.kind]
        users = [program.name for program in obj.programs if one.name in program.kfuncs and program.autoload]
        where = users[0] if len(users) == 1 else ""
        if facts.externs.get(one.name, None) is False:
            config_file = one.kind == "kconfig" and one.name.startswith("CONFIG_")
            hint = "this kernel's /proc/config.gz or /boot/config does not set it" if config_file else None
            if config_file and facts.config is False:
                yield Problem(
                    id_,
                    "fail",
                    where,
                    f"{one.name} is a setting of the kernel, and this system does not tell them",
                    "libbpf reads /proc/config.gz or /boot/config-RELEASE, for __weak ones too",
                )
                continue
            yield Problem(
                id_,
                "warn" if one.weak else "fail",
                where,
                f"{what} {one.name} does not exist in Linux {facts.release}"
                + (" (it is weak: what depends on it is left out)" if one.weak else ""),
                hint or "a newer kernel, or one configured for it, may have it; __weak makes it optional",
            )
        elif one.kind == "kfunc" and not facts.btf and not one.weak:
            yield Problem(
                "no-btf", "fail", where, f"{what} {one.name} is found through the kernel's BTF: it has none"
            )


def _section(one: ObjProgram, facts: KernelFacts, loader: str) -> Iterator[Problem]:
    section = one.section.removeprefix("?")
    if one.type is None:
        yield Problem(
            "unknown-section",
            "fail",
            one.name,
            f"section {section} of {one.name} does not tell the program's type",
            "name it: --type xdp, --type tc, ...",
        )
        return
    if one.type_from == "alias":
        kind = one.attach_type or one.type
        yield Problem(
            "alias-section",
            "fail" if loader == "libbpf" else "warn",
            one.name,
            f"libbpf does not know the section name {section} of {one.name}"
            + (f"; xdpctl takes it for {kind}" if loader != "libbpf" else ""),
            f'SEC("{_canonical(one)}") is what every loader knows',
        )
    newer = (
        one.since_libbpf is not None and facts.libbpf is not None and version(one.since_libbpf) > facts.libbpf
    )
    if newer and facts.libbpf is not None and one.since_libbpf is not None:
        here = ".".join(str(part) for part in facts.libbpf)
        lost = loader == "libbpf" or attach_function(one.section) is not None
        yield Problem(
            "libbpf-too-old",
            "fail" if lost else "warn",
            one.name,
            f"section {section} of {one.name} needs libbpf {one.since_libbpf}, this is {here}"
            + ("" if lost else "; xdpctl sets the program's type itself"),
            f"install libbpf {one.since_libbpf}, or name it by XDPCTL_LIBBPF",
        )


def _canonical(one: ObjProgram) -> str:
    if one.type == "xdp":
        suffix = (one.attach_type or "xdp").removeprefix("xdp")
        return f"xdp{'.frags' if one.frags else ''}{suffix}"
    return (
        "tc"
        if one.type == "sched_cls" and one.hook is None
        else f"tcx/{one.hook}"
        if one.hook
        else one.type or ""
    )


def _program(obj: ObjFile, one: ObjProgram, facts: KernelFacts) -> Iterator[Problem]:
    if one.type is not None and facts.program_types.get(one.type) is False:
        yield Problem(
            "program-type",
            "fail",
            one.name,
            f"{one.name} is a {one.type} program, which Linux {facts.release} as configured does not have",
        )
        return
    yield from _target(one, facts)
    yield from _calls(obj, one, facts)
    yield from _misused_maps(obj, one)
    if one.frags and one.type_from != "alias" and facts.frags is False:  # by an alias it is loaded without
        yield Problem(
            "frags",
            "fail",
            one.name,
            f"{one.name} is for frames of several buffers (xdp.frags), since Linux 5.18",
        )
    if one.rx_metadata:
        yield Problem(
            "device-bound",
            "fail",
            one.name,
            f"{one.name} calls {listed(one.rx_metadata)}, a function of the driver: it loads only bound to a device",
            "bind it with bpf_program__set_ifindex and BPF_F_XDP_DEV_BOUND_ONLY (Linux 6.3)",
        )
    missing = facts.poisoned.get(one.name, ())
    if missing:
        yield Problem(
            "core-missing",
            "fail",
            one.name,
            f"{one.name} uses {listed(missing)}, which Linux {facts.release} does not have",
            "it was written for another kernel; bpf_core_field_exists() lets a program ask first",
        )


def _target(one: ObjProgram, facts: KernelFacts) -> Iterator[Problem]:
    """What the program is for, where that is looked up at load: kernel functions, programs to extend."""
    if one.type == "ext":
        yield Problem(
            "freplace-target",
            "fail",
            one.name,
            f"{one.name} replaces {one.attach_target or 'a function'} of a loaded program, and which is not said",
            "it is loaded by what owns that program (libxdp's dispatcher, for one), not by itself",
        )
        return
    if one.type == "struct_ops":
        yield Problem(
            "struct-ops", "unknown", one.name, f"{one.name} is part of a struct_ops table, not judged here"
        )
        return
    if one.type not in ("tracing", "lsm"):
        return
    section = one.section.removeprefix("?")
    if one.attach_target is None:
        yield Problem(
            "no-target",
            "fail",
            one.name,
            f"section {section} of {one.name} does not name the function it is for",
        )
        return
    if not facts.btf:
        yield Problem(
            "no-btf",
            "fail",
            one.name,
            f"{one.name} is for {one.attach_target}, found through the kernel's BTF: none",
        )
        return
    answer = facts.targets.get((one.attach_type or "", one.attach_target))
    if answer == "missing":
        yield Problem(
            "missing-function",
            "fail",
            one.name,
            f"{one.name} is for {one.attach_target}, which Linux {facts.release} does not have ({section})",
            "kernel functions change their names between versions, or are inlined",
        )
    elif answer is not None:
        yield Problem(
            "target-refused",
            "fail",
            one.name,
            f"programs for {one.attach_target} ({section}) are refused by this kernel: {answer}",
            "its trampolines are off, or the function is not to be traced; try kprobe or tracepoint",
        )


def _calls(obj: ObjFile, one: ObjProgram, facts: KernelFacts) -> Iterator[Problem]:
    gpl = obj.license in GPL_LICENSES
    restricted = [name for name in one.helpers if name in GPL_ONLY]
    if not gpl and (restricted or one.kfuncs or one.type == "lsm"):
        what = (
            f"calls {listed(restricted or one.kfuncs)}" if restricted or one.kfuncs else "is an LSM program"
        )
        has = f"its license is {obj.license!r}" if obj.license else "it has none"
        yield Problem(
            "license",
            "fail",
            one.name,
            f"{one.name} {what}, which the kernel allows to GPL programs only; {has}",
            'char LICENSE[] SEC("license") = "GPL"; or "Dual MIT/GPL"',
        )
    refused = [name for name in one.helpers if facts.helpers.get((one.type or "", name)) is False]
    if refused:
        yield Problem(
            "helper",
            "fail",
            one.name,
            f"{one.name} calls {listed(refused)}, which Linux {facts.release} does not offer to {one.type} programs",
        )


_MAPS_OF = {
    "bpf_tail_call": ("prog_array",),
    "bpf_redirect_map": ("devmap", "devmap_hash", "cpumap", "xskmap"),
}
"""Helper -> the map types it takes (check_map_func_compatibility() of kernel/bpf/verifier.c)."""


def _misused_maps(obj: ObjFile, one: ObjProgram) -> Iterator[Problem]:
    """Maps that a helper does not take; told for the helpers whose maps are known from the instructions."""
    used = [("bpf_tail_call", name) for name in one.tail_calls]
    used += [(call.helper, call.map) for call in one.redirects if call.map is not None]
    for helper, name in dict.fromkeys(used):
        table = obj.map(name)
        if table is not None and helper in _MAPS_OF and table.type not in _MAPS_OF[helper]:
            yield Problem(
                "map-misused",
                "fail",
                one.name,
                f"{one.name} gives map {name}, a {table.type}, to {helper}: it takes {' or '.join(_MAPS_OF[helper])}",
            )
