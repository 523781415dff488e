"""Namespaces of others, only seen through /proc or under a name or inode that was ours, stay as they are."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from attachments import attach, detach, programs_of
from deployments import SOURCE, apply_file, assert_same, carry_out, destroy, forget_all, machine, plan_of
from live import until

from xdpctl.bpf import net
from xdpctl.bpf.program import program_by_id
from xdpctl.deploy import apply, state
from xdpctl.deploy.drift import look
from xdpctl.deploy.healing import heal
from xdpctl.errors import AttachError, NotFoundError
from xdpctl.libbpf import uapi
from xdpctl.netlink import interfaces, netns

pytestmark = pytest.mark.kernel

EVERYWHERE = """
[deployment]
name = "edge"
[[program]]
name = "guard"
object = "{obj}"
[[interface]]
match = "v*"
netns = "*"
mtu = 1400
[[interface.attach]]
program = "guard"
"""


@pytest.fixture(autouse=True)
def _nothing_applied_before():
    yield
    forget_all()


@contextlib.contextmanager
def stranger():
    """A namespace without a name, held by a process: ``pid:N``; it has the pair va and vb."""
    held = subprocess.Popen(["unshare", "--net", "sleep", "100"])
    try:
        own = netns.current().inode
        assert until(lambda: netns.find(f"pid:{held.pid}").inode != own)
        label = f"pid:{held.pid}"
        with netns.enter(label):
            subprocess.run("ip link add va type veth peer name vb".split(), check=True)
            subprocess.run("ip link set va up".split(), check=True)
        yield label
    finally:
        held.kill()
        held.wait()


def test_nothing_reaches_a_namespace_that_is_only_seen(world, compile_c, tmp_path):
    ours = world.namespace()
    world.veth("va", "vb", netns_a=ours, netns_b=ours)
    path = tmp_path / "a.toml"
    path.write_text(EVERYWHERE.format(obj=compile_c(SOURCE)))
    with stranger() as other:
        before = machine(other)["links"]
        apply_file(path)
        assert programs_of(ours, "va") == ["deployed_xdp"]
        assert machine(other)["links"] == before
        world.ip("link set va mtu 1300", ours)
        assert {one.netns for one in look("edge").drifts} == {ours}
        heal(["edge"])
        destroy("edge")
        assert machine(other)["links"] == before


def test_a_namespace_made_anew_under_a_name_is_none_that_was_planned_for(world, compile_c, tmp_path):
    ours = world.namespace()
    world.veth("va", "vb", netns_a=ours, netns_b=ours)
    path = tmp_path / "a.toml"
    path.write_text(EVERYWHERE.format(obj=compile_c(SOURCE)))
    planned = plan_of(path)
    with netns.enter(ours):
        held = netns.open_nsfs(netns.current())  # so that its inode is not given again
    try:
        world.ip(f"netns del {ours}")
        world.ip(f"netns add {ours}")
        world.veth("va", "vb", netns_a=ours, netns_b=ours)
        before = machine(ours)
        with pytest.raises(NotFoundError, match="network namespace"):
            carry_out(planned)
        assert apply.pending() is None
        assert_same(before, ours)
    finally:
        os.close(held)


def test_the_very_namespace_is_found_from_elsewhere_and_by_its_cookie(world):
    ours, other = world.namespace(), world.namespace()
    with netns.enter(ours) as ref:
        inode, cookie = ref.inode, netns.cookie_of(ref)
        assert netns.very(None, inode, cookie).inode == inode
    with netns.enter(other):
        assert netns.very(None, inode, cookie).inode == inode
        assert cookie is None or netns.cookie_of(netns.current()) != cookie
    with pytest.raises(NotFoundError):
        netns.very(other, inode, None)
    if cookie is not None:
        with pytest.raises(NotFoundError) as caught:
            netns.very(ours, inode, cookie + 1)
        assert caught.value.hint == "another one has its inode now"
    world.ip(f"netns del {ours}")
    with pytest.raises(NotFoundError):
        netns.very(ours, inode, cookie)


def test_the_link_of_another_namespace_is_never_taken_for_this_ones(world, compile_c):
    """One program on one ifindex in two namespaces: by a link of ours there, by netlink here."""
    here, there = world.namespace(), world.namespace()
    for space in (here, there):
        world.veth("va", "vb", netns_a=space, netns_b=space)
    (made,) = attach(compile_c(SOURCE), "va", netns=there, hook="xdp")
    with netns.enter(here), program_by_id(made.program.id) as program:
        number = interfaces.ifindex("va")
        assert number == made.ifindex
        net.xdp_attach(number, program.fd, uapi.XDP_MODE_FLAGS["native"])
    try:
        detach("va", netns=here, foreign=True)
    except AttachError as error:
        assert "va" in error.message
    assert programs_of(there, "va") == ["deployed_xdp"]
    detach("va", netns=there)
    assert programs_of(there, "va") == []


def test_settings_are_not_put_back_in_a_namespace_that_was_given_an_old_inode(world, compile_c, tmp_path):
    ours = world.namespace()
    world.veth("va", "vb", netns_a=ours, netns_b=ours)
    path = tmp_path / "a.toml"
    path.write_text(EVERYWHERE.format(obj=compile_c(SOURCE)))
    apply_file(path)
    inode = state.existing("edge").found[0].netns
    world.ip(f"netns del {ours}")
    for _ in range(20):  # the kernel gives inodes again, the lowest first
        fresh = world.namespace()
        if netns.find(fresh).inode == inode:
            break
    world.veth("va", "vb", netns_a=fresh, netns_b=fresh)
    world.ip("link set va mtu 1400", fresh)
    before = machine(fresh)["links"]
    destroy("edge")
    assert machine(fresh)["links"] == before
