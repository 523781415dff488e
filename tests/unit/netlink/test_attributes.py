"""Whatever bytes come, decoding ends in values or in a NetlinkError, and what was encoded is read back."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xdpctl.errors import NetlinkError
from xdpctl.netlink import (
    attributes,
    channels,
    coalesce,
    ethtool,
    features,
    linkstate,
    netdev,
    pause,
    private_flags,
    rings,
    rtnl,
    standard_stats,
    tc,
)
from xdpctl.netlink.attributes import (
    RAW,
    TEXT,
    U8,
    U16,
    U32,
    UINT,
    attr,
    attr_nest,
    attr_text,
    attr_u32,
    nest,
    nests,
)

TABLES = [
    rtnl._LINK,
    rtnl._NSID,
    tc._QDISC,
    tc._FILTER_BPF,
    features._FEATURES,
    channels._CHANNELS,
    rings._RINGS,
    linkstate._LINKINFO,
    linkstate._LINKSTATE,
    coalesce._COALESCE,
    pause._PAUSE,
    private_flags._PRIVFLAGS,
    ethtool._STRSET,
    netdev._DEVICE,
    netdev._QUEUE,
    netdev._NAPI,
    netdev._POOL,
    netdev._POOL_STATS,
]

DECODERS = [
    rtnl.decode_link,
    tc.decode_qdisc,
    lambda data, start, end: tc.decode_filter(data, start, end, "ingress"),
    ethtool.leading_header,
    standard_stats._group,
    lambda data, start, end: features._feature_bits(data[start:end]),
]

LINK = (
    struct.pack("=BxHiII", 0, 1, 7, 0x1043, 0)
    + attr_text(3, "veth0")
    + attr_u32(4, 1500)
    + attr_u32(5, 8)
    + attr(16, b"\6")
    + attr(1, bytes.fromhex("020000000001"))
    + attr_nest(18, attr_text(1, "bond"), attr_nest(2, attr(1, b"\4"), attr_u32(2, 9)))
    + attr_nest(43, attr(2, b"\1"), attr_u32(4, 33), attr_u32(5, 33))
    + attr_nest(52, attr_text(53, "first"), attr_text(53, "second"))
    + attr_u32(99, 5)
)


@st.composite
def mutated(draw, original=LINK):
    """A true message with some bytes changed, some cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.binary(max_size=300), st.sampled_from(TABLES))
@example(b"\0\0\0\0", TABLES[0])
@example(b"\xff\xff\1\0", TABLES[0])
def test_arbitrary_bytes_end_in_values_or_a_netlink_error(data, table):
    with contextlib.suppress(NetlinkError):
        found = attributes.attributes(data, 0, len(data), table)
        assert set(found) <= {name for name, _kind in table.values()}


@given(st.binary(max_size=300) | mutated(), st.sampled_from(DECODERS))
def test_arbitrary_and_mutated_messages_end_in_records_or_a_netlink_error(data, decode):
    with contextlib.suppress(NetlinkError):
        decode(data, 0, len(data))


def test_a_link_message_becomes_a_link():
    link = rtnl.decode_link(LINK, 0, len(LINK))
    assert (link.ifindex, link.name, link.type, link.mtu, link.link) == (7, "veth0", 1, 1500, 8)
    assert (link.kind, link.data) == ("bond", {"mode": 4, "active_slave": 9})
    assert link.address == "02:00:00:00:00:01"
    assert link.operstate == "up"
    assert (link.xdp.attached, link.xdp.native, link.xdp.generic) == ("native", 33, None)
    assert link.altnames == ("first", "second")


def test_before_4_20_the_one_program_id_belongs_to_the_attached_mode():
    raw = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + attr_nest(43, attr(2, b"\2"), attr_u32(4, 5))
    assert rtnl.decode_link(raw, 0, len(raw)).xdp == rtnl.RawXdp("generic", None, 5, None)


def test_the_address_of_an_ip_tunnel_is_an_ip_address():
    raw = struct.pack("=BxHiII", 0, 778, 7, 0, 0) + attr(1, bytes([10, 0, 0, 1]))
    assert rtnl.decode_link(raw, 0, len(raw)).address == "10.0.0.1"


@pytest.mark.parametrize(("length", "value"), [(4, 2**32 - 1), (8, 2**40), (8, 1)])
def test_uint_is_read_by_its_length(length, value):
    raw = attr(3, value.to_bytes(length, "little" if attributes.LITTLE_ENDIAN else "big"))
    assert attributes.attributes(raw, 0, len(raw), {3: ("it", UINT)}) == {"it": value}


def test_uint_of_another_length_is_malformed():
    raw = attr(3, b"\1\2\3\4\5")
    with pytest.raises(NetlinkError, match="malformed"):
        attributes.attributes(raw, 0, len(raw), {3: ("it", UINT)})


