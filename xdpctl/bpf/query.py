"""Which programs, maps and links the kernel holds, and what it says of each (BPF_*_GET_NEXT_ID, *_INFO_BY_FD)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf.failure import denied, refused
from xdpctl.errors import AttachError, NotFoundError, UnsupportedError, errno_text
from xdpctl.libbpf import info, memory, uapi
from xdpctl.libbpf.library import CallError, lib
from xdpctl.libbpf.opts import ProgQueryOpts
from xdpctl.libbpf.syscalls import BPF_PROG_QUERY, QueryAttr, bpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    _T = TypeVar("_T")


# Named tuples, not dataclasses: each dataclass costs a cold start one millisecond.


class ProgramInfo(NamedTuple):
    """A loaded program (``struct bpf_prog_info``). None: this kernel does not say."""

    id: int
    type: str
    name: str
    """At most 15 characters; the kernel cuts longer ones."""
    tag: str
    """SHA of the instructions, 16 hex digits."""
    ifindex: int | None
    """Device it is bound to (offload, or device-bound metadata kfuncs)."""
    map_ids: tuple[int, ...]
    load_time_ns: int
    """Since boot (CLOCK_BOOTTIME)."""
    uid: int
    run_cnt: int | None
    """0 where kernel.bpf_stats_enabled is off. Linux 5.1."""
    run_time_ns: int | None
    recursion_misses: int | None
    """Linux 5.12."""
    btf_id: int
    xlated_len: int
    """Bytes of the verified instructions; 0 where we may not know."""
    jited_len: int
    """Bytes of machine code; 0: interpreted, or we may not know."""
    gpl_compatible: bool
    verified_insns: int | None
    """Linux 5.16."""


class MapInfo(NamedTuple):
    """A map (``struct bpf_map_info``)."""

    id: int
    type: str
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    ifindex: int | None
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    per_cpu: bool
    """A value is an array over the possible CPUs."""


class LinkInfo(NamedTuple):
    """A bpf_link (``struct bpf_link_info``)."""

    id: int
    type: str
    program_id: int
    ifindex: int | None
    """xdp, tcx, netkit; None: of another type, or its device is gone."""
    attach_type: str | None
    """tcx_ingress, tcx_egress, netkit_primary, xdp, trace_fentry, ... where the type has one."""
    netns: int | None = None
    """Inode of the namespace, for links on a namespace; xdp, tcx and netkit links don't say theirs."""


class TcxEntry(NamedTuple):
    """One program on a tcx or netkit hook, in the order of running."""

    program_id: int
    link_id: int | None
    """None: attached without a link, or the kernel did not say."""


class TcxQuery(NamedTuple):
    """The programs of one tcx or netkit hook."""

    revision: int
    """Grows with each change; what `expected_revision` is compared with."""
    entries: tuple[TcxEntry, ...]


def program_info(fd: int) -> ProgramInfo:
    """What the kernel says about the program behind `fd`.

    Raises:
        CallError: `fd` is not a program.
    """
    ids = memory.u32s(64)  # MAX_USED_MAPS, linux/bpf_verifier.h; .rodata bound by libbpf may come on top
    asked = info.ask(fd, info.ProgInfo(nr_map_ids=len(ids), map_ids=memory.address(ids)))
    raw = asked.info
    if raw.nr_map_ids > len(ids):
        ids = memory.u32s(raw.nr_map_ids)
        asked = info.ask(fd, info.ProgInfo(nr_map_ids=len(ids), map_ids=memory.address(ids)))
        raw = asked.info
    return ProgramInfo(
        id=raw.id,
        type=uapi.name_of(uapi.PROG_TYPES, raw.type),
        name=raw.name.decode(errors="replace"),
        tag=bytes(raw.tag).hex(),
        ifindex=raw.ifindex or None,
        map_ids=tuple(ids[: raw.nr_map_ids]),
        load_time_ns=raw.load_time,
        uid=raw.created_by_uid,
        run_cnt=raw.run_cnt if asked.knows("run_cnt") else None,
        run_time_ns=raw.run_time_ns if asked.knows("run_time_ns") else None,
        recursion_misses=raw.recursion_misses if asked.knows("recursion_misses") else None,
        btf_id=raw.btf_id,
        xlated_len=raw.xlated_prog_len,
        jited_len=raw.jited_prog_len,
        gpl_compatible=bool(raw.bits & 1),
        verified_insns=raw.verified_insns if asked.knows("verified_insns") else None,
    )


def map_info(fd: int) -> MapInfo:
    """What the kernel says about the map behind `fd`.

    Raises:
        CallError: `fd` is not a map.
    """
    raw = info.ask(fd, info.MapInfo()).info
    return MapInfo(
        id=raw.id,
        type=uapi.name_of(uapi.MAP_TYPES, raw.type),
        name=raw.name.decode(errors="replace"),
        key_size=raw.key_size,
        value_size=raw.value_size,
        max_entries=raw.max_entries,
        flags=raw.map_flags,
        ifindex=raw.ifindex or None,
        btf_id=raw.btf_id,
        btf_key_type_id=raw.btf_key_type_id,
        btf_value_type_id=raw.btf_value_type_id,
        per_cpu=raw.type in uapi.PER_CPU_MAP_TYPES,
    )


