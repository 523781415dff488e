"""Changes: their inverse, their JSON form, and how a list of them is applied as a whole."""

from __future__ import annotations

import json
import sys
import types

import pytest

from xdpctl.deploy import change as change_module
from xdpctl.deploy.all_or_none import apply_all
from xdpctl.deploy.change import Change, Context, Kind, execute
from xdpctl.errors import ConfigError, NetlinkError, NotFoundError


def make(target="veth0", kind="test.set", before=1, after=2):
    return Change(kind, None, target, None, {"value": before}, {"value": after}, "for a test", "traffic")


@pytest.fixture
def world(monkeypatch):
    """A table of one kind whose executions set values in a dict, and refuse or lose the targets told."""
    state: dict = {"refused": set(), "gone": set()}

    def run(change, context):
        if change.target in state["gone"]:
            raise NotFoundError("interface", change.target)
        if change.target in state["refused"] and change.after["value"] == 2:
            raise NetlinkError(f"setting {change.target}: no", errno=22, extack="no")
        state[change.target] = change.after["value"]

    module = types.ModuleType("xdpctl_test_kind")
    module.execute = run
    monkeypatch.setitem(sys.modules, "xdpctl_test_kind", module)
    monkeypatch.setitem(change_module.KINDS, "test.set", Kind("xdpctl_test_kind"))
    return state


def test_the_inverse_of_the_inverse_is_the_change_itself():
    one = make()
    assert one.inverse().after == {"value": 1}
    assert one.inverse().inverse() == one


def test_a_change_survives_json():
    one = make()
    assert Change.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", 3), ("before", None), ("ifindex", True), ("disturbs", "everything"), ("target", None)],
)
def test_what_is_no_change_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(ConfigError, match=field if field != "disturbs" else "everything"):
        Change.from_json({**make().to_json(), field: value})


def test_an_unknown_kind_is_told():
    with pytest.raises(ConfigError, match=r"no\.such"):
        execute(make(kind="no.such"), Context())


def test_a_refused_change_takes_back_those_before_it_last_first(world):
    world["refused"].add("c")
    heard = []
    with pytest.raises(NetlinkError, match=r"setting c: no; put back: set of b, set of a"):
        apply_all(
            [make("a"), make("b"), make("c")], lambda one: heard.append((one.target, one.after["value"]))
        )
    assert (world["a"], world["b"]) == (1, 1)
    assert heard == [("a", 2), ("b", 2), ("c", 2), ("b", 1), ("a", 1)]


def test_of_a_device_that_is_gone_nothing_is_left_to_put_back(world):
    changes = [make("a"), make("b")]

    def vanish(one):
        if one.target == "b":
            world["gone"] |= {"a", "b"}

    with pytest.raises(NotFoundError) as caught:
        apply_all(changes, vanish)
    assert str(caught.value) == "no such interface: b"


def test_what_cannot_be_put_back_is_told(world):
    def refuse_everything(one):
        if one.target == "b":
            world["refused"].add("b")
            sys.modules["xdpctl_test_kind"].execute = lambda change, context: (_ for _ in ()).throw(
                NetlinkError("the driver hangs", errno=110)
            )

    with pytest.raises(NetlinkError, match="NOT put back: the driver hangs; the driver hangs"):
        apply_all([make("a"), make("b")], refuse_everything)
