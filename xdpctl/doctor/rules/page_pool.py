"""Page pools: one that is larger than the kernel allows, ones that wait for pages, and figures that say why.

Mirrors net/core/page_pool.c: page_pool_init(), page_pool_release_retry(), page_pool_inflight() and its statistics;
net/core/dev.c netdev_wait_allrefs_any(); drivers/net/ethernet/mellanox/mlx5/core/en_rx.c mlx5e_rx_cache_get().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.doctor.finding import Evidence, Finding, Status
from xdpctl.doctor.intent import AttachXdp, Health
from xdpctl.doctor.page_holders import holders
from xdpctl.doctor.page_pools import allowance, from_netlink
from xdpctl.doctor.rules.case import Case, Mistake, Rule, driver_of
from xdpctl.trace.pool_records import WARNS_AFTER, Shutdown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdpctl.doctor.finding import Fix
    from xdpctl.doctor.page_pools import Health as PoolHealth
    from xdpctl.doctor.page_pools import Pool
    from xdpctl.host.model import Link
    from xdpctl.host.pool_model import KernelMessage, PoolState

TOO_LARGE = Mistake(
    "page-pool.too-large",
    "The receive ring makes a page pool of more than 32768 pages, so setting the rings up for XDP fails.",
    "E2BIG, until 5.10.247, 6.1.159, 6.12.58 and 6.18 (the pool's ring is cut at 16384 there)",
    ("net/core/page_pool.c page_pool_init()",),
)
STALLED = Mistake(
    "page-pool.stalled",
    "A page pool was destroyed, and pages are still out: it and its DMA mappings stay until the last one is back.",
    "none; dmesg once a minute where netlink does not list the pool",
    ("net/core/page_pool.c page_pool_release_retry()",),
)
NEGATIVE = Mistake(
    "page-pool.negative",
    "More pages came back to a page pool than it gave out: the driver returns pages twice.",
    "none; a WARN in dmesg, and the pool is never freed",
    ("net/core/page_pool.c page_pool_inflight()",),
)
GROWS = Mistake(
    "page-pool.beyond-its-rings",
    "A live page pool has more pages out than its rings and caches hold: somebody keeps them.",
    "none",
    ("net/core/page_pool.c page_pool_inflight()",),
)
LOW = {
    "recycle_ring_full": Mistake(
        "page-pool.ring-full",
        "Pages come back faster than the pool's ring takes them, and are freed instead of recycled.",
        "none; recycle-ring-full",
        ("net/core/page_pool.c page_pool_recycle_in_ring()",),
    ),
    "recycle_released_refcnt": Mistake(
        "page-pool.shared-pages",
        "Pages come back while somebody else still refers to them, so they can't be recycled.",
        "none; recycle-released-refcnt",
        ("net/core/page_pool.c __page_pool_put_page()",),
    ),
    "alloc_waive": Mistake(
        "page-pool.numa-waive",
        "Pages of another NUMA node are thrown out of the pool: its NAPI runs far from its memory.",
        "none; alloc-waive",
        ("net/core/page_pool.c page_pool_refill_alloc_cache()",),
    ),
    "alloc_empty": Mistake(
        "page-pool.ring-empty",
        "The pool's ring is empty when pages are wanted: they come back late, or leave the pool.",
        "none; alloc-empty",
        ("net/core/page_pool.c page_pool_refill_alloc_cache()",),
    ),
}
TRUESIZE = Mistake(
    "page-pool.xdp-truesize",
    "With XDP the driver puts one frame in a page, so that each counts double in its socket and TCP's window shrinks.",
    "none; the driver's rx_cache_busy and rx_cache_full grow against rx_cache_reuse",
    (
        "drivers/net/ethernet/mellanox/mlx5/core/en/params.c mlx5e_rx_get_linear_frag_sz()",
        "drivers/net/ethernet/mellanox/mlx5/core/en_rx.c mlx5e_rx_cache_get() (before 6.3)",
    ),
)
DEVICE_WAITS = Mistake(
    "page-pool.device-waits",
    "A device is being removed, and something still refers to it: often frames that nobody takes.",
    "none; `ip link del` hangs, dmesg every ten seconds",
    ("net/core/dev.c netdev_wait_allrefs_any()",),
)
MISTAKES = (TOO_LARGE, STALLED, NEGATIVE, GROWS, *LOW.values(), TRUESIZE, DEVICE_WAITS)

LIMIT = 32768
"""Pages in a pool that page_pool_init() took before the ring was cut at 16384 instead."""
CLAMPED = {(5, 10): 247, (6, 1): 159, (6, 12): 58}
"""Series -> the stable release with "page_pool: Clamp pool size to max 16K pages"; mainline has it from 6.18 on."""
MAINLINE_CLAMP = (6, 18)

POOL_AS_RING = frozenset("stmmac st_gmac mvneta mvpp2 fec ionic ravb iavf idpf mtk_soc_eth".split())
"""Drivers whose pools have a page for each receive descriptor."""

VETH_RING = 256
"""VETH_RING_SIZE, of its frames and of its page pool."""

PATIENCE = 2.0
"""Seconds that pages may take to come home after a reconfiguration before it is worth a word: two tries."""
NEWS = WARNS_AFTER + 15
"""Seconds for which a line that the kernel repeats each minute still speaks of the present."""
DEVICE_NEWS = 25
"""The same for what it repeats every ten seconds (netdev_unregister_timeout_secs)."""
CACHE_ENOUGH = 1000
CACHE_SHARE = 0.1
"""Share of mlx5's page cache look-ups that find a page still in use, from which it costs."""


