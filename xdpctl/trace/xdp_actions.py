"""How many frames met each XDP verdict on a link, by the driver's own counters (``ethtool -S``).

No kernel counts verdicts for all drivers, so there is no answer where a driver keeps no such counters, or for generic
mode: those are None. Names mirror the drivers: veth_rq_stats_desc[] (veth), virtnet_rq_stats_desc[] (virtio_net),
rq_stats_desc[] (mlx5), ena_stats_rx_strings[] (ena), mvneta_statistics[] (mvneta), gve, sfc.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from xdpctl.errors import NetlinkError
from xdpctl.host.counters import split
from xdpctl.netlink import ethtool_ioctl

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

SEEN, PASS, DROP, TX, REDIRECT, ABORTED, REFUSED = (
    *("seen", "pass", "drop", "tx", "redirect"),
    *("aborted", "refused"),
)
ACTIONS = (PASS, DROP, TX, REDIRECT, ABORTED)
"""As users know them. A driver that has no counter of its own for XDP_ABORTED counts it as a drop."""

NAMES = {
    "rx_xdp_packets": SEEN,
    "rx_xdp_pass": PASS,
    "rx_xdp_drop": DROP,
    "rx_xdp_drops": DROP,
    "rx_xdp_bad_drops": ABORTED,
    "rx_xdp_tx": TX,
    "rx_xdp_tx_xmit": TX,
    "rx_xdp_tx_errors": REFUSED,
    "rx_xdp_redirect": REDIRECT,
    "rx_xdp_redirects": REDIRECT,
    "rx_xdp_aborted": ABORTED,
}
"""Counter without its queue -> what it counts. REFUSED: frames that a verdict sent on, and nobody took."""
OF_DRIVER = {"veth": {"rx_drops": REFUSED}}
"""veth counts there the frames whose redirect or XDP_TX was refused (veth_xdp_rcv_one())."""


class Plan(NamedTuple):
    """Where in a driver's counters the verdicts are."""

    names: tuple[str, ...]
    places: Mapping[str, tuple[int, ...]]
    """What is counted -> the counters to add up."""


def plan(names: Sequence[str], driver: str | None) -> Plan:
    """Where the verdicts are among these counters. A total beside its queues' parts is left out. Pure."""
    known = NAMES | OF_DRIVER.get(driver or "", {})
    queued: dict[str, list[int]] = {}
    whole: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        head, queue = split(name)
        if head in known:
            (whole if queue is None else queued).setdefault(head, []).append(place)
    places: dict[str, list[int]] = {}
    for head, found in (whole | queued).items():
        places.setdefault(known[head], []).extend(found)
    return Plan(tuple(names), {what: tuple(found) for what, found in places.items()})


def counts(planned: Plan, values: Sequence[int]) -> dict[str, int]:
    """What the driver counted so far, by SEEN, PASS, DROP, ...; only what it counts. Pure."""
    return {what: sum([values[place] for place in places]) for what, places in planned.places.items()}


def verdicts(driver: str | None, counted: Mapping[str, int]) -> dict[str, int | None]:
    """Frames by verdict, from counts of a driver (or differences of such); None: it can't be known. Pure."""
    found: dict[str, int | None] = {action: counted.get(action) for action in ACTIONS}
    if found[PASS] is None:
        found[PASS] = _passed(driver, counted)
    return found


def _passed(driver: str | None, counted: Mapping[str, int]) -> int | None:
    """What is left of the frames seen, for the drivers whose counters are known to add up."""
    seen, drop, tx, redirect = (counted.get(one) for one in (SEEN, DROP, TX, REDIRECT))
    if driver not in ("veth", "virtio_net") or seen is None or drop is None or tx is None or redirect is None:
        return None
    if driver == "virtio_net" and drop and (tx or redirect):
        return None  # a redirect that fails is counted as a redirect and as a drop (virtnet_xdp_handler())
    return max(0, seen - drop - tx - redirect - counted.get(REFUSED, 0))


class Reader:
    """Reads the verdict counters of links of one namespace; names are asked for once.

    Args:
        sock: an ethtool control socket of that namespace.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._plans: dict[tuple[int, str], Plan | None] = {}

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def driver(self, name: str) -> str | None:
        """The driver of an interface; None: it does not say."""
        try:
            return ethtool_ioctl.driver_info(name, self._sock).driver or None
        except NetlinkError:
            return None

    def read(self, ifindex: int, name: str, driver: str | None) -> dict[str, int] | None:
        """What the driver counted so far; None: it counts no verdicts, or the link has gone."""
        key = (ifindex, name)
        for _ in range(2):
            if key not in self._plans:
                self._plans[key] = self._plan(name, driver)
            planned = self._plans[key]
            if planned is None:
                return None
            try:
                values = ethtool_ioctl.statistics_values(name, len(planned.names), self._sock)
            except NetlinkError:
                self._plans.pop(key)
                return None
            if len(values) == len(planned.names):
                return counts(planned, values)
            self._plans.pop(key)  # its queues changed, and with them the counters
        return None

    def forget(self, ifindex: int) -> None:
        """Ask for a link's names again: it changed."""
        for key in [one for one in self._plans if one[0] == ifindex]:
            del self._plans[key]

    def _plan(self, name: str, driver: str | None) -> Plan | None:
        try:
            found = plan(ethtool_ioctl.statistics_names(name, self._sock), driver)
        except NetlinkError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL):
                raise
            return None
        return found if found.places else None
