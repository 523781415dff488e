"""What is attached to the interfaces of one namespace, whoever did it: rtnetlink, tcx and link queries put together.

IFLA_XDP tells programs and modes but no links, links tell their ifindex but no namespace, and only our pins tell ours:
an `Observer` reads each of these once, and only when something asks for it.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from xdpctl.attach import ownership, runstate
from xdpctl.attach.model import MODES, Attachment, ProgramRef, wall_clock
from xdpctl.bpf import query
from xdpctl.errors import AttachError, NotFoundError, PrivilegeError, UnsupportedError
from xdpctl.libbpf import uapi

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdpctl.bpf.query import LinkInfo, ProgramInfo
    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.netlink.rtnl import RawLink

TCX = {"tcx-ingress": uapi.TCX_INGRESS, "tcx-egress": uapi.TCX_EGRESS}
NETKIT = {"netkit-primary": uapi.NETKIT_PRIMARY, "netkit-peer": uapi.NETKIT_PEER}


class Observer:
    """One look at programs, links, pins and run-time state, each read once.

    Attributes:
        notes: what could not be read, and why; each once.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._programs: dict[int, ProgramInfo | None] = {}
        self._claimed: set[int] = set()
        self._mute: set[str] = set()

    @cached_property
    def records(self) -> dict[int, runstate.Record]:
        """Programs that xdpctl loaded, by id."""
        return runstate.read()

    @cached_property
    def pins(self) -> dict[int, ownership.PinnedLink]:
        """Our pinned links by link id."""
        return {one.link_id: one for one in ownership.pinned_links()}

    @cached_property
    def xdp_links(self) -> dict[tuple[int, int], list[LinkInfo]]:
        """XDP links of the machine by (ifindex, program id): they don't tell their namespace."""
        found: dict[tuple[int, int], list[LinkInfo]] = {}
        try:
            for one in query.links():
                if one.type == "xdp" and one.ifindex:
                    found.setdefault((one.ifindex, one.program_id), []).append(one)
        except (PrivilegeError, UnsupportedError) as error:
            self._mute.add("links")
            self.note(f"links are not told: {error.message}")
        return found

    @cached_property
    def stats_enabled(self) -> bool:
        """kernel.bpf_stats_enabled: run counts grow."""
        try:
            return Path("/proc/sys/kernel/bpf_stats_enabled").read_text(encoding="ascii").strip() != "0"
        except OSError:
            return False

    @property
    def has_tcx(self) -> bool:
        """Whether the kernel has tcx, as far as an `mprog` so far could tell."""
        return "no tcx" not in self._mute

    def note(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.notes:
            self.notes.append(text)

    def program(self, number: int) -> ProgramInfo | None:
        """What the kernel says about a program; None where we may not ask, or it is gone."""
        if number not in self._programs:
            self._programs[number] = self._ask(number)
        return self._programs[number]

    def _ask(self, number: int) -> ProgramInfo | None:
        if "programs" in self._mute:
            return None
        try:
            fd = query.open_id("program", number)
        except NotFoundError:
            return None
        except PrivilegeError as error:
            self._mute.add("programs")
            self.note(f"names and tags are told of our own programs alone: {error.message}")
            return None
        try:
            return query.program_info(fd)
        finally:
            os.close(fd)

    def describe(self, number: int) -> tuple[ProgramRef, runstate.Record | None, ProgramInfo | None]:
        """A program's reference, our record of it, and the kernel's word."""
        info = self.program(number)
        record = self.records.get(number)
        if record is not None and info is not None and info.load_time_ns != record.load_time_ns:
            record = None  # the id has come round
        if info is None:
            ref = ProgramRef(number, record.name, record.tag) if record else ProgramRef(number)
        else:
            ref = ProgramRef(number, record.name if record else whole_name(info), info.tag)
        return ref, record, info

    def attachment(
        self,
        raw: RawLink,
        netns: NetnsRef,
        hook: str,
        program_id: int,
        *,
        via: str | None,
        mode: str | None = None,
        link_id: int | None = None,
        priority: int | None = None,
        handle: int | None = None,
    ) -> Attachment:
        """One attachment with everything that is known about it."""
        program, record, info = self.describe(program_id)
        pin = self.pins.get(link_id) if link_id is not None else None
        ours = pin is not None
        if link_id is None:
            # no link, or a link that we may not see: the program itself must tell
            ours = record is not None
        loaded_at = info.load_time_ns if info is not None else record.load_time_ns if record else None
        counting = info is not None and (self.stats_enabled or bool(info.run_cnt))
        return Attachment(
            interface=raw.name,
            ifindex=raw.ifindex,
            netns=netns.label or None,
            netns_inode=netns.inode,
            hook=hook,
            mode=mode,
            via=via,
            program=program,
            link_id=link_id,
            pin=pin.path if pin else None,
            owner="xdpctl" if ours else "other",
            since=pin.since if pin else record.attached_at if ours and record else None,
            loaded_at=None if loaded_at is None else wall_clock(loaded_at),
            run_count=info.run_cnt if info is not None and counting else None,
            run_time_ns=info.run_time_ns if info is not None and counting else None,
            priority=priority,
            handle=handle,
        )

    # -- hooks ------------------------------------------------------------------------------------------------

    def xdp(self, raw: RawLink, netns: NetnsRef) -> Iterator[Attachment]:
        """XDP programs of one device, by mode."""
        for mode in MODES:
            program_id = getattr(raw.xdp, mode)
            if program_id:
                link_id = self._xdp_link(raw.ifindex, program_id, netns)
                via = (
                    "link"
                    if link_id is not None
                    else None
                    if self._may_have_link(raw, program_id)
                    else "netlink"
                )
                yield self.attachment(raw, netns, "xdp", program_id, via=via, mode=mode, link_id=link_id)

    def _may_have_link(self, raw: RawLink, program_id: int) -> bool:
        """Whether some link that nobody has been found for may be that of this device."""
        some = self.xdp_links.get((raw.ifindex, program_id), ())
        return "links" in self._mute or any(one.id not in self._claimed for one in some)

    def _xdp_link(self, ifindex: int, program_id: int, netns: NetnsRef) -> int | None:
        """Id of the link that holds this program on this device, None: it was attached by netlink.

        Our own pins tell first: anybody who may read them needs no CAP_SYS_ADMIN to list links. Two namespaces may
        have a device of the same ifindex, and one program on both: then where a pin was made decides, no link is
        given to two devices, and where nothing tells them apart none is given at all: it might be detached.
        """
        own = [
            one
            for one in self.pins.values()
            if (one.ifindex, one.program_id) == (ifindex, program_id) and one.link_id not in self._claimed
        ]
        here = [one.link_id for one in own if one.netns_inode == netns.inode]
        if not here:
            # of a device that has moved, or of somebody else
            others = self.xdp_links.get((ifindex, program_id), ())
            here = [one.link_id for one in own] or [one.id for one in others if one.id not in self._claimed]
            if here and self.held_elsewhere(ifindex, program_id, netns):
                return None
        if not here:
            return None
        self._claimed.add(here[0])
        return here[0]

    def held_elsewhere(self, ifindex: int, program_id: int, netns: NetnsRef) -> bool:
        """Whether a device of another namespace has this number and this program too."""
        return any(
            inode != netns.inode and (ifindex, program_id) in held for inode, held in self._held.items()
        )

    @cached_property
    def _held(self) -> dict[int, set[tuple[int, int]]]:
        """(ifindex, program id) of XDP in each namespace, by its inode."""
        from xdpctl.errors import XdpctlError
        from xdpctl.netlink import netns as namespaces
        from xdpctl.netlink import rtnl

        found = {}
        for one in namespaces.discover(include_processes=True):
            try:
                with namespaces.enter(one):
                    links = rtnl.links()
            except XdpctlError:
                continue  # gone, or not for us to see
            found[one.inode] = {
                (link.ifindex, number)
                for link in links
                for number in (link.xdp.native, link.xdp.generic, link.xdp.offload)
                if number
            }
        return found

    def mprog(
        self, raw: RawLink, netns: NetnsRef, hooks: Iterable[str] | None = None
    ) -> Iterator[Attachment]:
        """Programs on tcx (and netkit) hooks of one device, in the order they run."""
        wanted = dict(TCX)
        if raw.kind == "netkit" and raw.data.get("primary"):
            wanted.update(NETKIT)
        for hook, attach_type in wanted.items():
            if self._mute & {"tcx", "no tcx"} or (hooks is not None and hook not in hooks):
                continue
            try:
                found = query.tcx_query(raw.ifindex, attach_type)
            except UnsupportedError:
                self._mute.add("no tcx")  # before 6.6: there is nothing to see
                continue
            except PrivilegeError as error:
                self._mute.add("tcx")
                self.note(f"tcx programs are not told: {error.message}")
                continue
            except AttachError:
                continue  # the device is gone meanwhile
            for entry in found.entries:
                via = "netkit" if hook in NETKIT else "tcx"
                yield self.attachment(raw, netns, hook, entry.program_id, via=via, link_id=entry.link_id)

    def clsact(
        self, raw: RawLink, netns: NetnsRef, directions: Iterable[str] = ("ingress", "egress")
    ) -> Iterator[Attachment]:
        """The bpf filters on the clsact hooks of one device, by priority."""
        from xdpctl.netlink import tc

        for direction in directions:
            for one in tc.bpf_filters(raw.ifindex, direction):
                yield self.attachment(
                    raw,
                    netns,
                    f"clsact-{direction}",
                    one.prog_id,
                    via="clsact",
                    priority=one.priority,
                    handle=one.handle,
                )

    def everything(self, links: Iterable[RawLink], netns: NetnsRef) -> list[Attachment]:
        """Every attachment to these devices of the current namespace."""
        from xdpctl.errors import NetlinkError
        from xdpctl.netlink import tc

        try:
            classful = {one.ifindex for one in tc.qdiscs() if tc.has_clsact(one)}
        except NetlinkError as error:
            self.note(f"clsact filters are not told: {error.message}")
            classful = set()
        found: list[Attachment] = []
        for raw in links:
            found += self.xdp(raw, netns)
            found += self.mprog(raw, netns)
            if raw.ifindex in classful:
                found += self.clsact(raw, netns)
        return found


def whole_name(info: ProgramInfo) -> str | None:
    """A program's C function name: the kernel keeps 15 characters, its BTF has them all (bpf_prog_info.func_info)."""
    if len(info.name) < uapi.OBJ_NAME_LEN - 1 or not info.btf_id:
        return info.name or None
    from xdpctl.attach.names import function_name

    return function_name(info) or info.name
