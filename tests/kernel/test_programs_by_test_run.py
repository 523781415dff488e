"""What each program of bpf/ answers, changes and counts, frame by frame, in the kernel's own BPF_PROG_TEST_RUN."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from kernels import VARIANTS

from xdpctl.bpf.object import Object
from xdpctl.obj import globals as obj_globals
from xdpctl.obj.reader import read

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
ABORTED, DROP, PASS, TX, REDIRECT = range(5)
UNSPEC = -1
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
V4A, V4B = socket.inet_aton("192.0.2.1"), socket.inet_aton("198.51.100.9")
V6A, V6B = (socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::1", "2001:db8:f::9"))
TCP, UDP, ICMP, ICMP6, SCTP = 6, 17, 1, 58, 132

ROWS = (
    "other", "arp", "ipv4 other", "ipv4 tcp", "ipv4 udp", "ipv4 icmp",
    "ipv6 other", "ipv6 tcp", "ipv6 udp", "ipv6 icmp",
)  # fmt: skip
"""enum protocol of bpf/include/protocols.h."""


def eth(ethertype: int, payload: bytes, *, to: bytes = B, tags: tuple[int, ...] = ()) -> bytes:
    """A frame; `tags` are the ethertypes of VLAN tags, outermost first."""
    out = to + A
    for tag in tags:
        out += struct.pack("!HH", tag, 100)
    return out + struct.pack("!H", ethertype) + payload


def ones_sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ipv4(
    transport: int, payload: bytes = bytes(20), *, source=V4A, to=V4B, options: bytes = b"", fragment=0
) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 0, fragment, 64, transport,
        0, source, to,
    ) + options  # fmt: skip
    return header[:10] + struct.pack("!H", ~ones_sum(header) & 0xFFFF) + header[12:] + payload


def ipv6(
    transport: int, payload: bytes = bytes(20), *, source=V6A, to=V6B, before: tuple[int, ...] = ()
) -> bytes:
    """`before` are extension headers of 8, 16, ... bytes in front of the transport."""
    chain = b""
    kinds = [*before, transport]
    for number, following in enumerate(kinds[1:]):
        chain += bytes([following, number]) + bytes(6 + 8 * number)
    return struct.pack("!IHBB", 6 << 28, len(chain + payload), kinds[0], 64) + source + to + chain + payload


HBH, ROUTING, DESTINATION = 0, 43, 60
FRAMES = {
    "arp": (eth(0x0806, bytes(28)), "arp"),
    "ipv4 tcp": (eth(0x0800, ipv4(TCP)), "ipv4 tcp"),
    "ipv4 udp": (eth(0x0800, ipv4(UDP)), "ipv4 udp"),
    "ipv4 icmp": (eth(0x0800, ipv4(ICMP)), "ipv4 icmp"),
    "ipv4 sctp": (eth(0x0800, ipv4(SCTP)), "ipv4 other"),
    "ipv4 options": (eth(0x0800, ipv4(UDP, options=bytes(8))), "ipv4 udp"),
    "ipv6 tcp": (eth(0x86DD, ipv6(TCP)), "ipv6 tcp"),
    "ipv6 udp": (eth(0x86DD, ipv6(UDP)), "ipv6 udp"),
    "ipv6 icmp": (eth(0x86DD, ipv6(ICMP6)), "ipv6 icmp"),
    "ipv6 sctp": (eth(0x86DD, ipv6(SCTP)), "ipv6 other"),
    "icmp of the other family": (eth(0x86DD, ipv6(ICMP)), "ipv6 other"),
    "ipv6 behind one extension": (eth(0x86DD, ipv6(TCP, before=(HBH,))), "ipv6 tcp"),
    "ipv6 behind four": (eth(0x86DD, ipv6(UDP, before=(HBH, DESTINATION, ROUTING, DESTINATION))), "ipv6 udp"),
    "ipv6 behind five": (eth(0x86DD, ipv6(UDP, before=(HBH, DESTINATION, ROUTING, HBH, HBH))), "ipv6 other"),
    "ipv4 behind a tag": (eth(0x0800, ipv4(TCP), tags=(0x8100,)), "ipv4 tcp"),
    "ipv6 behind two tags": (eth(0x86DD, ipv6(UDP), tags=(0x88A8, 0x8100)), "ipv6 udp"),
    "ipv4 behind three tags": (eth(0x0800, ipv4(TCP), tags=(0x88A8, 0x8100, 0x8100)), "other"),
    "local experiment": (eth(0x88B5, bytes(46)), "other"),
}


@pytest.fixture
def load(built):
    """``load("count", "verdict=1") -> Object``, loaded; closed at the end."""
    opened = []

    def make(name: str, *settings: str) -> Object:
        path = built / f"{name}.bpf.o"
        one = Object.open(path)
        opened.append(one)
        for setting in obj_globals.parse_all(read(path), settings):
            section = next(each for each in one.maps.values() if each.name.endswith(setting.section))
            section.patch_initial_value(setting.offset, setting.data)
        one.load()
        return one

    yield make
    for one in opened:
        one.close()


def only(one: Object):
    """The one program of an object."""
    (program,) = one.programs.values()
    return program


def answer(one: Object, frame: bytes, **more) -> int:
    """The program's verdict, signed as TC's are."""
    value = only(one).test_run(frame, **more).retval
    return value - (1 << 32) if value >> 31 else value


def counters(one: Object, table: str) -> dict[int, tuple[int, int]]:
    """Rows of a table of counters that are not zero: key -> (packets, bytes) over all CPUs."""
    found = {}
    for key, value in one.map(table).items():
        pairs = list(struct.iter_unpack("=QQ", value))
        total = (sum(packets for packets, _ in pairs), sum(size for _, size in pairs))
        if any(total):
            found[int.from_bytes(key, "little")] = total
    return found


XDP = ("pass", "drop", "count", "redirect", "redirect_map", "tx-swap", "blocklist")

# all of them


@pytest.mark.parametrize(
    "name",
    [*(f"{name}{variant}" for variant in VARIANTS for name in XDP), "tc_count", "tc_redirect", "tc_mark"],
)
def test_each_loads_alone_with_a_name_the_kernel_keeps_whole(load, name):
    program = only(load(name))
    assert program.info().name == program.name
    assert program.type == ("sched_cls" if name.startswith("tc_") else "xdp")


@pytest.mark.parametrize("name", XDP)
def test_only_the_frags_variant_says_it_takes_frags(built, name):
    assert [program.frags for program in read(built / f"{name}.bpf.o").programs] == [False]
    assert [program.frags for program in read(built / f"{name}.frags.bpf.o").programs] == [True]


def test_every_source_has_been_tried_here():
    sources = {path.name.removesuffix(".bpf.c") for path in (ROOT / "bpf").glob("*.bpf.c")}
    tracers = {name for name in sources if name.startswith(("trace_", "lab_")) or name.endswith("_trace")}
    plain = {name for name in sources - tracers if not name.endswith(".frags")}
    here = Path(__file__).read_text()
    assert {name for name in plain if f'"{name}"' not in here} == set()


@pytest.mark.parametrize(
    "name", [name for name in (*XDP, "tc_count", "tc_mark") if name not in {"pass", "drop"}]
)
def test_no_frame_however_short_escapes_the_count(load, name):
    """Cut at every byte, a frame is still answered and counted once, by its true length.

    It has VLAN tags, for a test run of a TC program refuses an IP packet cut within its IP header.
    """
    one = load(name)
    frame = eth(0x86DD, ipv6(UDP, before=(HBH, DESTINATION, ROUTING, DESTINATION)), tags=(0x88A8, 0x8100))
    table = {"tc_count": "protocols", "tc_mark": "marked"}.get(name, "actions")
    lengths = range(14, len(frame) + 1)
    for length in lengths:
        only(one).test_run(frame[:length])
    found = counters(one, table).values()
    assert sum(packets for packets, _ in found) == len(lengths)
    assert sum(size for _, size in found) == sum(lengths)


# pass, drop


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("name", "verdict"), [("pass", PASS), ("drop", DROP)])
def test_pass_and_drop_answer_that_and_touch_nothing(load, name, verdict, variant):
    frame = FRAMES["ipv4 tcp"][0]
    done = only(load(name + variant)).test_run(frame)
    assert (done.retval, done.data_out) == (verdict, frame)


# count


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FRAMES)
def test_count_counts_each_protocol_in_its_row(load, name, variant):
    one = load(f"count{variant}")
    frame, row = FRAMES[name]
    for _ in range(3):
        assert answer(one, frame) == PASS
    assert counters(one, "protocols") == {ROWS.index(row): (3, 3 * len(frame))}
    assert counters(one, "actions") == {PASS: (3, 3 * len(frame))}


@pytest.mark.parametrize(("text", "verdict"), [("XDP_DROP", DROP), ("XDP_TX", TX), ("0", ABORTED)])
def test_count_answers_the_verdict_it_was_given(load, text, verdict):
    one = load("count", f"verdict={text}")
    assert answer(one, FRAMES["arp"][0]) == verdict
    assert counters(one, "actions") == {verdict: (1, 42)}


def test_count_answers_aborted_for_a_verdict_that_is_none(load):
    one = load("count", "verdict=5")
    assert answer(one, FRAMES["arp"][0]) == ABORTED
    assert counters(one, "actions") == {ABORTED: (1, 42)}


@pytest.mark.needs("frags")
def test_count_frags_counts_the_bytes_of_all_fragments(load):
    one = load("count.frags")
    frame = eth(0x0800, ipv4(UDP, bytes(9000)))
    assert answer(one, frame) == PASS
    assert counters(one, "actions") == {PASS: (1, len(frame))}
    assert counters(one, "protocols") == {ROWS.index("ipv4 udp"): (1, len(frame))}


def test_each_cpu_counts_for_itself(load):
    one = load("count")
    allowed = sorted(os.sched_getaffinity(0))
    try:
        for number, cpu in enumerate(allowed, 1):
            os.sched_setaffinity(0, {cpu})
            for _ in range(number):
                only(one).test_run(FRAMES["arp"][0])
    finally:
        os.sched_setaffinity(0, allowed)
    value = one.map("actions").lookup(struct.pack("=I", PASS))
    by_cpu = [packets for packets, _ in struct.iter_unpack("=QQ", value)]
    assert [by_cpu[cpu] for cpu in allowed] == list(range(1, len(allowed) + 1))


# redirect, redirect_map


@pytest.mark.parametrize("variant", VARIANTS)
def test_redirect_takes_an_interface_by_name_and_counts(load, variant):
    one = load(f"redirect{variant}", "target_ifindex=lo")
    frame = FRAMES["ipv4 udp"][0]
    assert answer(one, frame) == REDIRECT
    assert counters(one, "actions") == {REDIRECT: (1, len(frame))}


@pytest.mark.parametrize("variant", VARIANTS)
def test_redirect_map_sends_where_the_slot_says(load, variant):
    one = load(f"redirect_map{variant}", "slot=3")
    one.map("tx_ports").update(struct.pack("=I", 3), struct.pack("=I", socket.if_nametoindex("lo")))
    assert answer(one, FRAMES["arp"][0]) == REDIRECT


@pytest.mark.parametrize(("settings", "verdict"), [((), ABORTED), (("if_empty=XDP_PASS",), PASS)])
def test_redirect_map_answers_as_told_while_the_slot_is_empty(load, settings, verdict):
    one = load("redirect_map", *settings)
    assert answer(one, FRAMES["arp"][0]) == verdict
    assert counters(one, "actions") == {verdict: (1, 42)}


# tx-swap


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FRAMES)
def test_tx_swap_swaps_the_mac_addresses_and_nothing_else(load, name, variant):
    one = load(f"tx-swap{variant}")
    frame = FRAMES[name][0]
    done = only(one).test_run(frame)
    assert (done.retval, done.data_out) == (TX, A + B + frame[12:])
    assert counters(one, "actions") == {TX: (1, len(frame))}


@pytest.mark.parametrize("to", [b"\xff" * 6, bytes.fromhex("333300000001"), bytes.fromhex("01005e000001")])
def test_tx_swap_passes_what_is_for_a_group(load, to):
    one = load("tx-swap")
    frame = eth(0x0806, bytes(28), to=to)
    done = only(one).test_run(frame)
    assert (done.retval, done.data_out) == (PASS, frame)
    assert counters(one, "actions") == {PASS: (1, len(frame))}


@pytest.mark.parametrize("tags", [(), (0x8100,), (0x88A8, 0x8100)])
def test_tx_swap_swaps_ip_addresses_and_the_checksum_still_holds(load, tags):
    one = load("tx-swap", "swap_ip=true")
    done = only(one).test_run(eth(0x0800, ipv4(UDP), tags=tags))
    assert done.data_out == A + B + eth(0x0800, ipv4(UDP, source=V4B, to=V4A), tags=tags)[12:]
    assert ones_sum(done.data_out[14 + 4 * len(tags) :][:20]) == 0xFFFF
    done = only(one).test_run(eth(0x86DD, ipv6(TCP), tags=tags))
    assert done.data_out == A + B + eth(0x86DD, ipv6(TCP, source=V6B, to=V6A), tags=tags)[12:]


PORTS, SWAPPED = struct.pack("!HH", 40000, 9) + bytes(16), struct.pack("!HH", 9, 40000) + bytes(16)


@pytest.mark.parametrize("transport", [TCP, UDP])
def test_tx_swap_swaps_the_ports_of_tcp_and_udp(load, transport):
    one = load("tx-swap", "swap_ports=yes")
    for before, after in (
        (eth(0x0800, ipv4(transport, PORTS)), eth(0x0800, ipv4(transport, SWAPPED))),
        (eth(0x86DD, ipv6(transport, PORTS)), eth(0x86DD, ipv6(transport, SWAPPED))),
    ):
        assert only(one).test_run(before).data_out == A + B + after[12:]


@pytest.mark.parametrize(
    "packet",
    [
        eth(0x0800, ipv4(ICMP, PORTS)),
        eth(0x86DD, ipv6(ICMP6, PORTS)),
        eth(0x0800, ipv4(UDP, PORTS, fragment=185)),
        eth(0x0800, ipv4(UDP, PORTS, options=bytes(4))),
        eth(0x86DD, ipv6(UDP, PORTS, before=(HBH,))),
        eth(0x0800, ipv4(UDP, PORTS[:3])),
    ],
    ids=["icmp", "icmpv6", "later fragment", "options", "extension", "cut short"],
)
def test_tx_swap_leaves_alone_what_are_no_ports(load, packet):
    assert only(load("tx-swap", "swap_ports=1")).test_run(packet).data_out == A + B + packet[12:]


def test_tx_swap_swaps_the_ports_of_a_first_fragment(load):
    more = 0x2000  # IP_MF
    done = only(load("tx-swap", "swap_ports=1")).test_run(eth(0x0800, ipv4(UDP, PORTS, fragment=more)))
    assert done.data_out == A + B + eth(0x0800, ipv4(UDP, SWAPPED, fragment=more))[12:]


# blocklist


def block(one: Object, text: str, table: str | None = None) -> bytes:
    """List a prefix with a counter of zeros; its key."""
    address, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    key = struct.pack("=I", int(length)) + socket.inet_pton(family, address)
    one.map("blocked6" if ":" in text else "blocked4").update(key, bytes(16))
    return key


def hits(one: Object, key: bytes) -> tuple[int, int]:
    return struct.unpack("=QQ", one.map("blocked4" if len(key) == 8 else "blocked6").lookup(key))


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocklist_drops_listed_sources_and_counts_hits_per_prefix(load, variant):
    one = load(f"blocklist{variant}")
    four, six = block(one, "192.0.2.0/24"), block(one, "2001:db8::/64")
    other = block(one, "203.0.113.0/24")
    for name in ("ipv4 tcp", "ipv4 behind a tag", "ipv6 udp", "ipv6 behind two tags"):
        assert answer(one, FRAMES[name][0]) == DROP, name
    assert answer(one, eth(0x0800, ipv4(UDP, source=V4B, to=V4A))) == PASS
    assert answer(one, eth(0x86DD, ipv6(UDP, source=V6B, to=V6A))) == PASS
    sizes = {name: len(frame) for name, (frame, _) in FRAMES.items()}
    assert hits(one, four) == (2, sizes["ipv4 tcp"] + sizes["ipv4 behind a tag"])
    assert hits(one, six) == (2, sizes["ipv6 udp"] + sizes["ipv6 behind two tags"])
    assert hits(one, other) == (0, 0)
    assert {key: packets for key, (packets, _) in counters(one, "actions").items()} == {DROP: 4, PASS: 2}


def test_blocklist_with_empty_lists_passes_everything(load):
    one = load("blocklist")
    assert {answer(one, frame) for frame, _ in FRAMES.values()} == {PASS}


def test_blocklist_counts_at_the_longest_prefix(load):
    one = load("blocklist")
    wide, narrow, host = (block(one, text) for text in ("0.0.0.0/0", "192.0.2.0/24", "192.0.2.1/32"))
    assert answer(one, FRAMES["ipv4 udp"][0]) == DROP
    assert [hits(one, key)[0] for key in (wide, narrow, host)] == [0, 0, 1]


def test_blocklist_looks_up_the_destination_when_asked(load):
    one = load("blocklist", "match_source=false", "match_destination=true")
    block(one, "198.51.100.0/24")
    block(one, "2001:db8:f::/48")
    assert answer(one, eth(0x0800, ipv4(UDP))) == DROP
    assert answer(one, eth(0x86DD, ipv6(UDP))) == DROP
    assert answer(one, eth(0x0800, ipv4(UDP, source=V4B, to=V4A))) == PASS


def test_a_prefix_taken_off_the_list_passes_again(load):
    one = load("blocklist")
    key = block(one, "192.0.2.1/32")
    assert answer(one, FRAMES["ipv4 udp"][0]) == DROP
    one.map("blocked4").delete(key)
    assert answer(one, FRAMES["ipv4 udp"][0]) == PASS


# TC


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "ipv4 behind three tags"])
def test_tc_count_counts_each_protocol_in_its_row(load, name):
    one = load("tc_count")
    frame, row = FRAMES[name]
    for _ in range(3):
        assert answer(one, frame) == UNSPEC
    assert counters(one, "protocols") == {ROWS.index(row): (3, 3 * len(frame))}


@pytest.mark.parametrize("verdict", [0, 2])
def test_tc_count_answers_the_verdict_it_was_given(load, verdict):
    assert answer(load("tc_count", f"verdict={verdict}"), FRAMES["arp"][0]) == verdict


def test_tc_redirect_redirects_and_counts(load):
    one = load("tc_redirect", "target_ifindex=lo")
    assert answer(one, FRAMES["ipv4 udp"][0]) == 7  # TC_ACT_REDIRECT
    assert counters(one, "redirected") == {0: (1, len(FRAMES["ipv4 udp"][0]))}


@pytest.mark.parametrize(
    ("settings", "before", "after"),
    [
        ((), 0x55, 0),
        (("mark=0x12345678",), 0xFFFFFFFF, 0x12345678),
        (("mark=0x10", "mask=0xf0"), 0xAB, 0x1B),
        (("mark=0xfff", "mask=0xf0"), 0x0, 0xF0),  # bits of the mark outside of the mask stay out
    ],
)
def test_tc_mark_replaces_the_bits_of_the_mask(load, settings, before, after):
    one = load("tc_mark", *settings)
    context = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I", context, 8, before)  # .mark
    done = only(one).test_run(FRAMES["ipv4 udp"][0], ctx=bytes(context))
    assert struct.unpack_from("=I", done.ctx_out, 8)[0] == after
    assert done.retval == 0xFFFFFFFF
    assert counters(one, "marked") == {0: (1, len(FRAMES["ipv4 udp"][0]))}
