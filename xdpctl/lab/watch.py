"""The name under which the labs know `xdpctl.trace.watch`, which lies below doctor so that --probe can use it."""

from xdpctl.trace.watch import TRACEFS, XDP_EVENTS, Event, Watch, parse

__all__ = ["TRACEFS", "XDP_EVENTS", "Event", "Watch", "parse"]
