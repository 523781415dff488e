"""The machine around the links: bpffs, JIT, the caller's capabilities, and what could not be observed.

Mirrors kernel/bpf/syscall.c (CAP_BPF, CAP_NET_ADMIN since 5.8), kernel/bpf/inode.c and net/core/sysctl_net_core.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Fix, Status
from xdpctl.doctor.intent import AttachTc, AttachXdp
from xdpctl.doctor.rules.case import Case, Mistake, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_BPFFS = Mistake(
    "environment.no-bpffs",
    "No bpf filesystem is mounted, so nothing can be pinned and links end with the process that made them.",
    "none; ENOENT or EPERM of BPF_OBJ_PIN",
    ("kernel/bpf/inode.c bpf_obj_pin_user()",),
)
JIT_OFF = Mistake(
    "environment.jit-off",
    "The BPF JIT is off: programs are interpreted, several times slower.",
    "none",
    ("net/core/sysctl_net_core.c bpf_jit_enable",),
)
CAPABILITIES = Mistake(
    "environment.capabilities",
    "The caller lacks a capability that loading or attaching needs.",
    "EPERM",
    ("kernel/bpf/syscall.c bpf_prog_load(): CAP_BPF and CAP_NET_ADMIN (5.8), CAP_SYS_ADMIN before",),
)
NOT_OBSERVED = Mistake(
    "environment.not-observed",
    "Part of the machine could not be observed, so findings about it may be missing.",
    "none",
    (),
)
FINE = Mistake("link.ok", "Nothing stands against what was asked of the link.", "none", ())
"""Not a mistake, but a finding: diagnose gives it for links that were named."""
MISTAKES = (NO_BPFFS, JIT_OFF, CAPABILITIES, NOT_OBSERVED)

SHOWN = 12
"""Problems listed in one finding."""


def machine(case: Case, _: None) -> Iterator[Finding]:
    """What holds for the whole host; asked once."""
    snapshot = case.snapshot
    if not snapshot.bpffs and snapshot.caller.uid == 0:
        argv = ("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
        yield case.find(
            NO_BPFFS,
            Status.WARN,
            None,
            "no bpf filesystem is mounted: attachments can't be pinned and end with the process that makes them",
            interface=None,
            evidence=(Evidence("no mount of type bpf", "/proc/self/mountinfo"),),
            fix=(Fix(argv, None, False, ("umount", "/sys/fs/bpf")),),
        )
    if snapshot.sysctls.get("net.core.bpf_jit_enable") == "0":
        command = ("sysctl", "-w")
        yield case.find(
            JIT_OFF,
            Status.WARN,
            None,
            "the BPF JIT is off, so every program is interpreted",
            interface=None,
            evidence=(Evidence("net.core.bpf_jit_enable = 0", "/proc/sys/net/core/bpf_jit_enable"),),
            fix=(
                Fix(
                    (*command, "net.core.bpf_jit_enable=1"),
                    None,
                    False,
                    (*command, "net.core.bpf_jit_enable=0"),
                ),
            ),
        )
    if snapshot.problems:
        count = len(snapshot.problems)
        yield case.find(
            NOT_OBSERVED,
            Status.UNKNOWN,
            None,
            f"{count} thing{'s' if count > 1 else ''} could not be observed: {snapshot.problems[0].what}"
            f"{' and more' if count > 1 else ''}",
            interface=None,
            evidence=tuple(Evidence(one.why, one.what) for one in snapshot.problems[:SHOWN]),
            alternatives=("run xdpctl as root",) if snapshot.caller.uid else (),
        )


def attach(case: Case, intent: AttachXdp | AttachTc) -> Iterator[Finding]:
    """Capabilities of whoever observed, for loading and attaching."""
    caller = case.snapshot.caller
    have = set(caller.capabilities)
    if "CAP_SYS_ADMIN" in have and ("CAP_NET_ADMIN" in have or not case.since(5, 8)):
        return
    wanted = ["CAP_BPF", "CAP_NET_ADMIN"] if case.since(5, 8) else ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]
    lacking = [
        one for one in wanted if one not in have and not (one == "CAP_BPF" and "CAP_SYS_ADMIN" in have)
    ]
    if not lacking:
        return
    link = case.link(intent.link)
    yield case.find(
        CAPABILITIES,
        Status.WARN,
        link,
        f"uid {caller.uid} lacks {' and '.join(lacking)}, without which {intent.program} can't be loaded and attached",
        errno="EPERM",
        shows_in="the load",
        evidence=(
            Evidence(f"effective: {', '.join(caller.capabilities) or 'none'}", "/proc/self/status CapEff"),
        ),
        alternatives=("run it as root, with sudo",),
        **({} if link else {"interface": None}),
    )


RULES = (Rule((), machine), Rule((AttachXdp, AttachTc), attach))
