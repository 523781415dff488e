"""Page-pool rules on machines made by hand."""

from __future__ import annotations

import pytest

from xdpctl.doctor.finding import Status
from xdpctl.doctor.intent import AttachXdp, Health
from xdpctl.doctor.page_pools import health
from xdpctl.doctor.rules import judge
from xdpctl.host import jsonform
from xdpctl.host.model import KernelMessage, ListedPool, PoolState, Rings, UnreadSocket

STATISTICS = {
    "alloc_fast": 90_000, "alloc_refill": 9_000, "alloc_slow": 1_000, "alloc_slow_high_order": 0, "alloc_empty": 0,
    "alloc_waive": 0, "recycle_cached": 50_000, "recycle_ring": 40_000, "recycle_ring_full": 0,
    "recycle_released_refcnt": 0, "recycle_cache_full": 0,
}  # fmt: skip


def nic(machine, *pools, version=(6, 18, 0), messages=(), unread=None, rx=1024, driver="stmmac", **fields):
    """A machine with eth0 and these pools, 1000 s after boot."""
    host = machine(version=version)
    link = host.link("eth0", None, driver=driver, rings=Rings(rx=rx, rx_max=65536), **fields)
    listed = tuple(
        ListedPool(id=number, netns=1, ifindex=link.ifindex, **one) for number, one in enumerate(pools, 5)
    )
    host.more["pool_state"] = PoolState(1000.0, 1000.0, listed, tuple(messages), unread)
    return host, link


def found(host, *intents):
    return {one.id: one for one in judge(host.snapshot(), intents)}


def test_a_destroyed_pool_with_pages_out_is_told_with_pages_memory_age_and_who_may_hold_them(machine):
    pool = {"inflight": 1, "inflight_bytes": 4096, "detach_time": 990}
    host, link = nic(
        machine, pool, unread=(UnreadSocket(1, "udp", "192.0.2.2:902", 4096, 11, "dnsmasq (42)"),)
    )
    one = found(host, Health(link.ref))["page-pool.stalled"]
    assert one.status is Status.WARN
    assert one.summary == "page pool 5 of eth0 was destroyed 10 s ago, and 1 page (4 KiB) is still out"
    assert "udp socket 192.0.2.2:902 of dnsmasq (42): 4096 bytes unread" in [
        each.fact for each in one.evidence
    ]


def test_pages_may_take_two_tries_to_come_home(machine):
    host, link = nic(machine, {"inflight": 9, "detach_time": 999})
    assert found(host, Health(link.ref)) == {}


def test_a_live_pool_may_fill_its_rings_and_caches_and_no_more(machine):
    host, link = nic(machine, {"inflight": 1024 + 16384 + 128})
    assert found(host, Health(link.ref)) == {}
    host, link = nic(machine, {"inflight": 1024 + 16384 + 129})
    assert set(found(host, Health(link.ref))) == {"page-pool.beyond-its-rings"}


@pytest.mark.parametrize(
    ("counter", "finding"),
    [
        ("recycle_ring_full", "page-pool.ring-full"),
        ("recycle_released_refcnt", "page-pool.shared-pages"),
        ("alloc_waive", "page-pool.numa-waive"),
        ("alloc_empty", "page-pool.ring-empty"),
    ],
)
def test_each_low_figure_is_a_finding_and_a_healthy_pool_has_none(machine, counter, finding):
    host, link = nic(machine, {"inflight": 100, "statistics": STATISTICS})
    assert found(host, Health(link.ref)) == {}
    host, link = nic(machine, {"inflight": 100, "statistics": {**STATISTICS, counter: 30_000}})
    assert set(found(host, Health(link.ref))) == {finding}


def test_health_is_the_share_that_needed_no_new_page_and_the_share_that_stayed():
    told = health({**STATISTICS, "recycle_ring_full": 10_000})
    assert told.served == pytest.approx(0.99)
    assert told.recycled == pytest.approx(0.9)
    assert [one.name for one in told.low] == ["recycle_ring_full"]
    assert health({"alloc_fast": 3}).served is None


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((5, 10, 246), Status.FAIL),
        ((5, 10, 247), None),
        ((6, 1, 158), Status.FAIL),
        ((6, 1, 159), None),
        ((6, 12, 57), Status.FAIL),
        ((6, 12, 58), None),
        ((6, 6, 100), Status.UNKNOWN),
        ((6, 18, 0), None),
    ],
)
def test_a_ring_over_32768_fails_at_attach_until_the_clamp(machine, version, status):
    host, link = nic(machine, version=version, rx=65536)
    one = found(host, AttachXdp(link.ref, "native", "p")).get("page-pool.too-large")
    assert (one.status if one else None) is status
    if one:
        assert one.errno == "E2BIG"
        assert one.fix[0].argv == ("ethtool", "-G", "eth0", "rx", "16384")


def test_lines_of_the_log_count_while_they_are_news(machine):
    stalled = KernelMessage("stalled", "stalled pool shutdown: id 9, 7 inflight 60 sec", 950.0, 9, 7, 60)
    negative = KernelMessage("negative", "Negative(-3) inflight packet-pages", 10.0, pages=-3)
    waits = KernelMessage("device-waits", "waiting for veth0", 995.0, device="veth0")
    host, link = nic(machine, messages=(stalled, negative, waits))
    told = found(host, Health(link.ref))
    assert set(told) == {"page-pool.stalled", "page-pool.negative", "page-pool.device-waits"}
    old = [KernelMessage(one.kind, one.text, 100.0, one.pool_id, one.pages, 60) for one in (stalled, waits)]
    host, link = nic(machine, messages=old)
    assert found(host, Health(link.ref)) == {}


def test_a_page_cache_that_is_busy_while_xdp_runs_costs_tcp_its_window(machine):
    counts = {"rx_cache_reuse": 5000, "rx_cache_busy": 5000, "rx_cache_full": 4000}
    host, link = nic(machine, driver="mlx5_core", statistics=counts)
    assert found(host, Health(link.ref)) == {}
    link = host.attach("eth0")
    assert set(found(host, Health(link.ref))) == {"page-pool.xdp-truesize"}


def test_a_snapshot_carries_pools_log_and_sockets(machine):
    host, _ = nic(
        machine, {"inflight": 1, "detach_time": 2, "statistics": STATISTICS},
        messages=(KernelMessage("negative", "x", 1.0),), unread=(UnreadSocket(1, "udp", None, 1, 2),),
    )  # fmt: skip
    taken = host.snapshot()
    assert jsonform.load(jsonform.text(jsonform.dump(taken))).pool_state == taken.pool_state
