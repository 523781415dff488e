"""What makes an object stale, and what a damaged stamp does: never an error, at worst one more compilation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdpctl.build import stamp

STAMP = stamp.Stamp("recipe", (1, 2), {"/src/a.c": (3, 4), "/src/a.h": (5, 6)}, "btf", "a warning")
MARKS = {"out/a.o": (1, 2), **STAMP.inputs}


def why(kept=STAMP, marks=MARKS, recipe="recipe", btf="btf"):
    return stamp.why_stale(kept, Path("out/a.o"), recipe=recipe, btf=lambda: btf, mark=marks.get)


def test_an_object_is_current_when_nothing_changed():
    assert why() is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"marks": {}}, "not built yet"),
        ({"kept": None}, "not built by us"),
        ({"marks": {**MARKS, "out/a.o": (1, 3)}}, "the object changed"),
        ({"recipe": "another"}, "the compiler or its flags changed"),
        ({"marks": {**MARKS, "/src/a.h": (6, 6)}}, "/src/a.h changed"),
        ({"marks": {**MARKS, "/src/a.h": (4, 6)}}, "/src/a.h changed"),  # an older file is another file, too
        ({"marks": {name: at for name, at in MARKS.items() if name != "/src/a.h"}}, "/src/a.h changed"),
        ({"btf": "another"}, "the BTF changed"),
    ],
)
def test_each_change_is_the_reason(change, reason):
    assert why(**change) == reason


def test_the_btf_is_not_asked_for_where_it_was_not_used():
    without = stamp.Stamp("recipe", (1, 2), {}, None, "")
    reason = stamp.why_stale(
        without, Path("out/a.o"), recipe="recipe", btf=lambda: pytest.fail("asked"), mark=MARKS.get
    )
    assert reason is None


def test_a_stamp_is_read_as_it_was_written(tmp_path):
    stamp.write(tmp_path / "s", STAMP)
    assert stamp.read(tmp_path / "s") == STAMP
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_no_stamp_is_none(tmp_path):
    assert stamp.read(tmp_path / "s") is None


def test_a_stamp_of_another_format_is_none(tmp_path):
    stamp.write(tmp_path / "s", STAMP)
    said = json.loads((tmp_path / "s").read_text())
    (tmp_path / "s").write_text(json.dumps({**said, "format": stamp.FORMAT + 1}))
    assert stamp.read(tmp_path / "s") is None


@given(st.integers(0, 400), st.binary(max_size=8))
def test_a_damaged_stamp_is_none_or_a_stamp(tmp_path_factory, at, patch):
    path = tmp_path_factory.getbasetemp() / "damaged"
    stamp.write(path, STAMP)
    data = path.read_bytes()
    path.write_bytes(data[:at] + patch)
    read = stamp.read(path)
    assert read is None or isinstance(read, stamp.Stamp)
    path.write_bytes(data[:at] + patch + data[at + len(patch) :])
    read = stamp.read(path)
    assert read is None or why(read, recipe="none such")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(
    st.fixed_dictionaries(
        {"format": st.just(stamp.FORMAT)},
        optional=dict.fromkeys(("recipe", "object", "inputs", "btf", "warnings"), json_values),
    )
)
def test_a_stamp_with_other_types_in_it_is_none_or_stale(tmp_path_factory, said):
    path = tmp_path_factory.getbasetemp() / "odd"
    path.write_text(json.dumps(said))
    read = stamp.read(path)
    assert read is None or why(read, recipe="none such")
