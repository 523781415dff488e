"""Links attach, say why not, are replaced without a gap, and end with their holder."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from xdpctl.bpf import extack, features, link, net, pins, query
from xdpctl.bpf.object import Object
from xdpctl.errors import AttachError, ConfigError, NotFoundError, UnsupportedError
from xdpctl.libbpf import uapi

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("tc") int one(struct __sk_buff *skb) { return TC_ACT_UNSPEC; }
SEC("tc") int two(struct __sk_buff *skb) { return TC_ACT_UNSPEC; }
SEC("tc") int three(struct __sk_buff *skb) { return TC_ACT_UNSPEC; }
char _license[] SEC("license") = "GPL";
"""
NATIVE, GENERIC = uapi.XDP_FLAGS_DRV_MODE, uapi.XDP_FLAGS_SKB_MODE
PEER_MTU = "veth: Peer MTU is too large to set XDP"


@pytest.fixture(scope="module")
def loaded(compile_c):
    with Object.open(compile_c(SOURCE, "links")) as opened:
        opened.load()
        yield opened.programs


@pytest.fixture
def veth(world):
    """A veth pair in this namespace; ifindex of the first."""
    a, b = f"a{world.tag}", f"b{world.tag}"
    world.veth(a, b)
    yield socket.if_nametoindex(a)
    world.run("ip", "link", "del", a)


@pytest.fixture
def large(world):
    """A veth whose peer's MTU is too large for native XDP; (name, ifindex)."""
    a, b = f"a{world.tag}", f"b{world.tag}"
    world.veth(a, b, mtu=9000)
    yield a, socket.if_nametoindex(a)
    world.run("ip", "link", "del", a)


