"""What a section name says of its program: libbpf's ``section_defs`` (src/libbpf.c) from 1.0 to 1.7, and aliases.

libbpf 1.0 made matching strict, but many objects carry names from the years when a prefix was enough
(``xdp_root``, ``xdp/upf``, ``classifier/x``). Such a name is an alias here: what libbpf 0.x took it for, where that
is beyond doubt. A name such as ``prog`` or ``ingress`` says nothing safe, and the user gives ``--type``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from xdpctl.obj.kinds import PROGRAM_TYPE_NUMBERS


class SectionName(NamedTuple):
    """One row of ``section_defs``; a pattern that ends in ``+`` also matches ``pattern/anything``."""

    pattern: str
    type: str
    attach_type: str | None
    since: str
    """First libbpf that has it; the table starts with 1.0."""
    sleepable: bool = False
    frags: bool = False
    attach_btf: bool = False
    """The rest of the name is a function looked up in BTF at load."""


# fmt: off
SECTION_NAMES = (
    SectionName("socket", "socket_filter", None, "1.0"),
    SectionName("sk_reuseport/migrate", "sk_reuseport", "sk_reuseport_select_or_migrate", "1.0"),
    SectionName("sk_reuseport", "sk_reuseport", "sk_reuseport_select", "1.0"),
    SectionName("kprobe+", "kprobe", None, "1.0"),
    SectionName("uprobe+", "kprobe", None, "1.0"),
    SectionName("uprobe.s+", "kprobe", None, "1.0", sleepable=True),
    SectionName("kretprobe+", "kprobe", None, "1.0"),
    SectionName("uretprobe+", "kprobe", None, "1.0"),
    SectionName("uretprobe.s+", "kprobe", None, "1.0", sleepable=True),
    SectionName("kprobe.multi+", "kprobe", "trace_kprobe_multi", "1.0"),
    SectionName("kretprobe.multi+", "kprobe", "trace_kprobe_multi", "1.0"),
    SectionName("kprobe.session+", "kprobe", "trace_kprobe_session", "1.5"),
    SectionName("uprobe.multi+", "kprobe", "trace_uprobe_multi", "1.3"),
    SectionName("uretprobe.multi+", "kprobe", "trace_uprobe_multi", "1.3"),
    SectionName("uprobe.session+", "kprobe", "trace_uprobe_session", "1.6"),
    SectionName("uprobe.multi.s+", "kprobe", "trace_uprobe_multi", "1.3", sleepable=True),
    SectionName("uretprobe.multi.s+", "kprobe", "trace_uprobe_multi", "1.3", sleepable=True),
    SectionName("uprobe.session.s+", "kprobe", "trace_uprobe_session", "1.6", sleepable=True),
    SectionName("ksyscall+", "kprobe", None, "1.0"),
    SectionName("kretsyscall+", "kprobe", None, "1.0"),
    SectionName("usdt+", "kprobe", None, "1.0"),
    SectionName("usdt.s+", "kprobe", None, "1.3", sleepable=True),
    SectionName("tc/ingress", "sched_cls", "tcx/ingress", "1.3"),
    SectionName("tc/egress", "sched_cls", "tcx/egress", "1.3"),
    SectionName("tcx/ingress", "sched_cls", "tcx/ingress", "1.3"),
    SectionName("tcx/egress", "sched_cls", "tcx/egress", "1.3"),
    SectionName("tc", "sched_cls", None, "1.0"),
    SectionName("classifier", "sched_cls", None, "1.0"),
    SectionName("action", "sched_act", None, "1.0"),
    SectionName("netkit/primary", "sched_cls", "netkit/primary", "1.3"),
    SectionName("netkit/peer", "sched_cls", "netkit/peer", "1.3"),
    SectionName("tracepoint+", "tracepoint", None, "1.0"),
    SectionName("tp+", "tracepoint", None, "1.0"),
    SectionName("raw_tracepoint+", "raw_tracepoint", None, "1.0"),
    SectionName("raw_tp+", "raw_tracepoint", None, "1.0"),
    SectionName("raw_tracepoint.w+", "raw_tracepoint_writable", None, "1.0"),
    SectionName("raw_tp.w+", "raw_tracepoint_writable", None, "1.0"),
    SectionName("tp_btf+", "tracing", "trace_raw_tp", "1.0", attach_btf=True),
    SectionName("fentry+", "tracing", "trace_fentry", "1.0", attach_btf=True),
    SectionName("fmod_ret+", "tracing", "modify_return", "1.0", attach_btf=True),
    SectionName("fexit+", "tracing", "trace_fexit", "1.0", attach_btf=True),
    SectionName("fentry.s+", "tracing", "trace_fentry", "1.0", sleepable=True, attach_btf=True),
    SectionName("fmod_ret.s+", "tracing", "modify_return", "1.0", sleepable=True, attach_btf=True),
    SectionName("fexit.s+", "tracing", "trace_fexit", "1.0", sleepable=True, attach_btf=True),
    SectionName("fsession+", "tracing", "trace_fsession", "1.7", attach_btf=True),
    SectionName("fsession.s+", "tracing", "trace_fsession", "1.7", sleepable=True, attach_btf=True),
    SectionName("freplace+", "ext", None, "1.0", attach_btf=True),
    SectionName("lsm+", "lsm", "lsm_mac", "1.0", attach_btf=True),
    SectionName("lsm.s+", "lsm", "lsm_mac", "1.0", sleepable=True, attach_btf=True),
    SectionName("lsm_cgroup+", "lsm", "lsm_cgroup", "1.0", attach_btf=True),
    SectionName("iter+", "tracing", "trace_iter", "1.0", attach_btf=True),
    SectionName("iter.s+", "tracing", "trace_iter", "1.0", sleepable=True, attach_btf=True),
    SectionName("syscall", "syscall", None, "1.0", sleepable=True),
    SectionName("xdp.frags/devmap", "xdp", "xdp/devmap", "1.0", frags=True),
    SectionName("xdp/devmap", "xdp", "xdp/devmap", "1.0"),
    SectionName("xdp.frags/cpumap", "xdp", "xdp/cpumap", "1.0", frags=True),
    SectionName("xdp/cpumap", "xdp", "xdp/cpumap", "1.0"),
    SectionName("xdp.frags", "xdp", "xdp", "1.0", frags=True),
    SectionName("xdp", "xdp", "xdp", "1.0"),
    SectionName("perf_event", "perf_event", None, "1.0"),
    SectionName("lwt_in", "lwt_in", None, "1.0"),
    SectionName("lwt_out", "lwt_out", None, "1.0"),
    SectionName("lwt_xmit", "lwt_xmit", None, "1.0"),
    SectionName("lwt_seg6local", "lwt_seg6local", None, "1.0"),
    SectionName("sockops", "sock_ops", "cgroup_sock_ops", "1.0"),
    SectionName("sk_skb/stream_parser", "sk_skb", "sk_skb_stream_parser", "1.0"),
    SectionName("sk_skb/stream_verdict", "sk_skb", "sk_skb_stream_verdict", "1.0"),
    SectionName("sk_skb/verdict", "sk_skb", "sk_skb_verdict", "1.4"),
    SectionName("sk_skb", "sk_skb", None, "1.0"),
    SectionName("sk_msg", "sk_msg", "sk_msg_verdict", "1.0"),
    SectionName("lirc_mode2", "lirc_mode2", "lirc_mode2", "1.0"),
    SectionName("flow_dissector", "flow_dissector", "flow_dissector", "1.0"),
    SectionName("cgroup_skb/ingress", "cgroup_skb", "cgroup_inet_ingress", "1.0"),
    SectionName("cgroup_skb/egress", "cgroup_skb", "cgroup_inet_egress", "1.0"),
    SectionName("cgroup/skb", "cgroup_skb", None, "1.0"),
    SectionName("cgroup/sock_create", "cgroup_sock", "cgroup_inet_sock_create", "1.0"),
    SectionName("cgroup/sock_release", "cgroup_sock", "cgroup_inet_sock_release", "1.0"),
    SectionName("cgroup/sock", "cgroup_sock", "cgroup_inet_sock_create", "1.0"),
    SectionName("cgroup/post_bind4", "cgroup_sock", "cgroup_inet4_post_bind", "1.0"),
    SectionName("cgroup/post_bind6", "cgroup_sock", "cgroup_inet6_post_bind", "1.0"),
    SectionName("cgroup/bind4", "cgroup_sock_addr", "cgroup_inet4_bind", "1.0"),
    SectionName("cgroup/bind6", "cgroup_sock_addr", "cgroup_inet6_bind", "1.0"),
    SectionName("cgroup/connect4", "cgroup_sock_addr", "cgroup_inet4_connect", "1.0"),
    SectionName("cgroup/connect6", "cgroup_sock_addr", "cgroup_inet6_connect", "1.0"),
    SectionName("cgroup/connect_unix", "cgroup_sock_addr", "cgroup_unix_connect", "1.3"),
    SectionName("cgroup/sendmsg4", "cgroup_sock_addr", "cgroup_udp4_sendmsg", "1.0"),
    SectionName("cgroup/sendmsg6", "cgroup_sock_addr", "cgroup_udp6_sendmsg", "1.0"),
    SectionName("cgroup/sendmsg_unix", "cgroup_sock_addr", "cgroup_unix_sendmsg", "1.3"),
    SectionName("cgroup/recvmsg4", "cgroup_sock_addr", "cgroup_udp4_recvmsg", "1.0"),
    SectionName("cgroup/recvmsg6", "cgroup_sock_addr", "cgroup_udp6_recvmsg", "1.0"),
    SectionName("cgroup/recvmsg_unix", "cgroup_sock_addr", "cgroup_unix_recvmsg", "1.3"),
    SectionName("cgroup/getpeername4", "cgroup_sock_addr", "cgroup_inet4_getpeername", "1.0"),
    SectionName("cgroup/getpeername6", "cgroup_sock_addr", "cgroup_inet6_getpeername", "1.0"),
    SectionName("cgroup/getpeername_unix", "cgroup_sock_addr", "cgroup_unix_getpeername", "1.3"),
    SectionName("cgroup/getsockname4", "cgroup_sock_addr", "cgroup_inet4_getsockname", "1.0"),
    SectionName("cgroup/getsockname6", "cgroup_sock_addr", "cgroup_inet6_getsockname", "1.0"),
    SectionName("cgroup/getsockname_unix", "cgroup_sock_addr", "cgroup_unix_getsockname", "1.3"),
    SectionName("cgroup/sysctl", "cgroup_sysctl", "cgroup_sysctl", "1.0"),
    SectionName("cgroup/getsockopt", "cgroup_sockopt", "cgroup_getsockopt", "1.0"),
    SectionName("cgroup/setsockopt", "cgroup_sockopt", "cgroup_setsockopt", "1.0"),
    SectionName("cgroup/dev", "cgroup_device", "cgroup_device", "1.0"),
    SectionName("struct_ops+", "struct_ops", None, "1.0"),
    SectionName("struct_ops.s+", "struct_ops", None, "1.2", sleepable=True),
    SectionName("sk_lookup", "sk_lookup", "sk_lookup", "1.0"),
    SectionName("netfilter", "netfilter", "netfilter", "1.3"),
)
"""In libbpf's order: the first match counts."""
# fmt: on


