"""Namespaces are found by every way people name them, entered by one thread alone, and left again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from xdpctl.errors import ConfigError, NetlinkError, NotFoundError, PrivilegeError
from xdpctl.netlink import interfaces, links, netns, rtnl

pytestmark = pytest.mark.kernel


def inode(path="/proc/thread-self/ns/net"):
    return Path(path).stat().st_ino


def test_a_namespace_is_found_by_name_inode_pid_and_path(world):
    name = world.namespace()
    ref = netns.find(name)
    assert ref.inode == inode(f"/run/netns/{name}")
    assert (ref.name, ref.label, ref.current) == (name, name, False)
    assert netns.find(f"/run/netns/{name}").inode == ref.inode
    assert netns.find(f"net:[{ref.inode}]").name == name
    inside = subprocess.Popen(["nsenter", f"--net=/run/netns/{name}", "sleep", "60"])
    try:
        deadline = time.monotonic() + 5
        while inode(f"/proc/{inside.pid}/ns/net") != ref.inode:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert netns.find(f"pid:{inside.pid}").inode == ref.inode
    finally:
        inside.kill()
        inside.wait()


@pytest.mark.shared(4)
def test_an_absent_namespace_suggests_near_names(world):
    name = world.namespace()
    with pytest.raises(NotFoundError) as refusal:
        netns.find(name[:-1] + "z")
    assert name in refusal.value.near
    for other in ("pid:999999999", "net:[1]", "/nowhere", "a\0b", "/a\0b", "../../proc/self/ns/net"):
        with pytest.raises(NotFoundError):
            netns.find(other)


@pytest.mark.shared(4)
def test_another_kind_of_file_is_no_network_namespace():
    for path in ("/etc/passwd", "/proc/self/ns/mnt"):
        with pytest.raises(ConfigError, match="not a network namespace"):
            netns.find(path)


def test_discovery_sees_names_processes_and_mounts(world, tmp_path):
    name = world.namespace()
    held = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    bound = tmp_path / "bound"
    bound.touch()
    other = world.namespace()
    there = inode(f"/run/netns/{other}")
    world.run("mount", "--bind", f"/run/netns/{other}", str(bound))
    world.run("ip", "netns", "del", other)  # its mount elsewhere keeps it
    try:
        deadline = time.monotonic() + 5
        while inode(f"/proc/{held.pid}/ns/net") == inode():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = netns.discover()
        by_inode = {one.inode: one for one in found}
        assert found[0].current
        assert found[0].inode == inode()
        assert by_inode[inode(f"/run/netns/{name}")].name == name
        assert by_inode[inode(f"/proc/{held.pid}/ns/net")].label == f"pid:{held.pid}"
        assert by_inode[there].path == str(bound)
        assert inode(f"/proc/{held.pid}/ns/net") not in {
            one.inode for one in netns.discover(include_processes=False)
        }
        with netns.enter(by_inode[there]):
            assert inode() == there
    finally:
        held.kill()
        held.wait()
        world.run("umount", str(bound))


def test_only_the_calling_thread_enters_and_it_comes_back(world):
    name = world.namespace()
    before, seen = inode(), []
    with netns.enter(name) as ref:
        assert inode() == ref.inode != before
        assert netns.current().name == name
        thread = threading.Thread(target=lambda: seen.append(inode("/proc/self/ns/net")))
        thread.start()
        thread.join()
        with netns.enter(None):
            assert inode() == ref.inode
        with netns.enter(name):
            assert inode() == ref.inode
    assert inode() == before
    with pytest.raises(ZeroDivisionError), netns.enter(name):
        raise ZeroDivisionError
    assert inode() == before


def test_a_reference_to_the_callers_namespace_holds_after_it_moved(world):
    name, home = world.namespace(), netns.current()
    with netns.enter(name), netns.enter(home):
        assert inode() == home.inode


def test_a_namespace_that_is_gone_is_not_found(world):
    name = world.namespace()
    ref = netns.find(name)
    world.run("ip", "netns", "del", name)
    with pytest.raises(NotFoundError), netns.enter(ref):
        pass
    # the name now means another one: the reference must not follow it
    world.run("ip", "netns", "add", name)
    with contextlib.ExitStack() as held:
        # an older kernel gives numbers that became free again, and nothing tells the two apart: keep it from doing so
        while netns.find(name).inode == ref.inode:
            held.enter_context(Path("/run/netns", name).open())
            world.run("ip", "netns", "del", name)
            world.run("ip", "netns", "add", name)
        with pytest.raises(NotFoundError), netns.enter(ref):
            pass


def test_entering_without_privilege_names_the_capability(world):
    name = world.namespace()
    script = (
        "from xdpctl.netlink import netns\n"
        "from xdpctl.errors import PrivilegeError\n"
        f"try:\n    with netns.enter({name!r}): print('inside')\n"
        "except PrivilegeError as error: print(error.capability)\n"
    )
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            os.sys.executable,
            "-c",
            script,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "CAP_SYS_ADMIN"


@pytest.mark.shared(4)
def test_interfaces_by_name_alternative_name_and_glob(world):
    name = world.namespace()
    world.veth("lab0", "lab1", netns_a=name, netns_b=name)
    world.ip("link property add dev lab0 altname laboratory-number-zero", name)
    with netns.enter(name):
        known = interfaces.names()
        assert set(known.values()) == {"lo", "lab0", "lab1"}
        first = interfaces.ifindex("lab0")
        assert interfaces.ifindex("laboratory-number-zero") == first
        expanded = [one for one, _index in interfaces.expand(["lab1", "lab*", "lab1"])]
        assert expanded == ["lab1", "lab0"]
        with pytest.raises(NotFoundError) as refusal:
            interfaces.ifindex("lab2")
        assert set(refusal.value.near) == {"lab0", "lab1"}
        with pytest.raises(NotFoundError, match=r"veth\*"):
            interfaces.expand(["veth*"])


def test_labs_make_change_and_remove_links():
    one, two = f"xt{os.urandom(3).hex()}", f"xt{os.urandom(3).hex()}"
    try:
        assert links.create_namespace(one).name == one
        links.create_namespace(two)
        with pytest.raises(ConfigError, match="exists already"):
            links.create_namespace(one)
        with netns.enter(one):
            links.create_veth(
                "a0", "b0", peer_netns=two, mtu=2000, rx_queues=3, tx_queues=2, address="02:00:00:00:00:0a"
            )
            links.create_veth("c0", "c1")
            links.create("br0", "bridge")
            links.create("mv0", "macvlan", lower="c1", mode="bridge")
            links.set_master("c0", "br0")
            links.set_up("a0")
            links.set_mtu("c1", 1400)
            links.set_address("c1", "02:00:00:00:00:0b")
            found = {each.name: each for each in rtnl.links()}
            assert (found["a0"].mtu, found["a0"].num_rx_queues, found["a0"].num_tx_queues) == (2000, 3, 2)
            assert found["a0"].address == "02:00:00:00:00:0a"
            assert found["a0"].flags & 1
            assert found["c0"].master == found["br0"].ifindex
            assert (found["c1"].mtu, found["c1"].address) == (1400, "02:00:00:00:00:0b")
            assert found["mv0"].link == found["c1"].ifindex
            links.move("mv0", two)
            links.set_master("c0", None)
            links.delete("c0")
            assert set(interfaces.names().values()) == {"lo", "a0", "br0"}
            with pytest.raises(NetlinkError) as refusal:
                links.set_mtu("a0", 20)
            assert refusal.value.extack == "mtu less than device minimum"
            with pytest.raises(NetlinkError, match="Unknown device type"):
                links.create("x0", "no-such-kind")
            with pytest.raises(NotFoundError):
                links.delete("c0")
        with netns.enter(two):
            assert {"lo", "b0"} <= set(interfaces.names().values())
    finally:
        for name in (one, two):
            links.delete_namespace(name)
    assert {one, two}.isdisjoint(each.name for each in netns.list_named())
    for bad in ("a/b", "..", "", "a b"):
        with pytest.raises((ConfigError, PrivilegeError)):
            links.create_namespace(bad)
