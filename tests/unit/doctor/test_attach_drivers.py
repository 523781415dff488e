"""The table of driver limits: its numbers for 4K pages, and each condition with its healthy twin."""

import pytest

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachXdp
from xdpctl.doctor.rules import judge
from xdpctl.doctor.rules.attach_drivers import BY_KEY
from xdpctl.doctor.rules.driver_conditions import CONDITIONS
from xdpctl.doctor.rules.driver_limits import MTU_LIMITS, REFUSALS
from xdpctl.host.model import Channels, Feature, Rings

BITS = 64


def attach(host, name="eth", **more):
    return judge(host.snapshot(), [AttachXdp(host.links[name].ref, "native", "prog", **more)])


def nic(machine, driver, version=(6, 18, 0), *, cpus=4, page_size=4096, arch="x86_64", **fields):
    host = machine(version=version, cpus=cpus, page_size=page_size, arch=arch)
    fields = {"xdp_features": 0x23 if version >= (6, 3) else None, **fields}
    if driver == "virtio_net":
        fields.setdefault("virtio_features", virtio(2))
    host.link("eth", None, driver=driver, **fields)
    return host


def virtio(*bits):
    return "".join("1" if bit in bits else "0" for bit in range(BITS))


LARGEST = {
    ("virtio_net", (6, 18, 0)): (3506, "EINVAL"),
    ("virtio_net", (6, 1, 0)): (4064, "EINVAL"),
    ("ixgbe", (6, 18, 0)): (3050, "EINVAL"),
    ("ixgbevf", (6, 18, 0)): (3050, "EINVAL"),
    ("i40e", (6, 18, 0)): (3046, "EINVAL"),
    ("ice", (6, 18, 0)): (3046, "EOPNOTSUPP"),
    ("igb", (6, 18, 0)): (3046, "EINVAL"),
    ("igc", (6, 18, 0)): (1500, "EOPNOTSUPP"),
    ("st_gmac", (6, 18, 0)): (1500, "EOPNOTSUPP"),
    ("mlx5_core", (6, 18, 0)): (3498, "EINVAL"),
    ("mlx4_en", (6, 18, 0)): (3498, "EOPNOTSUPP"),
    ("bnxt_en", (6, 18, 0)): (3502, "EOPNOTSUPP"),
    ("ena", (6, 18, 0)): (3498, "EINVAL"),
    ("mana", (6, 18, 0)): (3506, "EOPNOTSUPP"),
    ("hv_netvsc", (6, 18, 0)): (3506, "EOPNOTSUPP"),
    ("vmxnet3", (6, 18, 0)): (3494, "EOPNOTSUPP"),
    ("xen_netfront", (6, 18, 0)): (3840, "EINVAL"),
    ("mvneta", (6, 18, 0)): (3520, "EOPNOTSUPP"),
    ("rvu-nicpf", (6, 18, 0)): (1508, "EOPNOTSUPP"),
    ("nicvf", (6, 18, 0)): (1508, "EOPNOTSUPP"),
    ("ionic", (6, 18, 0)): (3502, "EINVAL"),
    ("netdevsim", (6, 18, 0)): (4000, "EINVAL"),
    ("atlantic", (6, 18, 0)): (2048, "EOPNOTSUPP"),
}


@pytest.mark.parametrize(("driver", "version"), LARGEST)
def test_the_largest_mtu_of_4k_pages_passes_and_one_more_is_refused(machine, driver, version):
    largest, errno = LARGEST[driver, version]
    assert attach(nic(machine, driver, version, mtu=largest)) == []
    (finding,) = attach(nic(machine, driver, version, mtu=largest + 1))
    assert (finding.id, finding.status, finding.errno) == ("attach.driver-mtu", Status.FAIL, errno)
    assert finding.fix[0].argv == ("ip", "link", "set", "dev", "eth", "mtu", str(largest))
    assert finding.fix[0].inverse[-1] == str(largest + 1)


def test_frags_lift_the_limit_where_the_driver_has_them(machine):
    for driver in ("virtio_net", "i40e", "ice", "mlx5_core", "bnxt_en", "mvneta", "ionic"):
        assert attach(nic(machine, driver, mtu=9000), frags=True) == [], driver
    for driver in ("ixgbe", "igb", "ena", "mana", "vmxnet3"):
        assert attach(nic(machine, driver, mtu=9000), frags=True), driver
    assert attach(nic(machine, "ice", (6, 1, 0), mtu=9000), frags=True)


def test_page_size_and_cache_line_enter_the_limit(machine):
    largest = {
        ("mlx5_core", 65536, "aarch64"): 65536 - 320 - 256 - 22,
        ("mlx5_core", 65536, "ppc64le"): 65536 - 384 - 256 - 22,
        ("ena", 65536, "aarch64"): 16384 - 320 - 256 - 22,
        ("igb", 65536, "aarch64"): 2048 - 26,
    }
    for (driver, page, arch), mtu in largest.items():
        assert attach(nic(machine, driver, page_size=page, arch=arch, mtu=mtu)) == []
        assert attach(nic(machine, driver, page_size=page, arch=arch, mtu=mtu + 1))


def test_legacy_rx_makes_the_limit_smaller_and_is_named(machine):
    for driver, largest in (("i40e", 1702), ("ice", 1638)):
        flags = {"legacy-rx": True}
        assert attach(nic(machine, driver, mtu=largest, private_flags=flags)) == []
        (finding,) = attach(nic(machine, driver, mtu=largest + 1, private_flags=flags))
        assert any("legacy-rx off" in one for one in finding.alternatives)


