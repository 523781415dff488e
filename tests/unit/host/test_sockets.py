"""Receive queues read from the tables under /proc/net."""

from __future__ import annotations

import sys

import pytest

from xdpctl.host.sockets import parse

UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  12: 020200C0:0386 00000000:0000 07 00000000:0001A000 00:00000000 00000000     0        0 4711 2 0 0
  13: 020200C0:0387 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0
"""
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:0016 0100007F:1234 01 00000000:00000010 00:00000000 00000000     0        0 2 1 0
"""
PACKET = """\
sk       RefCnt Type Proto  Iface R Rmem   User   Inode
0000 3      3    0003   2     1 8192      0      99
"""

little = pytest.mark.skipif(sys.byteorder != "little", reason="the tables are in the machine's byte order")


@little
def test_a_socket_with_unread_data_is_told_by_address_and_bytes():
    assert [(one.local, one.unread_bytes, one.inode) for one in parse("udp", UDP, 1)] == [
        ("192.0.2.2:902", 0x1A000, 4711)
    ]


@little
def test_connections_that_wait_at_a_listener_are_no_bytes():
    assert [(one.local, one.unread_bytes) for one in parse("tcp", TCP, 1)] == [("127.0.0.1:22", 16)]


def test_packet_sockets_tell_their_memory():
    assert [(one.local, one.unread_bytes, one.inode) for one in parse("packet", PACKET, 1)] == [
        (None, 8192, 99)
    ]


def test_a_torn_table_is_no_error():
    assert list(parse("udp", UDP[:130] + "\n  nonsense\n", 1)) == []
