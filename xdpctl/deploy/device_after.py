"""A machine as it would be after a change of a device that nobody has made yet. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xdpctl.host.model import Feature

if TYPE_CHECKING:
    from xdpctl.deploy.change import Change
    from xdpctl.host.model import Link, LinkRef, Snapshot


def evolved(snapshot: Snapshot, ref: LinkRef, change: Change) -> Snapshot:
    """The snapshot as it would be after a change; xdp-features are not known then, the rules say what they will be."""
    touched = {ref}
    link = snapshot.link(ref)
    if link is not None and link.peer is not None and link.peer.netns is not None:
        touched |= {peer.ref for peer in (snapshot.peer(link),) if peer is not None}

    def made(one: Link) -> Link:
        if one.ref not in touched:
            return one
        after = _after(one, change) if one.ref == ref else one
        return replace(after, xdp_features=None) if one.kind == "veth" else after

    return replace(
        snapshot,
        namespaces=tuple(
            replace(space, links=tuple(map(made, space.links)))
            if space.inode in {one.netns for one in touched}
            else space
            for space in snapshot.namespaces
        ),
    )


def _after(link: Link, change: Change) -> Link:
    after: dict[str, Any] = dict(change.after)
    plain = {name.replace("-", "_"): value for name, value in after.items()}
    if change.kind == "device.features":
        was = dict(link.features or {})
        return replace(
            link, features=was | {name: Feature(on, on, fixed=False) for name, on in after.items()}
        )
    if change.kind == "device.rings" and link.rings is not None:
        return replace(link, rings=replace(link.rings, **plain))
    if change.kind == "device.channels" and link.channels is not None:
        now = replace(link.channels, **plain)
        return replace(
            link, channels=now, real_rx_queues=now.rx + now.combined, real_tx_queues=now.tx + now.combined
        )
    if change.kind == "device.private-flags":
        return replace(link, private_flags={**(link.private_flags or {}), **after})
    if change.kind == "device.mtu":
        return replace(link, mtu=after["mtu"])
    if change.kind == "device.up":
        return replace(link, flags=link.flags | 0x1 if after["up"] else link.flags & ~0x1)
    return link
