"""`xdpctl driver show` of real veths: what is attached, how they are set, and the room that XDP has."""

from __future__ import annotations

import pytest
from kernels import CHANNELS_OF_VETH, NETDEV
from live import running

pytestmark = pytest.mark.kernel


@pytest.fixture
def space(world):
    made = world.namespace()
    world.veth("sh0", "sh1", netns_a=made, netns_b=made)
    return made


def test_a_sheet_tells_mode_features_limits_and_queues(space, xdpctl):
    with running("pass", "sh0", netns_name=space):
        told = xdpctl("driver", "show", "sh0", "--netns", space, "--json", check=True).json()
        text = xdpctl("driver", "show", "sh0", "--netns", space, check=True).stdout.splitlines()
    (one,) = told["devices"]
    assert (one["interface"], one["netns"], one["driver"], one["xdp_mode"]) == (
        "sh0",
        space,
        "veth",
        ["native"],
    )
    assert (one["mtu"]["now"], one["headroom"]["mtu"]["of"], one["headroom"]["mtu"]["bytes"] >= 3500) == (
        1500,
        "peer",
        True,
    )
    if CHANNELS_OF_VETH:
        assert (one["headroom"]["rx_queues"], one["headroom"]["tx_queues"]) == (1, 1)
    assert one["pool_size"] == 256
    assert (one["xdp_features"] is not None) is NETDEV
    assert not NETDEV or {"basic", "redirect"} <= set(one["xdp_features"])
    assert text[0] == "sh0  (veth, up)"
    assert "  XDP in force      native" in text
    assert any(line.startswith("  channels          rx 1") for line in text) is CHANNELS_OF_VETH


def test_names_and_globs_choose_and_none_means_all(space, xdpctl):
    def names(*asked):
        found = xdpctl("driver", "show", *asked, "--netns", space, "--json", check=True).json()["devices"]
        return sorted(one["interface"] for one in found)

    assert names() == ["lo", "sh0", "sh1"]
    assert names("sh*") == ["sh0", "sh1"]
    assert names("sh1", "lo") == ["lo", "sh1"]
    done = xdpctl("driver", "show", "sh2", "--netns", space)
    assert done.returncode == 2
    assert "sh0" in done.stderr
