"""Kernels that lack links or tcx, played on this one: the older way is taken, and the reason still told."""

from __future__ import annotations

import pytest
from attachments import agree, attach, detach, nothing_left, tc, xdp

from xdpctl.attach import observe
from xdpctl.bpf import query
from xdpctl.errors import AttachError, UnsupportedError
from xdpctl.skeleton import modes as strategy

pytestmark = pytest.mark.kernel


@pytest.fixture
def pair(world):
    """A namespace with a veth pair va, vb, both up."""
    inside = world.namespace()
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    return inside


def lacking(feature, needs):
    def refuse(*_arguments, **_options):
        raise UnsupportedError(feature, needs=needs, has="an older one")

    return refuse


def test_without_xdp_links_netlink_is_taken(world, pair, compile_c, monkeypatch):
    monkeypatch.setattr(strategy, "link_xdp", lacking("an XDP link", "Linux 5.9"))
    obj = compile_c(xdp("f"))
    attach(obj, "va", netns=pair)
    (seen,) = agree(world, pair)
    assert (seen["via"], seen["owner"]) == ("netlink", "xdpctl")
    with pytest.raises(UnsupportedError, match=r"an XDP link needs Linux 5.9"):
        attach(obj, "vb", netns=pair, via="link")
    detach("va", netns=pair)
    assert nothing_left()


def test_without_tcx_clsact_is_taken(world, pair, compile_c, monkeypatch):
    monkeypatch.setattr(query, "tcx_query", lacking("tcx", "Linux 6.6"))
    assert observe.query is query
    obj = compile_c(tc("f"))
    attach(obj, "va", netns=pair, hook="ingress")
    (seen,) = agree(world, pair)
    assert (seen["hook"], seen["owner"]) == ("clsact-ingress", "xdpctl")
    with pytest.raises(UnsupportedError, match=r"tcx needs Linux 6.6") as refused:
        attach(obj, "vb", netns=pair, hook="ingress", via="tcx")
    assert refused.value.hint == "--via clsact"
    detach("va", netns=pair)
    assert nothing_left()


def test_where_the_kernel_traces_no_reason_rtnetlink_is_asked_and_nothing_stays(
    world, pair, compile_c, monkeypatch
):
    def silent(program_fd, ifindex, flags=0):
        raise AttachError("attach of f to va: ERANGE", errno=34, interface="va", mode="native")

    monkeypatch.setattr(strategy, "link_xdp", silent)
    monkeypatch.setattr(strategy, "_kernel_traces_reasons", lambda: False)
    obj = compile_c(xdp("f"))
    world.ip("link set vb mtu 9000", pair)
    with pytest.raises(AttachError, match="veth: Peer MTU is too large to set XDP") as refused:
        attach(obj, "va", netns=pair)
    assert refused.value.extack == "veth: Peer MTU is too large to set XDP"
    world.ip("link set vb mtu 1500", pair)
    with pytest.raises(AttachError, match="ERANGE") as refused:
        attach(obj, "va", netns=pair)  # rtnetlink would take it: it must give it back
    assert refused.value.extack is None
    assert agree(world, pair) == []
    assert nothing_left()
