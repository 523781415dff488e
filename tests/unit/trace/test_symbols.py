"""The kernel's functions from what /proc/kallsyms says, in whatever order, with and without modules."""

from __future__ import annotations

import pytest

from xdpctl.trace.symbols import Symbol, Symbols

TABLE = b"""\
ffffffff81000000 T _stext
ffffffff81000000 D not_code
ffffffff81000040 t kfree_skb.part.0
ffffffffc0400000 t veth_xmit\t[veth]
ffffffff81000100 W weak_one
ffffffffc0300000 t bpf_prog_6deef7357e7b4530_p\t[bpf]
0000000000000000 T hidden
ffffffffc0400080 r a_table\t[veth]
ffffffffc0400080 T veth_poll\t[veth]
"""


@pytest.mark.parametrize(
    ("address", "place"),
    [
        (0xFFFFFFFF81000000, Symbol("_stext", 0, None)),
        (0xFFFFFFFF8100003F, Symbol("_stext", 0x3F, None)),
        (0xFFFFFFFF81000041, Symbol("kfree_skb.part.0", 1, None)),
        (0xFFFFFFFFC0300010, Symbol("bpf_prog_6deef7357e7b4530_p", 0x10, "bpf")),
        (0xFFFFFFFFC040007F, Symbol("veth_xmit", 0x7F, "veth")),
        (0xFFFFFFFFC0400080, Symbol("veth_poll", 0, "veth")),
        (0x1000, None),
    ],
)
def test_an_address_lies_in_the_function_that_begins_before_it(address, place):
    assert Symbols(TABLE).at(address) == place


def test_a_function_reaches_to_the_next_one():
    table = Symbols(TABLE)
    assert len(table) == 6
    assert table.extents("veth_xmit", "no_such") == [(0xFFFFFFFFC0400000, 0xFFFFFFFFC0400080)]
    assert table.extents("veth_poll") == [(0xFFFFFFFFC0400080, 0xFFFFFFFFC0401080)], (
        "a page, where none follows"
    )
    assert table.extents("hidden", "not_code") == []


def test_hidden_addresses_leave_nothing():
    nothing = Symbols(b"0000000000000000 T _stext\n0000000000000000 t kfree_skb\n")
    assert len(nothing) == 0
    assert nothing.at(0xFFFFFFFF81000000) is None
    assert nothing.extents("_stext") == []


def test_addresses_of_32_bits():
    table = Symbols(b"c0100000 T first\nc0100100 T second\t[mod]\n")
    assert str(table.at(0xC0100104)) == "second+0x4 [mod]"
