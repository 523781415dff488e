"""`xdpctl driver tune` on veths: a mistake made, tuned, and what did not work works; a healthy device needs nothing."""

from __future__ import annotations

import secrets
import socket

import pytest
from kernels import CHANNELS_OF_VETH, FRAGS, GRO_STARTS_NAPI
from live import running, until

from xdpctl.deploy import device_execute
from xdpctl.deploy.all_or_none import apply_all
from xdpctl.deploy.tune import Use, tune
from xdpctl.errors import NetlinkError
from xdpctl.host.collect import collect
from xdpctl.netlink import netns

pytestmark = pytest.mark.kernel

ETH_P_ALL = 3
BROADCAST = b"\xff" * 6


@pytest.fixture
def route(world):
    """wire -> eth, which redirects, -> veth_xxx0, whose other end is veth_yyy0 in a container."""
    here, there, outside = world.namespace(), world.namespace(), world.namespace()
    world.veth("eth", "wire", netns_a=here, netns_b=outside)
    world.veth("veth_xxx0", "veth_yyy0", netns_a=here, netns_b=there)
    return here, there, outside


def raw(name, space):
    with netns.enter(space):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind((name, 0))
    made.setblocking(False)
    return made


def arrives(route, seconds: float = 5) -> bool:
    """Whether one of a few frames from the wire comes out in the container."""
    _here, there, outside = route
    payload = secrets.token_bytes(60)

    def heard() -> bool:
        try:
            while True:
                if payload in listener.recv(2048):
                    return True
        except BlockingIOError:
            return False

    with raw("veth_yyy0", there) as listener, raw("wire", outside) as sender:
        for _ in range(8):
            sender.send(BROADCAST + BROADCAST[:5] + b"\xfe\x88\xb5" + payload)
        return until(heard, seconds)


def test_a_redirect_that_was_lost_arrives_after_tuning(route, xdpctl, world):
    here, there, _ = route
    asked = ("driver", "tune", "veth_xxx0", "--for", "xdp-redirect", "--netns", here)
    with running("redirect", "eth", netns_name=here, target="veth_xxx0"):
        assert not arrives(route, 0.2)
        told = xdpctl(*asked, "--json").json()
        assert (told["applied"], told["for"]) == (False, "xdp-redirect")
        if GRO_STARTS_NAPI:
            (advice,) = told["advice"]
            assert (advice["finding"], advice["settings"]) == ("redirect.veth-peer-napi", ["gro=on"])
            assert advice["command"] == f"xdpctl driver set --netns {there} veth_yyy0 gro=on"
            done = xdpctl(*asked, "--yes", check=True)
            assert "rx-gro   off     on" in done.stdout
            assert (
                "generic-receive-offload: on" in world.run("ethtool", "-k", "veth_yyy0", netns=there).stdout
            )
        else:  # only a program gives a veth its NAPI, and that is no setting
            (left,) = told["left"]
            assert left["fails"]
            assert told["changes"] == []
            world.run("sh", "-c", left["ways"][0])
        assert arrives(route)
    again = xdpctl(*asked, "--yes", "--json", check=True).json()
    assert (again["advice"], again["changes"], again["left"]) == ([], [], [])


def test_an_attach_that_was_refused_works_after_tuning(world, xdpctl):
    space = world.namespace()
    world.veth("ta", "tb", netns_a=space, netns_b=space, mtu=9000)
    attach = ("attach", "--netns", space, "--mode", "native", "ta", "builtin:pass")
    assert xdpctl(*attach).returncode != 0
    done = xdpctl("driver", "tune", "ta", "--for", "xdp-native", "--netns", space)
    assert done.returncode == 0
    assert "mtu      9000    3" in done.stdout
    assert "nothing was changed: --yes applies this" in done.stdout
    assert "mtu 9000" in world.ip("link show tb", space), "only shown"
    xdpctl("driver", "tune", "ta", "--for", "xdp-native", "--netns", space, "--yes", check=True)
    xdpctl(*attach, check=True)
    assert "mtu 9000" in world.ip("link show ta", space), "only the peer's counts"


@pytest.mark.parametrize("use", ["xdp-native", "af-xdp"])
def test_a_healthy_veth_needs_nothing(world, xdpctl, use):
    space = world.namespace()
    world.veth("ta", "tb", netns_a=space, netns_b=space)
    told = xdpctl(
        "driver", "tune", "ta", "--for", use, "--netns", space, "--yes", "--json", check=True
    ).json()
    assert (told["advice"], told["changes"], told["applied"]) == ([], [], False)
    assert not any(one["fails"] for one in told["left"])


def test_frags_keep_a_jumbo_mtu(world, xdpctl):
    space = world.namespace()
    world.veth("ta", "tb", netns_a=space, netns_b=space, mtu=9000)
    done = xdpctl("driver", "tune", "ta", "--for", "xdp-native", "--frags", "--netns", space, "--json")
    told = done.json()
    assert told["advice"] == []
    assert any(one["fails"] for one in told["left"]) is not FRAGS, "before 5.18 there are no such programs"


def test_sockets_on_one_queue_make_it_receive_on_one(world, xdpctl):
    space = world.namespace()
    world.veth("ta", "tb", netns_a=space, netns_b=space, numrxqueues=2, numtxqueues=1)
    asked = ("driver", "tune", "ta", "--for", "af-xdp", "--netns", space, "--queues")
    if not CHANNELS_OF_VETH:
        assert "does not let them be set" in xdpctl(*asked, "2").stderr
        return
    world.run("ethtool", "-L", "ta", "rx", "2", netns=space)
    xdpctl(*asked, "1", "--yes", check=True)
    assert "\nRX:\t\t1\n" in world.run("ethtool", "-l", "ta", netns=space).stdout.split("Current")[1]
    done = xdpctl(*asked, "3")
    assert done.returncode != 0
    assert "at most 2" in done.stderr


def test_a_device_that_no_setting_helps_is_said_to_be_one(xdpctl):
    done = xdpctl("driver", "tune", "lo", "--for", "xdp-native")
    assert done.returncode == 1
    assert "loopback has no ndo_bpf" in done.stdout
    assert xdpctl("driver", "tune", "nowhere", "--for", "xdp-native").returncode == 2
    assert xdpctl("driver", "tune", "lo", "--for", "speed").returncode == 2


def test_a_tuning_that_is_refused_half_way_is_taken_back_as_a_whole(world, monkeypatch):
    space = world.namespace()
    world.veth("ta", "tb", netns_a=space, netns_b=space, mtu=9000)
    snapshot = collect(netns="all", probes=("frags",), settings=True)
    link = snapshot.named("ta", snapshot.namespace_named(space).inode)
    planned = tune(snapshot, link.ref, Use("xdp-redirect")).changes
    assert [one.kind for one in planned] == ["device.mtu", "device.features"][: 1 + GRO_STARTS_NAPI]
    refused = planned[-1].kind

    def refuse(_ifindex, _values):
        raise NetlinkError("no", errno=22)

    monkeypatch.setitem(device_execute.KINDS, refused, device_execute.KINDS[refused]._replace(send=refuse))
    with pytest.raises(NetlinkError, match="^no; put back: mtu of tb" if GRO_STARTS_NAPI else "^no$"):
        apply_all(planned)
    assert "mtu 9000" in world.ip("link show tb", space)
