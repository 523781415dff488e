"""Graphviz's language: what is written parses whatever names hold, and looks different in each state."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdpctl.doctor.topology import Promise
from xdpctl.doctor.topology_dot import MOST_NOTES, STATES, dot, markup, quoted
from xdpctl.doctor.topology_from import topology
from xdpctl.host.model import BpfProgram, RedirectEntry, RedirectTarget, TcHook

TOKEN = re.compile(
    r"""\s+ | (?P<quoted>"(?:[^"\\]|\\.)*") | (?P<word>[A-Za-z_][A-Za-z0-9_]*|-?(?:\d+(?:\.\d*)?|\.\d+))
      | (?P<arrow>->) | (?P<mark>[{}\[\];,=:]) | (?P<html><)""",
    re.VERBOSE,
)


class Balanced(HTMLParser):
    """Tags of an HTML label: known ones, opened and closed in order."""

    KNOWN = frozenset("table tr td b br font".split())

    def __init__(self):
        super().__init__(convert_charrefs=False)
        self.open = []

    def handle_starttag(self, tag, attrs):
        assert tag in self.KNOWN, tag
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == "br" or self.open.pop() == tag

    def handle_comment(self, data):
        raise AssertionError(data)

    def handle_entityref(self, name):
        assert name in ("amp", "lt", "gt", "quot"), name


def tokens(text):
    """The words of a dot file, as strict as its lexer: quoted strings on one line, HTML balanced."""
    at, found = 0, []
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match, f"no token at {text[at : at + 60]!r}"
        if match["html"]:
            depth, end = 0, at
            while True:
                depth += {"<": 1, ">": -1}.get(text[end], 0)
                end += 1
                if depth == 0:
                    break
            inner = Balanced()
            inner.feed(text[at + 1 : end - 1])
            inner.close()
            assert inner.open == []
            found.append(text[at:end])
            at = end
            continue
        if match["quoted"]:
            assert "\n" not in match["quoted"]
        if match[0].strip():
            found.append(match[0])
        at = match.end()
    return found


def parses(text):
    """Braces and brackets pair up, each statement ends, and Graphviz agrees where it is."""
    words = tokens(text)
    assert words[:3] == ["digraph", "xdpctl", "{"]
    stack = []
    for word in words:
        if word in ("{", "["):
            stack.append(word)
        elif word in ("}", "]"):
            assert stack.pop() + word in ("{}", "[]")
    assert stack == []
    if shutil.which("dot"):
        done = subprocess.run(["dot", "-Tcanon"], input=text.encode(), capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return words


@pytest.fixture
def busy(machine):
    """Every kind of edge and every state."""
    host = machine()
    guest = host.netns("guest")
    for name in ("eth0", "eth1"):
        host.link(name, "igb", tc=(TcHook("tcx-egress", 30, "mark"),))
    host.veth("good", "good-p", netns_b=guest, gro_b=True)
    host.veth("bad", "bad-p", netns_b=guest)
    host.link("br0", "bridge", up=False)
    host.change("good", master=host.links["br0"].ifindex)
    host.attach("eth0", program=5)
    host.programs[5] = BpfProgram(5, "balance", "xdp", "00", 0)
    host.calls[5] = True
    host.redirects[5] = tuple(
        RedirectEntry(1, "ports", "devmap", key, host.links[name].ifindex, None)
        for key, name in enumerate(("good", "bad"))
    )
    host.more["redirect_targets"] = {5: (RedirectTarget(None, "its instructions"),)}
    promise = Promise(host.links["eth1"].ref, host.links["good"].ref, "later")
    return topology(host.snapshot(), [promise])


def test_each_state_has_a_colour_a_line_an_arrow_and_a_word_of_its_own(busy):
    text = dot(busy)
    parses(text)
    assert {one.state for one in busy.edges if one.state} == set(STATES)
    for state, look in STATES.items():
        (line,) = [one for one in text.splitlines() if "->" in one and f"{state}" in one.split("tooltip")[0]]
        assert f'color="{look.colour}"' in line
        assert f"style={look.style}," in line
        assert f"={look.arrow}," in line
        assert look.words in text.replace("&#x27;", "'"), "the legend says it"
    for aspect in ("colour", "style", "arrow", "sample"):
        assert len({getattr(one, aspect) for one in STATES.values()}) == len(STATES)


def test_the_whole_finding_is_on_its_edge_and_numbered_below(busy):
    text = dot(busy)
    (line,) = [one for one in text.splitlines() if "✗ broken (1)" in one]
    assert "fix: ip netns exec guest ethtool -K bad-p gro on" in line
    assert "redirect.veth-peer-napi" in line
    assert "<B>(1)</B>" in text


def test_nothing_but_what_is_drawn_is_explained(machine):
    host = machine()
    host.link("eth0", "igb")
    text = dot(topology(host.snapshot()))
    parses(text)
    assert not any(one.words in text for one in STATES.values())


def test_many_findings_are_counted_below_the_picture(machine):
    host = machine()
    host.link("eth0", "igb")
    host.attach("eth0", program=5)
    host.programs[5] = BpfProgram(5, "balance", "xdp", "00", 0)
    for number in range(MOST_NOTES + 4):
        host.veth(f"v{number}", f"w{number}")
    host.redirects[5] = tuple(
        RedirectEntry(1, "ports", "devmap", key, host.links[f"v{key}"].ifindex, None)
        for key in range(MOST_NOTES + 4)
    )
    text = dot(topology(host.snapshot()))
    parses(text)
    assert "and 4 more" in text


HOSTILE = ['a"b', "a\\", "<b>x</b>", "&amp;", "a\nb", "]]>", "\x00\x1b[2J", "{|}", "\ud800", "-->", "\\N", ""]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_stay_text_whatever_they_hold(machine, name):
    host = machine()
    host.netns(f"ns{name}")
    inode = list(host.spaces)[-1]
    host.link(f"i{name}", f"k{name}", netns=inode, tc=(TcHook(f"tcx-{name}", 8, f"t{name}"),))
    host.link("out", "igb", netns=inode)
    host.attach(f"i{name}", program=5)
    host.programs[5] = BpfProgram(5, name, "xdp", "00", 0)
    host.redirects[5] = (RedirectEntry(1, f"m{name}", "devmap", 0, host.links["out"].ifindex, None),)
    promise = Promise(host.links["out"].ref, host.links[f"i{name}"].ref, f"d{name}")
    text = dot(topology(host.snapshot(), [promise]))
    parses(text)
    text.encode()


@given(st.text())
def test_any_text_is_one_token(text):
    assert len(tokens(quoted(text))) == 1
    assert len(tokens(f"<{markup(text)}>")) == 1
