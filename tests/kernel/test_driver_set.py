"""`xdpctl driver set` on real veths: what ethtool and ip say afterwards, and a refused step leaves nothing behind."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from kernels import CHANNELS_OF_VETH, RELEASE
from live import running

from xdpctl.deploy import device, device_execute
from xdpctl.deploy.all_or_none import apply_all
from xdpctl.deploy.change import Context
from xdpctl.errors import NetlinkError, NotFoundError
from xdpctl.host.collect import collect
from xdpctl.netlink import links, netns

pytestmark = pytest.mark.kernel

TSO = "tx-tcp-segmentation"
"""On from the start, on every kernel; GRO of a veth is on too before 5.13."""


@pytest.fixture
def pair(world):
    """A namespace's name and a link's: one end of a veth pair with GRO off."""
    where = world.namespace()
    world.veth("dv0", "dv1", netns_a=where, netns_b=where)
    return where, "dv0"


def observed(where, name):
    snapshot = collect(netns=where, probes=(), settings=True)
    return next(one for one in snapshot.links() if one.name == name)


def settings(where, name):
    """What `driver set` sets; the link's operational state settles in its own time."""
    one = observed(where, name)
    return one.up, one.mtu, one.features, one.channels, one.coalesce, one.napi_defaults


def changes(where, name, **settings):
    return device.settings_changes(observed(where, name), device.DeviceSettings(**settings), netns=where)


def test_settings_are_those_that_ethtool_and_ip_see_and_a_second_time_changes_nothing(world, pair):
    where, name = pair
    wanted = {"mtu": 1400, "features": {"gro": True, "tso": False}}
    apply_all(changes(where, name, **wanted))
    told = world.run("ethtool", "-k", name, netns=where).stdout
    assert "generic-receive-offload: on" in told
    assert "tcp-segmentation-offload: off" in told
    assert "mtu 1400" in world.run("ip", "link", "show", name, netns=where).stdout
    assert changes(where, name, **wanted) == []


def test_a_refused_step_takes_back_those_before_it(pair, monkeypatch):
    where, name = pair
    before = observed(where, name)
    planned = changes(where, name, mtu=1400, features={TSO: False})

    def refuse(_ifindex, _values):
        raise NetlinkError("setting the features of dv0: no", errno=22, extack="no")

    kinds = device_execute.KINDS
    monkeypatch.setitem(kinds, "device.features", kinds["device.features"]._replace(send=refuse))
    with pytest.raises(NetlinkError, match="put back: mtu of dv0") as caught:
        apply_all(planned)
    assert caught.value.extack == "no"
    after = observed(where, name)
    assert (after.mtu, after.features) == (before.mtu, before.features)


def test_a_device_that_vanishes_half_way_is_told_so(pair):
    where, name = pair
    planned = changes(where, name, mtu=1400, features={TSO: False})

    def vanish(change):
        if change.kind == "device.features":
            with netns.enter(where):
                links.delete(name)

    with pytest.raises(NotFoundError, match="no such interface: dv0"):
        apply_all(planned, vanish, Context())


def test_it_says_what_it_does_and_shows_each_setting_before_and_after(pair, xdpctl, world):
    where, name = pair
    asked = ("driver", "set", "--netns", where, name, "mtu=1400", f"{TSO}=off")
    shown = xdpctl(*asked, "--dry-run", check=True).stdout.splitlines()
    assert shown == [
        "would set MTU: mtu 1500 -> 1400",
        "would set features: tx-tcp-segmentation on -> off",
        "INTERFACE  SETTING              BEFORE  WOULD BE",
        "dv0        mtu                  1500    1400",
        "dv0        tx-tcp-segmentation  on      off",
    ]
    assert "mtu 1500" in world.ip(f"link show {name}", where), "a dry run changes nothing"
    made = xdpctl(*asked, check=True).stdout.splitlines()
    assert made[0] == "setting MTU: mtu 1500 -> 1400"
    assert made[2:] == [
        "INTERFACE  SETTING              BEFORE  AFTER",
        "dv0        mtu                  1500    1400",
        "dv0        tx-tcp-segmentation  on      off",
    ]
    assert xdpctl(*asked, check=True).stdout == "dv0 is set so already\n"
    told = xdpctl(*asked[:-2], "mtu=1300", "--json", check=True).json()
    assert told["applied"]
    assert told["settings"] == [
        {"interface": "dv0", "netns": where, "setting": "mtu", "before": 1400, "after": 1300}
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "mtu=60 rx-ring=1024 lro=on gro=on",
            [
                "mtu=60: at least 68",
                "veth has no rings that can be set",
                "lro=on: it is off [fixed], its driver does not let it change",
            ],
        ),
        (
            "gro=maybe grow=on mtu=1400 mtu=1300 napi.gro-flush-timeout=fast",
            [
                "gro=maybe: not on or off",
                "did you mean",
                "mtu: given twice",
                "not a time: 20000 (ns), 20us, 2ms",
            ],
        ),
    ],
)
def test_what_a_device_cannot_take_is_told_all_at_once_and_nothing_is_touched(pair, xdpctl, words, said):
    where, name = pair
    before = settings(where, name)
    done = xdpctl("driver", "set", "--netns", where, name, *words.split())
    assert done.returncode == 2
    assert [one for one in said if one not in done.stderr] == []
    assert done.stdout == ""
    assert settings(where, name) == before


