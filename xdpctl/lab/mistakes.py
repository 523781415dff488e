"""Mistakes that people make with XDP, as commands for each tool: data for the comparison.

Every one starts from two namespaces, host and guest, whose IPv6 is off. The set-up runs outside of them, the
tools' commands run in host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOLS = ("ip", "bpftool", "xdp-loader", "xdpctl")
OBJECTS = Path("build/bpf")
SENT = 10
"""Frames sent where a program redirects or transmits."""
TARGET = 20
"""ifindex of veth_xxx0 in host: the other tools can't set a program's variables, so it is compiled in."""

SOURCES = {
    "redirect20": f"""\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int to_{TARGET}(struct xdp_md *ctx)
{{
	return bpf_redirect({TARGET}, 0);
}}

char LICENSE[] SEC("license") = "GPL";
""",
    "entry": """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp/devmap")
int entry(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
""",
}
"""Objects that bpf/ lacks."""


@dataclass(frozen=True, eq=False)
class Mistake:
    """One mistake."""

    title: str
    setup: tuple[str, ...]
    commands: Mapping[str, tuple[str, ...]]
    """By tool."""
    arrives: str | None = None
    """Interface of guest at which frames sent to eth0 ought to arrive; None: none are sent."""
    length: int = 100
    """Bytes of the frames sent."""


def pair(mtu: int = 1500, peer_mtu: int = 1500, *, queues: int | None = None) -> tuple[str, ...]:
    """eth0 in host, its peer eth1 in guest, which sends and receives on as many queues as said."""
    own, other = "", ""
    if queues is not None:
        own = " numrxqueues 1 numtxqueues 1"
        other = f" numrxqueues {queues} numtxqueues {queues}"
    return (
        f"ip -n host link add eth0 mtu {mtu}{own} type veth peer name eth1 mtu {peer_mtu}{other} netns guest",
        "ip -n host link set eth0 up",
        "ip -n guest link set eth1 up",
    )


def target(mtu: int = 1500) -> tuple[str, ...]:
    """veth_xxx0 in host, its peer veth_yyy0 in guest."""
    return (
        f"ip -n host link add veth_xxx0 index {TARGET} mtu {mtu} type veth peer name veth_yyy0 netns guest",
        "ip -n host link set veth_xxx0 up",
        "ip -n guest link set veth_yyy0 up",
    )


def attach(path: str, device: str = "eth0", *, section: str = "xdp") -> dict[str, tuple[str, ...]]:
    """How each tool attaches an object's program natively."""
    return {
        "ip": (f"ip link set dev {device} xdpdrv obj {path} sec {section}",),
        "bpftool": (
            f"bpftool prog load {path} /sys/fs/bpf/prog",
            f"bpftool net attach xdpdrv pinned /sys/fs/bpf/prog dev {device}",
        ),
        "xdp-loader": (f"xdp-loader load -m native {device} {path}",),
        "xdpctl": (f"xdpctl attach --mode native {device} {path}",),
    }


PASS, TX_SWAP = f"{OBJECTS}/pass.bpf.o", f"{OBJECTS}/tx-swap.bpf.o"
GRO_ON = ("nsenter --net=/run/netns/guest ethtool -K veth_yyy0 gro on",)

MISTAKES = (
    Mistake("The peer's MTU is too large", pair(peer_mtu=9000), attach(PASS)),
    Mistake(
        "The peer sends on more queues than the veth receives on",
        pair(queues=2),
        attach(PASS),
    ),
    Mistake(
        "The device has no native XDP",
        (*pair(), "ip -n host link add mv0 link eth0 type macvlan"),
        attach(PASS, "mv0"),
    ),
    Mistake(
        "Generic XDP is active already",
        (*pair(), f"ip -n host link set dev eth0 xdpgeneric obj {PASS} sec xdp"),
        attach(PASS),
    ),
    Mistake(
        "A bpf_link holds the interface",
        (*pair(), f"xdpctl attach --netns host eth0 {OBJECTS}/count.bpf.o"),
        attach(PASS),
    ),
    Mistake(
        "The bridge above has a program",
        (
            *pair(),
            "ip -n host link add br0 type bridge",
            "ip -n host link set eth0 master br0",
            f"ip -n host link set dev br0 xdpgeneric obj {PASS} sec xdp",
        ),
        attach(PASS),
    ),
    Mistake("The program is meant for a devmap's entry", pair(), attach("entry.bpf.o", section="xdp/devmap")),
    Mistake(
        "The program is taken off in the wrong mode",
        (*pair(), f"ip -n host link set dev eth0 xdpdrv obj {PASS} sec xdp"),
        {
            "ip": ("ip link set dev eth0 xdpgeneric off",),
            "bpftool": ("bpftool net detach xdpgeneric dev eth0",),
            "xdp-loader": ("xdp-loader unload eth0 --all",),
            "xdpctl": ("xdpctl detach --mode generic eth0",),
        },
    ),
    Mistake(
        "Redirect to a veth whose peer has GRO off",
        (*pair(), *target()),
        attach("redirect20.bpf.o"),
        arrives="veth_yyy0",
    ),
    Mistake(
        "Redirect to a veth whose peer is down",
        (*pair(), *target(), *GRO_ON, "ip -n guest link set veth_yyy0 down"),
        attach("redirect20.bpf.o"),
        arrives="veth_yyy0",
    ),
    Mistake(
        "Redirect to a device that takes no redirected frames",
        (
            *pair(),
            "ip -n host link add eth2 type veth peer name eth3 netns guest",
            "ip -n host link set eth2 up",
            "ip -n guest link set eth3 up",
            f"ip -n host link add mv0 link eth2 index {TARGET} up type macvlan",
        ),
        attach("redirect20.bpf.o"),
        arrives="eth3",
    ),
    Mistake(
        "Redirect to an ifindex of another namespace",
        (*pair(), f"ip -n guest link add br0 index {TARGET} up type bridge"),
        attach("redirect20.bpf.o"),
        arrives="br0",
    ),
    Mistake(
        "Redirect frames that are longer than the target's MTU allows",
        (*pair(mtu=3000, peer_mtu=3000), *target(), *GRO_ON),
        attach("redirect20.bpf.o"),
        arrives="veth_yyy0",
        length=2000,
    ),
    Mistake("Send frames back to a peer that has GRO off", pair(), attach(TX_SWAP), arrives="eth1"),
)
