"""What only netdevsim shows: page pools that netlink lists, with a page that can be held; XDP in (simulated) hardware.

Collected only where netdevsim is: the matrix builds it for 6.12.
"""

from __future__ import annotations

import random
import re
import socket
import time
from pathlib import Path

import pytest

from xdpctl.bpf import query
from xdpctl.bpf.link import open_link
from xdpctl.netlink import netns

NETDEVSIM = Path("/sys/bus/netdevsim")
DEBUGFS = Path("/sys/kernel/debug/netdevsim")
__test__ = (NETDEVSIM / "new_device").exists()
pytestmark = pytest.mark.kernel


OFFLOADED = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int in_hardware(struct xdp_md *ctx) { return VERDICT; }
char _license[] SEC("license") = "GPL";
"""


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


def test_top_and_metrics_show_the_pools_that_netlink_lists(nsim, world, xdpctl):
    name, space, switches = nsim
    if not switches.is_dir():
        world.run("mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug", check=False)

    def shown():
        pools = xdpctl("top", "--once", "--json", "--netns", space, check=True).json()["pools"]
        return [(one["interface"], one["queue"], one["inflight"]) for one in pools]

    def measured():
        lines = xdpctl("metrics", "--once", "--netns", space, check=True).stdout.splitlines()
        return [
            line for line in lines if line.startswith("xdpctl_page_pool_inflight_pages{") and name in line
        ]

    assert sorted(shown()) == [(name, queue, 0) for queue in range(4)]
    assert [float(line.split()[-1]) for line in measured()] == [0.0] * 4
    (switches / "pp_hold").write_text("y")
    try:
        # one page is held; those that the kernel takes with it for the pool's own cache count as out, too
        *empty, out = sorted(inflight for _, _, inflight in shown())
        assert empty == [0, 0, 0]
        assert out >= 1
        assert sorted(float(line.split()[-1]) for line in measured()) == [0.0, 0.0, 0.0, out]
        table = xdpctl("top", "--once", "--netns", space, check=True).stdout
        assert re.search(rf"{name} +\d +\d+ +{out} ", table), table
    finally:
        (switches / "pp_hold").write_text("n")


def test_a_deployment_in_hardware_is_applied_upgraded_drifts_heals_and_goes(
    nsim, xdpctl, compile_c, tmp_path
):
    name, space, _ = nsim
    file = tmp_path / "hardware.toml"

    def write(verdict):
        made = compile_c(OFFLOADED.replace("VERDICT", verdict))
        file.write_text(
            f'[deployment]\nname = "hardware"\n[[program]]\nname = "one"\nobject = "{made}"\n'
            f'[[interface]]\nname = "{name}"\nnetns = "{space}"\n'
            '[[interface.attach]]\nprogram = "one"\nmode = "offload"\n'
        )

    def link_of(program):
        return next(one.id for one in query.links() if one.program_id == program)

    def attached():
        told = xdpctl("status", "--json", "--netns", space, check=True).json()["attachments"]
        return [(one["mode"], one["program"]["name"], one["program"]["id"]) for one in told]

    write("XDP_PASS")
    try:
        assert xdpctl("plan", file).returncode == 1
        xdpctl("apply", "--yes", file, check=True)
        ((mode, program, first),) = attached()
        assert (mode, program) == ("offload", "in_hardware")
        assert xdpctl("plan", file).returncode == 0
        assert xdpctl("drift", "hardware").returncode == 0
        write("XDP_DROP")
        xdpctl("apply", "--yes", file, check=True)
        ((mode, program, second),) = attached()
        assert (mode, program) == ("offload", "in_hardware")
        assert second != first
        with netns.enter(space), open_link(link_of(second)) as link:  # somebody takes it off the card
            link.detach()
        assert attached() == []
        assert xdpctl("drift", "hardware").returncode == 1
        xdpctl("drift", "hardware", "--heal")
        assert [one[:2] for one in attached()] == [("offload", "in_hardware")]
    finally:
        xdpctl("destroy", "--yes", "hardware")
    assert attached() == []
