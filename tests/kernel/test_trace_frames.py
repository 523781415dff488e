"""Frames heard through a packet socket are all there when somebody looks."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from xdpctl.bpf.object import Object
from xdpctl.netlink import netns
from xdpctl.obj.shipped import resolve
from xdpctl.trace.frames import Port, ethernet

pytestmark = pytest.mark.kernel


@pytest.mark.needs("live_frames")
def test_a_port_keeps_every_frame_until_it_is_read(world):
    """A frame that came by XDP counts for a whole page of its socket's room: by default some 50 fit."""
    here = world.namespace()
    world.veth("pa", "pb", netns_a=here, netns_b=here)
    with netns.enter(here), Object.open(resolve(Path("builtin:pass"))) as opened, Port("pb") as port:
        opened.load()
        (program,) = opened.programs.values()
        frame = ethernet(b"kept", destination="02:00:00:00:00:99")
        program.test_run(frame, repeat=200, live_frames=True, ifindex=socket.if_nametoindex("pb"))
        assert port.count(b"kept", expect=200, seconds=5) == 200
