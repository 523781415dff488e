"""What libbpf says is turned into what is meant, for the wording of each version of libbpf."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from xdpctl.bpf import features, refusal
from xdpctl.errors import MapError, ObjectError, PrivilegeError, UnsupportedError, VerifierError
from xdpctl.libbpf.library import CallError


@pytest.fixture
def owner():
    """Just enough of an Object."""
    return SimpleNamespace(
        path=Path("x.bpf.o"),
        programs={
            "p": SimpleNamespace(type="xdp", section="xdp"),
            "t": SimpleNamespace(type="tracing", section="fentry/f"),
        },
        maps={
            "m": SimpleNamespace(type="hash", max_entries=0, pin_path=Path("/sys/fs/bpf/m")),
            "c": SimpleNamespace(type="cpumap", max_entries=4096, pin_path=None),
        },
    )


def failed(owner, number, *lines, log=""):
    return refusal.load_failed(
        owner, CallError("bpf_object__load", number), [f"libbpf: {line}" for line in lines], log
    )


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch):
    """A process with every capability, on a kernel with every feature."""
    monkeypatch.setattr("xdpctl.bpf.failure.lacks", lambda *_: [])
    monkeypatch.setattr("xdpctl.bpf.failure.in_user_namespace", lambda: False)
    monkeypatch.setattr(features, "probe", lambda _: True)


@pytest.mark.parametrize("last", ["failed to load object 'x'", "failed to load object 'x.bpf.o'"])
def test_a_section_without_a_type_is_told_with_the_option(owner, last):
    error = failed(owner, 22, "prog 'p': missing BPF prog type, check ELF section name 'prog'", last)
    assert isinstance(error, ObjectError)
    assert "section name prog" in str(error)
    assert "--type" in error.hint


@pytest.mark.parametrize(
    "said", ["map 'm': failed to create: Invalid argument(-22)", "map 'm': failed to create: -EINVAL"]
)
def test_a_map_without_room_is_told_with_the_option(owner, said):
    error = failed(owner, 22, said)
    assert isinstance(error, MapError)
    assert "max_entries = 0" in error.hint
    assert error.errno == errno.EINVAL


def test_a_cpumap_larger_than_the_cpus_is_told(owner):
    assert "cpumap on these CPUs" in failed(owner, errno.E2BIG, "map 'c': failed to create: -E2BIG").hint


def test_a_pinned_map_of_another_shape_is_told_with_its_path(owner):
    error = failed(owner, 22, "couldn't reuse pinned map at '/sys/fs/bpf/m': parameter mismatch")
    assert isinstance(error, MapError)
    assert "/sys/fs/bpf/m" in str(error)


def test_a_rejected_program_is_the_verifier_s(owner, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    error = failed(
        owner,
        13,
        "prog 'p': BPF program load failed: Permission denied",
        "prog 'p': failed to load: -13",
        log="0: (95) exit\nR0 !read_ok\nprocessed 1 insns\n",
    )
    assert isinstance(error, VerifierError)
    assert (error.program, error.line) == ("p", "R0 !read_ok")


def test_the_log_of_refused_btf_is_not_taken_for_the_verifier_s(owner):
    error = failed(owner, 22, "prog 'p': BPF program load failed: -EINVAL", log="magic: 0xeb9f\nversion: 1\n")
    assert isinstance(error, ObjectError)
    assert "before verifying it: EINVAL" in str(error)


def test_a_missing_kernel_function_is_told(owner):
    said = "extern (func ksym) 'bpf_xdp_get_xfrm_state': not found in kernel or module BTFs"
    error = failed(owner, 3, said)
    assert isinstance(error, UnsupportedError)
    assert error.needs == "the kernel function bpf_xdp_get_xfrm_state"


def test_a_missing_kernel_option_is_told(owner):
    error = failed(owner, 3, "extern 'CONFIG_FOO' (strong): not resolved", "failed to load object 'x'")
    assert isinstance(error, UnsupportedError)
    assert "CONFIG_FOO" in str(error)


def test_a_freplace_without_target_is_told(owner):
    error = failed(owner, 22, "prog 'p': attach program FD is not set", "prog 'p': failed to load: -22")
    assert "not told of which" in str(error)


def test_a_tracing_program_on_a_kernel_without_trampolines_is_not_blamed_on_memory(owner, monkeypatch):
    monkeypatch.setattr(features, "probe", lambda name: name != "fentry")
    error = failed(owner, 1, "prog 't': BPF program load failed: Operation not permitted")
    assert isinstance(error, UnsupportedError)
    assert "trampolines" in error.needs


def test_locked_memory_is_blamed_only_where_the_kernel_counts_it(owner, monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    said = "prog 'p': BPF program load failed: Operation not permitted"
    assert "RLIMIT_MEMLOCK" not in str(failed(owner, 1, said))
    monkeypatch.setattr(features, "probe", lambda name: name != "memcg_accounting")
    error = failed(owner, 1, said)
    assert isinstance(error, PrivilegeError)
    assert "RLIMIT_MEMLOCK" in str(error)
    assert error.hint == "ulimit -l unlimited"
    # a verifier log says that it was not memory
    assert "RLIMIT_MEMLOCK" not in str(failed(owner, 1, said, log="0: (95) exit\nR0 !read_ok\n"))


def test_a_missing_capability_is_named(owner, monkeypatch):
    monkeypatch.setattr(
        "xdpctl.bpf.failure.lacks", lambda *names: [name for name in names if name == "CAP_BPF"]
    )
    error = failed(owner, 1, "Error in bpf_object__probe_loading():Operation not permitted(1).")
    assert isinstance(error, PrivilegeError)
    assert error.capability == "CAP_BPF"


def test_root_of_a_user_namespace_is_told_so(owner, monkeypatch):
    monkeypatch.setattr("xdpctl.bpf.failure.in_user_namespace", lambda: True)
    error = failed(owner, 1, "Error in bpf_object__probe_loading():Operation not permitted(1).")
    assert "initial user namespace" in error.capability


def test_what_is_not_known_is_told_in_libbpf_s_words(owner):
    error = failed(owner, 22, "something of the future happened", "failed to load object 'x'")
    assert str(error) == "x.bpf.o could not be loaded: something of the future happened"


def test_libbpf_saying_nothing_leaves_the_errno(owner):
    assert "Invalid argument" in str(failed(owner, 22))


def test_legacy_maps_are_told_with_the_new_form():
    lines = ["libbpf: elf: legacy map definitions in 'maps' section are not supported by libbpf v1.0+"]
    error = refusal.open_failed(Path("x.o"), CallError("bpf_object__open_file", 95), lines)
    assert 'SEC("maps")' in str(error)
    assert 'SEC(".maps")' in error.hint
