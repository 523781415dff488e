"""`xdpctl pool` over pools whose pages are held: those of live frames that nobody reads."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from xdpctl.bpf.object import Object
from xdpctl.netlink import netns
from xdpctl.obj.shipped import resolve
from xdpctl.trace.frames import udp4

pytestmark = pytest.mark.kernel

SO_RCVBUFFORCE = 33


@pytest.fixture
def parked(world):
    """Live frames in a socket that nobody reads: (namespace, port, how many)."""
    space = world.namespace()
    world.veth("pa", "pb", netns_a=space, netns_b=space)
    world.ip("addr add 192.0.2.2/24 dev pb", space)
    with contextlib.ExitStack() as held:
        held.enter_context(netns.enter(space))
        waiting = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        waiting.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        waiting.bind(("192.0.2.2", 903))
        opened = held.enter_context(Object.open(resolve(Path("builtin:pass"))))
        opened.load()
        (program,) = opened.programs.values()
        mac = world.ip("-o link show pb", space).split("link/ether ")[1].split()[0]
        frame = udp4(bytes(64), destination=mac, ports=(900, 903))

        def send(count=41):
            program.test_run(
                frame, repeat=count, batch_size=count, ifindex=socket.if_nametoindex("pb"), live_frames=True
            )
            return count

        yield space, send


@pytest.mark.needs("live_frames")
@pytest.mark.needs("pages_in_sockets")
def test_a_pool_that_netlink_does_not_list_is_named_with_the_socket_that_may_hold_its_pages(parked, xdpctl):
    _, send = parked
    count = send()
    done = xdpctl("pool", "leaks", "--json", "--duration", "1.5")
    assert done.returncode == 1
    ours = [one for one in done.json()["leaks"] if one["pool"]["size"] == count]
    assert [one["pool"]["inflight"] for one in ours] == [count]
    assert ours[0]["pool"]["source"] == "tracer"
    assert any("192.0.2.2:903" in one["what"] for one in ours[0]["holders"])


@pytest.mark.needs("live_frames")
@pytest.mark.needs("pages_in_sockets")
def test_watch_tells_a_shutdown_as_it_happens(parked, xdpctl):
    _, send = parked
    count = send(43)  # the kernel tries each second while the command runs
    document = xdpctl("pool", "watch", "--json", "--duration", "1.5", "--interval", "0.5", check=True).json()
    tries = [one for one in document["events"] if one["pool"]["size"] == count and one["kind"] == "attempt"]
    assert tries
    assert {one["inflight"] for one in tries} == {count}
    assert len(document["readings"]) >= 3
    assert document["lost_events"] == 0


def test_a_watch_in_json_must_end(xdpctl):
    done = xdpctl("pool", "watch", "--json")
    assert done.returncode == 2
    assert "--count" in done.stderr
