"""The commands that clear findings, each with its inverse: argv for ip, ethtool, bpftool and xdpctl itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdpctl.doctor.finding import Fix
    from xdpctl.doctor.rules.case import Case
    from xdpctl.host.model import Link

PASSING, PASSING_FRAGS = "builtin:pass", "builtin:pass.frags"
"""bpf/pass.bpf.c as obj.shipped finds it: a program that hands every frame to the stack; and for jumbo MTU."""


def up(case: Case, link: Link) -> Fix:
    """`ip link set up`."""
    command = ("ip", "link", "set", "dev", link.name)
    return case.fix(link, *command, "up", inverse=(*command, "down"))


def mtu(case: Case, link: Link, wanted: int) -> Fix:
    """`ip link set mtu`: many NICs reset their link for it, virtual devices don't."""
    command = ("ip", "link", "set", "dev", link.name, "mtu")
    flaps = link.kind is None
    return case.fix(link, *command, str(wanted), inverse=(*command, str(link.mtu)), flaps=flaps)


def larger_mtu(case: Case, link: Link, wanted: int) -> tuple[Fix, ...]:
    """The same where the device allows so large an MTU; nothing where it doesn't."""
    return (mtu(case, link, wanted),) if wanted <= (link.max_mtu or 65535) else ()


def feature(case: Case, link: Link, *settings: tuple[str, str], flaps: bool = False) -> Fix:
    """`ethtool -K` with (name, on|off) pairs."""
    command = ("ethtool", "-K", link.name)
    other = {"on": "off", "off": "on"}
    there = [word for name, value in settings for word in (name, value)]
    back = [word for name, value in settings for word in (name, other[value])]
    return case.fix(link, *command, *there, inverse=(*command, *back), flaps=flaps)


def channels(case: Case, link: Link, *, flaps: bool = True, **counts: tuple[int, int]) -> Fix:
    """`ethtool -L` with name=(now, wanted)."""
    command = ("ethtool", "-L", link.name)
    there = [word for name, (_, wanted) in counts.items() for word in (name, str(wanted))]
    back = [word for name, (now, _) in counts.items() for word in (name, str(now))]
    return case.fix(link, *command, *there, inverse=(*command, *back), flaps=flaps)


def more_rx_queues(case: Case, link: Link, wanted: int) -> tuple[str, ...]:
    """In words: `ethtool -L` at the receiving end, where the device was made with as many queues."""
    if link.channels is None or link.channels.rx_max < wanted:
        return ()
    where = case.netns(link)
    inside = f"ip netns exec {where} " if where else ""
    return (f"receive on as many queues: {inside}ethtool -L {link.name} rx {wanted}",)


def private_flag(case: Case, link: Link, name: str, value: str) -> Fix:
    """`ethtool --set-priv-flags`: the driver rebuilds its rings."""
    command = ("ethtool", "--set-priv-flags", link.name, name)
    back = "on" if value == "off" else "off"
    return case.fix(link, *command, value, inverse=(*command, back), flaps=True)


def ring(case: Case, link: Link, name: str, wanted: str, now: str) -> Fix:
    """`ethtool -G`."""
    command = ("ethtool", "-G", link.name, name)
    return case.fix(link, *command, wanted, inverse=(*command, now), flaps=True)


def pass_program(case: Case, link: Link, *, frags: bool = False) -> Fix:
    """A native program that passes everything: what some drivers and an old veth want of a redirect's target."""
    return case.fix(
        link,
        *("xdpctl", "attach", "--mode", "native", link.name, PASSING_FRAGS if frags else PASSING),
        inverse=("xdpctl", "detach", link.name),
        flaps=link.kind is None,
        note="any native program does; this one hands every frame to the stack",
    )


def detach(case: Case, link: Link, mode: str) -> Fix:
    """`ip link set xdpdrv off` and its like: no inverse, the program may vanish with its attachment."""
    word = {"native": "xdpdrv", "generic": "xdpgeneric", "offload": "xdpoffload"}[mode]
    return case.fix(
        link, "ip", "link", "set", "dev", link.name, word, "off", note="the program there stops running"
    )


def detach_link(case: Case, link: Link, link_id: int) -> Fix:
    """`bpftool link detach`: takes somebody's link away, whoever holds it."""
    argv = ("bpftool", "link", "detach", "id", str(link_id))
    return case.fix(
        link, *argv, note="the program there stops running; its owner keeps a link that does nothing"
    )
