"""Which links a question means, and what its answer counts."""

import pytest

from xdpctl.doctor.diagnose import Question, ask
from xdpctl.doctor.finding import Status
from xdpctl.errors import ConfigError, NotFoundError


@pytest.fixture
def host(machine):
    host = machine()
    blue = host.netns("blue")
    host.veth("xxx", "yyy", netns_b=blue, gro_a=True)
    host.link("eth0", None, driver="igb", netns=blue)
    return host


def answer(host, *names, **more):
    return ask(host.snapshot(), Question(names, **more))


def test_names_are_looked_for_in_the_caller_s_namespace(host):
    found = answer(host, "xxx")
    assert found.failed
    assert (found.links, found.healthy) == (1, 0)
    with pytest.raises(NotFoundError) as caught:
        answer(host, "yyy")
    assert "--netns blue" in caught.value.hint


def test_a_namespace_or_all_of_them_can_be_asked(host):
    assert answer(host, "yyy", netns="blue").findings[0].netns == "blue"
    assert answer(host, "*", all_netns=True).links == 3
    with pytest.raises(NotFoundError) as caught:
        answer(host, netns="bleu")
    assert caught.value.near == ["blue"]


def test_globs_and_near_names(host):
    assert answer(host, "x*").links == 1
    with pytest.raises(NotFoundError) as caught:
        answer(host, "xxxx")
    assert caught.value.near == ["xxx"]


def test_the_whole_host_counts_the_healthy_and_a_named_link_is_told_it_is_fine(host):
    found = answer(host)
    assert (found.links, found.namespaces, found.healthy) == (3, 2, 2)
    assert {one.status for one in found.findings} == {Status.WARN}
    fine = answer(host, "eth0", netns="blue")
    assert [(one.id, one.status) for one in fine.findings] == [("link.ok", Status.OK)]
    assert fine.findings[0].evidence


def test_redirect_to_asks_about_that_redirect_alone(host):
    host.link("eth1", None, driver="igb")
    found = answer(host, "eth1", redirect_to=("xxx",))
    assert [(one.id, one.status) for one in found.findings if one.status is not Status.OK] == [
        ("redirect.veth-peer-napi", Status.FAIL)
    ]
    assert not answer(host, "eth1", redirect_to=("xxx",), mode="generic").failed


@pytest.mark.parametrize(
    "question",
    [
        Question(redirect_to=("xxx",)),
        Question(("xxx",), program="prog"),
        Question(("xxx",), settings=("a=1",)),
    ],
)
def test_options_that_lack_their_other_half_are_refused_with_what_to_add(host, question):
    with pytest.raises(ConfigError) as caught:
        ask(host.snapshot(), question)
    assert caught.value.hint


def test_a_named_link_is_asked_whether_it_could_take_native_xdp(host):
    host.link("lo", None, type=772, driver=None)
    found = answer(host, "lo")
    assert [(one.id, one.status) for one in found.findings] == [("attach.no-native", Status.WARN)]
    assert not found.failed
    assert [one.status for one in answer(host, "lo", mode="generic").findings] == [Status.OK]
