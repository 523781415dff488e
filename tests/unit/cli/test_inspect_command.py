"""``xdpctl inspect`` as a user meets it: output, JSON, exit codes, mistakes."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from xdpctl.cli.main import main

HEAD = '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nchar l[] SEC("license") = "GPL";\n'
GOOD = """
volatile const __u32 out = 7;
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 8); __type(key, int); __type(value, int);
  __uint(pinning, 1); } ports SEC(".maps");
SEC("xdp") int forward(struct xdp_md *c) { return out ? bpf_redirect(out, 0) : bpf_redirect_map(&ports, 1, 0); }
"""
UNTOLD = 'SEC("main") int prog(struct xdp_md *c) { return XDP_TX; }\n'


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    for name, source in (("good", GOOD), ("untold", UNTOLD)):
        path = folder / f"{name}.c"
        path.write_text(HEAD + source)
        subprocess.run(
            ["clang", "-g", "-O2", "-target", "bpf", "-I", include, "-c", path, "-o", folder / f"{name}.o"],
            check=True,
            timeout=60,
        )
    (folder / "broken.o").write_bytes((folder / "good.o").read_bytes()[:300])
    return folder


def run(capsys, *words):
    code = main(["inspect", "--no-probe", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_an_object_is_shown_with_its_parts_and_verdict(objects, capsys):
    code, out, err = run(capsys, objects / "good.o")
    assert (code, err) == (0, "")
    assert "program forward: xdp, section xdp" in out
    assert "bpf_redirect to out (now 7) (line" in out
    assert "bpf_redirect_map through ports, key 1" in out
    assert "devmap" in out
    assert "pins map ports at /sys/fs/bpf/xdpctl/maps/ports" in out
    assert "out     const volatile __u32" in out
    assert "verdict: nothing known keeps it from loading here" in out


def test_piped_output_has_no_colour(objects, capsys):
    _, out, _ = run(capsys, objects / "untold.o")
    assert "\x1b" not in out


def test_a_failing_verdict_is_exit_code_1_and_says_what_to_type(objects, capsys):
    code, out, _ = run(capsys, objects / "untold.o")
    assert code == 1
    assert "does not load here" in out
    assert "hint: name it: --type xdp" in out


def test_with_the_type_given_it_loads(objects, capsys):
    code, out, _ = run(capsys, "--type", "xdp", objects / "untold.o")
    assert code == 0
    assert "program prog: xdp, section main" in out
    assert "loaders that leave everything to libbpf (bpftool, ip) refuse it" in out


def test_json_has_the_documented_keys(objects, capsys):
    code, out, err = run(capsys, "--json", objects / "good.o", objects / "untold.o")
    assert (code, err) == (1, "")
    good, untold = json.loads(out)["objects"]
    assert (good["loads"], untold["loads"]) == (True, False)
    assert set(good) == {
        "path", "size", "license", "byte_order", "btf", "line_info", "core_relocations", "loads",
        "loads_with_libbpf_alone", "kernel", "problems", "programs", "maps", "globals", "externs", "pins",
    }  # fmt: skip
    assert untold["problems"][0]["id"] == "unknown-section"
    (program,) = good["programs"]
    assert {
        call["helper"]: (call["variable"], call["values"], call["map"]) for call in program["redirects"]
    } == {
        "bpf_redirect": ("out", [7], None),
        "bpf_redirect_map": (None, [], "ports"),
    }
    assert good["pins"][0]["by_other_loaders"] == "/sys/fs/bpf/ports"


def test_json_of_a_broken_object_among_others_keeps_the_others(objects, capsys):
    code, out, err = run(capsys, "--json", objects / "broken.o", objects / "good.o")
    broken, good = json.loads(out)["objects"]
    assert code == 4
    assert broken["error"]["type"] == "ObjectError"
    assert good["loads"]
    assert err == ""


def test_a_broken_object_among_others_is_told_on_stderr(objects, capsys):
    code, out, err = run(capsys, objects / "broken.o", objects / "good.o")
    assert code == 4
    assert "truncated" in err
    assert "program forward" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("/etc/hostname",), 4, "not an ELF file"),
        (("/bin/sh",), 4, "not for BPF"),
        (("/no/such/file.o",), 2, "no such file"),
        (("/tmp",), 4, "is not a file"),
        (("--type", "xpd", "good.o"), 2, "no such program type: xpd"),
    ],
)
def test_mistakes_are_one_line_and_a_code(objects, capsys, words, code, said):
    words = [objects / word if word == "good.o" else word for word in words]
    got, _, err = run(capsys, *words)
    assert got == code
    assert said in err
    assert "Traceback" not in err


def test_a_mistyped_type_suggests_the_right_one(objects, capsys):
    _, _, err = run(capsys, "--type", "xpd", objects / "good.o")
    assert "did you mean xdp" in err


def test_names_from_the_file_can_not_write_to_the_terminal(objects, capsys, tmp_path):
    data = (objects / "good.o").read_bytes().replace(b"forward\0", b"\x1b[2Jwar\0")
    path = tmp_path / "evil.o"
    path.write_bytes(data)
    _, out, err = run(capsys, path)
    assert "\x1b" not in out + err


def test_help_has_examples(capsys):
    assert main(["inspect", "--help"]) == 0
    assert "xdpctl inspect --type xdp old.o" in capsys.readouterr().out
