"""Any device as a redirect's target: the core's checks, what drivers want, taps, bonds, and what only generic takes."""

import pytest

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachXdp, EmptySlot, Health, Redirect, UntoldTarget
from xdpctl.doctor.rules import judge
from xdpctl.doctor.rules.target_drivers import NATIVE_SINCE, NEVER, PROGRAM, TARGETS
from xdpctl.host.model import Bond, Channels, Feature, LinkRef, Problem, Qdisc, Tun


def redirect(host, name="out", source=None, **more):
    origin = host.links[source].ref if source else None
    return judge(host.snapshot(), [Redirect(origin, host.links[name].ref, **more)])


def ids(findings):
    return [one.id for one in findings]


def nic(machine, driver, version=(6, 18, 0), **fields):
    host = machine(version=version)
    host.link("out", None, driver=driver, **fields)
    return host


def test_an_ifindex_of_no_device_is_einval_in_either_mode(machine):
    host = machine()
    source = host.link("eth", None, driver="mlx5_core")
    for mode in ("native", "generic"):
        (finding,) = judge(host.snapshot(), [Redirect(source.ref, LinkRef(1, 99), mode)])
        assert (finding.id, finding.errno, finding.shows_in) == (
            "redirect.target-missing",
            "EINVAL",
            "xdp:xdp_redirect_err",
        )
    (finding,) = judge(host.snapshot(), [Redirect(None, LinkRef(55, 99))])
    assert finding.status is Status.UNKNOWN


def test_down_and_too_long_are_refused_in_either_mode(machine):
    host = nic(machine, "mlx5_core", xdp_features=0x67)
    assert redirect(host, frame_len=1518) == []
    (finding,) = redirect(host, frame_len=1519)
    assert (finding.id, finding.errno) == ("redirect.target-mtu", "EMSGSIZE")
    host.down("out")
    for mode in ("native", "generic"):
        (finding,) = redirect(host, mode=mode)
        assert (finding.id, finding.errno) == ("redirect.target-down", "ENETDOWN")
        assert finding.fix[0].argv[-1] == "up"


def test_a_larger_mtu_at_the_source_is_only_a_warning(machine):
    host = nic(machine, "mlx5_core", xdp_features=0x67)
    host.link("in", None, driver="mlx5_core", mtu=9000)
    (finding,) = redirect(host, source="in")
    assert (finding.id, finding.status) == ("redirect.target-mtu", Status.WARN)
    assert finding.fix[0].argv[-1] == "9000"


NEEDY = [name for name, row in TARGETS.items() if row.xmit == PROGRAM]


@pytest.mark.parametrize("driver", NEEDY)
def test_drivers_that_want_a_program_say_so_in_each_kernel_s_errno(machine, driver):
    row = TARGETS[driver]
    (finding,) = redirect(nic(machine, driver, xdp_features=0x23))
    assert (finding.id, finding.errno) == ("redirect.target-needs-program", "EOPNOTSUPP")
    assert finding.fix[0].argv[:4] == ("xdpctl", "attach", "--mode", "native")
    old = redirect(nic(machine, driver, (6, 1, 0)))
    if NATIVE_SINCE.get(driver, (0, 0)) > (6, 1):
        assert [(one.id, one.errno) for one in old] == [("redirect.target-no-xmit", "EOPNOTSUPP")]
        return
    if row.bare_worked:
        assert old == []
    else:
        assert [(one.errno, one.shows_in) for one in old] == [(row.bare, "xdp:xdp_devmap_xmit")]
    host = nic(machine, driver, (6, 1, 0))
    host.attach("out")
    assert redirect(host) == []
    assert redirect(nic(machine, driver, xdp_features=0x67)) == []


@pytest.mark.parametrize(
    "driver", [name for name, row in TARGETS.items() if row.xmit == NEVER and name != "loopback"]
)
def test_devices_without_ndo_xdp_xmit_never_take_native_redirects(machine, driver):
    for version, features in (((6, 18, 0), 1), ((6, 1, 0), None)):
        kind = driver if driver in ("bridge", "vlan", "macvlan", "tun", "ifb", "dummy", "veth") else None
        host = machine(version=version)
        host.link("out", kind, driver=driver, xdp_features=features, type=65534 if driver == "tun" else 1)
        (finding,) = redirect(host)
        assert (finding.id, finding.errno) == ("redirect.target-no-xmit", "EOPNOTSUPP")
        if driver not in ("bridge", "ifb", "netdevsim"):  # these would drop a generic one
            assert any("generic" in one for one in finding.alternatives)


def test_generic_redirect_asks_no_driver(machine):
    for driver in ("mlx4_en", "igb", "somenic"):
        assert redirect(nic(machine, driver, xdp_features=1), mode="generic") == []
    host = machine()
    host.link("out", None, type=772, driver=None)
    assert redirect(host, mode="generic") == []


