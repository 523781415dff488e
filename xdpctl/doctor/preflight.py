"""Before an attach: will it work, and where will its redirects end? And after a refusal: why?

The same rules as `xdpctl doctor`, asked about a `Prepared` attach, with as little observed as they need: the
namespace of the interfaces, and all others only when a veth's other end lies there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.rules import judge
from xdpctl.errors import AttachError, errno_name
from xdpctl.host.model import LinkRef
from xdpctl.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xdpctl.attach.prepare import Prepared, Step
    from xdpctl.doctor.intent import Intent
    from xdpctl.errors import KernelError
    from xdpctl.host.model import Link, Snapshot
    from xdpctl.netlink.netns import NetnsRef
    from xdpctl.obj.model import ObjFile

PROBES = ("xdp_link", "tcx", "frags")
"""Kernel features that rules of attaching look at; probed only after a refusal, since each costs system calls."""
_REDIRECTS = re.compile(rb"\x85\x00\x00\x00[\x17\x33]\x00\x00\x00")
"""BPF_CALL of bpf_redirect (23) or bpf_redirect_map (51), little endian."""
_RETURNS_TX = re.compile(rb"[\xb4\xb7][\x00-\x09]\x00\x00\x03\x00\x00\x00")
"""A register set to 3, as a program does that may return XDP_TX."""
_METADATA = b"bpf_xdp_metadata_"
DEVMAPS = ("devmap", "devmap_hash")


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found about one attach, and what it was found from."""

    findings: tuple[Finding, ...]
    intents: tuple[Intent, ...]
    snapshot: Snapshot

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What stops the attach."""
        return tuple(one for one in self.findings if one.status is Status.FAIL)


def preflight(prepared: Prepared, *, redirect_to: Sequence[str] = ()) -> Preflight:
    """Judge an attach before it happens.

    Args:
        prepared: the attach.
        redirect_to: names of interfaces that the program redirects to, where only its runs can tell.

    Raises:
        ConfigError, NotFoundError: a setting or a name in `redirect_to` does not fit.
        NetlinkError, PrivilegeError: the namespace can't be observed.
    """
    snapshot = _observe(prepared, "current", ())
    intents = _intents(prepared, snapshot, redirect_to)
    if _looks_beyond(snapshot, intents):
        snapshot = _observe(prepared, "all", ())
        intents = _intents(prepared, snapshot, redirect_to)
    return Preflight(tuple(judge(snapshot, intents)), tuple(intents), snapshot)


def _observe(prepared: Prepared, which: str, probes: Sequence[str]) -> Snapshot:
    from xdpctl.host.collect import collect
    from xdpctl.netlink import netns

    if which != "current":
        return collect(netns="all", probes=probes)
    with netns.enter(prepared.netns) as inside:  # entered: one without a name can be observed too
        taken = collect(netns="current", probes=probes)
    return taken if netns.current().inode == inside.inode else _from_outside(taken, inside)


def _from_outside(taken: Snapshot, inside: NetnsRef) -> Snapshot:
    """The same for a caller who is in another namespace: what he types has to enter this one."""
    from dataclasses import replace

    spaces = (replace(one, name=inside.name, pid=inside.pid, current=False) for one in taken.namespaces)
    return replace(taken, namespaces=tuple(spaces))


def _looks_beyond(snapshot: Snapshot, intents: Sequence[Intent]) -> bool:
    """Whether a veth is concerned whose peer is in a namespace that was not observed."""
    for intent in intents:
        for ref in (getattr(intent, "link", None), getattr(intent, "target", None)):
            link = snapshot.link(ref) if isinstance(ref, LinkRef) else None
            if (
                link is not None
                and link.kind == "veth"
                and link.peer is not None
                and snapshot.peer(link) is None
            ):
                return True
    return False


def _intents(prepared: Prepared, snapshot: Snapshot, redirect_to: Sequence[str]) -> list[Intent]:
    obj = _object(prepared, told=bool(redirect_to))
    found: list[Intent] = []
    for step in prepared.steps:
        link = snapshot.link(LinkRef(step.target.netns_inode, step.target.ifindex))
        if link is not None:
            found += _of_step(prepared, step, snapshot, link, obj, redirect_to)
    return found


def _object(prepared: Prepared, *, told: bool) -> ObjFile | None:
    """The object, read only when a look at its bytes says that it may redirect, transmit or want metadata."""
    if prepared.hook != "xdp":
        return None
    data = prepared.request.object.read_bytes()
    if not (told or _REDIRECTS.search(data) or _RETURNS_TX.search(data) or _METADATA in data):
        return None
    from xdpctl.errors import ObjectError
    from xdpctl.obj import reader

    try:
        return reader.parse(data, prepared.request.object)
    except ObjectError:
        return None  # libbpf took it: its instructions just can't be followed


def _of_step(
    prepared: Prepared,
    step: Step,
    snapshot: Snapshot,
    link: Link,
    obj: ObjFile | None,
    redirect_to: Sequence[str],
) -> list[Intent]:
    from xdpctl.doctor.intent import AttachTc, AttachXdp

    program = prepared.program
    replace = step.old is not None
    if prepared.hook != "xdp":
        return [AttachTc(link.ref, prepared.hook, program.name, step.strategy.via, replace)]
    mode = step.target.mode or "native"
    found = obj.program(program.name) if obj is not None else None
    if obj is None or found is None:
        from xdpctl.libbpf import uapi

        frags = bool(program.flags & uapi.BPF_F_XDP_HAS_FRAGS) or ".frags" in program.section
        return [
            AttachXdp(
                link.ref,
                mode,
                program.name,
                frags=frags,
                via=_via(step),
                replace=replace,
                offloaded=mode == "offload",
            )
        ]
    from xdpctl.doctor.intents_from import Wish, from_wish

    devmaps = _pinned_entries(prepared, obj)
    wish = Wish(
        obj,
        found,
        mode=mode,
        via=_via(step),
        replace=replace,
        settings=prepared.request.settings,
        redirect_to=redirect_to,
        filled=frozenset(devmaps),
        offloaded=mode == "offload",
    )
    intents = from_wish(wish, snapshot, link)
    from xdpctl.doctor.intent import Redirect

    used = {call.map for call in found.redirects}
    way = "generic" if mode == "generic" else "native"
    intents += [
        Redirect(link.ref, LinkRef(link.netns, ifindex), way, via_map=True, multi_buffer=found.frags)
        for name, targets in devmaps.items()
        if name in used
        for ifindex in targets
    ]
    return intents


def _via(step: Step) -> str:
    """The attachment that is replaced tells how; else the strategy."""
    old = step.old.via if step.old is not None else None
    return old if old in ("link", "netlink") else step.strategy.via


def _pinned_entries(prepared: Prepared, obj: ObjFile) -> dict[str, list[int]]:
    """Maps that redirect and exist already, with the ifindexes that their entries hold."""
    import struct

    from xdpctl.bpf.map import open_map
    from xdpctl.errors import XdpctlError

    given = {one.name: one.pin for one in prepared.request.maps if one.pin is not None}
    found: dict[str, list[int]] = {}
    for one in obj.maps:
        loaded = prepared.object.maps.get(one.name)
        path = given.get(one.name) or (loaded.pin_path if loaded is not None else None)
        if path is None or one.type not in (*DEVMAPS, "cpumap", "xskmap"):
            continue
        if one.name not in given and not loaded.pin_path.exists():  # type: ignore[union-attr]  # path came from it
            continue
        found[one.name] = []
        if one.type not in DEVMAPS:
            continue
        try:
            with open_map(_absolute(str(path))) as opened:
                values = [struct.unpack("=I", value[:4])[0] for _, value in opened.items()]
        except (XdpctlError, OSError):
            continue  # what holds it can't be read: then nothing is said of it
        found[one.name] = [value for value in values if value]
    return found


def _absolute(pin: str) -> Path:
    from pathlib import Path

    from xdpctl.bpf import pins

    return Path(pin) if pin.startswith("/") else pins.mount_point() / pin


def stop(found: Preflight) -> AttachError:
    """The error that ends an attach which would fail, or whose redirects would."""
    from xdpctl.doctor.fix import command_line

    first = found.failures[0]
    more = f" (and {len(found.failures) - 1} more)" if len(found.failures) > 1 else ""
    hint = "; ".join(command_line(one) for one in first.fix) or (
        first.alternatives[0] if first.alternatives else ""
    )
    hint = f"{hint}; or --force, to try all the same" if hint else "--force tries all the same"
    attach = first.id.startswith("attach.")
    return AttachError(
        f"not attached: {first.summary}{more}",
        interface=first.interface,
        errno=_number(first.errno) if attach else None,
        extack=first.extack if attach else None,
        hint=hint,
    )


def _number(name: str | None) -> int | None:
    import errno

    return getattr(errno, name, None) if name else None


def why(error: KernelError, found: Preflight, *, interface: str | None = None) -> list[Finding]:
    """Explain a refusal: the rules that match what the kernel answered, or honestly "unknown" with all evidence.

    Args:
        error: what the kernel answered.
        found: the preflight of that attach; more is observed if it does not tell.
        interface: the interface that refused.
    """
    name = errno_name(error.errno)
    findings = list(found.findings)
    fit = _fitting(findings, name, error.extack, interface)
    if not fit:
        fit = _fitting(_afresh(found), name, error.extack, interface)
    return fit or [_unknown(error, name, found, interface)]


def _fitting(
    findings: Sequence[Finding], errno: str | None, extack: str | None, interface: str | None
) -> list[Finding]:
    """Findings about attaching that predict this answer: by the kernel's sentence where it gave one."""
    about = [one for one in findings if one.id.startswith("attach.") and one.errno is not None]
    if interface is not None:
        about = [one for one in about if one.interface == interface] or about
    if extack:
        said = [one for one in about if one.extack and _same_words(one.extack, extack)]
        if said:
            return said
    return [one for one in about if one.errno == errno]


