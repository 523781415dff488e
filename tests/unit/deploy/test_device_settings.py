"""From a device as it is to the settings wanted: which changes, in which order, and what a device can't take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpctl.deploy.device import DeviceSettings, settings_changes
from xdpctl.deploy.device_limits import MisfitError, misfits
from xdpctl.deploy.device_rings import rounded
from xdpctl.host.model import Channels, Feature, Link, Napi, Pause, Rings, Xdp

ON, OFF, FIXED = Feature(True, True, False), Feature(False, False, False), Feature(False, False, True)


def card(driver="ixgbe", kind=None, **fields):
    """A network card that is up, with the settings that drivers have."""
    known = {
        "ifindex": 7,
        "name": "eth7",
        "netns": 1,
        "kind": kind,
        "driver": driver,
        "flags": 1,
        "operstate": "up",
        "type": 1,
        "mtu": 1500,
        "min_mtu": 68,
        "max_mtu": 9710,
        "address": None,
        "master": None,
        "peer": None,
        "lower": None,
        "num_rx_queues": 8,
        "num_tx_queues": 8,
        "real_rx_queues": 8,
        "real_tx_queues": 8,
        "features": {"rx-gro": ON, "rx-lro": ON, "rx-gro-hw": FIXED, "tx-tcp-segmentation": ON},
        "rings": Rings(rx=512, tx=512, rx_max=4096, tx_max=4096, tcp_data_split="unknown"),
        "channels": Channels(combined=8, combined_max=16),
        "coalesce": {"rx-usecs": 50, "adaptive-rx": 1},
        "pause": Pause(rx=True),
        "private_flags": {"legacy-rx": False},
        "napi_defaults": {"threaded": 0, "defer-hard-irqs": 0, "gro-flush-timeout": 0},
    }
    return Link(**{**known, **fields})


def made(link, **wanted):
    return settings_changes(link, DeviceSettings(**wanted))


def kinds(link, **wanted):
    return [one.kind.partition(".")[2] for one in made(link, **wanted)]


def test_what_holds_already_is_no_change():
    held = {
        "up": True,
        "mtu": 1500,
        "rings": {"rx": 512, "tcp-data-split": "auto"},
        "channels": {"combined": 8},
        "features": {"gro": True},
        "coalesce": {"adaptive-rx": True},
        "pause": {"rx": True},
        "private_flags": {"legacy-rx": False},
        "napi": {"threaded": "off"},
    }
    assert made(card(), **held) == []


def test_a_change_holds_only_what_differs_and_what_was_there():
    (one,) = made(card(), rings={"rx": 512, "tx": 1024})
    assert (one.before, one.after) == ({"tx": 512}, {"tx": 1024})
    assert (one.target, one.ifindex) == ("eth7", 7)


def test_what_gives_room_comes_before_what_takes_it():
    wanted = {"mtu": 9000, "rings": {"rx": 4096}, "channels": {"combined": 4}, "features": {"lro": False}}
    assert kinds(card(), **wanted) == ["features", "channels", "rings", "mtu"]
    wanted = {"mtu": 1000, "rings": {"rx": 4096}, "channels": {"combined": 16}}
    assert kinds(card(), **wanted) == ["mtu", "rings", "channels"]


def test_merging_is_switched_on_last_and_napis_are_set_when_queues_are_there():
    off = card(features={"rx-lro": OFF})
    wanted = {"mtu": 1000, "features": {"lro": True}, "napi": {"threaded": "on"}, "channels": {"combined": 2}}
    assert kinds(off, **wanted) == ["channels", "mtu", "features", "napi"]


def test_a_card_goes_down_first_and_a_veth_last_for_its_features_want_it_up():
    wanted = {"up": False, "features": {"gro": False}}
    assert kinds(card(), **wanted) == ["up", "features"]
    assert kinds(card("veth", "veth"), **wanted) == ["features", "up"]


def test_a_short_name_changes_every_feature_behind_it_but_the_fixed():
    link = card(
        features={"tx-tcp-segmentation": ON, "tx-tcp6-segmentation": ON, "tx-tcp-ecn-segmentation": FIXED}
    )
    (one,) = made(link, features={"tso": False})
    assert one.after == {"tx-tcp-segmentation": False, "tx-tcp6-segmentation": False}


def test_a_ring_size_that_the_driver_rounds_is_what_it_will_become():
    assert [one.after for one in made(card(), rings={"rx": 1001})] == [{"rx": 1008}]
    assert made(card(rings=Rings(rx=1008, rx_max=4096)), rings={"rx": 1001}) == []
    assert rounded(card("e1000"), "rx", 1001) == 1001


@pytest.mark.parametrize(
    ("driver", "asked", "becomes"),
    [
        ("igb", 10, 64), ("igb", 4093, 4096), ("igc", 257, 264), ("ixgbe", 65, 72), ("i40e", 513, 544),
        ("ice", 100, 128), ("vmxnet3", 1000, 1024), ("mlx5_core", 1000, 1024), ("ena", 1000, 512), ("ena", 10, 256),
        ("virtio_net", 256, 256),
    ],
)  # fmt: skip
def test_each_driver_rounds_its_own_way(driver, asked, becomes):
    assert rounded(card(driver), "rx", asked) == becomes


def test_napis_that_differ_are_put_back_each_to_its_own():
    napis = (Napi(9, threaded=1), Napi(8, threaded=0))
    (one,) = made(card(napis=napis), napi={"threaded": "on"})
    assert one.before == {"threaded": ["off", "on"]}
    assert one.inverse().after == one.before


@pytest.mark.parametrize(
    ("link", "wanted", "disturbs"),
    [
        (card(), {"rings": {"rx": 1024}}, "link"),
        (card(flags=0), {"rings": {"rx": 1024}}, "nothing"),
        (card("virtio_net"), {"rings": {"rx": 1024}}, "traffic"),
        (card(), {"up": False}, "link"),
        (card(), {"features": {"lro": False}}, "traffic"),
        (card(), {"features": {"gro": False}}, "nothing"),
        (card("veth", "veth"), {"mtu": 1400}, "nothing"),
    ],
)
def test_what_it_does_to_traffic_is_said_beforehand(link, wanted, disturbs):
    assert [one.disturbs for one in made(link, **wanted)] == [disturbs]


@pytest.mark.parametrize(
    ("link", "wanted", "said"),
    [
        (card(), {"mtu": 60}, "mtu=60: at least 68"),
        (card(), {"mtu": 9711}, "mtu=9711: at most 9710"),
        (card("veth", "veth", max_mtu=3506), {"mtu": 9000}, "at most 3506 with the XDP program"),
        (card(), {"rings": {"rx": 4097}}, "rx-ring=4097: at most 4096"),
        (card(), {"rings": {"tx": 0}}, "tx-ring=0: at least 1"),
        (card(), {"rings": {"rx-buf-len": 4096}}, "rx-buf-len=4096: its driver has no such setting"),
        (card("virtio_net"), {"rings": {"rx": 1000}}, "rx-ring=1000: a power of two, as 512 or 1024"),
        (card("i40e"), {"rings": {"rx": 32}}, "rx-ring=32: at least 64"),
        (card(rings=None), {"rings": {"rx": 1}}, "ixgbe has no rings that can be set"),
        (card(), {"channels": {"combined": 17}}, "channels.combined=17: at most 16"),
        (card("virtio_net", xdp=Xdp(native=5)), {"channels": {"combined": 4}}, "detach it first"),
        (card(), {"channels": {"rx": 1}}, "channels.rx=1: it has none of these, but combined"),
        (card(), {"channels": {"combined": 0}}, "at least one rx queue must stay"),
        (card(), {"features": {"rx-gro-hw": True}}, "rx-gro-hw=on: it is off [fixed]"),
        (card(), {"features": {"rx-gra": True}}, "did you mean .*rx-gro"),
        (card(), {"features": {"gro": True, "rx-gro": False}}, "contradicts gro=on"),
        (card(), {"coalesce": {"tx-usecs": 3}}, "its driver takes only rx-usecs, adaptive-rx"),
        (card(pause=None), {"pause": {"rx": True}}, "no pause settings"),
        (card(), {"private_flags": {"xdp": True}}, "no such private flag; it has legacy-rx"),
        (
            card(napi_defaults=None, flags=0),
            {"napi": {"threaded": "on"}},
            "not to be had here while it is down",
        ),
        (card(), {"napi": {"defer-hard-irqs": 1 << 31}}, "from 0 to 2147483647"),
    ],
)
def test_what_a_device_cannot_take_is_refused_before_anything_is_sent(link, wanted, said):
    with pytest.raises(MisfitError, match=said.replace("[", r"\[").replace("(", r"\(")):
        made(link, **wanted)


def test_every_misfit_is_told_at_once():
    with pytest.raises(MisfitError) as caught:
        made(card(), mtu=60, rings={"rx": 5000}, channels={"combined": 99})
    assert len(caught.value.misfits) == 3
    assert caught.value.to_json()["misfits"] == list(caught.value.misfits)


def test_channels_that_stay_are_no_matter_of_a_program():
    assert made(card("virtio_net", xdp=Xdp(native=5)), channels={"combined": 8}) == []


def test_packed_virtio_rings_take_any_size():
    packed = "0" * 34 + "1"
    assert not misfits(card("virtio_net", virtio_features=packed), DeviceSettings(rings={"rx": 1000}))


def test_a_fixed_feature_that_is_as_wanted_is_no_misfit():
    assert made(replace(card(), features={"rx-gro-hw": FIXED}), features={"rx-gro-hw": False}) == []
