"""Building needs no privilege: as nobody, the programs of bpf/ and a CO-RE program from the kernel's own BTF."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from pathlib import Path

import pytest

from xdpctl.build.compile import build
from xdpctl.errors import XdpctlError
from xdpctl.libbpf import btf_dump, library, log

pytestmark = pytest.mark.kernel

NOBODY = 65534
CORE = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
SEC("tp_btf/kfree_skb") int seen(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	return BPF_CORE_READ(skb, dev, ifindex) == 1;
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def folder():
    """A folder that nobody may write to, with a CO-RE source and a copy of bpf/, outside of pytest's private ones."""
    path = Path(tempfile.mkdtemp(prefix="xt"))
    shutil.copytree(Path(__file__).resolve().parents[2] / "bpf", path / "bpf")
    (path / "core.bpf.c").write_text(CORE)
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def as_nobody(act) -> str:
    """What `act` returns or raises in a child without any privilege (the interpreter itself may be root's alone)."""
    assert btf_dump
    assert log
    library.lib()  # imported and opened while we still may
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            said = str(act())
        except XdpctlError as error:
            said = f"{type(error).__name__}: {error.message}"
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            said = traceback.format_exc()
        os.write(writer, said.encode()[:60000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_nobody_builds_our_programs(folder):
    ours = [folder / "bpf/pass.bpf.c", folder / "bpf/tc_count.bpf.c"]
    assert as_nobody(lambda: len(build(ours, folder / "out"))) == "2"
    assert [path.stat().st_uid for path in (folder / "out").glob("*.o")] == [NOBODY, NOBODY]


def test_nobody_makes_vmlinux_h_from_the_running_kernel(folder):
    said = as_nobody(lambda: build([folder / "core.bpf.c"], folder / "out", werror=True)[0].vmlinux)
    assert said.endswith("vmlinux.h"), said
    assert "struct sk_buff {" in Path(said).read_text()


def test_a_folder_that_nobody_may_not_write_to_is_told(folder):
    (folder / "root").mkdir(mode=0o755)
    said = as_nobody(lambda: build([folder / "bpf"], folder / "root/out"))
    assert said == f"ConfigError: can't write to {folder}/root/out: Permission denied"


def test_a_source_that_nobody_may_not_read_is_told(folder):
    (folder / "bpf/pass.bpf.c").chmod(0o600)
    said = as_nobody(lambda: build([folder / "bpf/pass.bpf.c"], folder / "out"))
    assert said == f"ConfigError: can't read {folder}/bpf/pass.bpf.c: permission denied"


def test_btf_that_nobody_may_not_read_is_told(folder):
    (folder / "secret").write_bytes(b"")
    (folder / "secret").chmod(0o600)
    said = as_nobody(lambda: build([folder / "core.bpf.c"], folder / "out", btf=folder / "secret"))
    assert said == f"ConfigError: can't read BTF from {folder}/secret: Permission denied"


def test_a_source_in_a_folder_that_nobody_may_search_is_told(folder):
    (folder / "bpf").chmod(0o700)
    said = as_nobody(lambda: build([folder / "bpf/pass.bpf.c"], folder / "out"))
    assert said == f"ConfigError: can't read {folder}/bpf/pass.bpf.c: permission denied"