def test_a_driver_nobody_knows_is_decided_by_its_features_or_unknown(machine):
    assert redirect(nic(machine, "newnic", xdp_features=0x67)) == []
    assert ids(redirect(nic(machine, "newnic", xdp_features=1))) == ["redirect.target-no-xmit"]
    (finding,) = redirect(nic(machine, "newnic", (6, 1, 0)))
    assert finding.status is Status.UNKNOWN


def test_mlx5_with_lro_loses_its_features_and_the_fix_is_to_switch_that_off(machine):
    (finding,) = redirect(
        nic(machine, "mlx5_core", xdp_features=0, features={"rx-lro": Feature(True, True, False)})
    )
    assert finding.fix[0].argv[:3] == ("ethtool", "-K", "out")


def test_several_buffers_need_ndo_xmit_sg(machine):
    big = {"multi_buffer": True, "frame_len": 6000}
    host = nic(machine, "mana", mtu=9000, xdp_features=0x7)
    (finding,) = redirect(host, **big)
    assert (finding.id, finding.errno) == ("redirect.target-no-sg", "EOPNOTSUPP")
    assert redirect(host, multi_buffer=True, frame_len=1500) == []
    assert redirect(nic(machine, "mana", mtu=9000, xdp_features=0x47), **big) == []
    (finding,) = redirect(nic(machine, "mana", (6, 1, 0), mtu=9000), **big)
    assert (finding.errno, finding.shows_in) == (None, None)


def test_fewer_channels_than_cpus_are_a_trap_where_queues_go_by_cpu(machine):
    host = nic(machine, "mlx5_core", xdp_features=0x67, channels=Channels(combined=2, combined_max=8))
    (finding,) = redirect(host)
    assert (finding.id, finding.status, finding.errno) == ("redirect.target-cpu-queues", Status.WARN, "ENXIO")
    assert finding.fix[0].argv == ("ethtool", "-L", "out", "combined", "4")
    assert (
        redirect(nic(machine, "igb", xdp_features=0x67, channels=Channels(combined=2, combined_max=8))) == []
    )


def test_an_empty_slot_returns_the_action_of_its_flags(machine):
    host = machine()
    source = host.link("eth", None, driver="igb")
    slot = EmptySlot(source.ref, "prog", "ports", "devmap", key=3, flags=0)
    (finding,) = judge(host.snapshot(), [slot])
    assert (finding.id, finding.status, finding.errno) == ("redirect.empty-slot", Status.FAIL, None)
    assert finding.shows_in == "xdp:xdp_exception"
    passes = EmptySlot(source.ref, "prog", "ports", "devmap", key=3, flags=2)
    (finding,) = judge(host.snapshot(), [passes])
    assert finding.status is Status.WARN
    assert "XDP_PASS" in finding.consequence


def test_a_target_that_only_runs_know_is_unknown(machine):
    host = machine()
    source = host.link("eth", None, driver="igb")
    (finding,) = judge(host.snapshot(), [UntoldTarget(source.ref, "prog", "global out", "--set out=IF")])
    assert finding.status is Status.UNKNOWN
    assert finding.alternatives == ("--set out=IF",)


# -- taps, ifb, bridges


def tap(machine, *, running=True, queues=None, kind="tap"):
    host = machine()
    flags = 0x1 | (0x10040 if running else 0)
    host.link(
        "out",
        "tun",
        flags=flags,
        type=1 if kind == "tap" else 65534,
        tun=Tun(kind, queues is not None, queues),
        xdp_features=7 if kind == "tap" else 0,
    )
    return host


def test_a_tap_wants_a_reader(machine):
    assert redirect(tap(machine)) == []
    assert redirect(tap(machine, queues=2)) == []
    for host in (tap(machine, running=False), tap(machine, queues=0)):
        (finding,) = redirect(host)
        assert (finding.id, finding.errno) == ("redirect.tap-no-reader", "ENXIO")
        (finding,) = redirect(host, mode="generic")
        assert (finding.id, finding.errno) == ("redirect.tap-no-reader", None)


def test_a_tun_takes_generic_redirects_with_a_warning(machine):
    (finding,) = redirect(tap(machine, kind="tun"), mode="generic")
    assert (finding.id, finding.status) == ("redirect.tun-gets-ethernet", Status.WARN)
    assert ids(redirect(tap(machine, kind="tun"))) == ["redirect.target-no-xmit"]


def test_ifb_and_an_empty_bridge_drop_generic_redirects(machine):
    host = machine()
    host.link("i", "ifb")
    bridge = host.link("b", "bridge")
    for name in ("i", "b"):
        assert ids(redirect(host, name, mode="generic")) == ["redirect.generic-driver-drop"]
    host.link("port", "veth", master=bridge.ifindex)
    assert redirect(host, "b", mode="generic") == []


# -- bonds


def bond(
    machine, mode="802.3ad", slaves=("igb",), features=0x67, policy=None, active=None, version=(6, 18, 0)
):
    host = machine(version=version)
    master = host.link("out", "bond", xdp_features=features, bond=Bond(mode, active, policy))
    for number, driver in enumerate(slaves):
        host.link(f"s{number}", None, driver=driver, master=master.ifindex, xdp_features=features)
    return host