def settles(ask, expected):
    """Whether `ask()` becomes `expected` soon: somebody who lists links holds each for a moment, also a closed one."""
    deadline = time.monotonic() + 5
    while (found := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return found == expected


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def id_of(program):
    return program.info().id


@pytest.mark.parametrize(("flags", "mode"), [(NATIVE, "native"), (GENERIC, "generic"), (0, "native")])
def test_a_link_attaches_in_the_mode_asked_for_and_ends_when_closed(loaded, veth, flags, mode):
    with link.link_xdp(loaded["pass"].fd, veth, flags) as held:
        info = held.info()
        assert (info.type, info.ifindex, info.attach_type) == ("xdp", veth, "xdp")
        assert info.program_id == id_of(loaded["pass"])
        assert info.id == held.id
        assert net.xdp_query(veth).mode == mode
    assert held.fd == -1
    assert settles(lambda: net.xdp_query(veth).mode, "none")


def test_an_update_puts_another_program_in_place(loaded, veth):
    with link.link_xdp(loaded["pass"].fd, veth, NATIVE) as held:
        held.update(loaded["drop"].fd)
        assert net.xdp_query(veth).native_id == id_of(loaded["drop"])


def test_an_update_that_expects_another_program_changes_nothing(loaded, veth):
    with link.link_xdp(loaded["pass"].fd, veth, NATIVE) as held:
        with pytest.raises(AttachError) as caught:
            held.update(loaded["drop"].fd, expected_fd=loaded["drop"].fd)
        assert caught.value.errno == 1  # EPERM, of root: it must not read as a missing capability
        assert net.xdp_query(veth).native_id == id_of(loaded["pass"])
        held.update(loaded["drop"].fd, expected_fd=loaded["pass"].fd)


def test_a_detached_link_stays_and_is_empty(loaded, veth):
    with link.link_xdp(loaded["pass"].fd, veth) as held:
        held.detach()
        assert net.xdp_query(veth).mode == "none"
        assert held.info().ifindex is None
        with pytest.raises(AttachError) as caught:
            held.update(loaded["drop"].fd)
        assert caught.value.errno == 67  # ENOLINK


def test_a_pinned_link_outlives_its_holder(loaded, veth):
    path = pins.root() / "links" / "1" / "eth+2e7"
    with link.link_xdp(loaded["pass"].fd, veth, NATIVE) as held:
        number = held.id
        held.pin(path)
        with pytest.raises(AttachError, match="is pinned already"):
            held.pin(path)
    assert net.xdp_query(veth).mode == "native"
    assert list(pins.walk()) == [path]
    with link.open_link(path) as again:
        assert again.id == number
        again.detach()
    assert pins.unpin(path)
    assert not pins.root().exists()


def test_a_link_is_opened_by_its_id(loaded, veth):
    with link.link_xdp(loaded["pass"].fd, veth) as held, link.open_link(held.id) as again:
        assert again.info() == held.info()
    with pytest.raises(NotFoundError, match="no such link: id 4294967295"):
        link.open_link(2**32 - 1)


def test_what_is_pinned_but_no_link_is_told(loaded):
    path = pins.root() / "programs" / "p"
    loaded["pass"].pin(path)
    with pytest.raises(ConfigError, match="not a pinned link, but a program"):
        link.open_link(path)
    with pytest.raises(NotFoundError) as caught:
        link.open_link(path.with_name("q"))
    assert caught.value.what == "link"


def test_a_place_that_is_no_bpffs_is_told_with_the_mount_command(loaded, tmp_path):
    with pytest.raises(UnsupportedError) as caught:
        loaded["pass"].pin(tmp_path / "pin")
    assert caught.value.hint.startswith("mount -t bpf bpf ")


@pytest.mark.needs("link_extack")
def test_a_refusal_carries_the_kernel_s_own_sentence(loaded, large):
    name, ifindex = large
    with pytest.raises(AttachError) as caught:
        link.link_xdp(loaded["pass"].fd, ifindex, NATIVE)
    error = caught.value
    assert (error.errno, error.extack) == (34, PEER_MTU)  # ERANGE
    assert (error.interface, error.mode, error.program) == (name, "native", "pass")
    assert str(error).startswith(f"attach of pass to {name} in native mode: {PEER_MTU}")
    assert net.xdp_query(ifindex).mode == "none"


def test_the_sentence_is_had_by_netlink_too_and_nothing_changes(loaded, large):
    _, ifindex = large
    assert extack.ask_rtnetlink(loaded["pass"].fd, ifindex, NATIVE) == PEER_MTU
    assert net.xdp_query(ifindex).mode == "none"


def test_asking_by_netlink_takes_back_what_it_attached(loaded, veth):
    assert extack.ask_rtnetlink(loaded["pass"].fd, veth, NATIVE) is None
    assert net.xdp_query(veth).mode == "none"


def test_asking_by_netlink_never_touches_what_is_there(loaded, veth):
    net.xdp_attach(veth, loaded["drop"].fd, NATIVE)
    assert extack.ask_rtnetlink(loaded["pass"].fd, veth, NATIVE) == "XDP program already attached"
    assert net.xdp_query(veth).native_id == id_of(loaded["drop"])


@pytest.mark.needs("link_extack")
def test_a_link_in_the_way_is_told_by_the_kernel(loaded, veth):
    with link.link_xdp(loaded["pass"].fd, veth, NATIVE):
        with pytest.raises(AttachError) as caught:
            link.link_xdp(loaded["drop"].fd, veth, NATIVE)
        assert caught.value.extack == "Can't replace active BPF XDP link"
        assert caught.value.errno == 16  # EBUSY
        with pytest.raises(AttachError) as caught:
            link.link_xdp(loaded["drop"].fd, veth, GENERIC)
        assert caught.value.extack == "Native and generic XDP can't be active at the same time"


def test_a_device_that_is_not_there_is_told(loaded):
    with pytest.raises(AttachError, match="attach of pass to ifindex 999999: EINVAL"):
        link.link_xdp(loaded["pass"].fd, 999999)


def test_the_reason_of_another_thread_is_not_ours(loaded, large):
    _, ifindex = large

    def other():
        with pytest.raises(AttachError):
            link.link_xdp(loaded["pass"].fd, ifindex, NATIVE)

    with extack.reason() as why:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=10)
        assert why() is None


@pytest.mark.needs("link_extack")
def test_the_reason_can_be_asked_after_the_block_and_leaves_nothing(loaded, large):
    _, ifindex = large
    fds = open_files()
    with extack.reason() as why, pytest.raises(AttachError):
        link.link_xdp(loaded["pass"].fd, ifindex, NATIVE)
    assert why() == PEER_MTU
    assert open_files() == fds


def order_of(ifindex, hook=uapi.TCX_INGRESS):
    return [entry.program_id for entry in query.tcx_query(ifindex, hook).entries]


@pytest.mark.needs("tcx")
def test_tcx_programs_run_in_the_order_asked_for(loaded, veth):
    one, two, three = (loaded[name] for name in ("one", "two", "three"))
    with link.link_tcx(one.fd, veth, uapi.TCX_INGRESS) as first:
        with link.link_tcx(two.fd, veth, uapi.TCX_INGRESS):
            assert settles(lambda: order_of(veth), [id_of(one), id_of(two)])
        with link.link_tcx(two.fd, veth, uapi.TCX_INGRESS, order=link.FIRST) as second:
            assert settles(lambda: order_of(veth), [id_of(two), id_of(one)])
            with link.link_tcx(
                three.fd, veth, uapi.TCX_INGRESS, order=link.Order(before=True, program_id=id_of(one))
            ):
                assert settles(lambda: order_of(veth), [id_of(two), id_of(three), id_of(one)])
            with link.link_tcx(three.fd, veth, uapi.TCX_INGRESS, order=link.Order(link_id=second.id)):
                assert settles(lambda: order_of(veth), [id_of(two), id_of(three), id_of(one)])
        assert first.info().attach_type == "tcx_ingress"
        assert settles(lambda: order_of(veth, uapi.TCX_EGRESS), [])
    assert settles(lambda: order_of(veth), [])


