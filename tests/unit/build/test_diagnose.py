"""What clang printed becomes one line and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdpctl.build import diagnose, packages

BROKEN = """\
In file included from bpf/x.bpf.c:3:
bpf/include/y.h:7:2: warning: unused variable 'z' [-Wunused-variable]
bpf/x.bpf.c:12:9: error: use of undeclared identifier 'foo'
        return foo;
               ^
bpf/x.bpf.c:13:1: error: expected expression
2 errors generated.
"""


def missing(name: str) -> str:
    return f"x.bpf.c:1:10: fatal error: '{name}' file not found\n#include <{name}>\n         ^~~\n"


def test_the_first_error_is_the_message_and_all_is_kept():
    error = diagnose.error_of([(Path("bpf/x.bpf.c"), 1, BROKEN)], [])
    assert error.message == "bpf/x.bpf.c:12:9: use of undeclared identifier 'foo'"
    assert error.diagnostics == BROKEN
    assert error.hint is None


def test_several_failures_are_counted_and_all_shown():
    error = diagnose.error_of(
        [(Path("a.c"), 1, BROKEN), (Path("b.c"), 1, missing("x.h")), (Path("c.c"), 1, "")], []
    )
    assert error.message.endswith("(and 2 more sources failed)")
    assert BROKEN.rstrip() in error.diagnostics
    assert "'x.h' file not found" in error.diagnostics


@pytest.mark.parametrize(
    ("header", "debian", "fedora"),
    [
        ("bpf/bpf_helpers.h", "libbpf-dev", "libbpf-devel"),
        ("asm/types.h", "linux-libc-dev", "kernel-headers"),
        ("linux/bpf.h", "linux-libc-dev", "kernel-headers"),
        ("gnu/stubs-32.h", "libc6-dev-i386", "glibc-devel.i686"),
        ("gnu/stubs.h", "libc6-dev", "glibc-devel"),
        ("xdp/xdp_helpers.h", "libxdp-dev", "libxdp-devel"),
    ],
)
def test_a_missing_header_names_its_package(header, debian, fedora):
    hint = diagnose.hint(1, missing(header), [])
    assert hint == f"apt install {debian} (Fedora: dnf install {fedora})"


def test_a_header_that_its_installed_package_lacks_is_not_told_to_be_installed(tmp_path):
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/bpf_helpers.h").write_text("")
    hint = diagnose.hint(1, missing("bpf/bpf_arena_common.h"), [tmp_path])
    assert hint.startswith("libbpf-dev is installed but has no bpf/bpf_arena_common.h")
    assert "apt install" not in hint


def test_a_header_of_nobody_we_know_asks_for_its_folder():
    assert diagnose.hint(1, missing("mine.h"), []) == "name the folder that holds mine.h with -I DIR"


@pytest.mark.parametrize(
    ("returncode", "output", "message"),
    [
        (1, "clang: error: no such file or directory: 'x.c'\n", "x.c: no such file or directory: 'x.c'"),
        (1, "clang-14: error: unable to execute command\n", "x.c: unable to execute command"),
        (1, "fatal error: error in backend: Cannot select\n", "x.c: error in backend: Cannot select"),
        (-9, "", "x.c: clang was ended by SIGKILL"),
        (-250, "", "x.c: clang was ended by signal 250"),
        (3, "", "x.c: clang ended with 3 and gave no reason"),
    ],
)
def test_a_failure_without_a_place_is_told_too(returncode, output, message):
    assert diagnose.first_error(Path("x.c"), returncode, output) == message


@pytest.mark.parametrize(
    ("returncode", "output", "hint"),
    [
        (-9, "", "-j 1"),
        (
            1,
            "error: unable to create target: 'No available targets are compatible with triple \"bpf\"'",
            "--clang",
        ),
        (1, "x.c:1:1: error: a\n/tmp/vmlinux.h:9:1: note: previous definition is here", "linux/*.h"),
    ],
)
def test_what_helps_is_told_where_we_know(returncode, output, hint):
    assert hint in diagnose.hint(returncode, output, [])


def test_asking_for_vmlinux_is_recognised_and_nothing_else():
    assert diagnose.wants("vmlinux.h", missing("vmlinux.h"))
    assert not diagnose.wants("vmlinux.h", missing("my/vmlinux.h"))
    assert not diagnose.wants("vmlinux.h", BROKEN)
    assert not diagnose.wants("vmlinux.h", "x.c:1:1: warning: 'vmlinux.h' file not found\n")


def test_every_package_that_brings_headers_has_a_witness():
    assert all(package.witness for _, package in packages.HEADERS)
