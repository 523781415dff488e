"""clang and the system's headers are found where they are, and told where they are not."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from xdpctl.build import toolchain
from xdpctl.errors import CompileError, NotFoundError

CLANG = shutil.which("clang")


@pytest.fixture
def only(tmp_path, monkeypatch):
    """PATH is one folder, to be filled with ``only(name, script)``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str = "") -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


def test_the_clang_here_has_a_version_and_the_folder_of_asm_types_h():
    found = toolchain.find()
    assert "clang version" in found.version
    assert any((folder / "asm/types.h").exists() for folder in found.include)
    assert not any("/clang/" in str(folder) for folder in found.include)


def test_this_machine_has_a_target_arch_for_tracing_headers():
    assert toolchain.find().target_arch in set(toolchain.TARGET_ARCH.values())


@pytest.mark.parametrize(
    ("machine", "arch"),
    [("x86_64", "x86"), ("aarch64", "arm64"), ("armv7l", "arm"), ("ppc64le", "powerpc"), ("s390x", "s390"),
     ("riscv64", "riscv"), ("mips64", "mips"), ("loongarch64", "loongarch"), ("sparc64", None)],
)  # fmt: skip
def test_each_machine_has_its_macro(machine, arch):
    assert toolchain._target_arch(machine) == arch


def test_no_clang_in_path_names_the_package(only):
    with pytest.raises(CompileError, match="clang is not installed") as caught:
        toolchain.find()
    assert "apt install clang" in caught.value.hint
    assert "dnf install clang" in caught.value.hint


def test_the_newest_numbered_clang_serves_where_there_is_no_plain_one(only):
    for number in (9, 14, 19):
        only(f"clang-{number}", f'echo "clang version {number}.0" >&2')
    only("clang-format-20")
    (only("clang-21")).chmod(0o644)
    assert toolchain.find().version == "clang version 19.0"


def test_a_clang_that_does_not_exist_is_not_found(only):
    with pytest.raises(NotFoundError, match="no such clang: clang-99"):
        toolchain.find("clang-99")


def test_something_that_is_no_clang_is_told(only):
    path = only("cc", 'echo "cc: unknown option" >&2; exit 1')
    with pytest.raises(CompileError, match=r"not a clang that works: cc: unknown option") as caught:
        toolchain.find(str(path))
    assert "--clang" in caught.value.hint


def test_gcc_is_no_clang(only):
    path = only("gcc", 'echo "gcc version 12.2.0 (Debian)" >&2')
    with pytest.raises(CompileError, match="not a clang"):
        toolchain.find(str(path))


def test_an_executable_that_can_not_run_is_told(only):
    path = only("clang")
    path.write_text("#!/does/not/exist\n")
    with pytest.raises(CompileError, match="does not run"):
        toolchain.find()


def test_libbpf_headers_elsewhere_are_found_through_pkg_config(only, tmp_path):
    (tmp_path / "opt/bpf").mkdir(parents=True)
    (tmp_path / "opt/bpf/bpf_helpers.h").write_text("")
    only("pkg-config", f'[ "$2" = libbpf ] && echo {tmp_path}/opt')
    assert toolchain.libbpf_headers((tmp_path,)) == [tmp_path / "opt"]
    assert toolchain.libbpf_headers((tmp_path / "opt",)) == []


def test_without_pkg_config_nothing_is_added(only, tmp_path):
    assert toolchain.libbpf_headers((tmp_path,)) == []


def test_the_clang_named_by_path_is_the_one_used(tmp_path):
    link = tmp_path / "my-clang"
    link.symlink_to(CLANG)
    assert toolchain.find(str(link)).clang == str(link)
