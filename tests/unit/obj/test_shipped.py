"""``builtin:NAME`` means a compiled program that comes with xdpctl, from whatever folder one asks."""

from pathlib import Path

import pytest

from xdpctl.errors import NotFoundError
from xdpctl.obj import shipped


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDPCTL_PROGRAMS", str(tmp_path))
    for name in ("pass", "pass.frags", "count"):
        (tmp_path / f"{name}.bpf.o").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["pass", "pass.frags", "pass.bpf.o"])
def test_a_builtin_is_found_by_name(programs, name):
    assert shipped.resolve(Path(f"builtin:{name}")) == programs / f"{name.removesuffix('.bpf.o')}.bpf.o"


def test_any_other_path_stays_as_it_is(programs):
    assert shipped.resolve(Path("pass.bpf.o")) == Path("pass.bpf.o")


def test_an_unknown_one_suggests_a_near_one(programs):
    with pytest.raises(NotFoundError, match="no such builtin program: cuont") as caught:
        shipped.resolve(Path("builtin:cuont"))
    assert caught.value.hint == "did you mean count?"


def test_a_name_does_not_lead_out_of_the_folder(programs):
    (programs.parent / "other.bpf.o").touch()
    with pytest.raises(NotFoundError):
        shipped.resolve(Path("builtin:../other"))


def test_without_compiled_programs_the_hint_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDPCTL_PROGRAMS", str(tmp_path))
    with pytest.raises(NotFoundError) as caught:
        shipped.resolve(Path("builtin:pass"))
    assert "make build" in caught.value.hint
