"""Views: attributes over memory that lives, checked writes, names that are not there."""

from __future__ import annotations

import copy
import shutil
import subprocess

import pytest

from xdpctl.btf.layout import layout
from xdpctl.btf.parse import STRUCT, parse
from xdpctl.btf.views import Memory, struct_class
from xdpctl.errors import ConfigError, NotFoundError, ObjectError
from xdpctl.obj import elf

SOURCE = """
struct inner { unsigned char mac[6]; short port; };
struct outer {
    unsigned int limit; int low : 5; unsigned int high : 3;
    struct inner one, many[2];
    union { unsigned int v4; unsigned char raw[4]; };
    char name[8]; int class; _Bool on; double rate; unsigned long long grid[2][2];
    enum { OFF, ON } mode;
};
struct outer global;
"""

pytestmark = pytest.mark.skipif(not shutil.which("clang"), reason="compiles C: needs clang")


@pytest.fixture(scope="module")
def outer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    (folder / "t.c").write_text(SOURCE)
    subprocess.run(
        ["clang", "-target", "bpf", "-g", "-c", "t.c", "-o", "t.o"], cwd=folder, check=True, timeout=60
    )
    btf = parse(elf.parse((folder / "t.o").read_bytes(), "t.o").section(".BTF").data)
    return layout(btf, btf.find("outer", STRUCT).id)


@pytest.fixture
def view(outer):
    return outer.view(bytearray(outer.size))


def test_members_are_read_from_memory_at_that_moment(outer):
    memory = bytearray(outer.size)
    view = outer.view(memory)
    memory[:4] = b"\x07\0\0\0"
    assert view.limit == 7
    view.limit = 8
    assert memory[0] == 8


def test_an_unknown_member_suggests_near_ones_and_is_an_attribute_error(view):
    with pytest.raises(AttributeError, match="no such member: limitt"):
        view.limitt = 1
    with pytest.raises(NotFoundError) as told:
        view.limt  # noqa: B018
    assert told.value.hint == "did you mean limit?"
    assert not hasattr(view, "nothing")


@pytest.mark.parametrize(
    ("member", "value"),
    [("limit", 1 << 32), ("limit", -1), ("limit", 1.5), ("limit", "7"), ("low", 16), ("low", -17), ("high", 8),
     ("name", "too long for it"), ("on", 2), ("rate", "x"), ("mode", "MAYBE"), ("one", {"nothing": 1}),
     ("many", [1, 2]), ("grid", [[1], [1], [1]])],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_the_members_name_and_changes_nothing(view, member, value):
    before = bytes(view)
    with pytest.raises(ConfigError) as told:
        setattr(view, member, value)
    assert member in told.value.message or "nothing" in told.value.message
    assert bytes(view) == before


def test_bitfields_leave_their_neighbours_alone(view):
    view.low, view.high = -3, 5
    view.low = 7
    assert (view.low, view.high, view.limit) == (7, 5, 0)


def test_structs_and_arrays_inside_are_views_too(view):
    view.many[1].mac = b"\1\2\3\4\5\6"
    view.many[1].mac[0] = 9
    assert bytes(view.many[1].mac) == b"\x09\2\3\4\5\6"
    assert list(view.many[1].mac) == [9, 2, 3, 4, 5, 6]
    assert view.many[-1].mac[1:3] == [2, 3]
    view.grid[1][0] = 1 << 40
    assert view.grid == [[0, 0], [1 << 40, 0]]
    with pytest.raises(IndexError):
        view.many[2]
    with pytest.raises(ConfigError, match=r"many\[0\]\.port"):
        view.many[0].port = 1 << 15


def test_assigning_a_struct_replaces_it_whole(view):
    view.one = {"port": 3, "mac": [1]}
    view.one = {"port": 4}
    assert view.one == {"mac": [0] * 6, "port": 4}
    view.many[0] = view.one
    assert view.many[0].port == 4


def test_members_of_an_anonymous_union_share_their_bytes(view):
    view.raw = [1, 0, 0, 0]
    assert view.v4 == 1


def test_names_that_python_reserves_are_items(view):
    view["class"] = -1
    assert view["class"] == -1
    with pytest.raises(NotFoundError):
        view["classy"]


def test_text_is_text_and_replaces_what_was_longer(view):
    view.name = "longer"
    view.name = "ab"
    assert view.name == "ab"


def test_a_copy_of_bytes_is_read_only_and_says_so(outer):
    copied = outer.view(bytes(outer.size))
    with pytest.raises(ConfigError, match="a copy"):
        copied.limit = 1


def test_memory_may_move_and_go(outer):
    memory = Memory(bytearray(outer.size))
    view = outer.view(memory)
    view.limit = 3
    memory.move(bytes(outer.size), frozen="it is constant now")
    assert view.limit == 0
    with pytest.raises(ConfigError, match="constant now"):
        view.limit = 1
    memory.revoke("it is closed")
    with pytest.raises(ConfigError, match="it is closed"):
        view.limit  # noqa: B018
    assert "it is closed" in repr(view)


def test_the_class_of_a_struct_makes_values(outer):
    made = struct_class(outer)(limit=3, name="x")
    assert (made.limit, made.name, made.low) == (3, "x", 0)
    assert outer.decode(bytes(made)) == outer.decode(outer.encode({"limit": 3, "name": "x"}))
    with pytest.raises(AttributeError):
        struct_class(outer)(nothing=1)
    assert isinstance(made, struct_class(outer))


def test_views_can_be_compared_listed_and_shown(view):
    assert view == copy.copy(view._asdict())
    assert "limit" in dir(view)
    assert set(view) >= {"limit", "v4", "raw", "class"}
    assert "'limit': 0" in repr(view)


def test_data_that_end_too_early_are_refused(outer):
    with pytest.raises(ObjectError, match="goes beyond"):
        outer.view(bytes(outer.size - 1))
