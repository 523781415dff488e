"""A build makes what is missing or stale, nothing else, and leaves the rest whole, whatever happens."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from xdpctl.build import compile as compiler
from xdpctl.build import toolchain, vmlinux
from xdpctl.errors import CompileError, ConfigError, NotFoundError

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "answer.h"
SEC("xdp") int prog(struct xdp_md *ctx) { return ANSWER; }
char LICENSE[] SEC("license") = "GPL";
"""
CORE = """
#include "vmlinux.h"
int prog(struct outer *outer) { return outer->first; }
"""
TYPES = "struct outer { int first; } kept;\n"


@pytest.fixture
def src(tmp_path, monkeypatch):
    """A folder to stand in, with a program in src/ and its header in src/include/."""
    monkeypatch.chdir(tmp_path)
    folder = Path("src")
    (folder / "include").mkdir(parents=True)
    (folder / "a.bpf.c").write_text(PROGRAM)
    (folder / "include/answer.h").write_text("#define ANSWER XDP_PASS\n")
    aged(folder / "a.bpf.c", folder / "include/answer.h")
    return folder


def aged(*paths: Path) -> None:
    """Make files a minute old, so that a change is one whatever the clock's grain."""
    for path in paths:
        os.utime(path, (time.time() - 60,) * 2)


def build(*named: str, **options):
    return compiler.build([Path(name) for name in named or ("src",)], Path("out"), **options)


def reasons(built) -> dict[str, str | None]:
    return {one.object.name: one.reason for one in built}


@pytest.fixture
def btf(src):
    """``btf(types) -> Path``: an object whose BTF has `types`, and src/core.bpf.c asking for vmlinux.h."""
    (src / "core.bpf.c").write_text(CORE)
    aged(src / "core.bpf.c")

    def make(types: str, name: str = "types.c") -> Path:
        Path(name).write_text(types)
        compiler.build([Path(name)], Path("types"))
        return Path("types") / name.replace(".c", ".o")

    return make


# what is compiled, and why


def test_an_object_is_made_once(src):
    assert reasons(build()) == {"a.bpf.o": "not built yet"}
    made = Path("out/a.bpf.o").stat()
    assert reasons(build()) == {"a.bpf.o": None}
    assert Path("out/a.bpf.o").stat().st_mtime_ns == made.st_mtime_ns


def test_an_object_is_a_bpf_elf_file_with_btf(src):
    data = build()[0].object.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little" if data[5] == 1 else "big") == 247  # EM_BPF
    assert b".BTF\0" in data
    assert b".BTF.ext\0" in data


def test_a_touched_header_makes_it_stale(src):
    build()
    (src / "include/answer.h").touch()
    assert reasons(build())["a.bpf.o"].endswith("src/include/answer.h changed")
    assert reasons(build()) == {"a.bpf.o": None}


def test_an_older_header_put_back_makes_it_stale(src):
    build()
    (src / "include/answer.h").write_text("#define ANSWER XDP_DROP\n")
    os.utime(src / "include/answer.h", (0, 0))
    assert reasons(build())["a.bpf.o"].endswith("answer.h changed")


def test_only_what_depends_on_a_changed_file_is_compiled(src):
    (src / "b.bpf.c").write_text(PROGRAM.replace('#include "answer.h"', "#define ANSWER 1"))
    aged(src / "b.bpf.c")
    build()
    (src / "include/answer.h").touch()
    assert [one.object.name for one in build() if one.rebuilt] == ["a.bpf.o"]


@pytest.mark.parametrize("change", [{"define": ["X=1"]}, {"include": [Path("src")]}, {"werror": True}])
def test_other_flags_make_it_stale(src, change):
    build()
    assert reasons(build(**change)) == {"a.bpf.o": "the compiler or its flags changed"}
    assert reasons(build(**change)) == {"a.bpf.o": None}