# -- at attach


def _clamps(case: Case) -> bool | None:
    """Whether this kernel cuts a large pool instead of refusing it; None: not known for its series."""
    version = case.kernel.version
    if version[:2] >= MAINLINE_CLAMP:
        return True
    since = CLAMPED.get(version[:2])
    return None if since is None else version[2] >= since


def too_large(case: Case, intent: AttachXdp | Health) -> Iterator[Finding]:
    """A ring that asks for a pool larger than page_pool_init() takes."""
    link = case.link(intent.link)
    if link is None or link.rings is None or link.rings.rx is None:
        return
    if isinstance(intent, AttachXdp) and intent.mode != "native":
        return
    ring, driver = link.rings.rx, driver_of(link)
    pages = pool_size(link, case.kernel.page_size)
    if pages is None or pages <= LIMIT:
        return
    clamps = _clamps(case)
    if clamps:
        return
    exact = driver in POOL_AS_RING
    smaller = LIMIT // 2 if exact else max(256, ring // 2)
    failing = isinstance(intent, AttachXdp) and exact and clamps is False
    yield case.find(
        TOO_LARGE,
        Status.FAIL if failing else Status.UNKNOWN,
        link,
        f"{case.name(link)}: a receive ring of {ring} makes page pools of {pages} pages, and"
        + (" this kernel refuses" if clamps is False else " kernels before the fix refuse")
        + f" more than {LIMIT}",
        errno="E2BIG",
        shows_in="the attach itself",
        consequence="the driver can't set its rings up: the attach fails, or the device stays down",
        evidence=(
            Evidence(f"rx ring {ring} of at most {link.rings.rx_max}", f"ethtool rings of {link.name}"),
            Evidence(f"driver {driver}, MTU {link.mtu}", "ethtool driver info"),
            case.version_evidence(),
        ),
        fix=(
            case.fix(
                link, "ethtool", "-G", link.name, "rx", str(smaller), flaps=True,
                inverse=("ethtool", "-G", link.name, "rx", str(ring)),
            ),
        ),
    )  # fmt: skip


