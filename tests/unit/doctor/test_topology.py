"""The data path as a graph: what is in it, which state a redirect is in, and what a filter keeps."""

import json
from dataclasses import replace

import pytest

from xdpctl.doctor.topology import Promise, around
from xdpctl.doctor.topology_from import ranges, topology
from xdpctl.doctor.topology_text import tree
from xdpctl.host.model import (
    BpfProgram,
    LinkRef,
    Peer,
    RedirectEntry,
    RedirectMap,
    RedirectTarget,
    TcHook,
)


def program(host, number, name, *, on, mode="native"):
    host.attach(on, mode, number)
    host.programs[number] = BpfProgram(number, name, "xdp", "00", 0)
    host.calls[number] = True


def entries(host, number, *targets, name="ports", kind="devmap"):
    """Slots 0, 1, ... of a devmap."""
    host.redirects[number] = tuple(
        RedirectEntry(9, name, kind, key, host.links[one].ifindex, None) for key, one in enumerate(targets)
    )
    host.more["redirect_maps"] = {number: (RedirectMap(9, name, kind),)}


@pytest.fixture
def story(machine):
    """eth redirects into veth_xxx0, whose peer is in the namespace guest."""

    def make(gro=False):
        host = machine()
        guest = host.netns("guest")
        host.link("eth", "igb")
        host.veth("veth_xxx0", "veth_yyy0", netns_b=guest, gro_b=gro)
        program(host, 5, "redirect", on="eth")
        host.more["redirect_targets"] = {5: (RedirectTarget(host.links["veth_xxx0"].ifindex, "its code"),)}
        return host

    return make


def redirects(found):
    return [one for one in found.edges if one.kind == "redirect"]


def test_a_redirect_is_broken_with_its_finding_and_proven_once_it_is_cured(story):
    (edge,) = redirects(topology(story().snapshot()))
    assert (edge.source, edge.target, edge.state) == (":eth", ":veth_xxx0", "broken")
    assert [one.id for one in edge.findings] == ["redirect.veth-peer-napi"]
    (edge,) = redirects(topology(story(gro=True).snapshot()))
    assert (edge.state, edge.findings) == ("proven", ())


def test_a_promise_is_kept_by_what_happens_and_drawn_where_nothing_does_yet(story):
    host = story(gro=True)
    host.link("eth2", "igb")
    wire, target = host.links["eth"].ref, host.links["veth_xxx0"].ref
    later = host.links["eth2"].ref
    kept, open_ = redirects(
        topology(host.snapshot(), [Promise(wire, target, "web"), Promise(later, target, "web")])
    )
    assert (kept.state, kept.deployments) == ("proven", ("web",))
    assert (open_.state, open_.source, open_.program) == ("promised", ":eth2", None)
    assert open_.why == "no program is attached to eth2 now"
    host.gro("veth_yyy0", False)
    host.settle("veth_xxx0", "veth_yyy0")
    edges = redirects(topology(host.snapshot(), [Promise(later, target, "web")]))
    assert [one.state for one in edges] == ["broken", "broken"], "a promise can be broken before it is tried"


def test_a_promise_between_links_that_are_not_in_the_snapshot_is_left_out(story):
    host = story()
    promise = Promise(LinkRef(1, 999), host.links["veth_xxx0"].ref, "web")
    assert len(redirects(topology(host.snapshot(), [promise]))) == 1


def test_slots_of_a_map_that_lead_to_one_place_are_one_edge(machine):
    host = machine()
    host.link("eth", "igb")
    host.veth("a", "b", gro_b=True)
    program(host, 5, "balance", on="eth")
    entries(host, 5, "a", "a", "a")
    (edge,) = redirects(topology(host.snapshot()))
    assert (edge.via, edge.state, edge.target) == ("devmap ports[0-2]", "proven", ":a")
    assert [ranges(one) for one in ((3, 1, 2), (0, 2, 3, 9), ())] == ["1-3", "0,2-3,9", ""]


