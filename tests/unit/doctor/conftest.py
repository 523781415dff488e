"""Machines made by hand: a Snapshot a few calls long, for rules to judge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpctl.host.model import (
    BpfProgram,
    Caller,
    Channels,
    Feature,
    Kernel,
    Link,
    Namespace,
    Peer,
    RedirectEntry,
    Snapshot,
    Xdp,
)

UP, RUNNING, LOWER_UP = 0x1, 0x40, 0x10000
BASE = 0x23
"""basic, redirect, rx-sg: what a veth has while its peer has no NAPI (6.3)."""
READY = 0x67
"""The same with ndo-xmit and ndo-xmit-sg."""


class Machine:
    """A machine under construction; namespace 1 is the caller's."""

    def __init__(self, version=(6, 18, 0), page_size=4096, arch="x86_64", cpus=4, **features):
        self.kernel = Kernel(
            ".".join(map(str, version)), version, arch, page_size, True, features=dict(features), config=None
        )
        self.cpus = cpus
        self.spaces = {1: None}
        self.links: dict[str, Link] = {}
        self.programs: dict[int, BpfProgram] = {}
        self.redirects: dict[int, tuple[RedirectEntry, ...]] = {}
        self.calls: dict[int, bool | None] = {}
        self.more: dict[str, object] = {}

    def netns(self, name):
        inode = 100 + len(self.spaces)
        self.spaces[inode] = name
        return inode

    def link(self, name, kind=None, *, netns=1, up=True, **fields):
        values = {
            "ifindex": len(self.links) + 10,
            "name": name,
            "netns": netns,
            "kind": kind,
            "driver": kind,
            "flags": UP | RUNNING | LOWER_UP if up else 0,
            "operstate": "UP" if up else "DOWN",
            "type": 1,
            "mtu": 1500,
            "min_mtu": 68,
            "max_mtu": 65535,
            "address": "02:00:00:00:00:01",
            "master": None,
            "peer": None,
            "lower": None,
            "num_rx_queues": 1,
            "num_tx_queues": 1,
            "real_rx_queues": 1,
            "real_tx_queues": 1,
            "features": {},
        }
        values.update(fields)
        self.links[name] = Link(**values)
        return self.links[name]

    def change(self, name, **fields):
        self.links[name] = replace(self.links[name], **fields)
        return self.links[name]

    def veth(self, a, b, *, netns_a=1, netns_b=1, gro_a=False, gro_b=False, settle=True):
        """A pair, with GRO wanted or not at each end; xdp-features follow as the kernel computes them."""
        for name, netns, gro in ((a, netns_a, gro_a), (b, netns_b, gro_b)):
            self.link(name, "veth", netns=netns, features={"rx-gro": Feature(gro, gro, False)})
        for name, other in ((a, b), (b, a)):
            there = self.links[other]
            self.change(name, peer=Peer(there.ifindex, there.netns, 0))
        if settle:
            self.settle(a, b)
        return self.links[a], self.links[b]

    def settle(self, *names):
        """What veth_set_xdp_features() would say now (6.3)."""
        if self.kernel.version < (6, 3):
            return
        for name in names:
            link = self.links[name]
            peer = next(
                (o for o in self.links.values() if link.peer and o.ifindex == link.peer.ifindex), None
            )
            if peer is None:
                continue
            gro = peer.features["rx-gro"].wanted
            self.change(name, xdp_features=READY if gro or peer.xdp.native else BASE)

    def gro(self, name, on):
        return self.change(name, features={"rx-gro": Feature(on, on, False)})

    def down(self, name):
        return self.change(name, flags=0)

    def attach(self, name, mode="native", program=77, link_id=None):
        self.programs[program] = BpfProgram(program, "prog", "xdp", "00", 0)
        key = {"native": "native", "generic": "generic", "offload": "offload"}[mode]
        xdp = replace(self.links[name].xdp, **{key: program, f"{key}_link_id": link_id})
        return self.change(name, xdp=xdp)

    def channels(self, name, **counts):
        return self.change(name, channels=Channels(**counts))

    def forget(self, name):
        """The link as if its namespace had not been observed."""
        gone = self.links.pop(name)
        for other, link in list(self.links.items()):
            if link.peer and link.peer.ifindex == gone.ifindex:
                self.change(other, peer=Peer(gone.ifindex, None, 3))

    def snapshot(self):
        return Snapshot(
            taken_at="2026-01-01T00:00:00Z",
            kernel=self.kernel,
            caller=Caller(0, ("CAP_NET_ADMIN", "CAP_BPF", "CAP_SYS_ADMIN")),
            cpus_online=self.cpus,
            cpus_possible=self.cpus,
            namespaces=tuple(
                Namespace(
                    inode, name, inode == 1, None, tuple(o for o in self.links.values() if o.netns == inode)
                )
                for inode, name in self.spaces.items()
            ),
            programs=self.programs,
            redirects=self.redirects,
            redirect_calls=self.calls,
            bpffs=("/sys/fs/bpf",),
            **self.more,
        )


@pytest.fixture
def machine():
    """``machine(version=(5, 10, 0)) -> Machine``."""
    return Machine


@pytest.fixture
def no_xdp():
    return Xdp()