def test_what_the_kernel_refuses_half_way_is_put_back(pair, xdpctl, world):
    where, name = pair
    world.ip(f"link del {name}", where)
    world.veth("dv0", "dv1", netns_a=where, netns_b=where, numtxqueues=2, numrxqueues=2)
    asked = ("driver", "set", "--netns", where, name, "mtu=1400", "channels.tx=2")
    if not CHANNELS_OF_VETH:
        assert "veth has no channels that can be set" in xdpctl(*asked).stderr
        return
    for one in ("dv0", "dv1"):
        world.run("ethtool", "-L", one, "rx", "1", "tx", "1", netns=where)
    before = observed(where, name)
    with running("pass", "dv1", netns_name=where):  # which receives on one queue: no peer may send on two
        done = xdpctl(*asked)
    assert done.returncode != 0
    assert "setting the channels of dv0" in done.stderr
    assert "put back: mtu of dv0" in done.stderr
    after = observed(where, name)
    assert (after.mtu, after.channels) == (before.mtu, before.channels)


def test_a_tap_takes_what_tun_takes_and_says_what_it_made_of_it(world, xdpctl):
    space = world.namespace()
    world.ip("tuntap add dev tp0 mode tap", space)
    world.ip("link set tp0 up", space)
    done = xdpctl("driver", "set", "--netns", space, "tp0", "coalesce.rx-frames=200", "mtu=1400", check=True)
    assert "note: tp0: its driver made rx-frames 64 of 200" in done.stderr
    assert "coalesce.rx-frames  0       64" in done.stdout
    before = settings(space, "tp0")
    for words, said in (
        ("channels.combined=2", "channels.combined"),
        ("rx-ring=512", "tun has no rings that can be set"),
        ("pause.rx=on", "tun has no pause settings"),
        ("coalesce.rx-usecs=10", "its driver takes only rx-frames"),
        ("mtu=65536", "mtu=65536: at most 65521"),
    ):
        refused = xdpctl("driver", "set", "--netns", space, "tp0", "gro=off", words)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert settings(space, "tp0") == before


def test_napis_are_set_where_there_are_any(pair, xdpctl):
    where, name = pair
    asked = ("driver", "set", "--netns", where, name)
    if RELEASE < (5, 12):
        assert "napi.threaded=on: not to be had here" in xdpctl(*asked, "napi.threaded=on").stderr
        return
    if RELEASE >= (5, 13):  # before, GRO is on from the start
        done = xdpctl(*asked, "mtu=1400", "napi.threaded=on")
        assert done.returncode == 8
        assert "put back: mtu of dv0" in done.stderr
        assert "hint: it has no NAPI now" in done.stderr
    words = ("napi.threaded=on", "napi.defer-hard-irqs=2", "napi.gro-flush-timeout=20us")
    with running("pass", name, netns_name=where):
        xdpctl(*asked, *words, check=True)
        assert xdpctl(*asked, *words, check=True).stdout == "dv0 is set so already\n"
        (sheet,) = xdpctl("driver", "show", "--netns", where, name, "--json", check=True).json()["devices"]
        for one in sheet["napis"] or ():
            if one["defer_hard_irqs"] is not None:  # 6.13; threaded 6.17, before a thread tells
                assert (one["defer_hard_irqs"], one["gro_flush_timeout_ns"]) == (2, 20000)
            assert one["pid"] or one["threaded"]
        xdpctl(*asked, "napi.threaded=off", check=True)


CONTAINER = """
mount -t sysfs -o ro sysfs /sys
exec setpriv --bounding-set {bounds} --inh-caps -net_admin -- {xdpctl} driver set {name} {words}
"""


@pytest.mark.parametrize(
    ("bounds", "words", "said"),
    [
        ("-net_admin", f"{TSO}=off", "CAP_NET_ADMIN"),
        ("-sys_admin", "napi.gro-flush-timeout=20us", "read-only"),
    ],
)
def test_a_container_that_may_not_is_told_why_and_the_device_stays(pair, world, bounds, words, said):
    where, name = pair
    before = settings(where, name)
    program = shlex.join([sys.executable, "-m", "xdpctl.cli"])
    script = CONTAINER.format(bounds=bounds, xdpctl=program, name=name, words=words)
    root = str(Path(__file__).resolve().parents[2])
    done = world.run(
        "unshare", "-m", "env", f"PYTHONPATH={root}", "sh", "-ec", script, netns=where, check=False
    )
    assert done.returncode != 0
    assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, "a line and a hint"
    assert settings(where, name) == before
