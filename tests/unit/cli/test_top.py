"""The screen of `top`: tables that fit any terminal, sorted as asked, steered by keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ticks import busy, edge, facts, sample

from xdpctl.cli.keys import names
from xdpctl.cli.top_layout import BAD, number, rooms, screen
from xdpctl.cli.top_screen import View
from xdpctl.cli.top_view import SORTS, tables
from xdpctl.trace.redirect import RedirectReport
from xdpctl.trace.tick import tick

FOUND = tick(busy(10.0, 1), busy(12.0, 5))


def text(line):
    return "".join(one.text for one in line)


def shown(width, height, found=FOUND, sort="packets", scroll=0):
    lines, _ = screen(tables(found, sort), "head", "foot", (width, height), scroll)
    return [text(line) for line in lines]


@given(st.integers(1, 250), st.integers(1, 100), st.sampled_from(sorted(SORTS)), st.integers(0, 9))
def test_the_screen_fits_every_terminal(width, height, sort, scroll):
    lines = shown(width, height, sort=sort, scroll=scroll)
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)


def test_a_wide_screen_has_every_section_and_figure():
    lines = "\n".join(shown(200, 60))
    for word in (
        "INTERFACES",
        "PROGRAMS",
        "REDIRECTS",
        "POOLS",
        "DROPS",
        "RINGS",
        "closing for 102 s",
        "90%",
    ):
        assert word in lines
    assert "10.0%" in lines  # of the redirects fail


def test_a_narrow_screen_leaves_out_what_matters_least():
    lines = shown(40, 40)
    head = lines[2]
    assert head.split() == ["INTERFACE", "RX/s", "TX/s", "LOST/s"]


def test_losses_are_red():
    routes = next(one for one in tables(FOUND, "lost") if one.title == "REDIRECTS")
    first = routes.rows()[0]
    assert {cell.style for cell in first if cell.text in ("eth0", "veth0", "20", "10.0%", "ENXIO")} == {BAD}


def test_unknown_is_a_question_mark_and_no_program_is_nothing():
    interfaces = tables(FOUND, "name")[0]
    rows = {row[0].text: [cell.text for cell in row] for row in interfaces.rows()}
    assert rows["tap0"][-5:] == ["?", "?", "?", "?", "0"]
    assert rows["veth0"][-5:] == [""] * 5


@pytest.mark.parametrize(
    ("sort", "names_"),
    [
        ("packets", ["eth0", "veth0", "tap0"]),
        ("lost", ["veth0", "eth0", "tap0"]),
        ("name", ["eth0", "tap0", "veth0"]),
        ("redirect", ["eth0", "tap0", "veth0"]),
    ],
)
def test_interfaces_are_sorted_as_asked(sort, names_):
    rows = tables(FOUND, sort)[0].rows()
    assert [row[0].text for row in rows] == names_
    turned = tables(FOUND, sort, reverse=True)[0].rows()
    assert turned[-1][0].text == names_[0]


def test_names_with_numbers_are_in_their_order():
    links = {(100, n): facts(f"eth{n}", n) for n in (10, 2, 1)}
    found = tick(sample(1, links=links), sample(2, links=links))
    assert [row[0].text for row in tables(found, "name")[0].rows()] == ["eth1", "eth2", "eth10"]


def test_names_that_would_steer_the_terminal_are_spelled_out():
    odd = RedirectReport(2, (edge(program="\x1b[2J"),), 0)
    lines = shown(120, 40, tick(sample(1), sample(2, redirects=odd)))
    assert not any("\x1b" in line for line in lines)


def test_what_can_not_be_read_is_not_told_as_nothing():
    found = tick(sample(1), sample(2, programs=None, redirects=None, drops=None, pools=None))
    said = {one.title: one.remark for one in tables(found, "packets")}
    assert said["PROGRAMS"] == said["REDIRECTS"] == said["DROPS"] == "not told"
    assert "before 6.8" in said["POOLS"]


@given(st.lists(st.integers(0, 40).filter(lambda one: one != 1), min_size=1, max_size=6), st.integers(0, 80))
def test_sections_share_the_lines_there_are(wanted, lines):
    given_ = rooms(wanted, lines)
    assert sum(given_) <= lines
    assert all(0 <= got <= want for got, want in zip(given_, wanted, strict=True))
    if sum(wanted) <= lines:
        assert given_ == wanted


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.25, "0.2"), (7, "7"), (12345, "12,345"), (123456, "123k"), (1.234e6, "1.23M"), (4.5e10, "45G")],
)
def test_a_number_is_short(value, said):
    assert number(value) == said


def test_keys_sort_turn_hold_scroll_and_end():
    view = View("packets")
    view.frame(FOUND, 80, 50)
    for key in ("l", "r", " ", "x", "down"):
        view.press(key)
    assert (view.sort, view.reverse, view.held, view.ended) == ("lost", True, True, False)
    assert view.scroll == 0  # all three interfaces are there already
    view.press("q")
    assert view.ended


def test_every_sort_has_a_key_of_its_own():
    assert len(set(SORTS.values())) == len(SORTS)
    assert not set(SORTS.values()) & set("qrQ jk")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOBn", ["up", "down", "n"]),
        (b"\x1b[6~", ["page-down"]),
        (b"\x1b[15;2~p", ["p"]),
        (b"\x1b", []),
        (b"\x1b[", []),
    ],
)
def test_what_a_terminal_sends_is_understood(data, found):
    assert names(data) == found


@given(st.binary(max_size=40))
def test_any_bytes_are_keys_or_nothing(data):
    for one in names(data):
        View("packets").press(one)
