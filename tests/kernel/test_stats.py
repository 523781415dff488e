"""`xdpctl stats`: frames sent on a veth are counted exactly, by the link and by the driver's queues."""

from __future__ import annotations

import socket
import time

import pytest

from xdpctl.host.counters import movement, read
from xdpctl.netlink import interfaces, netns

pytestmark = pytest.mark.kernel
FRAMES = 300
FRAME = bytes.fromhex("ffffffffffff 020000000001 88b5") + bytes(50)


def send(name, count):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((name, 0))
        for _ in range(count):
            sock.send(FRAME)


def test_frames_are_counted_exactly_by_link_and_queue(world, xdpctl):
    where = world.namespace()
    world.veth("st0", "st1", netns_a=where, netns_b=where)
    xdpctl("attach", "--netns", where, "--mode", "native", "st1", "builtin:drop", check=True)
    with netns.enter(where):
        links = {interfaces.ifindex(name): name for name in ("st0", "st1")}
        before = read(links, ethtool=True)
        send("st0", FRAMES)
        deadline = time.monotonic() + 5  # the other end's NAPI may run in its own time
        while True:
            after = read(links, ethtool=True)
            sent, got = (movement(before, after, number) for number in links)
            dropped = {one.name: one for one in got.counters if one.source == "driver"}
            done = "rx_xdp_drops" in dropped and dropped["rx_xdp_drops"].delta >= FRAMES
            if done or time.monotonic() > deadline:
                break
    of_link = {one.name: one.delta for one in sent.counters if one.source == "link"}
    # a veth whose peer runs XDP takes its bytes from there: skb->len after eth_type_trans()
    assert of_link == {"tx_packets": FRAMES, "tx_bytes": FRAMES * (len(FRAME) - 14)}
    assert dropped["rx_xdp_bytes"].delta == of_link["tx_bytes"]
    assert dropped["rx_xdp_packets"].queues == dropped["rx_xdp_drops"].queues == {0: FRAMES}
    assert dropped["rx_xdp_drops"].means
    assert [one.holds for one in got.checks if one.name == "XDP verdicts"] == [True]


def test_the_command_tells_a_quiet_link_one_that_is_not_there_and_a_wrong_interval(world, xdpctl):
    where = world.namespace()
    world.veth("st0", "st1", netns_a=where, netns_b=where)
    told = xdpctl(
        "stats", "st0", "--netns", where, "--interval", "0.05", "--ethtool", "--json", check=True
    ).json()
    (one,) = told["interfaces"]
    assert (one["interface"], one["counters"], one["fell"]) == ("st0", [], [])
    assert one["seconds"] >= 0.05
    assert (
        "no counter moved"
        in xdpctl("stats", "st0", "--netns", where, "--interval", "0.05", check=True).stdout
    )
    assert "no such interface: st9" in xdpctl("stats", "st9", "--netns", where).stderr
    assert xdpctl("stats", "--interval", "0").returncode == 2