def test_another_compiler_makes_it_stale(src, tmp_path):
    build()
    other = tmp_path / "clang-other"
    other.write_text('#!/bin/sh\n[ "$1" = -v ] && echo "my clang version 99" >&2\nexec clang "$@"\n')
    other.chmod(0o755)
    assert reasons(build(clang=str(other))) == {"a.bpf.o": "the compiler or its flags changed"}


def test_an_object_overwritten_or_removed_is_made_again(src):
    build()
    Path("out/a.bpf.o").write_bytes(b"other")
    assert reasons(build()) == {"a.bpf.o": "the object changed"}
    Path("out/a.bpf.o").unlink()
    assert reasons(build()) == {"a.bpf.o": "not built yet"}


def test_force_compiles_what_is_current(src):
    build()
    assert reasons(build(force=True)) == {"a.bpf.o": "asked for"}


def test_a_header_that_went_away_with_its_include_is_no_error(src):
    build()
    (src / "include/answer.h").unlink()
    (src / "a.bpf.c").write_text(PROGRAM.replace('#include "answer.h"', "#define ANSWER 1"))
    assert reasons(build())["a.bpf.o"] is not None


def test_a_source_written_while_clang_ran_is_compiled_again(src, tmp_path):
    slow = tmp_path / "clang-slow"
    slow.write_text(
        "#!/bin/sh\n"
        'case "$1" in -v) exec clang "$@";; esac\n'
        'clang "$@" && echo >> src/include/answer.h\n'  # clang has read it, and it changes
    )
    slow.chmod(0o755)
    build(clang=str(slow))
    assert reasons(build(clang=str(slow)))["a.bpf.o"].endswith("answer.h changed")


def test_a_source_from_the_future_is_current_all_the_same(src):
    os.utime(src / "a.bpf.c", (time.time() + 3600,) * 2)
    build()
    assert reasons(build()) == {"a.bpf.o": None}


def test_names_with_blanks_and_signs_are_tracked(src):
    odd = src / "odd $1 #2.bpf.c"
    odd.write_text(PROGRAM)
    aged(odd)
    built = build(str(odd))
    assert built[0].object == Path("out/odd $1 #2.bpf.o")
    assert reasons(build(str(odd))) == {"odd $1 #2.bpf.o": None}
    odd.touch()
    assert reasons(build(str(odd)))["odd $1 #2.bpf.o"].endswith("changed")


def test_a_name_that_looks_like_an_option_is_a_file(src, monkeypatch):
    monkeypatch.chdir(src)
    Path("-v.bpf.c").write_text("int x;")
    assert build("-v.bpf.c")[0].object.exists()


# vmlinux.h


def test_vmlinux_h_is_made_when_a_source_asks_for_it_and_only_then(src, btf):
    built = {one.source.name: one.vmlinux for one in build(btf=btf(TYPES))}
    assert built["a.bpf.c"] is None
    assert built["core.bpf.c"].read_text().count("struct outer {") == 1


def test_vmlinux_h_is_made_once_for_the_same_btf(src, btf, monkeypatch):
    types = btf(TYPES)
    (src / "core2.bpf.c").write_text(CORE)
    calls = []
    real = vmlinux._dump
    monkeypatch.setattr(vmlinux, "_dump", lambda *given: (calls.append(given), real(*given)))
    build(btf=types)
    build(btf=types, force=True)
    assert len(calls) == 1


def test_other_btf_makes_only_what_used_it_stale(src, btf):
    first, second = btf(TYPES), btf(TYPES + "int more;\n", "more.c")
    build(btf=first)
    assert reasons(build(btf=first)) == {"a.bpf.o": None, "core.bpf.o": None}
    assert reasons(build(btf=second)) == {"a.bpf.o": None, "core.bpf.o": "the BTF changed"}
    assert reasons(build(btf=second)) == {"a.bpf.o": None, "core.bpf.o": None}


