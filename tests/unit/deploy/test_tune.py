"""`driver tune`: from a device as it is to what a use needs, for drivers that no machine here has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xdpctl.deploy import tune as tuning
from xdpctl.deploy.device_commands import words_of
from xdpctl.deploy.device_limits import MisfitError
from xdpctl.deploy.tune import Use, tune
from xdpctl.errors import ConfigError
from xdpctl.host.model import (
    Caller,
    Channels,
    Feature,
    Kernel,
    Link,
    Namespace,
    Peer,
    Rings,
    Snapshot,
    Xdp,
)

ON, OFF, FIXED = Feature(True, True, False), Feature(False, False, False), Feature(True, True, True)
CTRL_GUEST_OFFLOADS = "00100000" * 8
READY = 0x67


def link(name="eth0", driver="ixgbe", kind=None, **fields):
    known = {
        "ifindex": 7 if name == "eth0" else 8,
        "name": name,
        "netns": 1,
        "kind": kind,
        "driver": driver,
        "flags": 0x10041,
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
        "real_rx_queues": 4,
        "real_tx_queues": 4,
        "features": {"rx-gro": ON, "rx-lro": OFF, "rx-gro-hw": OFF},
        "rings": Rings(rx=512, tx=512, rx_max=4096, tx_max=4096),
        "channels": Channels(combined=4, combined_max=8),
        "xdp_features": READY,
        "napi_defaults": {"threaded": 0, "defer-hard-irqs": 0, "gro-flush-timeout": 0},
    }
    return Link(**{**known, **fields})


def machine(*links, cpus=4, version=(6, 18, 0)):
    kernel = Kernel(".".join(map(str, version)), version, "x86_64", 4096, True, features={"frags": True})
    return Snapshot(
        "2026-01-01T00:00:00+00:00",
        kernel,
        Caller(0, ()),
        cpus,
        cpus,
        (Namespace(1, None, current=True, links=links),),
    )


def tuned(one, use="xdp-native", *others, cpus=4, version=(6, 18, 0), **more):
    return tune(machine(one, *others, cpus=cpus, version=version), one.ref, Use(use, **more))


def settings(plan):
    return [word for one in plan.advice for word in one.settings]


SICK = [
    ("virtio_net", {"virtio_features": CTRL_GUEST_OFFLOADS, "mtu": 4000}, ["mtu=3506"]),
    (
        "virtio_net",
        {
            "virtio_features": CTRL_GUEST_OFFLOADS,
            "channels": Channels(combined=8, combined_max=8),
        },
        ["channels.combined=4"],
    ),
    ("igb", {"mtu": 3100}, ["mtu=3046"]),
    ("vmxnet3", {"mtu": 3600}, ["mtu=3494"]),
    ("vmxnet3", {"features": {"rx-lro": ON}}, ["lro=off"]),
    ("ixgbe", {"mtu": 9000, "features": {"rx-lro": ON}}, ["mtu=3050", "lro=off"]),
    (
        "mlx5_core",
        {"mtu": 9000, "features": {"rx-lro": OFF, "rx-gro-hw": ON}},
        ["mtu=3498", "rx-gro-hw=off"],
    ),
    (
        "bnxt_en",
        {"channels": Channels(rx=4, tx=4, combined_max=8)},
        ["channels.rx=0", "channels.tx=0", "channels.combined=4"],
    ),
    ("bnxt_en", {"rings": Rings(rx=512, rx_max=2048, tcp_data_split="on")}, ["tcp-data-split=off"]),
]


@pytest.mark.parametrize(("driver", "fields", "wanted"), SICK)
def test_each_driver_gets_what_it_needs_and_has_nothing_against_it_then(driver, fields, wanted):
    plan = tuned(link(driver=driver, **fields))
    assert settings(plan) == wanted
    assert plan.changes
    assert all(one.why and one.finding and one.references for one in plan.advice)
    assert plan.left == ()


@pytest.mark.parametrize("driver", sorted({one[0] for one in SICK}))
def test_a_healthy_device_needs_nothing(driver):
    more = {"virtio_features": CTRL_GUEST_OFFLOADS} if driver == "virtio_net" else {}
    plan = tuned(link(driver=driver, **more))
    assert (plan.advice, plan.changes, plan.left) == ((), (), ())


def test_a_program_with_frags_keeps_its_mtu():
    assert settings(tuned(link(driver="mlx5_core", mtu=9000), frags=True)) == []


def test_what_no_setting_changes_is_left_with_its_reason():
    plan = tuned(link(driver="ixgbe", features={"rx-lro": FIXED}, sriov_vfs=2))
    assert plan.changes == ()
    assert plan.fails
    assert {one.finding for one in plan.left} == {"attach.driver-receive-offload", "attach.driver-sriov"}
    assert any("sriov_numvfs" in way for one in plan.left for way in one.ways)


def test_a_virtio_device_without_control_of_offloads_is_the_hypervisors_matter():
    plan = tuned(link(driver="virtio_net", virtio_features="01000001" + "0" * 56))
    assert plan.fails
    assert any("QEMU" in way for one in plan.left for way in one.ways)


def test_a_redirects_target_that_wants_a_program_is_told_so_with_the_command():
    plan = tuned(link(driver="igb"), "xdp-redirect")
    assert [one.finding for one in plan.left] == []  # xdp-features say that it is ready
    plan = tuned(link(driver="igb", xdp_features=0x23), "xdp-redirect")
    assert [one.finding for one in plan.left] == ["redirect.target-needs-program"]
    assert plan.left[0].ways[0].startswith("xdpctl attach --mode native eth0 ")


def test_redirects_to_mlx5_want_a_channel_for_each_cpu():
    assert settings(tuned(link(driver="mlx5_core"), "xdp-redirect", cpus=8)) == ["channels.combined=8"]
    assert settings(tuned(link(driver="mlx5_core"), "xdp-redirect", cpus=4)) == []


def veths(**peer):
    one = link("eth0", "veth", "veth", peer=Peer(8, 1), xdp_features=0x23)
    other = link("eth1", "veth", "veth", peer=Peer(7, 1), **{"features": {"rx-gro": OFF}, **peer})
    return one, other


def test_a_veth_gets_its_peers_gro_and_the_change_is_the_peers():
    one, other = veths()
    plan = tuned(one, "xdp-redirect", other)
    assert [(each.interface, each.settings) for each in plan.advice] == [("eth1", ("gro=on",))]
    assert [(each.target, each.after) for each in plan.changes] == [("eth1", {"rx-gro": True})]
    assert plan.left == ()


def test_a_veth_whose_features_are_stale_is_toggled_off_and_on():
    one, other = veths(features={"rx-gro": ON})
    plan = tuned(one, "xdp-redirect", other)
    assert [each.after for each in plan.changes] == [{"rx-gro": False}, {"rx-gro": True}]


def test_a_peer_that_is_down_goes_up_first():
    one, other = veths(flags=0)
    plan = tuned(one, "xdp-redirect", other)
    assert [each.kind for each in plan.changes] == ["device.up", "device.features"]


def test_before_5_13_only_a_program_helps_a_veth():
    one, other = veths()
    plan = tuned(replace(one, xdp_features=None), "xdp-redirect", other, version=(5, 10, 0))
    assert plan.changes == ()
    assert any(way.startswith("xdpctl attach --mode native eth1") for each in plan.left for way in each.ways)


def test_a_peer_in_another_namespace_is_set_there():
    one, other = veths()
    far = replace(other, netns=2)
    near = replace(one, peer=Peer(8, 2))
    snapshot = machine(near)
    spaces = (*snapshot.namespaces, Namespace(2, "blue", current=False, links=(far,)))
    plan = tune(replace(snapshot, namespaces=spaces), near.ref, Use("xdp-redirect"))
    assert [each.netns for each in plan.changes] == ["blue"]
    assert plan.advice[0].command == "xdpctl driver set --netns blue eth1 gro=on"


def test_af_xdp_gets_deferred_interrupts_and_the_queues_that_have_sockets():
    plan = tuned(link(driver="i40e", xdp_features=READY | 8), "af-xdp", queues=1)
    assert settings(plan) == ["channels.combined=1", "napi.defer-hard-irqs=2", "napi.gro-flush-timeout=200us"]
    assert plan.left == ()
    again = link(
        driver="i40e",
        xdp_features=READY | 8,
        channels=Channels(combined=1, combined_max=8),
        real_rx_queues=1,
        napi_defaults={"threaded": 0, "defer-hard-irqs": 1, "gro-flush-timeout": 20000},
    )
    assert tuned(again, "af-xdp", queues=1).changes == ()


def test_a_device_that_cannot_be_made_fit_is_not_made_faster():
    plan = tuned(link(driver="ixgbe", sriov_vfs=2), "af-xdp", queues=1)
    assert plan.fails
    assert plan.changes == ()


def test_af_xdp_tells_of_copies_and_of_queues_that_nobody_listens_to():
    plan = tuned(link(driver="igb"), "af-xdp")
    assert not plan.fails
    said = " ".join(one.why for one in plan.left)
    assert "no xsk-zerocopy" in said
    assert "receives on 4 queues" in said


def test_more_queues_than_there_are_is_refused():
    with pytest.raises(MisfitError, match="at most 8"):
        tuned(link(), "af-xdp", queues=9)
    with pytest.raises(ConfigError, match="does not let them be set"):
        tuned(link(channels=None), "af-xdp", queues=2)


def test_a_program_that_is_attached_already_is_no_obstacle():
    assert tuned(link(xdp=Xdp(native=5))).left == ()


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        ("ethtool -K eth0 lro off rx-gro-hw off", ("eth0", ("features.lro=off", "features.rx-gro-hw=off"))),
        ("ethtool -L eth0 rx 0 combined 4", ("eth0", ("channels.rx=0", "channels.combined=4"))),
        ("ethtool -G eth0 rx 512", ("eth0", ("rx-ring=512",))),
        ("ethtool -G eth0 tcp-data-split off", ("eth0", ("tcp-data-split=off",))),
        ("ethtool --set-priv-flags eth0 legacy-rx off", ("eth0", ("flag.legacy-rx=off",))),
        ("ip link set dev eth0 mtu 1500", ("eth0", ("mtu=1500",))),
        ("ip link set dev eth0 up", ("eth0", ("up=on",))),
        ("ip link set dev eth0 xdpdrv off", None),
        ("bpftool link detach id 4", None),
        ("xdpctl attach --mode native eth0 builtin:pass", None),
        ("ethtool -N eth0 rx-flow-hash udp4", None),
    ],
)
def test_a_fix_of_doctor_becomes_settings_or_stays_a_command(argv, meant):
    assert words_of(argv.split()) == meant


def test_every_use_is_known_to_the_completion():
    from xdpctl.cli import complete

    assert sorted(tuning.USES) == complete.use("")