@pytest.mark.needs("tcx")
def test_tcx_is_replaced_in_place(loaded, veth):
    with (
        link.link_tcx(loaded["one"].fd, veth, uapi.TCX_EGRESS) as held,
        link.link_tcx(loaded["two"].fd, veth, uapi.TCX_EGRESS),
    ):
        held.update(loaded["three"].fd, expected_fd=loaded["one"].fd)
        assert order_of(veth, uapi.TCX_EGRESS) == [id_of(loaded["three"]), id_of(loaded["two"])]


@pytest.mark.needs("tcx")
def test_a_revision_that_has_passed_is_refused(loaded, veth):
    revision = query.tcx_query(veth, uapi.TCX_INGRESS).revision
    with link.link_tcx(loaded["one"].fd, veth, uapi.TCX_INGRESS, order=link.Order(revision=revision)) as held:
        found = query.tcx_query(veth, uapi.TCX_INGRESS)
        assert found.revision == revision + 1
        assert found.entries == (query.TcxEntry(id_of(loaded["one"]), held.id),)
        with pytest.raises(AttachError) as caught:
            link.link_tcx(loaded["two"].fd, veth, uapi.TCX_INGRESS, order=link.Order(revision=revision))
        assert caught.value.errno == 116  # ESTALE


@pytest.mark.needs("tcx")
def test_a_relative_that_is_not_there_is_refused(loaded, veth):
    with pytest.raises(AttachError) as caught:
        link.link_tcx(
            loaded["one"].fd, veth, uapi.TCX_INGRESS, order=link.Order(before=True, program_id=2**31)
        )
    assert caught.value.errno == 2
    assert order_of(veth) == []


def test_a_device_that_is_no_netkit_is_told_or_the_kernel_without_it(loaded, veth):
    kind = AttachError if features.probe("netkit") else UnsupportedError
    with pytest.raises(kind):
        link.link_netkit(loaded["one"].fd, veth, uapi.NETKIT_PRIMARY)
    with pytest.raises((AttachError, UnsupportedError)):
        query.tcx_query(veth, uapi.NETKIT_PRIMARY)


def test_a_tracepoint_that_is_not_there_is_told():
    from xdpctl.bpf import asm, load

    fd = load.program(uapi.PROG_TYPE_RAW_TRACEPOINT, asm.RETURN_0)
    try:
        with pytest.raises(AttachError, match="to tracepoint no_such_tracepoint: ENOENT"):
            link.link_raw_tracepoint(fd, "no_such_tracepoint")
        with link.link_raw_tracepoint(fd, "xdp_exception") as held:
            assert held.info().type == "raw_tracepoint"
    finally:
        os.close(fd)


def test_a_refused_attach_is_answered_within_a_second(loaded, large):
    _, ifindex = large
    start = time.monotonic()
    with pytest.raises(AttachError):
        link.link_xdp(loaded["pass"].fd, ifindex, NATIVE)
    assert time.monotonic() - start < 1


@pytest.fixture
def netkit(world):
    """The ifindexes of a netkit pair (Linux 6.7): primary and peer."""
    from pyroute2 import IPRoute

    name = f"k{world.tag}"
    with IPRoute() as route:
        before = {index for index, _ in socket.if_nameindex()}
        route.link("add", ifname=name, kind="netkit")
        primary = socket.if_nametoindex(name)
        (peer,) = {index for index, _ in socket.if_nameindex()} - before - {primary}
        yield primary, peer
        route.link("del", index=primary)


@pytest.mark.needs("netkit")
def test_netkit_programs_are_attached_on_both_sides_through_the_primary(loaded, netkit):
    primary, peer = netkit
    with (
        link.link_netkit(loaded["one"].fd, primary, uapi.NETKIT_PRIMARY) as held,
        link.link_netkit(loaded["two"].fd, primary, uapi.NETKIT_PEER),
        link.link_netkit(loaded["three"].fd, primary, uapi.NETKIT_PEER, order=link.FIRST),
    ):
        info = held.info()
        assert (info.type, info.ifindex, info.attach_type) == ("netkit", primary, "netkit_primary")
        assert order_of(primary, uapi.NETKIT_PRIMARY) == [id_of(loaded["one"])]
        assert order_of(primary, uapi.NETKIT_PEER) == [id_of(loaded["three"]), id_of(loaded["two"])]
        with pytest.raises(AttachError) as caught:
            link.link_netkit(loaded["one"].fd, peer, uapi.NETKIT_PRIMARY)
        assert caught.value.errno == 13  # EACCES: it is the peer
