"""`driver set` on the NICs of a matrix guest: rings, channels and features as ethtool tells them, refused steps undone.

Collected only where such a NIC is on the bus.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernels import RELEASE
from live import running

from xdpctl.errors import XdpctlError
from xdpctl.host.collect import collect
from xdpctl.netlink import ethtool_ioctl, netns

MACS = {
    "52:54:00:00:01:01": "igb-a",
    "52:54:00:00:02:01": "virtio-mq",
    "52:54:00:00:03:01": "vmxnet3",
}
"""As NICS of tests/matrix/guest.py names and numbers them."""


def _present() -> dict[str, str]:
    """Name of the matrix -> interface, of the NICs that this machine has in the namespace it was booted with."""
    found = {}
    for path in Path("/sys/class/net").glob("*/address"):
        with contextlib.suppress(OSError):
            mac = path.read_text().strip()
            if mac in MACS:
                found[MACS[mac]] = path.parent.name
    return found


PRESENT = _present()
__test__ = bool(PRESENT)
pytestmark = pytest.mark.kernel

SETS_RINGS = {"virtio-mq": RELEASE >= (6, 0), "igb-a": True, "vmxnet3": True}
"""virtnet_set_ringparam() came with virtqueue_resize()."""
COUNTS_CHANNELS = {"virtio-mq": True, "igb-a": True, "vmxnet3": False}
"""vmxnet3 tells its channels, and has no way to change them."""
TSO = "tx-tcp-segmentation"
"""One of those behind ``tso``: not all of them are on from the start."""
COSTS = {
    "virtio-mq": "(stops traffic for a moment)",
    "igb-a": "(takes the link down)",
    "vmxnet3": "(takes the link down)",
}


@pytest.fixture(scope="module", autouse=True)
def _frees_them():
    """The oracle, which borrows the same NICs, begins when these tests are through."""
    yield
    if "XDPCTL_NICS_FREE" in os.environ:
        Path(os.environ["XDPCTL_NICS_FREE"]).touch()


@dataclass
class Card:
    """A NIC lent to a test, up, in a namespace of its own."""

    kind: str
    name: str
    space: str
    world: object

    def ethtool(self, option: str, *words: str) -> str:
        return self.world.run("ethtool", option, self.name, *words, netns=self.space).stdout

    def number(self, option: str, title: str) -> int:
        """A current figure of ethtool -g or -l."""
        now = self.ethtool(option).split("Current hardware settings:")[1]
        return int(re.search(rf"^{title}:\s+(\d+)", now, re.MULTILINE)[1])

    def feature(self, name: str) -> str:
        return re.search(rf"^\s*{name}: (\w+)", self.ethtool("-k"), re.MULTILINE)[1]

    def state(self):
        """Everything that `driver set` sets."""
        snapshot = collect(netns=self.space, probes=(), settings=True)
        one = next(each for each in snapshot.links() if each.name == self.name)
        features = {name: each.wanted for name, each in one.features.items() if not each.fixed}
        return one.up, one.mtu, one.rings, one.channels, features


@pytest.fixture(params=sorted(PRESENT))
def card(request, world):
    made = Card(request.param, PRESENT[request.param], world.namespace(), world)
    home = ("nsenter", "--net=/proc/1/ns/net")
    world.run(*home, "ip", "link", "set", made.name, "netns", made.space)
    try:
        world.ip(f"link set {made.name} up", made.space)
        before = made.state()
        yield made
        assert made.state() == before, "a test leaves the NIC as it was"
    finally:
        world.run("ip", "link", "set", made.name, "netns", "1", netns=made.space)


@pytest.fixture
def xdpctl(xdpctl):
    """The same with patience: behind an emulated NIC's queues is a tap, which waits for the host's RTNL."""
    return functools.partial(xdpctl, timeout=240)


def test_rings_channels_and_features_are_what_ethtool_tells_then_and_can_be_put_back(card, xdpctl):
    ring, checks = card.number("-g", "RX"), {}
    words, back = [f"{TSO}=off"], [f"{TSO}=on"]
    if SETS_RINGS[card.kind]:
        words, back = [*words, f"rx-ring={ring // 2}"], [*back, f"rx-ring={ring}"]
        checks["-g", "RX"] = ring // 2
    if COUNTS_CHANNELS[card.kind]:
        now = card.number("-l", "Combined")
        assert now > 1
        words, back = [*words, "channels.combined=1"], [*back, f"channels.combined={now}"]
        checks["-l", "Combined"] = 1
    asked = ("driver", "set", "--netns", card.space, card.name)
    shown = xdpctl(*asked, *words, "--dry-run", check=True).stdout
    assert shown.count(COSTS[card.kind]) == len(checks)
    assert card.number("-g", "RX") == ring
    told = xdpctl(*asked, *words, "--json", check=True).json()
    assert told["applied"]
    assert {one: card.number(*one) for one in checks} == checks
    assert card.feature(TSO) == "off"
    after = {one["setting"]: one["after"] for one in told["settings"]}
    assert after.get("rx-ring", ring // 2) == ring // 2
    assert after[TSO] is False
    xdpctl(*asked, *back, check=True)
    assert card.number("-g", "RX") == ring
    assert card.feature(TSO) == "on"


def test_a_step_that_the_kernel_refuses_takes_back_rings_and_mtu(card, xdpctl):
    """TSO needs scatter-gather (netdev_fix_features()): the kernel says yes to it and leaves it off."""
    asked = ("driver", "set", "--netns", card.space, card.name)
    card.ethtool("-K", TSO, "off", "sg", "off")
    before = card.state()
    words = ["mtu=1400", f"{TSO}=on"]
    if SETS_RINGS[card.kind]:
        words.append(f"rx-ring={card.number('-g', 'RX') // 2}")
    done = xdpctl(*asked, *words)
    assert done.returncode != 0
    assert f"{TSO} stays off where on was asked for" in done.stderr
    assert f"mtu of {card.name}" in done.stderr.split("put back: ")[1]
    assert (f"rings of {card.name}" in done.stderr) is SETS_RINGS[card.kind]
    assert card.state() == before
    if not SETS_RINGS[card.kind]:  # said, and what came before is put back
        done = xdpctl(*asked, "channels.combined=1", f"rx-ring={card.number('-g', 'RX') // 2}")
        assert done.returncode != 0
        assert "EOPNOTSUPP" in done.stderr
        assert f"put back: channels of {card.name}" in done.stderr
        assert card.state() == before
    card.ethtool("-K", "sg", "on", TSO, "on")


def test_what_the_device_has_not_got_is_refused_before_anything_is_sent(card, xdpctl):
    before = card.state()
    asked = ("driver", "set", "--netns", card.space, card.name, "mtu=1400")
    most = before[2].rx_max
    wrong = {"channels.combined=4096": "channels.combined", "tx-ring=0": "at least 1"}
    if card.kind == "virtio-mq":
        wrong["rx-ring=200"] = "a power of two, as 128 or 256"
    else:
        wrong[f"rx-ring={2 * most}"] = f"at most {most}"
    done = xdpctl(*asked, *wrong)
    assert done.returncode == 2
    assert [said for said in wrong.values() if said not in done.stderr] == []
    assert card.state() == before


@pytest.mark.parametrize("card", ["igb-a"], indirect=True)  # igb_change_mtu() is the one of these that looks
def test_an_mtu_that_its_xdp_program_excludes_is_refused_and_the_rings_are_put_back(card, xdpctl):
    before = card.state()
    with running("pass", card.name, netns_name=card.space):
        asked = ("driver", "set", "--netns", card.space, card.name)
        done = xdpctl(*asked, "rx-ring=128", "mtu=9000")
        assert done.returncode != 0
        assert f"put back: rings of {card.name}" in done.stderr
    assert card.state() == before


def test_tuning_makes_a_device_fit_that_jumbo_frames_keep_from_native_xdp(card, xdpctl):
    if card.kind == "vmxnet3" and RELEASE < (6, 6):
        told = xdpctl("driver", "tune", card.name, "--for", "xdp-native", "--netns", card.space, "--json")
        assert told.returncode == 1
        assert [one["finding"] for one in told.json()["left"]] == ["attach.no-native"]
        return
    asked = ("driver", "tune", card.name, "--for", "xdp-native", "--netns", card.space)
    lro = card.feature("large-receive-offload")
    card.world.ip(f"link set {card.name} mtu 5000", card.space)
    try:
        with pytest.raises(XdpctlError), running("pass", card.name, netns_name=card.space):
            pass
        told = xdpctl(*asked, "--yes", "--json").json()
        assert any(word.startswith("mtu=") for one in told["advice"] for word in one["settings"])
        assert told["applied"]
        with running("pass", card.name, netns_name=card.space):
            pass
    finally:
        card.world.ip(f"link set {card.name} mtu 1500", card.space)
    if card.feature("large-receive-offload") != lro:
        card.world.run("ethtool", "-K", card.name, "lro", lro, netns=card.space)


def test_no_counter_of_ethtool_hides_another(card):
    """vmxnet3 calls the counters of its queues alike, under headings."""
    lines = [line for line in card.ethtool("-S").splitlines() if re.search(r": +\d+$", line)]
    with netns.enter(card.space):
        told = ethtool_ioctl.statistics(card.name)
    assert len(told) == len(lines) > 10
    if card.kind == "vmxnet3":
        assert "rx_queue_0_pkts_rx_err" in told
        assert "tx_queue_0_drv_dropped_tx_total_giant_hdr" in told