def link_info(fd: int) -> LinkInfo:
    """What the kernel says about the link behind `fd`.

    Raises:
        CallError: `fd` is not a link.
    """
    raw = info.ask(fd, info.LinkInfo()).info
    kind = uapi.name_of(uapi.LINK_TYPES, raw.type)
    ifindex = netns = attach = None
    if kind == "xdp":
        ifindex, attach = raw.xdp.ifindex, uapi.XDP
    elif kind in {"tcx", "netkit"}:
        ifindex, attach = raw.tcx.ifindex, raw.tcx.attach_type
    elif kind == "netns":
        netns, attach = raw.netns.netns_ino, raw.netns.attach_type
    elif kind == "tracing":
        attach = raw.tracing.attach_type
    return LinkInfo(
        id=raw.id,
        type=kind,
        program_id=raw.prog_id,
        ifindex=ifindex or None,
        attach_type=uapi.name_of(uapi.ATTACH_TYPES, attach) if attach is not None else None,
        netns=netns or None,
    )


def _walk(next_id: str, open_id: str, read: Callable[[int], _T], what: str) -> Iterator[_T]:
    step, opening = getattr(lib(), next_id), getattr(lib(), open_id)
    current = memory.U32(0)
    while True:
        try:
            step(current.value, current)
        except CallError as why:
            if why.code == errno.ENOENT:
                return
            if why.code == errno.EINVAL:
                raise UnsupportedError(
                    f"listing {what}", needs="Linux 5.8", has="an older kernel", errno=why.code
                ) from why
            raise refused(f"list BPF {what}", why, "CAP_SYS_ADMIN") from why
        try:
            fd = opening(current.value)
        except CallError as why:
            if why.code in {errno.ENOENT, errno.EAGAIN}:  # gone since; a link that is just being made
                continue
            raise refused(f"open BPF {what}", why, "CAP_SYS_ADMIN") from why
        try:
            yield read(fd)
        finally:
            os.close(fd)


def programs() -> Iterator[ProgramInfo]:
    """Every loaded program, by id.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    return _walk("bpf_prog_get_next_id", "bpf_prog_get_fd_by_id", program_info, "programs")


def maps() -> Iterator[MapInfo]:
    """Every map, by id.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    return _walk("bpf_map_get_next_id", "bpf_map_get_fd_by_id", map_info, "maps")


def links() -> Iterator[LinkInfo]:
    """Every bpf_link, by id (Linux 5.8).

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        UnsupportedError: the kernel has no links to list.
    """
    return _walk("bpf_link_get_next_id", "bpf_link_get_fd_by_id", link_info, "links")


def open_id(kind: str, number: int) -> int:
    """A file descriptor (close-on-exec) of the program, map, link or btf with this id.

    Raises:
        NotFoundError: there is none.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    short = {"program": "prog"}.get(kind, kind)
    try:
        return int(getattr(lib(), f"bpf_{short}_get_fd_by_id")(number))
    except CallError as why:
        if why.code == errno.ENOENT:
            raise NotFoundError(kind, f"id {number}") from why
        raise refused(f"open {kind} {number}", why, "CAP_SYS_ADMIN") from why


def tcx_query(ifindex: int, attach_type: int) -> TcxQuery:
    """The programs on a tcx or netkit hook of a device, in the order they run (Linux 6.6; netkit 6.7).

    Args:
        ifindex: in this thread's network namespace.
        attach_type: uapi.TCX_INGRESS, TCX_EGRESS, NETKIT_PRIMARY or NETKIT_PEER.

    Raises:
        UnsupportedError: the kernel has no such hook.
        AttachError: no such device, or it is no netkit (ENOENT, EINVAL, ENXIO, ...).
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    room = 64  # BPF_MPROG_MAX, linux/bpf_mprog.h: a hook never has more
    programs_, links_ = memory.u32s(room), memory.u32s(room)
    where = {"prog_ids": memory.address(programs_), "prog_cnt": room, "link_ids": memory.address(links_)}
    answer: ProgQueryOpts | QueryAttr
    try:
        if lib().version >= (1, 3):
            answer = ProgQueryOpts(**where)
            lib().bpf_prog_query_opts(ifindex, attach_type, answer)
        else:
            answer = QueryAttr(target_fd=ifindex, attach_type=attach_type, **where)
            bpf(BPF_PROG_QUERY, answer)
    except CallError as why:
        name = uapi.name_of(uapi.ATTACH_TYPES, attach_type)
        if why.code == errno.EINVAL and attach_type in {uapi.TCX_INGRESS, uapi.TCX_EGRESS}:
            raise UnsupportedError("tcx", needs="Linux 6.6", has="an older one", errno=why.code) from why
        raise denied(f"query {name}", why, "CAP_NET_ADMIN") or AttachError(
            f"query {name} of ifindex {ifindex}: {errno_text(why.code)}", errno=why.code
        ) from why
    return TcxQuery(
        revision=answer.revision,
        entries=tuple(TcxEntry(programs_[i], links_[i] or None) for i in range(answer.prog_cnt)),
    )


def xlated(program_id: int) -> bytes:
    """A program's instructions as the kernel runs them (8 bytes each), or b"" where we may not see them.

    Maps appear as ids and addresses are hidden; needs CAP_SYS_ADMIN (CAP_BPF is not enough to open by id).

    Raises:
        NotFoundError: there is no such program.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    fd = open_id("program", program_id)
    try:
        size = info.ask(fd, info.ProgInfo()).info.xlated_prog_len
        code = memory.buffer(size)
        raw = info.ask(fd, info.ProgInfo(xlated_prog_len=size, xlated_prog_insns=memory.address(code))).info
        return code.raw[: raw.xlated_prog_len] if raw.xlated_prog_insns else b""
    finally:
        os.close(fd)
