"""`xdpctl trace` as a user runs it: figures, words and the fix; bounded, and clean at its end."""

from __future__ import annotations

import json
import threading

import pytest
from kernels import RELEASE
from live import running

from xdpctl.netlink import netns
from xdpctl.trace.frames import Port, ethernet

pytestmark = pytest.mark.kernel

FRAME = ethernet(b"x", destination="02:00:00:00:00:99")


@pytest.fixture(scope="module")
def pair(world_of_module):
    """source s1 (far) - s0 (here) ... t0 (here) - t1 (far), with a redirect from s0 to t0 that is lost."""
    here, far = world_of_module.namespace(), world_of_module.namespace()
    world_of_module.veth("s0", "s1", netns_a=here, netns_b=far)
    world_of_module.veth("t0", "t1", netns_a=here, netns_b=far)
    with running("redirect", "s0", netns_name=here, target="t0"), netns.enter(far), Port("s1") as port:
        yield here, port


def while_sending(port, command):
    """What the command printed, frames being sent all the time."""
    over = threading.Event()

    def send():
        while not over.wait(0.01):
            port.send(FRAME)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return command()
    finally:
        over.set()
        sender.join()


def test_a_lost_redirect_is_told_with_its_cause_and_fix(pair, xdpctl):
    here, port = pair
    done = while_sending(
        port, lambda: xdpctl("trace", "redirect", "--netns", here, "--duration", "1", "--json", check=True)
    )
    (line,) = done.stdout.splitlines()
    (edge,) = (one for one in json.loads(line)["edges"] if one["dropped"])
    assert (edge["from"]["name"], edge["to"]["name"], edge["sent"]) == ("s0", "t0", 0)
    assert edge["errno"] in ("EOPNOTSUPP", "ENXIO")
    assert edge["cause"]["finding"]["id"] == "redirect.veth-peer-napi"
    assert edge["cause"]["finding"]["fix"]


def test_people_read_the_same_in_a_table(pair, xdpctl):
    here, port = pair
    done = while_sending(
        port,
        lambda: xdpctl(
            "trace", "redirect", "--netns", here, "--iface", "s0", "--duration", "0.5", check=True
        ),
    )
    assert "s0" in done.stdout
    assert "fix: " in done.stdout


def test_drops_and_qdiscs_are_told_a_line_a_report(pair, xdpctl):
    here, port = pair
    lost = while_sending(
        port, lambda: xdpctl("trace", "drops", "--netns", here, "--duration", "0.5", "--json")
    )
    # another namespace may lose frames on interfaces of the same numbers meanwhile: there may be more lines
    drops = json.loads(lost.stdout)["drops"]
    assert {"s0", "t0"} & {one["device"]["name"] for one in drops if one["device"]}
    assert all(one["packets"] > 0 for one in drops)
    waits = while_sending(port, lambda: xdpctl("trace", "qdisc", "--duration", "0.5", "--json"))
    assert {"s1"} <= {one["device"]["name"] for one in json.loads(waits.stdout)["queues"]}


def test_an_unknown_interface_suggests_near_names(pair, xdpctl):
    here, _ = pair
    done = xdpctl("trace", "drops", "--netns", here, "--iface", "s00", "--duration", "1")
    assert done.returncode == 2
    assert "s0" in done.stderr


def test_a_queue_that_stands_is_told_with_the_reason(world, xdpctl):
    space = world.namespace()
    world.veth("q0", "q1", netns_a=space, netns_b=space)
    world.run(*"tc qdisc replace dev q0 root tbf rate 80bit burst 1600 limit 9000".split(), netns=space)
    with netns.enter(space), Port("q0") as port:
        for _ in range(4):
            port.send(ethernet(b"x", length=1000))
        asked = ("trace", "qdisc", "--netns", space, "--iface", "q0", "--duration", "0.2")
        (line,) = xdpctl(*asked, "--json", check=True).stdout.splitlines()
        (one,) = json.loads(line)["standing"]
        assert (one["device"]["name"], one["kind"], one["packets"]) == ("q0", "tbf", 3)
        assert (one["verdict"], one["lockless"]) == ("timed", False)
        said = xdpctl(*asked, check=True).stdout
    assert "q0 queue 0: 3 packets in tbf, none sent in 0." in said
    assert "its qdisc may hold them back" in said


def test_counters_that_grew_stand_beside_the_drops(pair, xdpctl):
    here, port = pair
    asked = ("trace", "drops", "--netns", here, "--iface", "s0", "--duration", "0.5")
    done = while_sending(port, lambda: xdpctl(*asked, "--json", check=True))
    counters = json.loads(done.stdout)["counters"]
    if RELEASE < (6, 3):
        assert counters == []  # the driver behind the redirect refuses a bulk: s0 counts nothing
        return
    (line,) = counters
    assert line["device"]["name"] == "s0"
    names = {one["name"]: one["packets"] for one in line["counters"]}
    assert names["rx_drops"] > 0
    assert line["untold"] == 0  # the redirect's tracepoint has told of each
    assert "s0 counts " in while_sending(port, lambda: xdpctl(*asked, check=True)).stdout


def test_page_pools_are_told_a_line_a_report(world, xdpctl):
    space = world.namespace()
    world.veth("p0", "p1", netns_a=space, netns_b=space)
    with running("pass", "p1", netns_name=space):
        done = xdpctl("trace", "pool", "--netns", space, "--duration", "0.3", "--json", check=True)
    lines = [json.loads(one) for one in done.stdout.splitlines()]
    assert {one["trace"] for one in lines} == {"pool"}
    assert all(one["lost"] == 0 for one in lines)
    if RELEASE < (6, 6):
        assert all(one["pools"] == [] for one in lines)  # a veth has none
        return
    (pool,) = lines[-1]["pools"]
    assert (pool["interface"], pool["state"]) == ("p1", "live")
    assert pool["inflight"] >= 0
