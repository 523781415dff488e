"""Loaded programs, the links that hold them, and where attached XDP programs redirect to (bpf(2) queries)."""

from __future__ import annotations

import os
import struct
from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING

from xdpctl.errors import UnsupportedError, XdpctlError
from xdpctl.host.model import BpfProgram, Problem, RedirectEntry, RedirectMap
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xdpctl.bpf.query import LinkInfo, MapInfo
    from xdpctl.host.model import RedirectTarget
    from xdpctl.obj.flow import Steps

REDIRECT_MAPS = ("devmap", "devmap_hash", "cpumap", "xskmap")
_BPF_REDIRECT, _BPF_REDIRECT_MAP = 23, 51
_CALL = 0x85
_RX_QUEUE_INDEX = 16
"""offsetof(struct xdp_md, rx_queue_index)."""
_MOST_ENTRIES = 65_536
"""Entries of one map that are read; nobody can use more devices or CPUs."""


@dataclass(slots=True)
class Loaded:
    """What the kernel holds; empty, with a problem, where the caller may not ask (CAP_SYS_ADMIN)."""

    programs: dict[int, BpfProgram] = field(default_factory=dict)
    links: list[LinkInfo] = field(default_factory=list)
    readable: bool = True
    """False: the caller may not ask, so nothing above means anything."""

    def has_tc(self) -> bool:
        """Whether any TC program is loaded at all."""
        return any(one.type == "sched_cls" for one in self.programs.values())


def loaded(problems: list[Problem]) -> Loaded:
    """Every program and every link, by one walk over their ids each."""
    from xdpctl.bpf import query

    found = Loaded()
    try:
        for one in query.programs():
            found.programs[one.id] = BpfProgram(
                one.id,
                one.name,
                one.type,
                one.tag,
                one.ifindex or 0,
                one.map_ids,
                one.load_time_ns / 1e9,
                one.run_cnt,
                one.run_time_ns,
            )
        found.links = list(query.links())
    except UnsupportedError:
        pass  # no links before 5.8, so none to list
    except (XdpctlError, OSError) as error:  # OSError: a sandbox that answers bpf(2) in its own way
        problems.append(Problem("loaded programs", str(error)))
        found.readable = False
    return found


@dataclass(slots=True)
class Redirects:
    """Where programs can redirect to, by program id."""

    entries: dict[int, tuple[RedirectEntry, ...]] = field(default_factory=dict)
    """Used entries of devmaps and cpumaps (the kernel does not let xskmaps be read)."""
    calls: dict[int, bool | None] = field(default_factory=dict)
    """Whether the instructions call bpf_redirect or bpf_redirect_map; None: not readable."""
    maps: dict[int, tuple[RedirectMap, ...]] = field(default_factory=dict)
    targets: dict[int, tuple[RedirectTarget, ...]] = field(default_factory=dict)
    """Of plain redirects."""


def redirects(
    attached: Iterable[int], programs: Mapping[int, BpfProgram], problems: list[Problem]
) -> Redirects:
    """Where attached XDP programs, and the programs they tail-call, can redirect to.

    Args:
        attached: ids of programs on XDP hooks.
        programs: all loaded ones.
        problems: grows by what can't be read.
    """
    reading = _Reading(programs, problems)
    found = Redirects()
    for number in sorted(set(attached)):
        if number not in programs:
            found.calls[number] = None
            continue
        together = reading.reachable(number)
        maps = dict.fromkeys(each for one in together for each in programs[one].map_ids)
        found.entries[number] = tuple(entry for each in maps for entry in reading.entries(each))
        answers = [reading.calls(one) for one in together]
        found.calls[number] = True if True in answers else None if None in answers else False
        if True in answers:
            found.maps[number] = tuple(one for each in maps if (one := reading.redirect_map(each)))
            found.targets[number] = tuple(
                dict.fromkeys(one for each in together for one in reading.targets(each))
            )
    return found


