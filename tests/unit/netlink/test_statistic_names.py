"""Counters that a driver calls alike stay apart."""

from __future__ import annotations

from xdpctl.host.counters import split
from xdpctl.netlink.statistic_names import distinct

VMXNET3_QUEUES = [
    *("Tx Queue#", "  pkts tx err", "  drv dropped tx total", "     giant hdr", "  ring full", "  giant hdr"),
    *("Tx Queue#", "  pkts tx err", "  drv dropped tx total", "     giant hdr", "  ring full", "  giant hdr"),
    *("Rx Queue#", "  pkts rx err", "     fcs", "Rx Queue#", "  pkts rx err", "     fcs", "tx timeout count"),
]


def test_names_that_differ_are_left_alone():
    assert distinct(["rx_packets", " tx_packets "]) == ["rx_packets", "tx_packets"]
    assert distinct([]) == []


def test_vmxnet3s_queues_and_reasons_stay_apart():
    names = distinct(VMXNET3_QUEUES)
    assert len(set(names)) == len(VMXNET3_QUEUES)
    assert (names[1], names[7]) == ("tx_queue_0_pkts_tx_err", "tx_queue_1_pkts_tx_err")
    assert names[3] == "tx_queue_0_drv_dropped_tx_total_giant_hdr"
    assert names[5] == "tx_queue_0_giant_hdr"
    assert names[16] == "rx_queue_1_pkts_rx_err"
    assert names[-1] == "tx timeout count"


def test_the_queue_is_read_from_such_a_name():
    assert split("tx_queue_1_pkts_tx_err") == ("tx_pkts_tx_err", 1)


def test_what_is_alike_without_any_heading_gets_a_number():
    assert distinct(["drops", "drops", "errors"]) == ["drops", "drops_2", "errors"]
