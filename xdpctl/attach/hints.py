"""What to type when the kernel refused an attach: hints by the kernel's own sentence, or by errno where it said none.

The sentences are those of net/core/dev.c and of drivers, cut to what stayed the same from Linux 5.4 to 6.18.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xdpctl.attach.conflicts import clear_command

if TYPE_CHECKING:
    from xdpctl.attach.model import Attachment
    from xdpctl.attach.strategy import Target
    from xdpctl.errors import AttachError

# part of the kernel's sentence -> hint; {iface} is the interface, {run} enters its namespace
_BY_SENTENCE = (
    (
        "Underlying driver does not support XDP in native mode",
        "--mode generic works on every device, slower; or attach natively to the device below {iface}",
    ),
    (
        "Native and generic XDP can't be active at the same time",
        "xdpctl status {iface} shows what is active; detach that first",
    ),
    (
        "Can't replace active BPF XDP link",
        "bpftool link show tells whose it is; bpftool link detach id N clears it",
    ),
    (
        "Can't replace active XDP program with BPF link",
        "--replace --via netlink, or {run}ip link set dev {iface} xdp off",
    ),
    (
        "Cannot attach when an upper device already has a program",
        "detach the program of the bridge, bond, VLAN or macvlan above {iface}, attach here, and it again",
    ),
    (
        "Peer MTU is too large",
        'ip link set dev PEER mtu 3506, PEER being the other end of {iface}; or build with SEC("xdp.frags")',
    ),
    (
        "XDP expects number of rx queues not less than peer tx queues",
        "{run}ethtool -L {iface} rx N, or the peer's tx N",
    ),
    ("Cannot set XDP when peer is detached", "the other end of {iface} is gone: make the pair anew"),
    ("frags", '{run}ip link set dev {iface} mtu 1500, or build the program with SEC("xdp.frags")'),
    ("MTU", '{run}ip link set dev {iface} mtu 1500, or build the program with SEC("xdp.frags")'),
    (
        "tcp-data-split",
        '{run}ethtool -G {iface} tcp-data-split off, or build the program with SEC("xdp.frags")',
    ),
    (
        "GRO_HW",
        "only the hypervisor can change that for virtio; --mode generic works on every device, slower",
    ),
    ("device-bound program", "load it for the device it is attached to: one interface a command"),
    ("offloaded program", "--mode offload"),
)

_BY_ERRNO = {
    errno.EOPNOTSUPP: "--mode generic works on every device, slower; dmesg may tell more",
    errno.ENODEV: "the interface has gone meanwhile",
    errno.ENOSPC: "{run}ethtool -l {iface} shows the queues; XDP needs some to spare",
    errno.ENOMEM: "{run}ethtool -l {iface} shows the queues; XDP needs some to spare",
    errno.ERANGE: '{run}ip link set dev {iface} mtu 1500, or build the program with SEC("xdp.frags")',
    errno.EINVAL: "the driver gave no reason; dmesg may tell one (MTU, LRO and queue counts are the usual ones)",
}


# bpf_xdp_link_update(), tcx_link_update(): neither says more than the errno
_BY_ERRNO_OF_UPDATE = {
    errno.EINVAL: "only a program of the same type and expected attach type takes its place; else, with a gap: {clear}",
    errno.EPERM: "another program is there than a moment ago: try again",
    errno.ENOLINK: "the interface or the link has gone meanwhile",
}


def hint(error: AttachError, target: Target, old: Attachment | None = None) -> str | None:
    """What to type after this refusal; None where nothing is known that would help.

    Args:
        error: the refusal.
        target: where.
        old: the attachment that was to be replaced.
    """
    if old is not None and error.extack is None and error.errno in _BY_ERRNO_OF_UPDATE:
        return _BY_ERRNO_OF_UPDATE[error.errno].format(clear=clear_command(target, old))
    words = {"iface": target.interface, "run": target.command("")}
    if error.extack:
        for part, text in _BY_SENTENCE:
            if part in error.extack:
                return text.format(**words)
    if target.hook != "xdp" or error.errno is None or error.extack:
        return None
    text = _BY_ERRNO.get(error.errno, "")
    return text.format(**words) or None
