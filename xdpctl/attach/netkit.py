"""TC programs on a netkit pair, by pinned links (drivers/net/netkit.c, Linux 6.7).

A netkit program runs where its end sends. Seen from the primary end, which is the host's: what the primary sends is
egress, and what the peer sends is the primary's ingress.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdpctl.attach import pinned
from xdpctl.attach.observe import NETKIT
from xdpctl.attach.tcx import Tcx
from xdpctl.bpf.link import Order, link_netkit
from xdpctl.errors import AttachError

if TYPE_CHECKING:
    from xdpctl.attach.strategy import Change, Loaded, Target
    from xdpctl.attach.transaction import Transaction

HOOKS = {"egress": "netkit-primary", "ingress": "netkit-peer"}
"""Direction, seen from the primary end -> hook."""


class Netkit(Tcx):
    """TC by a netkit link (drivers/net/netkit.c, Linux 6.7): on what either end of the pair sends.

    Programs of both ends are attached through the primary.
    """

    via = "netkit"

    def attach(self, program: Loaded, target: Target, changes: Transaction) -> Change:
        """See `Strategy`."""
        place = self.place.get(target.ifindex, Order())
        try:
            link = link_netkit(program.fd, target.ifindex, NETKIT[target.hook], order=place)
        except AttachError as error:
            if error.errno == 13:  # EACCES, netkit_dev_fetch()
                error.hint = (
                    f"{target.interface} is the peer end of a netkit pair: attach through the primary end"
                )
            raise
        return pinned.keep(link, target, changes, via=self.via)
