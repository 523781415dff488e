"""Namespace ids are resolved with few questions, and an id of an unseen namespace stays unresolved."""

from __future__ import annotations

import contextlib

import pytest

from xdpctl.host import peers
from xdpctl.host.peers import Asker
from xdpctl.netlink.netns import NetnsRef


@pytest.fixture
def kernel(monkeypatch):
    """A kernel where `ids[a, b]` is what namespace a calls b; counts the questions."""

    class Played:
        ids = None
        questions = 0
        inside = None

    @contextlib.contextmanager
    def enter(ref):
        Played.inside = ref.inode
        yield ref

    def nsid_of(descriptor, _route):
        Played.questions += 1
        return Played.ids.get((Played.inside, descriptor))

    monkeypatch.setattr(peers.netns, "enter", enter)
    monkeypatch.setattr(peers.rtnl, "nsid_of", nsid_of)
    monkeypatch.setattr(peers.wire, "Socket", lambda _family: contextlib.nullcontext())
    return Played


def asker(inode, *needed):
    return Asker(inode, inode, NetnsRef(inode, f"n{inode}", ""), frozenset(needed))


def test_a_host_with_containers_takes_two_questions_a_container(kernel):
    host, containers = 1, range(100, 300)
    kernel.ids = {(host, one): place for place, one in enumerate(containers)} | {
        (one, host): 0 for one in containers
    }
    askers = [asker(one, 0) for one in containers] + [asker(host, *range(200))]
    found = peers.resolve(askers, [])
    assert found == {(host, place): one for place, one in enumerate(containers)} | {
        (one, 0): host for one in containers
    }
    assert kernel.questions <= 2 * 200 + 1


def test_namespaces_without_ids_are_not_asked(kernel):
    kernel.ids = {}
    assert peers.resolve([asker(1), asker(2)], []) == {}
    assert kernel.questions == 0


def test_an_id_of_an_unseen_namespace_stays_unresolved(kernel):
    kernel.ids = {(1, 2): 0}
    assert peers.resolve([asker(1, 0, 7), asker(2)], []) == {(1, 0): 2}


def test_questions_are_bounded(kernel, monkeypatch):
    monkeypatch.setattr(peers, "MOST_QUESTIONS", 10)
    kernel.ids, problems = {}, []
    peers.resolve([asker(number, 5) for number in range(1, 20)], problems)
    assert kernel.questions == 10
    assert "pairs" in problems[0].why