def attach(host):

    return judge(host.snapshot(), [AttachXdp(host.links["out"].ref, "native", "prog")])


def test_bonding_modes_that_have_native_xdp(machine):
    for mode in ("balance-rr", "active-backup", "balance-xor", "802.3ad"):
        assert attach(bond(machine, mode)) == []
    for mode in ("broadcast", "balance-tlb", "balance-alb"):
        (finding,) = attach(bond(machine, mode))
        assert (finding.id, finding.errno) == ("attach.bond-mode", "EOPNOTSUPP")
    (finding,) = attach(bond(machine, policy="vlan+srcmac"))
    assert finding.fix[0].argv[-1] == "layer2"
    assert attach(bond(machine, "broadcast", version=(6, 12, 56)))[0].extack is None
    assert attach(bond(machine, "broadcast", version=(6, 12, 57)))[0].extack is not None


def test_a_slave_decides_for_its_bond(machine):
    assert ids(attach(bond(machine, slaves=("e1000e",)))) == ["attach.bond-slave-unable"]
    host = bond(machine)
    host.attach("s0")
    assert ids(attach(host)) == ["attach.bond-slave-busy"]
    host = bond(machine)
    host.change("s0", mtu=9000)
    (finding,) = attach(host)
    assert (finding.id, finding.interface) == ("attach.driver-mtu", "s0")


def test_bonds_before_5_15_have_no_native_xdp(machine):
    (finding,) = attach(bond(machine, features=None, version=(5, 10, 0)))
    assert (finding.id, finding.errno) == ("attach.no-native", "EOPNOTSUPP")


def test_a_bond_as_target(machine):
    assert redirect(bond(machine)) == []
    (finding,) = redirect(bond(machine, slaves=(), features=0))
    assert (finding.id, finding.errno) == ("redirect.bond-not-ready", "EOPNOTSUPP")
    (finding,) = redirect(bond(machine, "active-backup"))
    assert (finding.errno, finding.shows_in) == ("ENXIO", "xdp:xdp_devmap_xmit")
    assert redirect(bond(machine, "active-backup", active=11)) == []


# -- qdiscs and the machine


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((4, 19, 222), Status.WARN),
        ((5, 4, 6), Status.WARN),
        ((5, 4, 100), Status.UNKNOWN),
        ((5, 4, 188), None),
        ((5, 10, 41), Status.WARN),
        ((5, 10, 42), None),
        ((5, 12, 8), Status.WARN),
        ((5, 12, 9), None),
        ((5, 13, 0), None),
        ((6, 18, 0), None),
    ],
)
def test_pfifo_fast_gets_stuck_on_some_kernels(machine, version, status):
    host = nic(machine, "igb", version, qdiscs=(Qdisc("pfifo_fast", 0, 0xFFFFFFFF),))
    found = judge(host.snapshot(), [Health(host.links["out"].ref, named=True)])
    assert [one.status for one in found] == ([status] if status else [])
    if status:
        assert found[0].fix[0].argv[-1] == "fq_codel"


def test_veth_back_pressure_is_flagged_only_with_a_qdisc_unequal_queues_and_those_kernels(machine):
    for version, tx, kind, expected in (
        ((6, 12, 61), 2, "pfifo", 1),
        ((6, 12, 107), 2, "pfifo", 1),
        ((6, 12, 108), 2, "pfifo", 0),
        ((6, 12, 60), 2, "pfifo", 0),
        ((6, 12, 61), 1, "pfifo", 0),
        ((6, 12, 61), 2, "noqueue", 0),
    ):
        host = machine(version=version)
        host.veth("a", "b", gro_a=True, gro_b=True)
        host.change("a", real_tx_queues=tx, qdiscs=(Qdisc(kind, 0, 0xFFFFFFFF),))
        found = judge(host.snapshot(), [Health(host.links["a"].ref)])
        assert ids(found) == ["qdisc.veth-backpressure"] * expected, version


def test_what_could_not_be_observed_is_told_once(machine):
    host = machine()
    link = host.link("eth", None, driver="igb")
    host.more["problems"] = (Problem("netns blue", "not permitted"), Problem("netns red", "not permitted"))
    (finding,) = judge(host.snapshot(), [Health(link.ref)])
    assert (finding.id, finding.status) == ("environment.not-observed", Status.UNKNOWN)
    assert len(finding.evidence) == 2


def test_two_nics_that_get_programs_at_once_may_redirect_to_each_other(machine):
    host = machine()
    left = host.link("left", None, driver="igb", xdp_features=0x23)
    right = host.link("right", None, driver="igb", xdp_features=0x23)
    attaches = [AttachXdp(one.ref, "native", "prog") for one in (left, right)]
    redirects = [Redirect(left.ref, right.ref), Redirect(right.ref, left.ref)]
    assert judge(host.snapshot(), [*attaches, *redirects]) == []
    assert ids(judge(host.snapshot(), [attaches[0], *redirects])) == ["redirect.target-needs-program"]