class SectionMeaning(NamedTuple):
    """What a section name, or ``--type``, says of a program."""

    type: str
    """Name of the program type; `kinds.PROGRAM_TYPE_NUMBERS` has its number."""
    attach_type: str | None
    """Expected attach type; None: leave it 0."""
    origin: str
    """section: libbpf knows the name; alias: recognised here; type: given by the user."""
    since: str | None = None
    """First libbpf that takes the name, where that is later than 1.0."""
    frags: bool = False
    sleepable: bool = False
    attach_btf: bool = False
    target: str | None = None
    """What follows the slash: a function, tracepoint or event."""
    hook: str | None = None
    """ingress or egress, where the name says so (``tcx/ingress``, ``tc-ingress``)."""


def lookup(section: str, *, libbpf: tuple[int, int] | None = None) -> SectionMeaning | None:
    """What libbpf takes a section name for; a leading ``?`` (not loaded by default) is skipped.

    Args:
        section: the ELF section's name.
        libbpf: only names that this version knows; None: those of any version.
    """
    section = section.removeprefix("?")
    for row in SECTION_NAMES:
        if libbpf is not None and version(row.since) > libbpf:
            continue
        base = row.pattern.rstrip("+")
        if section == base or (row.pattern[-1] == "+" and section.startswith(base + "/")):
            target = section[len(base) + 1 :] if row.pattern[-1] == "+" else ""
            return SectionMeaning(
                row.type,
                row.attach_type,
                "section",
                row.since if row.since != "1.0" else None,
                row.frags,
                row.sleepable,
                row.attach_btf,
                target or None,
                _hook(row.attach_type),
            )
    return None


