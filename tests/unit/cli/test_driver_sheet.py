"""The sheet of `driver show`: a network card's facts as lines, and what is not known left out."""

from __future__ import annotations

from xdpctl.cli import driver_sheet
from xdpctl.cli.driver_sheet import lines
from xdpctl.doctor.sheet import sheet
from xdpctl.host.model import (
    Caller,
    Channels,
    Kernel,
    Link,
    Namespace,
    Napi,
    PagePool,
    Pause,
    Rings,
    Snapshot,
    Xdp,
)

NAPI = Napi(
    9,
    irq=40,
    cpus="2",
    defer_hard_irqs=0,
    gro_flush_timeout_ns=0,
    threaded=1,
    queues=("rx-0", "tx-0"),
)
FORMULA = "page - shared_info - 256 - ip_align - 22"


def shown(**fields):
    link = Link(
        **{
            "ifindex": 4,
            "name": "eth0",
            "netns": 1,
            "kind": None,
            "driver": "mlx5_core",
            "flags": 1,
            "operstate": "up",
            "type": 1,
            "mtu": 1500,
            "min_mtu": 68,
            "max_mtu": 9978,
            "address": None,
            "master": None,
            "peer": None,
            "lower": None,
            "num_rx_queues": 8,
            "num_tx_queues": 8,
            "real_rx_queues": 4,
            "real_tx_queues": 4,
            **fields,
        }
    )
    kernel = Kernel("6.18.0", (6, 18, 0), "x86_64", 4096, True)
    space = Namespace(1, None, current=True, links=(link,))
    snapshot = Snapshot("2026-01-01T00:00:00+00:00", kernel, Caller(0, ()), 4, 4, (space,))
    return list(lines(sheet(snapshot, link)))


def test_a_card_with_everything_reads_a_line_a_subject():
    text = shown(
        firmware="22.1",
        bus_info="0000:03:00.0",
        numa_node=0,
        xdp=Xdp(native=5),
        xdp_features=0x6F,
        rings=Rings(rx=1024, tx=1024, rx_max=8192, tx_max=8192, tcp_data_split="unknown"),
        channels=Channels(combined=4, combined_max=8),
        coalesce={"rx-usecs": 8},
        pause=Pause(rx=True),
        private_flags={"rx_striding_rq": False},
        napis=(NAPI,),
        page_pools=(PagePool(7, 4, napi=9, inflight=64, inflight_bytes=262144),),
        statistics={"rx_cache_reuse": 5, "rx_packets": 9},
    )
    assert text == [
        "eth0  (mlx5_core, up)",
        "  firmware          22.1",
        "  bus               0000:03:00.0",
        "  NUMA node         0",
        "  MTU               1500 (68 to 9978)",
        "  XDP features      basic redirect ndo-xmit xsk-zerocopy rx-sg ndo-xmit-sg",
        "  XDP in force      native",
        f"  room for XDP      MTU at most 3498 ({FORMULA}), now 1500; frags lift it. 4 rx and 4 tx queues for 4 CPUs",
        "  rings             rx 1024 of 8192, tx 1024 of 8192, tcp-data-split unknown",
        "  channels          combined 4 of 8",
        "  coalesce          rx-usecs 8",
        "  pause             autoneg off, rx on, tx off",
        "  private flags     rx_striding_rq off",
        "  NAPI              9 (rx-0 tx-0): IRQ 40 on CPU 2, defer-hard-irqs 0, gro-flush-timeout 0 ns, threaded on",
        "  page pool size    1024 pages",
        "  page pool         7 of NAPI 9: 64 pages in flight (262144 bytes)",
        "  page cache        rx_cache_reuse 5",
    ]


def test_a_device_that_tells_nothing_has_a_short_sheet():
    text = shown(driver=None, min_mtu=None, max_mtu=None, real_rx_queues=None, real_tx_queues=None, flags=0)
    assert text == ["eth0  (no driver, down)", "  MTU               1500", "  XDP in force      none"]


def test_a_pool_that_waits_is_told_so():
    (line,) = [
        one for one in shown(page_pools=(PagePool(7, 4, inflight=1, detach_time=100),)) if "pool  " in one
    ]
    assert line.endswith("7: 1 pages in flight, destroyed, waits for them")


def test_every_field_of_a_sheet_has_a_line():
    kernel = Kernel("6.18.0", (6, 18, 0), "x86_64", 4096, True)
    none = dict.fromkeys(("operstate", "min_mtu", "max_mtu", "address", "master", "peer", "lower"))
    counts = dict.fromkeys(("num_rx_queues", "num_tx_queues", "real_rx_queues", "real_tx_queues"), 1)
    link = Link(4, "x", 1, None, None, 0, type=1, mtu=1500, **none, **counts)
    snapshot = Snapshot("", kernel, Caller(0, ()), 4, 4, (Namespace(1, None, current=True, links=(link,)),))
    told = set(sheet(snapshot, link))
    assert told - {"interface", "netns", "ifindex", "driver", "up"} == set(driver_sheet._ROWS)
