"""The pictures of docs/images/: those that `make images` draws, whole, small, and nothing from elsewhere in them."""

import re
import xml.etree.ElementTree as ET

import pytest
from images import BEGINS_BLANK, FOLDER, LABS, LARGEST, names, quiet, terminal, wrapped
from sandbox import ROOT

from xdpctl.lab import labs

SHOWN = re.compile(r"""(?:\]\(|src=["'])((?:docs/)?images/[^)"']+)""")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_pictures_there_are_those_that_make_images_draws():
    assert sorted(one.name for one in FOLDER.iterdir()) == sorted(f"{one}.svg" for one in names())
    assert set(LABS) == set(labs.LABS), "a picture of each lab"


def test_readme_shows_every_picture_with_words_for_those_who_do_not_see_it():
    text = (ROOT / "README.md").read_text()
    assert sorted(set(SHOWN.findall(text))) == sorted(f"docs/images/{one}.svg" for one in names())
    assert all(len(words) > 10 for words in re.findall(r"!\[(.*?)\]\(docs/images", text))


@pytest.mark.parametrize("name", names())
def test_a_picture_is_whole_small_and_needs_nothing_else(name):
    text = (FOLDER / f"{name}.svg").read_text()
    assert len(text.encode()) <= LARGEST
    root = ET.fromstring(text)  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"""(?:href|src)=["']http|url\(["']?http|@import""", text)
    assert "internal error" not in text
    assert quiet(text) == text, "ids and times differ from run to run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_that_a_page_shows_are_there(page):
    for shown in SHOWN.findall(page.read_text()):
        assert (page.parent / shown).is_file(), shown


def test_a_terminals_picture_keeps_words_colours_and_columns():
    text = terminal("x", "a title", "\033[1;32m$ run\033[0m\n   indented <&>\n" + "word " * 40, width=60)
    root = ET.fromstring(text)  # noqa: S314 - our own
    lines = [
        "".join(one.itertext()).replace("\xa0", " ") for one in root.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert lines[0] == "a title"
    assert "$ run" in lines
    assert "indented <&>" in lines, "begun behind its blanks, which some viewers leave out"
    assert not BEGINS_BLANK.search(text)
    assert sum(one.count("word") for one in lines) == 40


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  short", "  short"),
        ("  " + "ab " * 5, "  ab ab ab\n" + " " * 8 + "ab\n" + " " * 8 + "ab"),
        ("\033[36m# a b c d e f\033[0m", "\033[36m# a b c d\033[0m\n\033[36m      e f\033[0m"),
    ],
)
def test_a_long_line_goes_on_further_in(line, expected):
    assert wrapped(line, 10) == expected