def _hook(attach_type: str | None) -> str | None:
    return attach_type.removeprefix("tcx/") if attach_type in ("tcx/ingress", "tcx/egress") else None


def version(text: str) -> tuple[int, int]:
    """``"1.3"`` -> (1, 3)."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


_SLOPPY = (
    "socket",
    "classifier",
    "action",
    "tc",
    "xdp.frags",
    "xdp",
    "perf_event",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "lwt_seg6local",
    "cgroup_skb/ingress",
    "cgroup_skb/egress",
    "sockops",
    "sk_skb/stream_parser",
    "sk_skb/stream_verdict",
    "sk_msg",
    "lirc_mode2",
    "flow_dissector",
    "sk_lookup",
    "sk_reuseport",
)
"""Names that libbpf before 1.0 matched by prefix (SEC_SLOPPY_PFX), the longer first; ``tc`` by iproute2's custom."""

_MAP_PROGRAM = re.compile(r"xdp(\.frags)?[/_](devmap|cpumap)/")
"""``xdp_devmap/x`` was libbpf's own spelling up to 0.6."""
_UNSURE = re.compile(r"xdp(\.frags)?[/_.-](devmap|cpumap)")
"""libbpf 0.x loaded the likes of ``xdp_devmap_x`` as plain XDP; its author may have meant the map's program."""
_TCX = re.compile(r"tcx[/_-](ingress|egress)\b")


