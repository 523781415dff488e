"""vmlinux.h: made from BTF through libbpf or bpftool, marked for CO-RE, kept by what the BTF holds."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from xdpctl.build import vmlinux
from xdpctl.errors import CompileError, ConfigError, NotFoundError, UnsupportedError

TYPES = """
struct inner { unsigned long long wide; };
struct outer { int first; struct inner *second; unsigned bits:3; } kept;
enum color { RED, GREEN = 7 } color;
"""


@pytest.fixture(scope="module")
def btf(tmp_path_factory):
    """An ELF file with the BTF of `TYPES`."""
    folder = tmp_path_factory.mktemp("btf")
    (folder / "types.c").write_text(TYPES)
    subprocess.run(
        ["clang", "-target", "bpf", "-g", "-O2", "-c", "types.c", "-o", "types.o"],
        cwd=folder, check=True, timeout=60,
    )  # fmt: skip
    return folder / "types.o"


def compiled(header, tmp_path) -> str:
    """Assembly of a program that reads ``outer.second`` as `header` declares it."""
    source = tmp_path / "use.c"
    source.write_text(f'#include "{header}"\nvoid *get(struct outer *o) {{ return o->second; }}\n')
    done = subprocess.run(
        ["clang", "-target", "bpf", "-g", "-O2", "-S", str(source), "-o", "-"],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_the_header_declares_the_types_and_relocates_what_reads_them(btf, tmp_path):
    header = vmlinux.make(btf, tmp_path / "v")
    assert "struct outer {" in header.read_text()
    assert "GREEN = 7" in header.read_text()
    assert "FieldReloc" in compiled(header, tmp_path)


def test_nothing_else_lies_beside_the_header(btf, tmp_path):
    header = vmlinux.make(btf, tmp_path / "v")
    assert list((tmp_path / "v").iterdir()) == [header]


def test_bpftool_serves_where_libbpf_is_missing(btf, tmp_path, monkeypatch):
    from xdpctl.libbpf import btf_dump

    def missing(*_):
        raise UnsupportedError("working with BPF", needs="libbpf.so.1", has="a system without it")

    monkeypatch.setattr(btf_dump, "append_c", missing)
    header = vmlinux.make(btf, tmp_path / "v")
    assert "struct outer {" in header.read_text()
    assert "FieldReloc" in compiled(header, tmp_path)


def declarations(header: str) -> list[str]:
    """Words of a header but for preprocessor lines and comments, which differ between bpftool's versions."""
    lines = [line for line in header.splitlines() if not line.startswith(("#", "/*"))]
    return " ".join(lines).split()


def test_libbpf_and_bpftool_declare_the_same(btf, tmp_path):
    ours = vmlinux.make(btf, tmp_path / "v").read_text()
    bpftool = shutil.which("bpftool") or "/usr/sbin/bpftool"
    dump = [bpftool, "btf", "dump", "file", str(btf), "format", "c"]
    for command in ([*dump, "unsorted"], dump):  # 7.5 and newer sort unless asked not to, older ones never do
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            break
    theirs = done.stdout
    assert declarations(ours) == declarations(theirs)


def test_neither_libbpf_nor_bpftool_names_the_package(btf, tmp_path, monkeypatch):
    from xdpctl.libbpf import btf_dump

    def missing(*_):
        raise UnsupportedError("working with BPF", needs="libbpf.so.1", has="a system without it")

    monkeypatch.setattr(btf_dump, "append_c", missing)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(CompileError, match="there is no bpftool either") as caught:
        vmlinux.make(btf, tmp_path / "v")
    assert "apt install bpftool" in caught.value.hint
    assert list((tmp_path / "v").iterdir()) == []


@pytest.mark.parametrize(
    "data", [b"", b"\x9f\xeb", b"no BTF at all", b"\x7fELF" + bytes(60), b"\x9f\xeb\x01" + b"\xff" * 90]
)
def test_a_file_that_holds_no_btf_is_told_and_leaves_nothing(data, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ConfigError, match="gives no usable BTF"):
        vmlinux.make(tmp_path / "file", tmp_path / "v")
    assert list((tmp_path / "v").iterdir()) == []


def test_a_header_that_is_there_is_not_made_again(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v/vmlinux.h").write_text("kept")
    assert vmlinux.make(tmp_path / "no such BTF", tmp_path / "v").read_text() == "kept"


def test_other_btf_has_another_digest_and_the_same_has_the_same(tmp_path):
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (vmlinux.digest(tmp_path / name) for name in "abc")
    assert a == b != c


def test_a_huge_file_is_told_apart_without_reading_it(tmp_path):
    huge = tmp_path / "vmlinux"
    with huge.open("wb") as file:
        file.truncate(vmlinux.HASHED_WHOLE + 1)
    before = vmlinux.digest(huge)
    with huge.open("ab") as file:
        file.write(b"x")
    assert vmlinux.digest(huge) != before


def test_a_missing_btf_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="no such BTF file"):
        vmlinux.source(tmp_path / "vmlinux")


def test_a_kernel_without_btf_is_told_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(vmlinux, "KERNEL_BTF", (str(tmp_path / "none"),))
    with pytest.raises(CompileError, match="offers no BTF") as caught:
        vmlinux.source()
    assert "--btf FILE" in caught.value.hint
    assert "-dbg" in caught.value.hint


def test_the_first_place_with_btf_is_taken(monkeypatch, tmp_path):
    (tmp_path / "second").write_bytes(b"")
    monkeypatch.setattr(vmlinux, "KERNEL_BTF", (str(tmp_path / "first"), str(tmp_path / "second")))
    assert vmlinux.source() == tmp_path / "second"
