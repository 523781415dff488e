"""Frames hold what was asked for, byte by byte."""

from __future__ import annotations

import struct

import pytest

from xdpctl.lab import frames


def test_a_short_frame_is_padded_to_what_ethernet_asks():
    frame = frames.ethernet(b"x", destination="02:00:00:00:00:02")
    assert frame[:15] == bytes.fromhex("02000000000202000000000188b5") + b"x"
    assert len(frame) == 60


@pytest.mark.parametrize("length", [61, 1514, 9014])
def test_a_length_is_of_the_whole_frame(length):
    assert len(frames.ethernet(b"x", length=length)) == length


def test_a_tag_stands_before_the_ethertype():
    assert frames.ethernet(b"", vlan=7)[12:18] == bytes.fromhex("8100000788b5")


def test_an_ipv4_header_sums_to_zero_and_counts_its_datagram():
    frame = frames.udp4(b"hello", ports=(1, 2))
    header = frame[14:34]
    total = sum(struct.unpack("!10H", header))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert struct.unpack_from("!H", header, 2)[0] == 20 + 8 + 5
    assert frame[34:47] == struct.pack("!HHHH", 1, 2, 13, 0) + b"hello"