def alias(section: str) -> SectionMeaning | None:
    """What a name that libbpf 1.x refuses safely means; None: it could be anything, ask for ``--type``."""
    section = section.removeprefix("?")
    found = _MAP_PROGRAM.match(section)
    if found:
        return SectionMeaning("xdp", f"xdp/{found[2]}", "alias", frags=bool(found[1]))
    if _UNSURE.match(section):
        return None
    found = _TCX.match(section)
    if found:
        return SectionMeaning("sched_cls", f"tcx/{found[1]}", "alias", hook=found[1])
    for name in _SLOPPY:
        rest = section.removeprefix(name)
        if rest != section and re.match(r"[/_.:-]|[0-9]+([/_.:-]|$)", rest):
            row = lookup(name)
            if row is None:
                continue
            words = re.split(r"[^a-z]+", rest.lower())
            hooks = {"ingress", "egress"} & set(words) if row.type in ("sched_cls", "sched_act") else set()
            hook = hooks.pop() if len(hooks) == 1 else None
            return SectionMeaning(row.type, row.attach_type, "alias", frags=row.frags, hook=hook)
    return None


def meaning(section: str) -> SectionMeaning | None:
    """What libbpf of any version, or else an alias, takes the name for."""
    return lookup(section) or alias(section)


def from_type(text: str) -> SectionMeaning | None:
    """What ``--type TEXT`` says; None: nothing.

    TEXT is a section name (``xdp``, ``xdp.frags``, ``tc``, ``tcx/ingress``) or a program type (``sched_cls``).
    """
    found = lookup(text)
    if found is None and text.removeprefix("BPF_PROG_TYPE_").lower() in PROGRAM_TYPE_NUMBERS:
        name = text.removeprefix("BPF_PROG_TYPE_").lower()
        found = SectionMeaning(name, None, "type") if name != "unspec" else None
    if found is None:
        return None
    return SectionMeaning(
        found.type,
        found.attach_type,
        "type",
        None,
        found.frags,
        found.sleepable,
        found.attach_btf,
        found.target,
    )


def type_names() -> list[str]:
    """What `from_type` takes, for messages and completion: program types and the section names of network hooks."""
    network = [row.pattern for row in SECTION_NAMES if row.type in ("xdp", "sched_cls")]
    return sorted({*network, *(name for name in PROGRAM_TYPE_NUMBERS if name != "unspec")})


_TARGET_PREFIXES = {"tp_btf": "btf_trace_", "lsm": "bpf_lsm_", "lsm_cgroup": "bpf_lsm_", "iter": "bpf_iter_"}
"""How libbpf's btf_get_kernel_prefix_kind names what BTF describes."""


def attach_function(section: str) -> str | None:
    """Name under which the kernel's BTF has the target of a section; None: it names none, or one of a program.

    ``fentry/vfs_read`` is a function, ``tp_btf/xdp_exception`` a typedef, ``btf_trace_xdp_exception``.
    """
    found = lookup(section)
    if found is None or not found.attach_btf or found.target is None or found.type == "ext":
        return None
    kind = section.removeprefix("?").split("/", 1)[0].removesuffix(".s")
    return _TARGET_PREFIXES.get(kind, "") + found.target