def test_cpus_sockets_empty_maps_and_unread_instructions_have_ends_of_their_own(machine):
    host = machine()
    for number, name in enumerate(("to-cpus", "to-sockets", "to-nothing", "to-somewhere"), 20):
        host.link(name, "igb")
        program(host, number, f"p{number}", on=name)
    host.programs[30] = BpfProgram(30, "there", "xdp", "00", 0)
    host.redirects[20] = tuple(RedirectEntry(1, "cpus", "cpumap", key, None, 30) for key in (2, 3))
    host.more["redirect_maps"] = {
        20: (RedirectMap(1, "cpus", "cpumap"),),
        21: (RedirectMap(2, "xsks", "xskmap"),),
        22: (RedirectMap(3, "ports", "devmap"),),
    }
    host.more["redirect_targets"] = {23: (RedirectTarget(None, "its instructions"),)}
    found = topology(host.snapshot())
    ends = {one.id: one for one in found.ends}
    told = {
        one.source: (ends[one.target].kind, ends[one.target].label, one.state, one.via)
        for one in redirects(found)
    }
    assert told == {
        ":to-cpus": ("cpus", "CPUs 2-3\nthere: there", "proven", "cpumap cpus[2-3]"),
        ":to-sockets": ("sockets", "AF_XDP sockets", "unknown", "xskmap xsks"),
        ":to-nothing": ("nowhere", "devmap ports is empty", "unknown", "devmap ports"),
        ":to-somewhere": ("untold", "somewhere", "unknown", None),
    }


def test_generic_xdp_and_a_cpumap_before_5_15_is_not_called_proven(machine):
    host = machine(version=(5, 10, 0))
    host.link("eth", "igb")
    program(host, 5, "spread", on="eth", mode="generic")
    host.redirects[5] = (RedirectEntry(1, "cpus", "cpumap", 0, None, None),)
    (edge,) = redirects(topology(host.snapshot()))
    assert (edge.state, edge.mode) == ("unknown", "generic")


def test_a_slot_with_an_ifindex_that_nobody_has_leads_nowhere(machine):
    host = machine()
    host.link("eth", "igb")
    program(host, 5, "p", on="eth")
    host.redirects[5] = (RedirectEntry(1, "ports", "devmap", 0, 99, None),)
    found = topology(host.snapshot())
    (edge,) = redirects(found)
    assert edge.target == found.ends[0].id
    assert found.ends[0].label == "no interface has ifindex 99"
    assert edge.state == "broken"


def test_pairs_ports_and_stacked_devices_are_wires(machine):
    host = machine()
    blue = host.netns("blue")
    host.link("br0", "bridge")
    host.veth("a", "b", netns_b=blue)
    host.change("a", master=host.links["br0"].ifindex)
    host.link("eth", "igb")
    host.link("eth.7", "vlan", lower=Peer(host.links["eth"].ifindex, 1), vlan_id=7)
    host.link("lost", "veth", peer=Peer(77, None, 3))
    host.link("lo", None, type=772)
    found = topology(host.snapshot())
    assert {(one.kind, one.source, one.target, one.via) for one in found.edges} == {
        ("pair", ":a", "blue:b", None),
        ("port", ":a", ":br0", None),
        ("above", ":eth.7", ":eth", "vlan 7"),
        ("pair", ":lost", "unseen::lost", None),
    }
    assert "lo" not in {one.name for one in found.interfaces()}, "a loopback on which nothing happens"


def test_programs_of_every_hook_are_listed_with_their_mode(machine):
    host = machine()
    host.link("eth", "igb", tc=(TcHook("tcx-ingress", 8, "mark"),))
    program(host, 5, "count", on="eth", mode="generic")
    (one,) = topology(host.snapshot()).interfaces()
    assert [(each.hook, each.mode, each.name) for each in one.programs] == [
        ("xdp", "generic", "count"),
        ("tcx-ingress", None, "mark"),
    ]