def test_fbnic_compares_with_its_header_split_threshold(machine):
    assert attach(nic(machine, "fbnic", rings=Rings(hds_thresh=1536))) == []
    assert attach(nic(machine, "fbnic", rings=Rings(hds_thresh=512)))[0].id == "attach.driver-mtu"
    assert attach(nic(machine, "fbnic", rings=Rings())) == []


ON = {"rx-lro": Feature(True, True, False)}
SICK = {
    ("ixgbe", "receive-offload"): {"features": ON},
    ("ixgbe", "sriov"): {"sriov_vfs": 2},
    ("ixgbe", "cpus"): {"cpus": 256},
    ("mlx5_core", "receive-offload"): {"features": {"rx-gro-hw": Feature(True, True, False)}},
    ("gve", "receive-offload"): {"features": ON},
    ("gve", "queues"): {"channels": Channels(rx=4, tx=4, rx_max=4, tx_max=4)},
    ("hv_netvsc", "receive-offload"): {"features": ON},
    ("bnxt_en", "header-split"): {"rings": Rings(tcp_data_split="on"), "frags": True},
    ("bnxt_en", "queues"): {"channels": Channels(rx=4, tx=4, combined_max=8)},
    ("ionic", "queues"): {"channels": Channels(rx=4, tx=4, combined_max=8)},
    ("ena", "queues"): {"channels": Channels(combined=8, combined_max=8)},
    ("mvpp2", "queues"): {"num_tx_queues": 4},
    ("fsl_enetc", "queues"): {"num_tx_queues": 4},
    ("nicvf", "queues"): {"channels": Channels(rx=8, tx=8, rx_max=8, tx_max=8)},
    ("virtio_net", "hypervisor"): {"virtio_features": virtio(1, 7)},
}


@pytest.mark.parametrize(("driver", "key"), SICK)
def test_each_condition_is_refused_and_its_healthy_twin_is_not(machine, driver, key):
    sick = dict(SICK[driver, key])
    frags = sick.pop("frags", False)
    ids = [one.id for one in attach(nic(machine, driver, **sick), frags=frags) if one.status is Status.FAIL]
    assert ids == [BY_KEY[key].id]
    healthy = {"num_tx_queues": 64} if "num_tx_queues" in sick else {}
    assert attach(nic(machine, driver, **healthy), frags=frags) == []


def test_a_fixed_offload_is_no_command_but_words(machine):
    host = nic(machine, "hv_netvsc", features={"rx-lro": Feature(True, True, True)})
    (finding,) = attach(host)
    assert finding.fix == ()
    assert any("[fixed]" in one for one in finding.alternatives)


def test_vmxnet3_with_lro_succeeds_and_is_only_a_warning(machine):
    (finding,) = attach(nic(machine, "vmxnet3", features=ON))
    assert (finding.status, finding.errno) == (Status.WARN, None)


def test_virtio_offloads_that_the_guest_may_switch_are_no_trouble(machine):
    assert attach(nic(machine, "virtio_net", virtio_features=virtio(1, 2, 7, 15, 32))) == []
    (finding,) = attach(nic(machine, "virtio_net", virtio_features=virtio(2, 15)))
    assert "any_header_sg" in finding.extack


def test_virtio_features_that_were_not_read_are_unknown(machine):
    (finding,) = attach(nic(machine, "virtio_net", virtio_features=None))
    assert finding.status is Status.UNKNOWN
    assert any("device/features" in one for one in finding.alternatives)


def test_too_few_virtio_queues_fail_before_5_13_and_are_slow_since(machine):
    few = Channels(combined=2, combined_max=4)
    (finding,) = attach(nic(machine, "virtio_net", (5, 10, 0), channels=few))
    assert (finding.status, finding.errno) == (Status.FAIL, "ENOMEM")
    (finding,) = attach(nic(machine, "virtio_net", channels=few))
    assert finding.status is Status.WARN


def test_what_only_can_be_suspected_is_unknown(machine):
    (finding,) = attach(nic(machine, "idpf", channels=Channels(combined=8, combined_max=8)))
    assert finding.status is Status.UNKNOWN
    flags = {"rx_striding_rq": True}
    (finding,) = attach(nic(machine, "mlx5_core", mtu=9000, private_flags=flags), frags=True)
    assert finding.status is Status.UNKNOWN


def test_generic_mode_asks_no_driver(machine):
    host = nic(machine, "mlx5_core", mtu=9000)
    assert judge(host.snapshot(), [AttachXdp(host.links["eth"].ref, "generic", "prog")]) == []


def test_auto_falls_back_to_generic_and_says_why(machine):
    host = nic(machine, "mlx5_core", mtu=9000)
    (finding,) = judge(host.snapshot(), [AttachXdp(host.links["eth"].ref, "auto", "prog")])
    assert finding.status is Status.WARN
    assert "falls back to generic" in finding.consequence


def test_every_row_names_a_condition_and_rows_of_a_driver_follow_each_other_in_time():
    assert {row.condition for row in REFUSALS} <= set(CONDITIONS)
    assert {row.mistake for row in REFUSALS} == set(BY_KEY)
    for row in MTU_LIMITS:
        twins = [one for one in MTU_LIMITS if set(one.drivers) & set(row.drivers) and one is not row]
        for twin in twins:
            assert row.until <= twin.since or twin.until <= row.since, row.drivers