def _same_words(left: str, right: str) -> bool:
    from xdpctl.doctor.explain import likeness

    return likeness(left, right) > 0.8


def _afresh(found: Preflight) -> list[Finding]:
    """The machine as it is now, with the kernel's features tried out: something may have changed meanwhile."""
    from xdpctl.errors import XdpctlError
    from xdpctl.host.collect import collect

    try:
        return judge(collect(netns="all", probes=PROBES), found.intents)
    except XdpctlError:
        return []


def _unknown(error: KernelError, errno: str | None, found: Preflight, interface: str | None) -> Finding:
    """No rule matches: say so, show what was seen, and offer what the reference knows of that answer."""
    from xdpctl.doctor.explain import explain
    from xdpctl.doctor.rules.attach_core import UNFORESEEN
    from xdpctl.doctor.rules.case import driver_of

    refs = [ref for one in found.intents if isinstance(ref := getattr(one, "link", None), LinkRef)]
    links = [link for ref in dict.fromkeys(refs) if (link := found.snapshot.link(ref)) is not None]
    about = next((one for one in links if one.name == interface), links[0] if links else None)
    driver = driver_of(about) if about is not None else None
    said = [Evidence(f"errno {errno}", "the kernel's answer")]
    if error.extack:
        said.append(Evidence(error.extack, "extack"))
    if about is not None:
        said += [
            Evidence(
                f"driver {driver}, MTU {about.mtu}, {'up' if about.up else 'down'}", "RTM_GETLINK, ethtool"
            ),
            Evidence(f"queues rx {about.real_rx_queues}, tx {about.real_tx_queues}", "ethtool channels"),
            Evidence(f"xdp-features {about.xdp_features}", "netdev dev-get"),
        ]
    said.append(Evidence(f"kernel {found.snapshot.kernel.release}", "uname"))
    known = explain(error.extack or errno or "", driver=driver, op="attach") or explain(
        errno or "", op="attach"
    )
    return Finding(
        UNFORESEEN.id,
        Status.UNKNOWN,
        about.name if about is not None else interface,
        None,
        f"why the kernel refused with {errno or 'no errno'} is unknown: no rule foresaw it",
        errno=errno,
        extack=error.extack,
        evidence=tuple(said),
        alternatives=(
            *(f"it may be: {one.cause.why} ({one.cause.tell})" for one in known[:3]),
            "dmesg may tell more",
        ),
        references=UNFORESEEN.mirrors,
    )
