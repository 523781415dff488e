"""Attachments by netlink: XDP and clsact, with the kernel's own words where it refuses."""

from __future__ import annotations

import json
import socket

import pytest

from xdpctl.bpf import features, link, net
from xdpctl.bpf.object import Object
from xdpctl.errors import AttachError
from xdpctl.libbpf import library, uapi

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("tc") int one(struct __sk_buff *skb) { return 0; }
SEC("tc") int two(struct __sk_buff *skb) { return 0; }
char _license[] SEC("license") = "GPL";
"""
NATIVE, GENERIC = uapi.XDP_FLAGS_DRV_MODE, uapi.XDP_FLAGS_SKB_MODE


@pytest.fixture(scope="module")
def loaded(compile_c):
    with Object.open(compile_c(SOURCE, "netlink")) as opened:
        opened.load()
        yield opened.programs


@pytest.fixture
def veth(world):
    a, b = f"a{world.tag}", f"b{world.tag}"
    world.veth(a, b)
    yield socket.if_nametoindex(a)
    world.run("ip", "link", "del", a)


@pytest.mark.parametrize(("flags", "mode"), [(NATIVE, "native"), (GENERIC, "generic"), (0, "native")])
def test_a_program_is_attached_in_the_mode_asked_for_and_detached(loaded, veth, flags, mode):
    net.xdp_attach(veth, loaded["pass"].fd, flags)
    found = net.xdp_query(veth)
    assert found.mode == mode
    assert (found.native_id or found.generic_id) == loaded["pass"].info().id
    assert found.offload_id is None
    net.xdp_attach(veth, -1, flags)
    assert net.xdp_query(veth).mode == "none"


def test_bpftool_sees_what_we_see(loaded, veth, world):
    net.xdp_attach(veth, loaded["drop"].fd, NATIVE)
    seen = json.loads(world.run("bpftool", "-j", "net", "show").stdout)[0]["xdp"]
    assert [(one["ifindex"], one["mode"], one["id"]) for one in seen] == [
        (veth, "driver", net.xdp_query(veth).native_id)
    ]


def test_a_program_there_is_not_replaced_where_that_is_asked(loaded, veth):
    net.xdp_attach(veth, loaded["pass"].fd, NATIVE)
    with pytest.raises(AttachError) as caught:
        net.xdp_attach(veth, loaded["drop"].fd, NATIVE | uapi.XDP_FLAGS_UPDATE_IF_NOEXIST)
    assert (caught.value.errno, caught.value.extack) == (16, "XDP program already attached")
    assert net.xdp_query(veth).native_id == loaded["pass"].info().id


def test_only_the_expected_program_is_replaced_or_detached(loaded, veth):
    net.xdp_attach(veth, loaded["pass"].fd, NATIVE)
    for new in (loaded["drop"].fd, -1):
        with pytest.raises(AttachError) as caught:
            net.xdp_attach(veth, new, NATIVE, expected_fd=loaded["drop"].fd)
        assert (caught.value.errno, caught.value.extack) == (17, "Active program does not match expected")
    net.xdp_attach(veth, loaded["drop"].fd, NATIVE, expected_fd=loaded["pass"].fd)
    assert net.xdp_query(veth).native_id == loaded["drop"].info().id


def test_a_link_can_t_be_replaced_and_the_kernel_says_so(loaded, veth):
    with link.link_xdp(loaded["pass"].fd, veth, NATIVE):
        with pytest.raises(AttachError, match="Can't replace active BPF XDP link") as caught:
            net.xdp_attach(veth, loaded["drop"].fd, NATIVE)
        assert caught.value.errno == 16


def test_detaching_in_another_mode_does_nothing(loaded, veth):
    net.xdp_attach(veth, loaded["pass"].fd, NATIVE)
    net.xdp_attach(veth, -1, GENERIC)
    assert net.xdp_query(veth).mode == "native"


def test_a_device_that_is_not_there_is_told(loaded):
    with pytest.raises(AttachError, match="attach to ifindex 999999: ENODEV"):
        net.xdp_attach(999999, loaded["pass"].fd)


def test_features_of_a_device_are_told_or_unknown_never_guessed(veth):
    found = net.xdp_query(veth)
    if library.version() < (1, 2) or not features.probe("netdev_genl"):
        assert found.features is None
    else:
        assert {"basic", "redirect"} <= found.features
    if library.version() < (1, 3):
        assert found.zc_max_segs is None


def test_clsact_comes_and_goes(veth, world):
    assert net.tc_hook_create(veth) is True
    assert net.tc_hook_create(veth) is False
    assert "clsact" in world.ip("link show", None) or "clsact" in world.run("tc", "qdisc", "show").stdout
    assert net.tc_hook_destroy(veth) is True
    assert net.tc_hook_destroy(veth) is False


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_filter_is_added_found_replaced_and_removed(loaded, veth, hook):
    net.tc_hook_create(veth)
    added = net.tc_attach(veth, hook, loaded["one"].fd)
    assert added.program_id == loaded["one"].info().id
    where = {"priority": added.priority, "handle": added.handle}
    assert net.tc_query(veth, hook, **where) == added
    with pytest.raises(AttachError) as caught:
        net.tc_attach(veth, hook, loaded["two"].fd, **where)
    assert caught.value.errno == 17
    replaced = net.tc_attach(veth, hook, loaded["two"].fd, replace=True, **where)
    assert replaced == net.ClsactFilter(added.handle, added.priority, loaded["two"].info().id)
    net.tc_detach(veth, hook, **where)
    assert net.tc_query(veth, hook, **where) is None
    with pytest.raises(AttachError):
        net.tc_detach(veth, hook, **where)


def test_a_filter_without_clsact_is_refused(loaded, veth):
    with pytest.raises(AttachError, match="attach to clsact ingress of") as caught:
        net.tc_attach(veth, "ingress", loaded["one"].fd)
    assert caught.value.errno == 22
    assert caught.value.extack
    assert net.tc_query(veth, "ingress", priority=1, handle=1) is None
