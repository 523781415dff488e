"""A netlink socket's side of the protocol, against a kernel played by the test."""

from __future__ import annotations

import contextlib
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.errors import NetlinkError
from xdpctl.netlink import wire
from xdpctl.netlink.attributes import attr_text

DONE, ERROR, NEWLINK = 3, 2, 16
MULTI, INTERRUPTED, CAPPED, TLVS = 0x2, 0x10, 0x100, 0x200


def message(kind, payload=b"", *, flags=0, sequence=1):
    padded = payload + b"\0" * (-len(payload) % 4)
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + padded


def status(code, more=b"", *, capped=True, request=b"\0" * 16):
    return struct.pack("=i", -code) + (request[:16] if capped else request) + more


class Kernel:
    """Answers every datagram sent with the next script: a list of datagrams."""

    def __init__(self, *scripts):
        self.scripts, self.pending, self.sent = list(scripts), [], 0

    def send(self, _data):
        self.sent += 1
        self.pending = list(self.scripts.pop(0))

    def recvmsg(self, _size):
        if not self.pending:
            raise BlockingIOError(11, "nothing")
        datagram = self.pending.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        data, flags, port = datagram if isinstance(datagram, tuple) else (datagram, 0, 0)
        return data, [], flags, (port, 0)

    def close(self):
        pass


def opened(*scripts):
    sock = wire.Socket.__new__(wire.Socket)
    sock._socket, sock._sequence = Kernel(*scripts), 0
    sock.warning, sock.interrupted, sock.family = None, False, 0
    return sock


def texts(payloads):
    return [data[start:end] for data, start, end in payloads]


def test_a_dump_gathers_the_parts_of_several_datagrams():
    sock = opened(
        [
            message(NEWLINK, b"aaaa", flags=MULTI) + message(NEWLINK, b"bb", flags=MULTI),
            message(NEWLINK, b"c") + message(DONE, b"\0\0\0\0"),
        ]
    )
    assert texts(sock.dump(18)) == [b"aaaa", b"bb", b"c"]
    assert not sock.interrupted


def test_answers_of_an_earlier_request_and_of_other_processes_are_not_taken():
    sock = opened(
        [
            message(NEWLINK, b"old!", sequence=77),
            (message(NEWLINK, b"evil"), 0, os.getpid()),
            message(NEWLINK, b"mine") + message(DONE),
        ]
    )
    assert texts(sock.dump(18)) == [b"mine"]


def test_a_dump_under_which_something_changed_is_repeated():
    torn = [message(NEWLINK, b"torn", flags=INTERRUPTED) + message(DONE, b"\0\0\0\0", flags=INTERRUPTED)]
    whole = [message(NEWLINK, b"good", sequence=2) + message(DONE, b"\0\0\0\0", sequence=2)]
    sock = opened(torn, whole)
    assert texts(sock.dump(18)) == [b"good"]
    assert not sock.interrupted


def test_a_dump_that_never_settles_is_taken_and_said_so():
    scripts = [
        [message(NEWLINK, b"torn", flags=INTERRUPTED, sequence=n) + message(DONE, sequence=n)]
        for n in range(1, 6)
    ]
    sock = opened(*scripts)
    assert texts(sock.dump(18)) == [b"torn"]
    assert sock.interrupted
    assert sock._socket.sent == 5


def test_a_refusal_carries_errno_and_extack():
    words = attr_text(1, "veth: Peer MTU is too large to set XDP")
    sock = opened([message(ERROR, status(34, words), flags=CAPPED | TLVS)])
    with pytest.raises(NetlinkError) as refusal:
        sock.request(19, what="attaching")
    assert (refusal.value.errno, refusal.value.extack) == (34, "veth: Peer MTU is too large to set XDP")
    assert refusal.value.message == "attaching: veth: Peer MTU is too large to set XDP"


def test_extack_is_found_behind_an_uncapped_request():
    request = struct.pack("=IHHII", 24, 19, 5, 1, 0) + b"\1" * 8
    words = attr_text(1, "because")
    sock = opened([message(ERROR, status(22, words, capped=False, request=request), flags=TLVS)])
    with pytest.raises(NetlinkError) as refusal:
        sock.request(19)
    assert refusal.value.extack == "because"


def test_a_refusal_without_words_names_its_errno():
    sock = opened([message(ERROR, status(95), flags=CAPPED)])
    with pytest.raises(NetlinkError, match="EOPNOTSUPP") as refusal:
        sock.request(19)
    assert refusal.value.extack is None


def test_a_dump_may_fail_at_its_end():
    words = attr_text(1, "kernel built without CONFIG_PAGE_POOL_STATS")
    sock = opened([message(DONE, struct.pack("=i", -95) + words, flags=MULTI | TLVS)])
    with pytest.raises(NetlinkError, match="CONFIG_PAGE_POOL_STATS") as refusal:
        sock.dump(18)
    assert refusal.value.errno == 95


def test_a_success_may_come_with_a_warning():
    words = attr_text(1, "LRO is not supported with XDP")
    sock = opened([message(ERROR, status(0, words), flags=CAPPED | TLVS)])
    assert sock.request(19) is None
    assert sock.warning == "LRO is not supported with XDP"


def test_silence_and_lost_answers_are_told():
    with pytest.raises(NetlinkError, match="did not answer"):
        opened([]).request(18)
    with pytest.raises(NetlinkError, match="longer than"):
        opened([(message(NEWLINK), 0x20, 0)]).request(18)  # MSG_TRUNC
    with pytest.raises(NetlinkError, match="lost"):
        opened([message(4)]).dump(18)  # NLMSG_OVERRUN
    with pytest.raises(NetlinkError, match="ENOBUFS"):
        opened([OSError(105, "No buffer space available")]).dump(18)


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_datagrams_end_in_a_netlink_error(data, dump):
    sock = opened([data, data])
    with pytest.raises(NetlinkError):
        (sock.dump if dump else sock.request)(18)


@given(st.binary(max_size=120), st.sampled_from([DONE, ERROR, NEWLINK]), st.integers(0, 0xFFFF))
def test_arbitrary_payloads_behind_a_true_header_end_in_an_answer_or_a_netlink_error(payload, kind, flags):
    sock = opened([message(kind, payload, flags=flags)] * 5)
    with contextlib.suppress(NetlinkError):
        sock.request(18)
