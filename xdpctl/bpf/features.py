"""What this kernel can do, found out by trying on throwaway objects, once a process; no version is compared."""

from __future__ import annotations

import errno
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.bpf import attempts
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import CallError, lib

if TYPE_CHECKING:
    from collections.abc import Callable


class Feature(NamedTuple):
    """One feature."""

    name: str
    what: str
    """In a few words."""
    since: str
    """Kernel that has it first, for messages only: the answer comes from `attempt`."""
    attempt: Callable[[], None]
    """Raises CallError where the kernel says no."""


class Answer(NamedTuple):
    """What an attempt brought."""

    supported: bool | None
    """None: it could not be tried, a capability is missing."""
    evidence: str
    """The call that decided, with its errno where it failed."""


FEATURES = {
    one.name: one
    for one in (
        Feature("xdp_link", "attach XDP by a bpf_link", "Linux 5.9", attempts.xdp_link),
        Feature(
            "tcx", "TC programs by links, in order", "Linux 6.6", partial(attempts.link, uapi.TCX_INGRESS)
        ),
        Feature("netkit", "netkit devices", "Linux 6.7", partial(attempts.link, uapi.NETKIT_PRIMARY)),
        Feature("frags", "XDP on frames of several buffers", "Linux 5.18", attempts.frags),
        Feature("btf", "the kernel's own BTF, for CO-RE", "Linux 5.4", attempts.btf),
        Feature("netdev_genl", "what XDP a device can, by netlink", "Linux 6.3", attempts.netdev_genl),
        Feature("live_frames", "test runs that really send frames", "Linux 5.18", attempts.live_frames),
        Feature("test_run_context", "test runs as of a device", "Linux 5.15", attempts.test_run_context),
        Feature("fentry", "programs at kernel functions and at other programs", "Linux 5.5", attempts.fentry),
        Feature(
            "freplace", "replacing a function of a program (dispatchers)", "Linux 5.6", attempts.freplace
        ),
        Feature("tp_btf", "tracepoints with typed arguments", "Linux 5.5", attempts.tp_btf),
        Feature("sleepable", "programs that may sleep", "Linux 5.10, tried as of 5.14", attempts.sleepable),
        Feature("batch_maps", "map operations on many elements", "Linux 5.6", attempts.batch_maps),
        Feature("ringbuf", "ring buffer maps", "Linux 5.8", attempts.ringbuf),
        Feature(
            "devmap_program",
            "programs on devmap entries",
            "Linux 5.8",
            partial(attempts.map_value_8, "devmap"),
        ),
        Feature(
            "cpumap_program",
            "programs on cpumap entries",
            "Linux 5.9",
            partial(attempts.map_value_8, "cpumap"),
        ),
        Feature("xskmap", "AF_XDP sockets", "Linux 4.18", attempts.xskmap),
        Feature("link_extack", "why an XDP link was refused", "Linux 6.6", attempts.link_extack),
        Feature(
            "memcg_accounting", "BPF memory without RLIMIT_MEMLOCK", "Linux 5.11", attempts.memcg_accounting
        ),
    )
}
"""By name."""


@cache
def answer(name: str) -> Answer:
    """Whether this kernel has a feature, and what told so.

    Raises:
        KeyError: no such feature.
        UnsupportedError: there is no usable libbpf.
    """
    feature = FEATURES[name]
    lib()
    try:
        feature.attempt()
    except CallError as why:
        evidence = f"{why.function}: {errno.errorcode.get(why.code, why.code)}"
        if why.code in {errno.EPERM, errno.EACCES}:
            from xdpctl.bpf.failure import lacks

            missing = lacks("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON")
            if missing:
                return Answer(None, f"{evidence}, without {' and '.join(missing)}")
        return Answer(False, evidence)
    return Answer(True, "an attempt worked")


def probe(name: str) -> bool:
    """Whether this kernel is known to have a feature; False also where it could not be tried.

    Raises:
        KeyError: no such feature.
        UnsupportedError: there is no usable libbpf.
    """
    return bool(answer(name).supported)


def all() -> dict[str, Answer]:  # noqa: A001 - reads as features.all()
    """Every feature's answer."""
    return {name: answer(name) for name in FEATURES}