def pool_size(link: Link, page: int) -> int | None:
    """Pages that the driver asks for in each page pool; None: it is not one whose rule is known, or has none.

    Args:
        link: the device.
        page: bytes of a page.
    """
    rings, driver = link.rings, driver_of(link)
    if driver == "veth" and link.xdp.native:
        return VETH_RING
    if rings is None or rings.rx is None:
        return None
    if driver in POOL_AS_RING:
        return rings.rx
    if driver == "mlx5_core":
        striding = (link.private_flags or {}).get("rx_striding_rq")
        # mlx5e_alloc_rq(): pages_per_wqe << log of WQEs, which together hold a ring of frames of this MTU
        return int(rings.rx * (1 << (link.mtu + 63).bit_length()) // page) if striding else rings.rx
    return None


# -- pools that wait


def of_link(case: Case, intent: Health) -> Iterator[Finding]:
    """The pools that netlink lists for one link."""
    link = case.link(intent.link)
    state = case.snapshot.pool_state
    if link is None:
        return
    yield from _truesize(case, link)
    for one in (state.pools if state else None) or ():
        if (one.netns, one.ifindex) == (link.netns, link.ifindex) and state is not None:
            pool = from_netlink(case.snapshot, one, state.boottime)
            yield from _waits(case, link, pool)
            yield from _beyond(case, link, pool)
            yield from _low(case, link, pool)


def _waits(case: Case, link: Link | None, pool: Pool) -> Iterator[Finding]:
    if not pool.waits or not pool.inflight or (pool.age or 0) < PATIENCE:
        return
    negative = pool.state is Shutdown.NEGATIVE
    whose = case.name(link) if link is not None else "a device that is gone"
    held = holders(case.snapshot, pool)
    memory = f" ({_bytes(pool.inflight_bytes)})" if pool.inflight_bytes else ""
    pages = _pages(pool.inflight)
    yield case.find(
        NEGATIVE if negative else STALLED,
        Status.WARN,
        link,
        f"page pool {pool.id} of {whose} was destroyed {pool.age:.0f} s ago, and {pages}{memory}"
        f" {'is' if pool.inflight == 1 else 'are'} still out",
        consequence="its memory, its DMA mappings and the device behind them stay until the last page is back;"
        " the kernel asks again every second",
        shows_in="page-pool-get, tracepoint page_pool:page_pool_release",
        evidence=(
            Evidence(f"in flight {pool.inflight}, detached {pool.age:.0f} s ago", "netdev page-pool-get"),
            *(Evidence(str(one), one.look) for one in held),
        ),
        alternatives=("read or close what holds them: the candidates are in the evidence",)
        if held
        else (
            "who holds them is not known: xdpctl pool leaks looks closer, xdpctl pool watch waits for them",
        ),
    )


def _beyond(case: Case, link: Link, pool: Pool) -> Iterator[Finding]:
    may = allowance(pool, link)
    if pool.state is not Shutdown.LIVE or pool.inflight is None or may is None or pool.inflight <= may:
        return
    yield case.find(
        GROWS,
        Status.WARN,
        link,
        f"page pool {pool.id} of {case.name(link)} has {pool.inflight} pages out, its rings and caches hold {may}",
        consequence="somebody keeps frames: memory grows, and the pool can't be freed when the rings change",
        evidence=(
            Evidence(f"in flight {pool.inflight}", "netdev page-pool-get"),
            *(Evidence(str(one), one.look) for one in holders(case.snapshot, pool)),
        ),
        alternatives=("xdpctl pool watch shows whether it grows",),
    )


def _low(case: Case, link: Link, pool: Pool) -> Iterator[Finding]:
    health = pool.health()
    if health is None:
        return
    for one in health.low:
        mistake = LOW[one.name]
        yield case.find(
            mistake,
            Status.WARN,
            link,
            f"page pool {pool.id} of {case.name(link)}: {one.name.replace('_', '-')} is {one.share:.0%}: {one.means}",
            consequence="each such page costs the page allocator, and a DMA mapping, once more",
            evidence=(
                Evidence(f"{one.name} {one.count}", "netdev page-pool-stats-get"),
                *_recycled(health),
            ),
            fix=_larger(case, link) if one.name == "recycle_ring_full" else (),
            alternatives=_other_ways(one.name),
        )


def _recycled(health: PoolHealth) -> tuple[Evidence, ...]:
    if health.recycled is None:
        return ()
    return (Evidence(f"{health.recycled:.1%} of the pages given back were recycled", "its counters"),)


def _larger(case: Case, link: Link) -> tuple[Fix, ...]:
    rings = link.rings
    if rings is None or not rings.rx or not rings.rx_max or rings.rx * 2 > rings.rx_max:
        return ()
    argv = ("ethtool", "-G", link.name, "rx")
    return (
        case.fix(
            link, *argv, str(rings.rx * 2), flaps=True, inverse=(*argv, str(rings.rx)),
            note="most drivers size the pool as the ring",
        ),
    )  # fmt: skip


def _other_ways(name: str) -> tuple[str, ...]:
    return {
        "alloc_waive": ("pin the queue's interrupt to a CPU of the device's NUMA node",),
        "recycle_released_refcnt": (
            "redirect in the driver's own program instead of behind a veth, stop mirrors",
        ),
        "alloc_empty": ("xdpctl pool watch: where pages wait, or that they leave the pool",),
    }.get(name, ())


def _truesize(case: Case, link: Link) -> Iterator[Finding]:
    """mlx5 before 6.3: a cache of its own in front of the pool, whose head page is still in use by the stack."""
    counts = link.statistics
    if not link.xdp.native or not counts or "rx_cache_reuse" not in counts:
        return
    reuse, busy, full = (counts.get(f"rx_cache_{one}", 0) for one in ("reuse", "busy", "full"))
    total = reuse + busy
    if total < CACHE_ENOUGH or busy < CACHE_SHARE * total:
        return
    yield case.find(
        TRUESIZE,
        Status.WARN,
        link,
        f"{case.name(link)}: with XDP each frame takes a page of its own, and {busy / total:.0%} of the page cache's"
        " look-ups find it still in use",
        consequence="a frame's truesize doubles, and with it what it takes of a socket's receive buffer: TCP through"
        " this device slows although XDP only passes",
        evidence=(
            Evidence(
                f"rx_cache_reuse {reuse}, rx_cache_busy {busy}, rx_cache_full {full}",
                f"ethtool -S {link.name}",
            ),
            Evidence(f"native XDP program {link.xdp.native}", f"RTM_GETLINK of {case.name(link)}"),
        ),
        alternatives=(
            "larger socket buffers: sysctl net.ipv4.tcp_rmem, its third value doubled",
            "Linux 6.3 or newer: the page pool recycles pages that the stack gave back",
        ),
    )


# -- the machine


def machine(case: Case, _: None) -> Iterator[Finding]:
    """What belongs to no link any more: orphaned pools, and what the kernel's log says now."""
    state = case.snapshot.pool_state
    if state is None:
        return
    for one in state.pools or ():
        if one.ifindex is None:
            yield from _waits(case, None, from_netlink(case.snapshot, one, state.boottime))
    listed = {one.id for one in state.pools or ()}
    for message in state.messages or ():
        yield from _said(case, state, message, listed)


def _said(case: Case, state: PoolState, message: KernelMessage, listed: set[int]) -> Iterator[Finding]:
    ago = None if message.at is None else state.monotonic - message.at
    source = f"kernel log, {'some time' if ago is None else f'{ago:.0f} s'} ago" + (
        f", {message.count} times" if message.count > 1 else ""
    )
    evidence = (Evidence(message.text, source),)
    if message.kind == "negative":
        yield case.find(
            NEGATIVE, Status.WARN, None,
            f"the kernel counted {message.pages} pages in flight: a driver returned pages that were not out",
            interface=None, evidence=evidence,
            consequence="that pool is never freed; other counts of the driver can't be trusted either",
            alternatives=("the lines around it in dmesg name the driver; it is a defect to report",),
        )  # fmt: skip
    elif ago is None or ago > (DEVICE_NEWS if message.kind == "device-waits" else NEWS):
        return  # it would have been said again: that shutdown, or removal, has ended
    elif message.kind == "device-waits":
        stalled = [one.text for one in state.messages or () if one.kind == "stalled"]
        yield case.find(
            DEVICE_WAITS, Status.WARN, None,
            f"{message.device} is being removed, and something still refers to it",
            interface=message.device, netns=None, shows_in="`ip link del`, which does not return",
            consequence="the device, its namespace and whoever removes them hang",
            evidence=(*evidence, *(Evidence(text, "kernel log") for text in stalled)),
            alternatives=("frames of it may wait in a socket or a ring: xdpctl pool leaks",),
        )  # fmt: skip
    elif message.pool_id is None or message.pool_id not in listed:
        number = f" {message.pool_id}" if message.pool_id is not None else ""
        yield case.find(
            STALLED, Status.WARN, None,
            f"page pool{number}, which netlink does not list, waits for {_pages(message.pages or 0)} since"
            f" {(message.seconds or 0) + (ago or 0):.0f} s",
            interface=None, evidence=evidence,
            consequence="its memory and DMA mappings stay until the last page is back",
            alternatives=("xdpctl pool leaks: whose it is, and who may hold them",),
        )  # fmt: skip


def _pages(count: int) -> str:
    return f"{count} page{'' if count == 1 else 's'}"


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


RULES = (Rule((), machine), Rule((AttachXdp, Health), too_large), Rule((Health,), of_link))
