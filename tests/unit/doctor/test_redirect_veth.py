"""A veth as a redirect's target: what its peer must have, on every kernel that differs."""

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachXdp, Health, Redirect, Transmit
from xdpctl.doctor.rules import judge


def redirect(host, target="xxx", **more):
    return judge(host.snapshot(), [Redirect(None, host.links[target].ref, **more)])


def story(machine, version=(6, 18, 0), **pair):
    """veth xxx here, its peer yyy in namespace blue."""
    host = machine(version=version)
    blue = host.netns("blue")
    host.veth("xxx", "yyy", netns_b=blue, **pair)
    return host


def test_a_peer_without_gro_or_program_loses_frames_with_the_errno_of_each_kernel(machine):
    expected = {
        (5, 4, 0): ("ENXIO", "xdp:xdp_redirect_err"),
        (5, 10, 0): ("ENXIO", "xdp:xdp_devmap_xmit"),
        (6, 1, 0): ("ENXIO", "xdp:xdp_devmap_xmit"),
        (6, 3, 0): ("EOPNOTSUPP", "xdp:xdp_redirect_err"),
        (6, 18, 0): ("EOPNOTSUPP", "xdp:xdp_redirect_err"),
    }
    for version, (errno, place) in expected.items():
        (finding,) = redirect(story(machine, version))
        assert finding.id == "redirect.veth-peer-napi"
        assert finding.status is Status.FAIL
        assert (finding.errno, finding.shows_in) == (errno, place), version
        assert finding.interface == "xxx"
        assert "yyy (netns blue)" in finding.summary


def test_a_devmap_redirect_before_5_6_fails_in_the_bulk(machine):
    (finding,) = redirect(story(machine, (5, 4, 0)), via_map=True)
    assert finding.shows_in == "xdp:xdp_devmap_xmit"


def test_the_fix_switches_gro_on_at_the_peer_in_its_namespace(machine):
    (finding,) = redirect(story(machine))
    (fix,) = finding.fix
    assert fix.argv == ("ethtool", "-K", "yyy", "gro", "on")
    assert fix.inverse == ("ethtool", "-K", "yyy", "gro", "off")
    assert fix.netns == "blue"
    assert not fix.flaps_link


def test_before_5_13_gro_does_not_help_and_the_fix_is_a_program(machine):
    host = story(machine, (5, 10, 0), gro_b=True)
    (finding,) = redirect(host)
    assert finding.errno == "ENXIO"
    assert finding.fix[0].argv[:4] == ("xdpctl", "attach", "--mode", "native")
    assert finding.fix[0].netns == "blue"
    host.attach("yyy")
    assert redirect(host) == []


def test_gro_or_a_native_program_on_the_peer_is_enough(machine):
    for version in ((5, 13, 0), (6, 1, 0), (6, 3, 0), (6, 18, 0)):
        assert redirect(story(machine, version, gro_b=True)) == []
        host = story(machine, version)
        host.attach("yyy")
        host.settle("xxx", "yyy")
        assert redirect(host) == []


def test_gro_on_the_wrong_end_does_not_help(machine):
    (finding,) = redirect(story(machine, gro_a=True))
    assert finding.fix[0].argv[2] == "yyy"


def test_a_generic_program_on_the_peer_gives_no_napi(machine):
    host = story(machine)
    host.attach("yyy", mode="generic")
    assert redirect(host)[0].id == "redirect.veth-peer-napi"


def test_generic_redirect_needs_no_napi(machine):
    assert redirect(story(machine), mode="generic") == []


def test_fixed_gro_leaves_a_program_as_the_fix(machine):
    host = story(machine)
    gro = host.links["yyy"].features["rx-gro"]
    host.change("yyy", features={"rx-gro": type(gro)(False, False, True)})
    (finding,) = redirect(host)
    assert finding.fix[0].argv[0] == "xdpctl"


def test_a_peer_that_is_down_is_brought_up_first(machine):
    host = story(machine, gro_b=True)
    host.down("yyy")
    (finding,) = redirect(host)
    assert finding.id == "redirect.veth-peer-down"
    assert (finding.errno, finding.shows_in) == ("ENXIO", "xdp:xdp_devmap_xmit")
    assert [one.argv[-1] for one in finding.fix] == ["up"]
    host.gro("yyy", False)
    host.settle("xxx")
    (finding,) = redirect(host)
    assert finding.id == "redirect.veth-peer-napi"
    assert [one.argv[-1] for one in finding.fix] == ["up", "on"]


def test_gro_switched_on_while_down_is_seen_by_the_features_that_lack(machine):
    host = story(machine)
    host.gro("yyy", True)  # without settling: the kernel's bug
    (finding,) = redirect(host)
    assert finding.id == "redirect.veth-stale-features"
    assert (finding.errno, finding.shows_in) == ("EOPNOTSUPP", "xdp:xdp_redirect_err")
    assert [one.argv[-1] for one in finding.fix] == ["off", "on"]


def test_gro_switched_off_while_down_is_seen_by_the_features_that_stay(machine):
    host = story(machine, gro_b=True)
    host.gro("yyy", False)
    (finding,) = redirect(host)
    assert finding.id == "redirect.veth-stale-features"
    assert (finding.errno, finding.shows_in) == ("ENXIO", "xdp:xdp_devmap_xmit")
    assert [one.argv[-1] for one in finding.fix] == ["on"]


