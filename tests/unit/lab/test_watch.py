"""Lines of trace_pipe, as kernels from 5.10 to 7.2 print them, become events."""

from __future__ import annotations

import pytest

from xdpctl.lab.watch import parse

LINES = {
    "          <idle>-0       [001] ..s2.    52.123456: xdp_redirect_err: prog_id=7 action=REDIRECT ifindex=3"
    " to_ifindex=5 err=-95 map_id=2147483647 map_index=0": ("xdp_redirect_err", 0, 1, "EOPNOTSUPP"),
    "     ksoftirqd/0-13      [000] b.s2.    52.1: xdp_devmap_xmit: ndo_xdp_xmit from_ifindex=3 to_ifindex=5"
    " action=REDIRECT sent=0 drops=1 err=-6": ("xdp_devmap_xmit", 13, 0, "ENXIO"),
    "  a name - [with] 9-4242  [003] 99999.000001: xdp_bulk_tx: ifindex=3 action=TX sent=1 drops=0 err=0": (
        "xdp_bulk_tx",
        4242,
        3,
        None,
    ),
    "          python-77      [000] .....     3.5: bpf_xdp_link_attach_failed: errmsg=veth: Peer MTU is too"
    " large to set XDP": ("bpf_xdp_link_attach_failed", 77, 0, None),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_becomes_an_event(line):
    event = parse(line)
    assert (event.name, event.pid, event.cpu, event.errno) == LINES[line]
    assert line.endswith(event.text)


def test_fields_are_read_by_name_and_missing_ones_are_zero():
    event = parse(next(iter(LINES)))
    assert (event.number("to_ifindex"), event.number("map_id"), event.number("drops")) == (5, 2147483647, 0)
    assert event.number("action") == 0  # a word, no number


@pytest.mark.parametrize("line", ["", "# tracer: nop", "CPU:1 [LOST 5 EVENTS]", "x-1 [000] 1.0: only_a_name"])
def test_what_is_no_event_is_passed_over(line):
    assert parse(line) is None