def test_a_vmlinux_h_of_the_user_s_own_is_preferred(src, btf):
    types = btf("int nothing_of_use;\n")
    (src / "vmlinux.h").write_text("typedef unsigned __u32; typedef unsigned long long __u64;\n" + TYPES)
    (src / "core.bpf.c").write_text('#include "vmlinux.h"\nint prog(struct outer *o) { return o->first; }\n')
    built = build("src/core.bpf.c", btf=types)
    assert built[0].vmlinux is None


def test_the_running_kernel_s_types_serve_a_core_program(src):
    if not Path(vmlinux.KERNEL_BTF[0]).exists():
        pytest.skip("the running kernel offers no BTF")
    (src / "skb.bpf.c").write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_core_read.h>\n'
        'SEC("tp_btf/kfree_skb") int seen(__u64 *ctx)\n'
        "{ struct sk_buff *skb = (void *)ctx[0]; return BPF_CORE_READ(skb, dev, ifindex) == 1; }\n"
    )
    built = build("src/skb.bpf.c", werror=True)
    assert built[0].vmlinux.exists()
    assert reasons(build("src/skb.bpf.c", werror=True)) == {"skb.bpf.o": None}


def test_no_btf_is_only_told_to_a_source_that_asks_for_it(src, btf, monkeypatch):
    monkeypatch.setattr(vmlinux, "KERNEL_BTF", ("/does/not/exist",))
    assert build("src/a.bpf.c")[0].rebuilt
    with pytest.raises(CompileError, match="offers no BTF"):
        build("src/core.bpf.c")


# failures


def test_clang_s_error_comes_back_with_file_line_and_caret(src):
    (src / "a.bpf.c").write_text(PROGRAM.replace("return ANSWER", "return ANSWER + bogus"))
    with pytest.raises(
        CompileError, match=r"^src/a\.bpf\.c:5:59: use of undeclared identifier 'bogus'$"
    ) as caught:
        build()
    assert "src/a.bpf.c:5:59: error: use of undeclared identifier 'bogus'" in caught.value.diagnostics
    lines = caught.value.diagnostics.splitlines()
    code = next(number for number, line in enumerate(lines) if "ANSWER + bogus" in line)
    assert lines[code + 1].index("^") == lines[code].index("bogus")


def test_a_failure_leaves_the_old_object_and_the_good_ones_are_made(src):
    build()
    old = Path("out/a.bpf.o").read_bytes()
    (src / "a.bpf.c").write_text("broken")
    (src / "b.bpf.c").write_text("int fine;")
    (src / "c.bpf.c").write_text("broken too")
    with pytest.raises(CompileError, match=r"src/a\.bpf\.c:1:1: .*\(and 1 more source failed\)"):
        build(jobs=1)
    assert Path("out/a.bpf.o").read_bytes() == old
    assert Path("out/b.bpf.o").exists()
    assert sorted(path.name for path in Path("out/.xdpctl").iterdir()) == ["a.bpf.o.json", "b.bpf.o.json"]


def test_a_missing_header_of_libbpf_names_the_package(src, monkeypatch):
    """As on a machine where it is not installed: no system folder is searched."""
    real = toolchain.find
    monkeypatch.setattr(toolchain, "find", lambda clang: replace(real(clang), include=()))
    monkeypatch.setattr(toolchain, "libbpf_headers", lambda *_: [])
    (src / "a.bpf.c").write_text("#include <bpf/no_such_thing.h>\n")
    with pytest.raises(CompileError, match=r"'bpf/no_such_thing\.h' file not found") as caught:
        build()
    assert caught.value.hint == "apt install libbpf-dev (Fedora: dnf install libbpf-devel)"


def test_a_warning_is_handed_on_even_when_the_object_is_current(src):
    (src / "a.bpf.c").write_text(PROGRAM + "static int unused(void) { return 1; }\n")
    aged(src / "a.bpf.c")
    assert "unused function 'unused'" in build()[0].warnings
    again = build()[0]
    assert not again.rebuilt
    assert "unused function 'unused'" in again.warnings