@dataclass(slots=True)
class _Reading:
    """Maps and instructions, each read once however many programs share it."""

    programs: Mapping[int, BpfProgram]
    problems: list[Problem]
    _infos: dict[int, MapInfo | None] = field(default_factory=dict)
    _contents: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    _calls: dict[int, bool | None] = field(default_factory=dict)
    _code: dict[int, bytes] = field(default_factory=dict)
    """Instructions of those that call a redirect helper."""
    _targets: dict[int, tuple[RedirectTarget, ...]] = field(default_factory=dict)
    _steps: Steps | None = None

    def reachable(self, start: int) -> list[int]:
        """A program and those it may tail-call, through its prog_array maps."""
        found = [start]
        for number in found:
            for map_id in self.programs[number].map_ids:
                for _key, value in self._content(map_id, ("prog_array",)):
                    (callee,) = struct.unpack("=I", value[:4])
                    if callee in self.programs and callee not in found:
                        found.append(callee)
        return found

    def entries(self, map_id: int) -> list[RedirectEntry]:
        """The used slots of a map that redirects; [] for other maps."""
        content = self._content(map_id, REDIRECT_MAPS)
        info = self._infos[map_id]
        if info is None:
            return []
        found = []
        for key, value in content:
            (index,) = struct.unpack("=I", key[:4])
            first, second = struct.unpack("=II", value[:8].ljust(8, b"\0"))
            if info.type.startswith("devmap") and first == 0:
                continue  # an array's slot that nothing was ever put into
            if info.type == "cpumap" and first == 0:
                continue  # no queue, no CPU
            target = first if info.type.startswith("devmap") else None
            found.append(RedirectEntry(map_id, info.name, info.type, index, target, second or None))
        return found

    def _content(self, map_id: int, kinds: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
        """All entries of a map of one of these kinds."""
        from xdpctl.bpf import map as bpf_map

        info = self._infos.get(map_id)
        if map_id in self._infos and (info is None or info.type not in kinds or map_id in self._contents):
            return self._contents.get(map_id, []) if info is not None and info.type in kinds else []
        self._infos.setdefault(map_id, None)
        try:
            with bpf_map.open_map(map_id) as opened:
                info = self._infos[map_id] = opened.info()
                if info.type not in kinds or info.type == "xskmap":
                    return []
                content = []
                for item in opened.items():
                    content.append(item)
                    if len(content) >= _MOST_ENTRIES:
                        self.problems.append(
                            Problem(
                                f"map {info.name} (id {map_id})", f"only {_MOST_ENTRIES} entries were read"
                            )
                        )
                        break
                self._contents[map_id] = content
                return content
        except (XdpctlError, OSError) as error:
            self.problems.append(Problem(f"map {map_id}", str(error)))
            return []

    def calls(self, number: int) -> bool | None:
        """Whether a program's instructions call a redirect helper."""
        from xdpctl.bpf import query

        if number not in self._calls:
            wanted = helper_offsets()
            try:
                code = query.xlated(number) if wanted else b""
                self._calls[number] = _finds(code, wanted) if wanted else None
            except (XdpctlError, OSError):
                self._calls[number] = None
            else:
                if self._calls[number]:
                    self._code[number] = code
        return self._calls[number]

    def redirect_map(self, map_id: int) -> RedirectMap | None:
        """The map, if programs redirect through it (after `entries`)."""
        info = self._infos.get(map_id)
        if info is None or info.type not in REDIRECT_MAPS:
            return None
        return RedirectMap(map_id, info.name, info.type)

    def targets(self, number: int) -> tuple[RedirectTarget, ...]:
        """Where the plain redirects of a program lead; () of one that makes none (after `calls`)."""
        from xdpctl.host import plain_redirects

        if number not in self._targets:
            code = self._code.get(number, b"")
            self._steps = self._steps or plain_redirects.budget()
            told = plain_redirects.targets(code, helper_offsets(), self._steps) if code else ()
            self._targets[number] = told
        return self._targets[number]


def tc_redirects(attached: Iterable[int]) -> dict[int, tuple[RedirectTarget, ...]]:
    """Where plain redirects of TC programs lead, by program id; none of those that make none, or can't be read."""
    from xdpctl.bpf import query
    from xdpctl.host import plain_redirects

    found = {}
    steps = plain_redirects.budget()
    for number in sorted(set(attached)):
        helpers = tc_offsets()
        try:
            code = query.xlated(number) if helpers else b""
        except (XdpctlError, OSError):
            continue
        if _finds(code, helpers):
            found[number] = plain_redirects.targets(code, helpers, steps)
    return found


def _finds(code: bytes, wanted: Iterable[bytes]) -> bool | None:
    if not code:
        return None
    for immediate in wanted:
        at = code.find(immediate)
        while at >= 0:
            # struct bpf_insn: opcode, registers, offset, then the immediate; source register 0 is a helper's call
            if at % 8 == 4 and code[at - 4] == _CALL and code[at - 3] >> 4 == 0:
                return True
            at = code.find(immediate, at + 1)
    return False


@lru_cache(maxsize=1)
def helper_offsets() -> Mapping[bytes, int]:
    """How calls of bpf_redirect and bpf_redirect_map look in instructions that the kernel shows: 4 bytes -> helper.

    A loaded program's call holds the helper's distance from __bpf_call_base, which differs with every kernel,
    and bpf_redirect_map becomes a function of the map's type. Loading programs of our own that make these
    calls, and reading them back, tells what they are here. Empty where that can't be told: no privilege, or a
    kernel that hides addresses (kernel.kptr_restrict), which then shows 0.
    """
    from xdpctl.bpf import asm, load
    from xdpctl.libbpf import uapi

    found: dict[bytes | None, int] = {}
    plain = asm.mov_imm(asm.R1, 0) + asm.mov_imm(asm.R2, 0) + asm.call(_BPF_REDIRECT) + asm.leave()
    found[_offset_in(plain)] = _BPF_REDIRECT
    for kind in REDIRECT_MAPS:
        # a cpumap may not have more entries than CPUs
        try:
            descriptor = load.map_(uapi.MAP_TYPES.index(kind), 4, 4, 1)
        except (XdpctlError, OSError):
            continue
        try:
            code = asm.load_map(asm.R1, descriptor) + asm.mov_imm(asm.R2, 0) + asm.mov_imm(asm.R3, 0)
            found[_offset_in(code + asm.call(_BPF_REDIRECT_MAP) + asm.leave())] = _BPF_REDIRECT_MAP
        finally:
            os.close(descriptor)
    either = _one_of_two_maps()
    if either is not None:
        found[either] = _BPF_REDIRECT_MAP
    return {} if None in found else {key: number for key, number in found.items() if key}


@lru_cache(maxsize=1)
def tc_offsets() -> Mapping[bytes, int]:
    """The same of the helpers by which TC programs redirect; those that this kernel lacks are left out."""
    from xdpctl.bpf import asm
    from xdpctl.libbpf import uapi

    zeros = b"".join(asm.mov_imm(one, 0) for one in (asm.R2, asm.R3, asm.R4))
    found = {}
    for number, first in ((_BPF_REDIRECT, True), (152, True), (155, True), (13, False)):
        # bpf_redirect_neigh, bpf_redirect_peer, bpf_clone_redirect, which takes the context first
        code = (asm.mov_imm(asm.R1, 0) if first else b"") + zeros + asm.call(number) + asm.leave()
        offset = _offset_in(code, uapi.PROG_TYPE_SCHED_CLS)
        if offset:
            found[offset] = number
    return found


def _one_of_two_maps() -> bytes | None:
    """How bpf_redirect_map looks where the verifier saw different maps come to one call: as the plain helper."""
    from xdpctl.bpf import asm, load
    from xdpctl.libbpf import uapi

    held: list[int] = []
    try:
        held += [load.map_(uapi.MAP_TYPES.index("devmap"), 4, 4, 1) for _ in range(2)]
        return _offset_in(
            asm.load(asm.R2, asm.R1, _RX_QUEUE_INDEX, asm.LDX_W)
            + asm.load_map(asm.R1, held[0])
            + asm.jump_eq_imm(asm.R2, 0, 2)
            + asm.load_map(asm.R1, held[-1])
            + asm.mov_imm(asm.R2, 0)
            + asm.mov_imm(asm.R3, 0)
            + asm.call(_BPF_REDIRECT_MAP)
            + asm.leave()
        )
    except (XdpctlError, OSError):
        return None
    finally:
        for descriptor in held:
            os.close(descriptor)


def _offset_in(code: bytes, kind: int | None = None) -> bytes | None:
    """The immediate of the one call in a program of ours (XDP if no type is given), as the loaded program shows it."""
    from xdpctl.bpf import load, query
    from xdpctl.libbpf import uapi

    try:
        descriptor = load.program(uapi.PROG_TYPE_XDP if kind is None else kind, code)
    except (XdpctlError, OSError):
        return None
    try:
        shown = query.xlated(query.program_info(descriptor).id)
    except (XdpctlError, OSError):
        return None
    finally:
        os.close(descriptor)
    for at in range(0, len(shown), 8):
        if shown[at] == _CALL:
            immediate = shown[at + 4 : at + 8]
            return immediate if immediate != b"\0\0\0\0" else None
    return None