@pytest.mark.parametrize(("kind", "size"), [(U8, 1), (U16, 2), (U32, 4)])
def test_a_value_too_short_for_its_kind_is_malformed(kind, size):
    raw = attr(1, b"\1" * (size - 1)) + b"\7" * 8  # what follows must not be read as the value
    with pytest.raises(NetlinkError):
        attributes.attributes(raw, 0, 4 + size - 1, {1: ("it", kind)})


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2**32 - 1)), max_size=20))
def test_what_was_encoded_is_read_back(pairs):
    raw = b"".join(attr_u32(number, value) for number, value in pairs)
    table = {number: (f"a{number}", U32) for number, _value in pairs}
    assert attributes.attributes(raw, 0, len(raw), table) == {f"a{number}": value for number, value in pairs}


@given(st.lists(st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=10), max_size=10))
def test_texts_and_arrays_are_read_back_in_order(words):
    raw = attr_nest(5, *(attr_nest(1, attr_text(2, word)) for word in words))
    table = {5: ("list", nests(1, nest({2: ("word", TEXT)})))}
    found = attributes.attributes(raw, 0, len(raw), table)["list"]
    assert [one["word"] for one in found] == words


def test_an_interface_name_that_is_no_utf8_survives():
    raw = attr(3, b"v\xe9th\0")
    assert attributes.attributes(raw, 0, len(raw), {3: ("name", TEXT)})["name"].encode(
        errors="surrogateescape"
    ) == (b"v\xe9th")


@given(st.sets(st.integers(0, 95)), st.sets(st.integers(0, 95)))
def test_compact_bitsets_of_several_words_become_integers(active, hardware):
    def bitset(bits):
        words = [sum(1 << (bit % 32) for bit in bits if bit // 32 == place) for place in range(3)]
        return attr_u32(2, 96) + attr(4, struct.pack("=3I", *words))

    raw = attr_nest(2, bitset(hardware)) + attr_nest(4, bitset(active))
    found = features._feature_bits(raw)
    assert found == features.FeatureBits(
        hw=sum(1 << bit for bit in hardware), wanted=0, active=sum(1 << bit for bit in active), nochange=0
    )


def test_what_the_kernel_points_at_is_named_down_into_nests():
    raw = attr_u32(1, 5) + attr_nest(2, attr_text(3, "x"), attr_u32(4, 7)) + attr_u32(9, 1)
    table = {1: ("one", U32), 2: ("two", nest({3: ("three", TEXT), 4: ("four", U32)}))}
    place = {number: at - 4 for number, at, _stop in attributes.walk(raw, 0, len(raw))}

    def named(offset):
        return attributes.name_at(raw, 0, len(raw), offset, table)

    assert named(place[1]) == "one"
    assert named(place[2]) == "two"
    assert [named(place[2] + 4), named(place[2] + 4 + 8)] == ["two.three", "two.four"]
    assert named(place[9]) is None
    assert named(len(raw)) is None


FLAT = {1: ("a", U8), 2: ("b", U32), 3: ("name", TEXT), 4: ("raw", RAW), 5: ("d", U16)}
SIZES = {1: 1, 2: 4, 5: 2}


@st.composite
def message(draw):
    """Attributes in any order and number, known and unknown ones, fixed ones with and without more than they need."""
    made = []
    for number in draw(st.lists(st.integers(1, 8), min_size=1, max_size=30)):
        size = SIZES.get(number, 0)
        made.append(attr(number, draw(st.binary(min_size=size, max_size=size + 9))))
    return b"".join(made)


@given(message(), st.randoms(use_true_random=False))
def test_messages_alike_are_read_at_once_as_they_are_read_one_by_one(raw, random):
    """The second message has the first's headers and other values; the third other headers in the same length."""
    data = bytearray(raw)
    for _number, at, stop in attributes.walk(raw, 0, len(raw)):
        for place in range(at, stop):
            data[place] = random.randrange(256)
    alike = bytes(data)
    shape = attributes.Shape(raw, 0, len(raw), FLAT)
    assert shape.read(b"xx" + alike + b"yyyy", 2) == attributes._walked(alike, 0, len(alike), FLAT)
    other = bytearray(raw)
    other[2] ^= 1  # the first attribute's number
    assert shape.read(bytes(other), 0) is None


def test_what_was_remembered_of_one_table_is_not_used_for_another():
    raw = attr_u32(1, 7) + attr(9, bytes(attributes.LONG))
    for name in ("one", "two", "one"):
        assert attributes.attributes(raw, 0, len(raw), {1: (name, U32)}) == {name: 7}


def test_tables_made_for_a_moment_do_not_fill_memory(monkeypatch):
    monkeypatch.setattr(attributes, "_SHAPES", {})
    raw = attr_u32(1, 7) + attr(9, bytes(attributes.LONG))
    for _ in range(2 * attributes.MOST_LENGTHS):
        attributes.attributes(raw, 0, len(raw), {1: ("one", U32)})
    assert len(attributes._SHAPES) <= attributes.MOST_LENGTHS
