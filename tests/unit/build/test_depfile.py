"""The depfile parser reads what clang writes, whatever files are called, and stumbles over nothing."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xdpctl.build.depfile import parse


def spelled(name: str) -> str:
    """A name as PrintFilename of clang's DependencyFile.cpp writes it."""
    out = ""
    for at, char in enumerate(name):
        if char == "#":
            out += "\\"
        elif char == " ":
            out += "\\" + "\\" * (len(name[:at]) - len(name[:at].rstrip("\\")))
        elif char == "$":
            out += "$"
        out += char
    return out


names = st.text(
    st.characters(exclude_characters="\0\n\t\r", exclude_categories=["Cs"]) | st.sampled_from(" #$\\:."),
    min_size=1,
).filter(lambda name: not name.endswith("\\"))  # clang can't write a name that ends so: it would go on


@given(st.lists(names, unique=True), st.sampled_from([" ", " \\\n  "]))
@example(["a b", "c#d", "e$f", "g\\ h", "i\\\\j", "k:l"], " \\\n  ")
def test_every_name_that_clang_can_write_is_read_back(listed, gap):
    rule = "object:" + "".join(gap + spelled(name) for name in listed) + "\n"
    assert parse(rule) == listed


@given(st.text())
def test_no_text_makes_it_fail(text):
    assert all(parse(text))


@given(st.text(alphabet="a :\\\n\t$#"))
def test_no_play_of_special_characters_makes_it_fail(text):
    found = parse(text)
    assert all(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("object", []),
        ("object:", []),
        ("object:\n", []),
        ("object: a.c \\\n  b.h \\\n  c.h\n", ["a.c", "b.h", "c.h"]),
        ("object: a.c b.h a.c\n", ["a.c", "b.h"]),
        ("object: a.c\nb.h:\n", ["a.c"]),
        ("C:/x.o: a.c\n", ["a.c"]),
        ("object:\\\n a.c", ["a.c"]),
    ],
)
def test_rules_of_every_shape(text, found):
    assert parse(text) == found


def test_what_clang_really_writes_for_odd_names(tmp_path):
    header = tmp_path / "odd dir$" / "h #1.h"
    header.parent.mkdir()
    header.write_text("int x;\n")
    source = tmp_path / "a b.c"
    source.write_text('#include "odd dir$/h #1.h"\n')
    subprocess.run(
        ["clang", "-target", "bpf", "-MD", "-MT", "object", "-MF", str(tmp_path / "d"),
         "-c", str(source), "-o", str(tmp_path / "o")],
        check=True, timeout=60,
    )  # fmt: skip
    assert parse((tmp_path / "d").read_text()) == [str(source), str(header)]
