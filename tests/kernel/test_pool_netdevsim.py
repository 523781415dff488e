"""`xdpctl pool` and doctor on netdevsim, whose page pools netlink lists and whose pages can be held.

Collected only where netdevsim is: the matrix builds it for 6.12.
"""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path

import pytest

from xdpctl.netlink import netns

NETDEVSIM = Path("/sys/bus/netdevsim")
DEBUGFS = Path("/sys/kernel/debug/netdevsim")
__test__ = (NETDEVSIM / "new_device").exists()
pytestmark = pytest.mark.kernel


@pytest.fixture
def nsim(world):
    """A netdevsim of four queues in a namespace: its name, its namespace, and the folder of its switches."""
    space, number = world.namespace(), random.randrange(1 << 10, 1 << 31)  # noqa: S311 - only to keep apart
    with netns.enter(space):
        before = set(socket.if_nameindex())
        (NETDEVSIM / "new_device").write_text(f"{number} 1 4")
        ((_, name),) = set(socket.if_nameindex()) - before
    try:
        world.ip(f"link set {name} up", space)
        yield name, space, DEBUGFS / f"netdevsim{number}" / "ports" / "0"
    finally:
        (NETDEVSIM / "del_device").write_text(str(number))


def test_a_held_page_is_found_when_the_link_is_down_and_gone_when_it_is_released(nsim, world, xdpctl):
    name, space, switches = nsim
    if not switches.is_dir():
        world.run("mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug", check=False)
    listed = xdpctl("pool", "list", "--json", "--duration", "0", "--netns", space, check=True).json()["pools"]
    assert [(one["interface"], one["state"], one["source"]) for one in listed] == [
        (name, "live", "netlink")
    ] * 4
    assert len({one["id"] for one in listed}) == 4
    assert sorted(one["queue"] for one in listed) == [0, 1, 2, 3]
    (switches / "pp_hold").write_text("y")
    try:
        world.ip(f"link set {name} down", space)
        time.sleep(2.2)  # what doctor allows a pool for coming home
        done = xdpctl("pool", "leaks", "--json", "--netns", space)
        assert done.returncode == 1
        (leak,) = done.json()["leaks"]
        pool = leak["pool"]
        assert (pool["interface"], pool["inflight"], pool["inflight_bytes"]) == (name, 1, 4096)
        assert pool["id"] in {one["id"] for one in listed}
        assert (pool["state"], leak["why"]) == ("closing", "destroyed")
        assert 1 <= pool["age_seconds"] < 60
        assert pool["attempts"] >= 1
        text = xdpctl("pool", "leaks", "--netns", space, "--duration", "0").stdout
        assert f"page pool {pool['id']} of {name}" in text
        assert "1 page out (4 KiB), destroyed" in text
        told = {one["id"] for one in xdpctl("doctor", "--json", "--netns", space).json()["findings"]}
        assert "page-pool.stalled" in told
    finally:
        (switches / "pp_hold").write_text("n")
    deadline = time.monotonic() + 5
    while xdpctl("pool", "leaks", "--json", "--duration", "0", "--netns", space).returncode:
        assert time.monotonic() < deadline, "released, and still listed"
    told = {one["id"] for one in xdpctl("doctor", "--json", "--netns", space).json()["findings"]}
    assert "page-pool.stalled" not in told
