"""Which sources a command line means, and which object each becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpctl.build import sources
from xdpctl.errors import ConfigError, NotFoundError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder to stand in, with files made on demand."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("")

    return make


def test_a_folder_stands_for_its_bpf_sources(tree):
    tree("src/b.bpf.c", "src/a.bpf.c", "src/tool.c", "src/deeper/c.bpf.c")
    assert sources.collect([Path("src")]) == [Path("src/a.bpf.c"), Path("src/b.bpf.c")]


def test_nothing_named_means_the_folder_bpf(tree):
    tree("bpf/a.bpf.c", "b.bpf.c")
    assert sources.collect([]) == [Path("bpf/a.bpf.c")]


def test_nothing_named_and_no_folder_bpf_means_here(tree):
    tree("b.bpf.c")
    assert sources.collect([]) == [Path("b.bpf.c")]


def test_nothing_named_and_nothing_there_is_told(tree):
    with pytest.raises(ConfigError, match="nothing to build") as caught:
        sources.collect([])
    assert "xdpctl build prog.bpf.c" in caught.value.hint


def test_the_same_file_named_twice_is_one(tree):
    tree("bpf/a.bpf.c")
    assert sources.collect([Path("bpf/a.bpf.c"), Path("bpf"), Path("./bpf/../bpf/a.bpf.c")]) == [
        Path("bpf/a.bpf.c")
    ]


def test_a_missing_source_suggests_a_near_one(tree):
    tree("count.bpf.c", "pass.bpf.c")
    with pytest.raises(NotFoundError, match=r"no such source: cuont\.bpf\.c") as caught:
        sources.collect([Path("cuont.bpf.c")])
    assert "count.bpf.c" in caught.value.hint


def test_a_missing_source_in_a_missing_folder_is_only_missing(tree):
    with pytest.raises(NotFoundError, match=r"no such source: nowhere/x\.c"):
        sources.collect([Path("nowhere/x.c")])


def test_an_object_is_not_a_source(tree):
    tree("pass.bpf.o")
    with pytest.raises(ConfigError, match="not a C source"):
        sources.collect([Path("pass.bpf.o")])


def test_a_folder_without_bpf_sources_shows_how_to_name_others(tree):
    tree("src/kern.c")
    with pytest.raises(ConfigError, match=r"no \*\.bpf\.c in src") as caught:
        sources.collect([Path("src")])
    assert "src/kern.c" in caught.value.hint


def test_objects_keep_the_name_of_their_source():
    named = [Path("bpf/a.bpf.c"), Path("bpf/a.frags.bpf.c"), Path("old/kern.c")]
    assert sources.objects(named, Path("out")) == [
        Path("out/a.bpf.o"),
        Path("out/a.frags.bpf.o"),
        Path("out/kern.o"),
    ]


def test_two_sources_for_one_object_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"one/a\.bpf\.c and two/a\.bpf\.c would both become out/a\.bpf\.o"):
        sources.objects([Path("one/a.bpf.c"), Path("two/a.bpf.c")], Path("out"))
