"""Where things stand in a picture: what frames come in by on the left, what they leave by on the right."""

import pytest

from xdpctl.doctor.topology_from import topology
from xdpctl.doctor.topology_order import Order
from xdpctl.host.model import Peer, RedirectEntry


@pytest.fixture
def router(machine):
    """in0 (wire outside) redirects into pod0; idle leads to the same namespace as pod0 and does nothing."""
    host = machine()
    outside, pods = host.netns("outside"), host.netns("pods")
    host.veth("in0", "wire", netns_b=outside)
    host.veth("pod0", "eth0", netns_b=pods, gro_b=True)
    host.veth("idle", "eth1", netns_b=pods)
    host.attach("in0", program=5)
    redirect(host, 5, "pod0")
    return host


def redirect(host, program, *targets):
    host.redirects[program] = tuple(
        RedirectEntry(program, "ports", "devmap", key, host.links[one].ifindex, None)
        for key, one in enumerate(targets)
    )


def wires(host):
    """(left, right) of every pair, port and stacked device."""
    found = topology(host.snapshot())
    order = Order(found)
    return {
        (one.target, one.source) if order.turned(one) else (one.source, one.target)
        for one in found.edges
        if one.kind != "redirect"
    }


def test_a_way_in_stands_right_of_its_wire_and_a_way_out_left_of_its_own(router):
    assert wires(router) == {("outside:wire", ":in0"), (":pod0", "pods:eth0"), (":idle", "pods:eth1")}


def test_all_pairs_between_two_namespaces_run_the_same_way(router):
    # eth1 alone would stand left: it has a program, and so frames come in by it
    router.attach("eth1", program=6)
    router.veth("more", "wire2", netns_b=router.links["wire"].netns)
    assert {("outside:wire2", ":more"), (":idle", "pods:eth1")} <= wires(router)


def test_what_does_nothing_stands_beside_what_leads_to_the_same_place(router):
    found = topology(router.snapshot())
    order = Order(found)
    assert [list(order.beside(space)) for space in found.spaces] == [[(":idle", ":pod0")], [], []]


def test_of_two_redirects_to_and_fro_one_runs_back(router):
    router.attach("pod0", program=7)
    redirect(router, 7, "in0")
    found = topology(router.snapshot())
    order = Order(found)
    assert sorted(order.goes_back(one) for one in found.edges if one.kind == "redirect") == [False, True]
    redirect(router, 7, "pod0")
    found = topology(router.snapshot())
    order = Order(found)
    assert not any(order.goes_back(one) for one in found.edges), "one into itself goes nowhere back"


def test_an_uplink_stands_left_of_its_bridge_and_a_pair_right(machine):
    host = machine()
    pods = host.netns("pods")
    host.link("br0", "bridge")
    host.link("eth0", "igb", master=host.links["br0"].ifindex)
    host.veth("a", "b", netns_b=pods)
    host.change("a", master=host.links["br0"].ifindex)
    host.link("eth0.7", "vlan", lower=Peer(host.links["eth0"].ifindex, 1), vlan_id=7)
    assert wires(host) == {
        (":eth0", ":br0"),
        (":br0", ":a"),
        (":a", "pods:b"),
        (":eth0", ":eth0.7"),
    }