def test_kernels_that_test_napi_at_run_time_do_not_know_the_bug(machine):
    host = story(machine, (6, 1, 0))
    host.gro("yyy", True)
    assert redirect(host) == []


def test_an_unseen_peer_is_unknown_unless_the_features_decide(machine):
    host = story(machine, (6, 1, 0))
    host.forget("yyy")
    (finding,) = redirect(host)
    assert (finding.id, finding.status) == ("redirect.veth-peer-unseen", Status.UNKNOWN)
    assert finding.alternatives
    host = story(machine)
    host.forget("yyy")
    (finding,) = redirect(host)
    assert (finding.id, finding.status, finding.errno) == (
        "redirect.veth-peer-napi",
        Status.FAIL,
        "EOPNOTSUPP",
    )
    assert finding.fix == ()
    assert finding.alternatives


def test_unknown_gro_is_unknown(machine):
    host = story(machine, (6, 1, 0))
    host.change("yyy", features=None)
    (finding,) = redirect(host)
    assert finding.status is Status.UNKNOWN


def test_more_tx_queues_at_the_peer_than_rx_queues_take_all_features_away(machine):
    host = story(machine, gro_b=True)
    host.change("yyy", real_tx_queues=2)
    host.change("xxx", xdp_features=0)
    (finding,) = redirect(host)
    assert finding.id == "redirect.veth-queues"
    assert finding.fix[0].argv == ("ethtool", "-L", "yyy", "tx", "1")


def test_a_frame_longer_than_the_peers_mtu_is_dropped_without_an_errno(machine):
    host = story(machine, gro_b=True)
    host.change("xxx", mtu=3000)
    (finding,) = redirect(host, frame_len=1519)
    assert (finding.id, finding.status, finding.errno) == ("redirect.veth-peer-mtu", Status.FAIL, None)
    assert redirect(host, frame_len=1518) == []


def test_health_of_a_named_veth_tells_both_ends(machine):
    host = story(machine, gro_a=True)
    for name in ("xxx", "yyy"):
        (finding,) = judge(host.snapshot(), [Health(host.links[name].ref, named=True)])
        assert (finding.id, finding.status, finding.interface) == (
            "redirect.veth-peer-napi",
            Status.FAIL,
            name,
        )
        assert finding.fix[0].argv == ("ethtool", "-K", "yyy", "gro", "on")
        assert "xxx" in finding.summary
        assert "yyy" in finding.summary


def test_health_of_the_whole_host_only_warns(machine):
    host = story(machine)
    findings = judge(host.snapshot(), [Health(one.ref) for one in host.links.values()])
    assert {one.status for one in findings} == {Status.WARN}
    live = [*(Health(one.ref) for one in host.links.values()), Redirect(None, host.links["xxx"].ref)]
    findings = judge(host.snapshot(), live)
    assert [(one.interface, one.status) for one in findings] == [("xxx", Status.FAIL), ("yyy", Status.WARN)]


def test_a_known_redirect_makes_the_other_direction_a_warning(machine):
    host = story(machine, gro_b=True)
    named = Health(host.links["yyy"].ref, named=True)
    assert judge(host.snapshot(), [named])[0].status is Status.FAIL
    findings = judge(host.snapshot(), [named, Redirect(None, host.links["xxx"].ref, via_map=True)])
    assert [one.status for one in findings] == [Status.WARN]


def test_xdp_tx_needs_the_peers_napi_whatever_the_features_say(machine):
    host = story(machine)
    (finding,) = judge(host.snapshot(), [Transmit(host.links["xxx"].ref)])
    assert (finding.id, finding.errno, finding.shows_in) == (
        "transmit.veth-peer-napi",
        "ENXIO",
        "xdp:xdp_bulk_tx",
    )
    assert judge(host.snapshot(), [Transmit(host.links["xxx"].ref, "generic")]) == []


def test_xdp_tx_needs_a_native_program_on_the_peer_for_gro_is_never_woken(machine):
    host = story(machine)
    host.gro("yyy", True)
    (finding,) = judge(host.snapshot(), [Transmit(host.links["xxx"].ref)])
    assert (finding.id, finding.errno) == ("transmit.veth-peer-program", None)
    assert finding.fix[0].argv[:5] == ("xdpctl", "attach", "--mode", "native", "yyy")


def test_a_program_that_is_about_to_come_gives_the_napi_that_its_own_redirect_needs(machine):
    for version in ((5, 10, 0), (6, 1, 0), (6, 18, 0)):
        host = story(machine, version)
        source, target = host.links["yyy"].ref, host.links["xxx"].ref
        both = [AttachXdp(source, "native", "prog"), Redirect(source, target)]
        assert judge(host.snapshot(), both) == []
        generic = [AttachXdp(source, "generic", "prog"), Redirect(source, target)]
        assert [one.id for one in judge(host.snapshot(), generic)] == ["redirect.veth-peer-napi"]
        maybe = [AttachXdp(source, "native", "prog", promised=False), Redirect(source, target)]
        assert [one.id for one in judge(host.snapshot(), maybe)] == ["redirect.veth-peer-napi"]
        host.down("yyy")
        assert [one.id for one in judge(host.snapshot(), both)] == ["redirect.veth-peer-down"]
