"""``xdpctl build`` as a user types it: what it prints, how it ends, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "xdpctl.cli", "build")
PROGRAM = "#include <linux/bpf.h>\nint prog(struct xdp_md *ctx) { return XDP_PASS; }\n"


@pytest.fixture
def here(tmp_path):
    """A folder with bpf/a.bpf.c and bpf/b.bpf.c."""
    (tmp_path / "bpf").mkdir()
    for name in "ab":
        (tmp_path / f"bpf/{name}.bpf.c").write_text(PROGRAM)
        os.utime(tmp_path / f"bpf/{name}.bpf.c", (time.time() - 60,) * 2)
    return tmp_path


def run(here: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *argv], check=False, cwd=here, capture_output=True, text=True, timeout=60,
        env={**os.environ, **env}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "internal error" not in done.stderr, done.stderr
    return done


def test_nothing_named_builds_the_folder_bpf(here):
    done = run(here)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (here / "build/bpf").glob("*.o")) == ["a.bpf.o", "b.bpf.o"]
    assert done.stdout.splitlines()[-1] == "2 objects in build/bpf: 2 compiled, 0 current"
    assert run(here).stdout == "2 objects in build/bpf: 0 compiled, 2 current\n"


def test_verbose_says_why(here):
    assert "build/bpf/a.bpf.o  (not built yet)" in run(here, "-v").stdout


def test_json_is_one_document_with_an_entry_a_source(here):
    run(here, "bpf/a.bpf.c", "-o", "out")
    found = json.loads(run(here, "--json", "-o", "out").stdout)
    a, b = found["objects"]
    assert a == {
        "source": "bpf/a.bpf.c", "object": "out/a.bpf.o", "rebuilt": False, "reason": None,
        "seconds": 0.0, "warnings": "", "vmlinux": None,
    }  # fmt: skip
    assert (b["rebuilt"], b["reason"]) == (True, "not built yet")
    assert b["seconds"] > 0


def test_macros_and_folders_are_handed_on(here):
    (here / "deep/down").mkdir(parents=True)
    (here / "deep/down/found.h").write_text("#define FOUND 1\n")
    (here / "c.bpf.c").write_text("#include <found.h>\nint x[FOUND + MORE];\n")
    done = run(here, "c.bpf.c", "-I", "deep/down", "-D", "MORE=2", "-j", "1")
    assert done.returncode == 0, done.stderr


def test_broken_c_is_shown_by_clang_itself_and_ends_with_3(here):
    (here / "bpf/a.bpf.c").write_text(PROGRAM.replace("XDP_PASS", "XDP_PASSED"))
    done = run(here)
    assert done.returncode == 3
    first, *rest = done.stderr.splitlines()
    assert first.startswith("xdpctl: error: bpf/a.bpf.c:2:39: use of undeclared identifier 'XDP_PASSED'")
    assert any("^" in line for line in rest)


def test_broken_c_in_json_carries_the_diagnostics(here):
    (here / "bpf/a.bpf.c").write_text("broken\n")
    done = run(here, "--json")
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["exit_code"], done.returncode) == ("CompileError", 3, 3)
    assert "bpf/a.bpf.c:1:1: error:" in error["diagnostics"]


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["nowhere.bpf.c"], 2, "no such source: nowhere.bpf.c"),
        (["bpf", "other/a.bpf.c"], 2, "would both become build/bpf/a.bpf.o"),
        (["-o", "/dev/null/x"], 2, "can't write to /dev/null/x: Not a directory"),
        (["--clang", "nowhere"], 2, "no such clang: nowhere"),
        (["-D", "1"], 2, "-D 1: not a macro"),
        (["-j", "0"], 2, "-j"),
        (["missing.bpf.c"], 3, "'nowhere/x.h' file not found"),
        (["core.bpf.c", "--btf", "bpf/a.bpf.c"], 2, "gives no usable BTF"),
    ],
)
def test_what_can_not_be_built_is_told_in_one_line(here, argv, status, words):
    (here / "other").mkdir()
    (here / "other/a.bpf.c").write_text(PROGRAM)
    (here / "missing.bpf.c").write_text('#include "nowhere/x.h"\n')
    (here / "core.bpf.c").write_text('#include "vmlinux.h"\n')
    done = run(here, *argv)
    assert done.returncode == status
    assert words in done.stderr
    assert not list(here.rglob("*.o"))


def test_no_clang_in_path_is_told_with_the_package(here):
    done = run(here, PATH=str(here))
    assert done.returncode == 3
    assert done.stderr == (
        "xdpctl: error: clang is not installed: no clang in PATH\nhint: apt install clang (Fedora: dnf install clang)\n"
    )


def test_the_variable_clang_names_the_compiler(here):
    assert "no such clang: nowhere" in run(here, CLANG="nowhere").stderr


def left(here: Path) -> list[str]:
    """Objects and unfinished things in the output folder."""
    return [
        path.name for path in (here / "out").rglob("*") if path.name.startswith("run-") or path.suffix == ".o"
    ]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_ctrl_c_leaves_no_object_and_no_compiler(here):
    """A clang that writes half of its object and stalls; the interrupt goes to xdpctl alone, not to the group."""
    stalling = here / "stalling"
    stalling.write_text(
        "#!/bin/sh\n"
        'case "$1" in -v) exec clang "$@";; esac\n'
        'for word; do [ "$last" = -o ] && echo half > "$word"; last=$word; done\n'
        f"echo $$ >> {here}/pids\n"
        "exec sleep 60\n"
    )
    stalling.chmod(0o755)
    process = subprocess.Popen(
        [*COMMAND, "--clang", str(stalling), "-o", "out", "-j", "2"],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 30
    while not (here / "pids").exists() or len((here / "pids").read_text().split()) < 2:
        assert time.monotonic() < end, "the compilers were not started"
        time.sleep(0.02)
    pids = [int(word) for word in (here / "pids").read_text().split()]
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert left(here) == []
    assert [pid for pid in pids if not gone(pid)] == []


def test_after_ctrl_c_at_any_moment_the_next_build_is_right(here):
    for name in "cdefgh":
        (here / f"bpf/{name}.bpf.c").write_text(PROGRAM)
    (here / "out").mkdir()
    for delay in (0, 0.03, 0.1):
        process = subprocess.Popen(
            [*COMMAND, "-o", "out", "--force"],
            cwd=here,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 30
        while process.poll() is None and not any(name.startswith("run-") for name in left(here)):
            assert time.monotonic() < end, "nothing was compiled"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode in {0, 130}, said  # 0: it was done already
        assert "Traceback" not in said
        assert [name for name in left(here) if name.startswith("run-")] == []
        for made in (here / "out").glob("*.o"):
            assert made.read_bytes()[:4] == b"\x7fELF"
    assert run(here, "-o", "out").returncode == 0
    assert len(list((here / "out").glob("*.o"))) == 8
