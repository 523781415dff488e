"""Two readings: what moved, by queue and summed, in words, and whether the counters agree."""

from __future__ import annotations

import pytest

from xdpctl.host.counters import Reading, movement, split


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("rx_queue_3_xdp_packets", ("rx_xdp_packets", 3)),
        ("rx12_cache_reuse", ("rx_cache_reuse", 12)),
        ("tx-4.bytes", ("tx_bytes", 4)),
        ("queue_0_tx_cnt", ("tx_cnt", 0)),
        ("[2]: rx_ucast_packets", ("rx_ucast_packets", 2)),
        ("rx_posted_desc[1]", ("rx_posted_desc", 1)),
        ("rx_64_bytes_phy", ("rx_64_bytes_phy", None)),
        ("rx_1024_to_1518_bytes", ("rx_1024_to_1518_bytes", None)),
        ("rx_prio3_packets", ("rx_prio3_packets", None)),
        ("rx_pp_alloc_fast", ("rx_pp_alloc_fast", None)),
    ],
)
def test_the_queue_is_told_from_a_frames_size(name, apart):
    assert split(name) == apart


def moved(before, after):
    """From counters by the driver's names; a blank before one says that it is the link's."""

    def reading(at, values):
        keys = {
            ("link", name.strip(), None) if name[0] == " " else ("driver", *split(name)): one
            for name, one in values.items()
        }
        return Reading(at, {7: keys})

    return movement(reading(10.0, before), reading(12.0, after), 7)


def test_queues_are_summed_and_what_stands_still_is_left_out():
    found = moved(
        {"rx0_packets": 5, "rx1_packets": 5, "rx2_packets": 1},
        {"rx0_packets": 105, "rx1_packets": 55, "rx2_packets": 1},
    )
    (one,) = found.counters
    assert (one.name, one.delta, one.rate, one.queues) == ("rx_packets", 150, 75.0, {0: 100, 1: 50})
    assert one.means == "frames received"


def test_a_counter_that_fell_is_told_and_no_rate_made_up():
    found = moved({"a": 9, "b": 1}, {"a": 3, "b": 2, "new": 8})
    assert found.fell == ("a",)
    assert [one.name for one in found.counters] == ["b"]


@pytest.mark.parametrize(("device", "holds"), [(1000, True), (1060, True), (2000, False)])
def test_queues_are_held_against_the_device(device, holds):
    found = moved({"rx0_packets": 0, " rx_packets": 0}, {"rx0_packets": 1000, " rx_packets": device})
    assert [one.holds for one in found.checks] == [holds]


def test_more_verdicts_than_frames_do_not_agree():
    names = ("rx_queue_0_xdp_packets", "rx_queue_0_xdp_drops")
    assert moved(dict.fromkeys(names, 0), {names[0]: 1000, names[1]: 400}).checks[0].holds
    assert not moved(dict.fromkeys(names, 0), {names[0]: 1000, names[1]: 5000}).checks[0].holds


def test_pages_recycled_and_failed_are_held_against_packets():
    names = ("rx0_cache_reuse", "rx0_cache_busy", "rx0_packets")
    found = moved(dict.fromkeys(names, 0), {names[0]: 300, names[1]: 100, names[2]: 800})
    assert found.checks[-1].says == (
        "300 recycled, 100 not (75.0% recycled); together 0.50 for each of 800 packets received"
    )


def test_a_full_cache_alone_is_no_failure_for_the_page_goes_to_the_ring():
    names = ("rx_pp_recycle_cache_full", "rx_pp_recycle_ring")
    found = moved(dict.fromkeys(names, 0), dict.fromkeys(names, 50))
    assert found.checks[0].says.startswith("50 recycled, 0 not")
