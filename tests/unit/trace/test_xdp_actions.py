"""Verdicts out of drivers' counters: by the names they use, and unknown where they keep none."""

from __future__ import annotations

import pytest

from xdpctl.trace.xdp_actions import counts, plan, verdicts


def counted(driver, **named):
    return counts(plan(list(named), driver), list(named.values()))


def test_a_veths_queues_are_added_up_and_what_is_left_was_passed():
    found = counted(
        "veth",
        peer_ifindex=3,
        rx_queue_0_xdp_packets=100, rx_queue_0_drops=5, rx_queue_0_xdp_redirect=20, rx_queue_0_xdp_drops=10,
        rx_queue_0_xdp_tx=7, rx_queue_0_xdp_tx_errors=1, tx_queue_0_xdp_xmit=9,
        rx_queue_1_xdp_packets=50, rx_queue_1_drops=0, rx_queue_1_xdp_redirect=0, rx_queue_1_xdp_drops=50,
        rx_queue_1_xdp_tx=0, rx_queue_1_xdp_tx_errors=0,
    )  # fmt: skip
    assert verdicts("veth", found) == {"pass": 57, "drop": 60, "tx": 7, "redirect": 20, "aborted": None}


def test_a_total_beside_its_queues_is_not_counted_twice():
    found = counted("mlx5_core", rx_xdp_drop=30, rx0_xdp_drop=10, rx1_xdp_drop=20, rx_xdp_redirect=4)
    assert verdicts("mlx5_core", found) == {
        "pass": None,
        "drop": 30,
        "tx": None,
        "redirect": 4,
        "aborted": None,
    }


def test_a_driver_that_counts_all_verdicts_is_taken_at_its_word():
    found = counted(
        "ena", queue_0_rx_xdp_pass=3, queue_0_rx_xdp_drop=2, queue_0_rx_xdp_tx=1, queue_0_rx_xdp_redirect=5,
        queue_0_rx_xdp_aborted=4, queue_1_rx_xdp_pass=30,
    )  # fmt: skip
    assert verdicts("ena", found) == {"pass": 33, "drop": 2, "tx": 1, "redirect": 5, "aborted": 4}


@pytest.mark.parametrize(("redirects", "passed"), [(0, 90), (5, None)])
def test_virtio_counts_a_failed_redirect_twice_so_the_rest_is_unknown_then(redirects, passed):
    found = counted(
        "virtio_net", rx_queue_0_xdp_packets=100, rx_queue_0_xdp_tx=0, rx_queue_0_xdp_redirects=redirects,
        rx_queue_0_xdp_drops=10,
    )  # fmt: skip
    assert verdicts("virtio_net", found)["pass"] == passed


def test_a_driver_without_such_counters_has_no_plan():
    assert not plan(["rx_packets", "tx_packets", "rx_queue_0_packets"], "igb").places


def test_nothing_counted_is_nothing_known():
    assert set(verdicts("veth", {}).values()) == {None}
