"""On a netkit pair the direction is seen from the primary end (drivers/net/netkit.c), without a kernel that has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpctl.attach import netkit, prepare
from xdpctl.attach.observe import Observer
from xdpctl.attach.request import AttachRequest
from xdpctl.attach.strategy import Loaded, Target
from xdpctl.attach.tcx import Tcx
from xdpctl.bpf import query
from xdpctl.errors import AttachError
from xdpctl.libbpf import uapi
from xdpctl.netlink.netns import NetnsRef
from xdpctl.netlink.rtnl import RawLink

HERE = NetnsRef(1, "blue", "/x")


@pytest.fixture
def asked(monkeypatch):
    """Attach types that were queried; every hook is empty."""
    types = []

    def empty(ifindex, attach_type):
        types.append(attach_type)
        return query.TcxQuery(revision=1, entries=())

    monkeypatch.setattr(query, "tcx_query", empty)
    return types


def step(direction, *, primary=1, **more):
    raw = RawLink(ifindex=2, name="nk0", type=1, flags=0, mtu=1500, kind="netkit", data={"primary": primary})
    request = AttachRequest(object=Path("x.o"), interfaces=("nk0",), **more)
    return prepare._tc_step(raw, HERE, Observer(), request, "f", direction)


def test_what_the_peer_sends_is_ingress_and_what_the_primary_sends_egress(asked):
    ingress, egress = step("ingress"), step("egress")
    assert (ingress.target.hook, egress.target.hook) == ("netkit-peer", "netkit-primary")
    assert ingress.strategy.via == egress.strategy.via == "netkit"
    assert asked == [uapi.NETKIT_PEER, uapi.NETKIT_PRIMARY]


def test_tcx_is_for_who_asks_and_for_the_peer_end(asked):
    assert step("ingress", via="tcx").target.hook == "tcx-ingress"
    at_peer = step("ingress", primary=0)
    assert at_peer.target.hook == "tcx-ingress"
    assert type(at_peer.strategy) is Tcx


def test_the_peer_end_refuses_and_the_hint_tells_the_other(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AttachError("refused", errno=13)

    monkeypatch.setattr(netkit, "link_netkit", refuse)
    target = Target("nk1", 3, "netkit", None, 1, "netkit-peer")
    with pytest.raises(AttachError) as refused:
        netkit.Netkit().attach(Loaded(3, 4, "f", "aa", 5), target, None)
    assert "attach through the primary end" in refused.value.hint
