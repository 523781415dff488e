"""Whom a link is tied to, found in a snapshot, and in time that does not grow with the square of its links."""

from __future__ import annotations

from xdpctl.host.model import Caller, Kernel, Link, LinkRef, Namespace, Peer, Snapshot

BLUE, RED = 100, 200


def link(number, name, netns=BLUE, *, peer=None, lower=None, master=None):
    return Link(
        number,
        name,
        netns,
        "veth",
        "veth",
        1,
        "up",
        1,
        1500,
        None,
        None,
        None,
        master,
        peer,
        lower,
        1,
        1,
        1,
        1,
    )


def snapshot(blue, red=()):
    return Snapshot(
        "2025-01-01T00:00:00+00:00",
        Kernel("6.18.0", (6, 18, 0), "x86_64", 4096, True),
        Caller(0, ()),
        1,
        1,
        (Namespace(BLUE, "blue", False, links=tuple(blue)), Namespace(RED, None, True, 12, tuple(red))),
    )


def test_peers_lowers_and_uppers_are_found_across_namespaces():
    bridge, port = link(1, "br0"), link(2, "port", master=1, peer=Peer(2, RED))
    far = link(2, "far", RED, peer=Peer(2, BLUE))
    stacked = link(3, "mv0", RED, lower=Peer(2, BLUE, 0))
    taken = snapshot([bridge, port], [far, stacked])
    assert taken.peer(port) == far
    assert taken.peer(far) == port
    assert taken.lowers(bridge) == (port,)
    assert taken.uppers(port) == (stacked, bridge)
    assert taken.lowers(stacked) == (port,)
    assert taken.uppers(far) == ()


def test_what_was_not_observed_is_none():
    lonely = link(1, "a", peer=Peer(9, None, 3))
    taken = snapshot([lonely, link(2, "b", peer=Peer(9, RED)), link(3, "c")])
    assert [taken.peer(one) for one in taken.links()] == [None, None, None]
    assert taken.link(None) is None
    assert taken.link(LinkRef(BLUE, 99)) is None
    assert taken.named("a", RED) is None
    assert taken.named("a", BLUE) is lonely


def test_namespaces_are_found_by_name_label_and_as_the_current_one():
    taken = snapshot([])
    assert taken.namespace_named("blue").inode == BLUE
    assert taken.namespace_named(None).inode == RED
    assert taken.namespace_named("nowhere") is None
    assert [one.label for one in taken.namespaces] == ["blue", ""]


def test_asking_leaves_snapshots_equal():
    one, other = snapshot([link(1, "a")]), snapshot([link(1, "a")])
    assert one.link(LinkRef(BLUE, 1)).name == "a"
    assert one == other
    assert "_links_by" not in repr(one)


def test_thousands_of_questions_each_look_at_a_few_links(monkeypatch):
    many = snapshot([link(number, f"v{number}", peer=Peer(number ^ 1, BLUE)) for number in range(2, 4002)])
    walked = []
    true_links = Snapshot.links
    monkeypatch.setattr(Snapshot, "links", lambda self: walked.append(1) or true_links(self))
    for one in many.namespaces[0].links:
        assert many.peer(one).ifindex == one.ifindex ^ 1
        assert many.uppers(one) == many.lowers(one) == ()
    assert len(walked) == 1