def test_a_tc_redirect_is_broken_where_its_target_is_down_or_gone(machine):
    host = machine()
    for name, up in (("in", True), ("out", True), ("off", False)):
        host.link(name, "igb", up=up)
    host.change("in", tc=(TcHook("tcx-ingress", 8, "steer"),))
    index = {name: one.ifindex for name, one in host.links.items()}
    host.more["redirect_targets"] = {
        8: (
            RedirectTarget(index["out"], "x", "bpf_redirect_peer"),
            RedirectTarget(index["off"], "x"),
            RedirectTarget(99, "x"),
            RedirectTarget(None, "x"),
        )
    }
    found = topology(host.snapshot())
    assert [(one.state, one.via, one.target) for one in redirects(found)] == [
        ("proven", "bpf_redirect_peer", ":out"),
        ("broken", None, ":off"),
        ("broken", None, "nowhere:1/99"),
        ("unknown", None, "untold:8"),
    ]
    lines = "\n".join(tree(found, colour=False))
    assert "frames are lost: off is down" in lines
    assert "frames are lost: no interface has ifindex 99" in lines


def test_a_filter_keeps_what_a_link_is_connected_with_and_the_pairs_behind(story):
    host = story()
    host.link("alone", "igb")
    whole = topology(host.snapshot())
    kept = around(whole, {host.links["eth"].ref})
    assert {one.id for one in kept.interfaces()} == {":eth", ":veth_xxx0", "guest:veth_yyy0"}
    assert len(kept.edges) == 2
    assert [one.name for one in around(whole, {host.links["alone"].ref}).interfaces()] == ["alone"]
    assert around(whole, ()).spaces == ()


def test_the_tree_tells_the_same_and_ends_with_a_count(story):
    lines = list(tree(topology(story().snapshot()), colour=False))
    assert lines[0] == "this namespace"
    assert any(line.endswith("✗ broken: redirects to veth_xxx0") for line in lines)
    assert any(
        line.strip("│ ").startswith("fix: ip netns exec guest ethtool -K veth_yyy0 gro on") for line in lines
    )
    assert lines[-1] == "3 interfaces in 2 namespaces, 1 redirect: 1 broken"
    painted = "\n".join(tree(topology(story().snapshot()), colour=True))
    assert "\033[31m✗ broken\033[0m" in painted


def test_names_that_are_no_text_are_spelled_out_in_the_tree(machine):
    host = machine()
    host.link("e\x1b[2J\n", "du\nmmy")
    host.programs[5] = BpfProgram(5, "p\x07", "xdp", "00", 0)
    host.change("e\x1b[2J\n", xdp=replace(host.links["e\x1b[2J\n"].xdp, native=5))
    lines = list(tree(topology(host.snapshot()), colour=False))
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


def test_json_has_every_edge_and_its_ends_are_there(story):
    document = json.loads(json.dumps(topology(story().snapshot()).to_json()))
    known = {one["id"] for one in document["interfaces"] + document["ends"]}
    assert {one[end] for one in document["edges"] for end in ("source", "target")} <= known
    (edge,) = [one for one in document["edges"] if one["kind"] == "redirect"]
    assert edge["findings"][0]["fix"][0]["netns"] == "guest"


def test_a_snapshot_that_contradicts_itself_is_drawn_as_far_as_it_goes(machine):
    host = machine()
    host.link("twin", "veth")
    host.link("self", "veth")
    me = host.links["self"]
    host.change("self", peer=Peer(me.ifindex, 1), master=me.ifindex, lower=Peer(me.ifindex, 1))
    host.link("stray", "veth", netns=1)
    taken = host.snapshot()
    first = taken.namespaces[0]
    odd = tuple(replace(one, name="twin", netns=77) if one.name == "stray" else one for one in first.links)
    taken = replace(taken, namespaces=(replace(first, links=odd),))
    found = topology(taken)
    assert [one.name for one in found.interfaces()] == ["twin", "self", "twin"]
    assert "\n".join(tree(found, colour=False)).count("self") >= 1
