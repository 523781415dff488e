"""The programs of bpf/ compile without a warning and say in their header what they hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdpctl.build.compile import build
from xdpctl.obj.reader import read

BPF = Path(__file__).resolve().parents[3] / "bpf"
ALL = sorted(path.name.removesuffix(".bpf.c") for path in BPF.glob("*.bpf.c"))
TRACERS = [name for name in ALL if name.startswith(("trace_", "lab_")) or name.endswith("_trace")]
"""Loaded by xdpctl itself, never attached to an interface."""
NAMES = [name for name in ALL if name not in TRACERS]
PLAIN = [name for name in NAMES if not name.endswith(".frags")]
XDP = [name for name in PLAIN if not name.startswith("tc_")]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Name -> what the object says, each compiled with warnings as errors."""
    built = build([BPF], tmp_path_factory.mktemp("objects"), werror=True)
    return {one.source.name.removesuffix(".bpf.c"): read(one.object) for one in built}


def header(name: str) -> str:
    """The comment at the top of a source."""
    found = re.search(r"/\*(.*?)\*/", (BPF / f"{name}.bpf.c").read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("name", NAMES)
def test_each_has_one_program_of_a_name_the_kernel_keeps_whole(objects, name):
    if name not in TRACERS:
        assert len(objects[name].programs) == 1
    assert all(len(program.name) <= 15 for program in objects[name].programs)
    assert objects[name].license == "GPL"
    assert objects[name].has_btf
    assert objects[name].has_line_info


@pytest.mark.parametrize("name", PLAIN + TRACERS)
def test_the_header_names_every_global_and_map(objects, name):
    text = header(name)
    words = set(re.findall(r"[\w/]+", text)) | {
        f"{each}" for pair in re.findall(r"(\w+)/(\w+)", text) for each in pair
    }
    held = {one.name for one in objects[name].globals} | {
        one.name for one in objects[name].maps if one.definition == "btf"
    }
    assert held - words == set()
    if not held:
        assert "Globals: none. Maps: none." in text


@pytest.mark.parametrize("name", PLAIN)
def test_the_header_shows_how_to_attach_it_with_globals_it_has(objects, name):
    examples = re.findall(r"xdpctl attach .*", header(name))
    assert any(example.endswith(f" build/bpf/{name}.bpf.o") for example in examples)
    for example in examples:
        assert set(re.findall(r"--set (\w+)=", example)) <= {one.name for one in objects[name].globals}
        assert ("--hook" in example) == name.startswith("tc_")


@pytest.mark.parametrize("name", XDP)
def test_every_xdp_program_has_a_variant_for_frags(objects, name):
    plain, frags = objects[name], objects[f"{name}.frags"]
    assert [program.frags for program in plain.programs] == [False]
    assert [program.frags for program in frags.programs] == [True]
    assert [one.name for one in plain.maps] == [one.name for one in frags.maps]
    assert [(one.name, one.value) for one in plain.globals] == [
        (one.name, one.value) for one in frags.globals
    ]


@pytest.mark.parametrize("name", PLAIN)
def test_the_plain_programs_call_only_helpers_that_linux_5_10_has(objects, name):
    known = {
        "bpf_map_lookup_elem", "bpf_redirect", "bpf_redirect_map", "bpf_skb_load_bytes_relative",
    }  # fmt: skip
    assert {helper for program in objects[name].programs for helper in program.helpers} <= known