def test_werror_makes_a_warning_an_error(src):
    (src / "a.bpf.c").write_text(PROGRAM + "static int unused(void) { return 1; }\n")
    with pytest.raises(CompileError, match="unused function 'unused'"):
        build(werror=True)


@pytest.mark.parametrize("out", ["/dev/null/out", "/proc/out", "src/a.bpf.c"])
def test_an_output_folder_that_can_not_be_is_told(src, out):
    with pytest.raises(ConfigError, match=f"can't write to {out}") as caught:
        compiler.build([src], Path(out))
    assert "-o" in caught.value.hint


def test_an_object_s_place_taken_by_a_folder_is_told(src):
    Path("out/a.bpf.o/full").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"can't write out/a\.bpf\.o"):
        build()


def test_a_missing_include_folder_is_told(src):
    with pytest.raises(NotFoundError, match="no such include folder: nowhere"):
        build(include=[Path("nowhere")])


@pytest.mark.parametrize("macro", ["", "1X", "-X", "X Y", "=1"])
def test_a_definition_that_is_none_is_told(src, macro):
    with pytest.raises(ConfigError, match="not a macro"):
        build(define=[macro])


def test_a_definition_reaches_the_source(src):
    (src / "a.bpf.c").write_text("#include <linux/types.h>\nchar text[] = WORDS;\n")
    built = build(define=['WORDS="xyzzy plugh"'])
    assert b"xyzzy plugh" in built[0].object.read_bytes()


def test_a_missing_btf_file_is_told_before_anything_is_compiled(src):
    with pytest.raises(NotFoundError, match="no such BTF file: nowhere"):
        build(btf=Path("nowhere"))
    assert not Path("out").exists()


# many at once


def test_sources_are_compiled_side_by_side(src, tmp_path):
    """Each compilation waits until two run: alone it would never end."""
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    together = tmp_path / "clang-together"
    together.write_text(
        "#!/bin/sh\n"
        'case "$1" in -v) exec clang "$@";; esac\n'
        f"touch {meeting}/$$; tries=0\n"
        f'while [ "$(ls {meeting} | wc -l)" -lt 2 ]; do\n'
        "  sleep 0.02; tries=$((tries + 1)); [ $tries -lt 500 ] || exit 1\n"
        "done\n"
        'exec clang "$@"\n'
    )
    together.chmod(0o755)
    (src / "b.bpf.c").write_text("int b;")
    assert len(build(clang=str(together), jobs=2)) == 2


def test_never_more_than_asked_for_run_at_once(src, tmp_path):
    one = tmp_path / "clang-one"
    one.write_text(
        "#!/bin/sh\n"
        'case "$1" in -v) exec clang "$@";; esac\n'
        f"mkdir {tmp_path}/busy || exit 1\n"
        'clang "$@"; status=$?\n'
        f"rmdir {tmp_path}/busy; exit $status\n"
    )
    one.chmod(0o755)
    for name in "bcdef":
        (src / f"{name}.bpf.c").write_text(f"int {name};")
    assert len(build(clang=str(one), jobs=1)) == 6


def test_progress_counts_up_to_what_is_compiled(src):
    build()
    for name in "bcd":
        (src / f"{name}.bpf.c").write_text(f"int {name};")
    seen = []
    built = build(progress=lambda one, ready, total: seen.append((one.object.name, ready, total)))
    assert [(ready, total) for _, ready, total in seen] == [(1, 3), (2, 3), (3, 3)]
    assert {name for name, _, _ in seen} == {"b.bpf.o", "c.bpf.o", "d.bpf.o"}
    assert [one.object.name for one in built] == ["a.bpf.o", "b.bpf.o", "c.bpf.o", "d.bpf.o"]


@pytest.mark.parametrize("jobs", [0, -1])
def test_no_compiler_at_all_is_refused(src, jobs):
    with pytest.raises(ConfigError, match="at least one"):
        build(jobs=jobs)
