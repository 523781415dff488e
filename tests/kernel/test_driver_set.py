"""`xdpctl driver set` on real veths: what ethtool and ip say afterwards, and a refused step leaves nothing behind."""

from __future__ import annotations

import pytest

from xdpctl.deploy import device, device_execute
from xdpctl.deploy.change import Context
from xdpctl.errors import NetlinkError, NotFoundError
from xdpctl.host.collect import collect
from xdpctl.netlink import links, netns

pytestmark = pytest.mark.kernel


@pytest.fixture
def pair(world):
    """A namespace's name and a link's: one end of a veth pair with GRO off."""
    where = world.namespace()
    world.veth("dv0", "dv1", netns_a=where, netns_b=where)
    return where, "dv0"


def observed(where, name):
    snapshot = collect(netns=where, probes=(), settings=True)
    return next(one for one in snapshot.links() if one.name == name)


def changes(where, name, **settings):
    return device.settings_changes(observed(where, name), device.DeviceSettings(**settings), netns=where)


def test_settings_are_those_that_ethtool_and_ip_see_and_a_second_time_changes_nothing(world, pair):
    where, name = pair
    wanted = {"mtu": 1400, "features": {"gro": True, "tso": False}}
    device.apply_all(changes(where, name, **wanted))
    told = world.run("ethtool", "-k", name, netns=where).stdout
    assert "generic-receive-offload: on" in told
    assert "tcp-segmentation-offload: off" in told
    assert "mtu 1400" in world.run("ip", "link", "show", name, netns=where).stdout
    assert changes(where, name, **wanted) == []


def test_a_refused_step_takes_back_those_before_it(pair, monkeypatch):
    where, name = pair
    before = observed(where, name)
    planned = changes(where, name, mtu=1400, features={"gro": True})

    def refuse(_ifindex, _values):
        raise NetlinkError("setting the features of dv0: no", errno=22, extack="no")

    kinds = device_execute.KINDS
    monkeypatch.setitem(kinds, "device.features", kinds["device.features"]._replace(send=refuse))
    with pytest.raises(NetlinkError, match="put back: mtu of dv0") as caught:
        device.apply_all(planned)
    assert caught.value.extack == "no"
    after = observed(where, name)
    assert (after.mtu, after.features) == (before.mtu, before.features)


def test_a_device_that_vanishes_half_way_is_told_so(pair):
    where, name = pair
    planned = changes(where, name, mtu=1400, features={"gro": True})

    def vanish(change):
        if change.kind == "device.features":
            with netns.enter(where):
                links.delete(name)

    with pytest.raises(NotFoundError, match="no such interface: dv0"):
        device.apply_all(planned, vanish, Context())
