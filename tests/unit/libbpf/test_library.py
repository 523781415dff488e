"""The library is found, or it is told what is missing; a refused call is an exception with its errno."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from xdpctl.errors import UnsupportedError
from xdpctl.libbpf import library, prototypes


def test_this_machine_s_libbpf_is_1_0_or_newer():
    major, minor = library.version()
    assert (major, minor) >= (1, 0)
    assert library.version_string().startswith(f"v{major}.{minor}")
    assert library.lib() is library.lib()


def test_the_library_has_all_functions_that_the_table_says_it_has():
    missing = [
        name
        for name, (*_, since) in prototypes.PROTOTYPES.items()
        if tuple(map(int, since.split("."))) <= library.version() and not library.has(name)
    ]
    assert missing == []


def test_a_function_that_is_not_in_the_table_is_a_mistake_of_ours():
    with pytest.raises(AttributeError, match="not in the table"):
        _ = library.lib().bpf_no_such_function


def test_a_function_newer_than_the_library_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(
        prototypes.PROTOTYPES, "bpf_of_the_future", (prototypes.Result.ERROR, None, (), "9.9")
    )
    assert not library.has("bpf_of_the_future")
    has = "libbpf {}.{}".format(*library.version())
    with pytest.raises(
        UnsupportedError, match=re.escape(f"bpf_of_the_future() needs libbpf 9.9, this is {has}")
    ):
        library.lib().bpf_of_the_future(1, 2)


def test_a_refused_call_raises_with_function_and_errno():
    with pytest.raises(library.CallError, match="bpf_obj_get: No such file or directory") as caught:
        library.lib().bpf_obj_get(b"/no/such/pin")
    assert (caught.value.function, caught.value.errno) == ("bpf_obj_get", 2)
    assert isinstance(caught.value, OSError)


def test_a_null_pointer_raises_with_the_errno_that_libbpf_set(tmp_path):
    with pytest.raises(library.CallError) as caught:
        library.lib().btf__parse(os.fsencode(tmp_path / "nothing"), None)
    assert caught.value.errno == 2


def test_libbpf_s_own_error_numbers_have_a_text():
    assert (
        str(library.CallError("bpf_object__open_file", -4001))
        == "bpf_object__open_file: BPF object format invalid"
    )


def run(path):
    """What `lib()` does in a process whose XDPCTL_LIBBPF names `path`."""
    code = (
        "from xdpctl.libbpf.library import lib\n"
        "from xdpctl.errors import XdpctlError\n"
        "try: lib()\n"
        "except XdpctlError as why: print(type(why).__name__, why, why.hint, sep='|')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDPCTL_LIBBPF": str(path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout


def test_a_missing_library_is_told_with_what_to_do(tmp_path):
    said = run(tmp_path / "libbpf.so.1")
    assert said.startswith("UnsupportedError|working with BPF needs libbpf.so.1 (libbpf 1.0 or newer)")
    assert "which does not exist" in said
    assert "XDPCTL_LIBBPF names" in said


def test_the_usual_library_missing_names_the_package(monkeypatch):
    monkeypatch.setattr(library, "SONAME", "libbpf-that-is-not-there.so.1")
    with pytest.raises(UnsupportedError) as caught:
        library._load("libbpf-that-is-not-there.so.1")
    assert caught.value.hint == "apt install libbpf1"
    assert "a system without it" in str(caught.value)


def test_a_file_that_is_no_library_is_told(tmp_path):
    (tmp_path / "x.so").write_text("no library")
    assert "can't be loaded" in run(tmp_path / "x.so")


def test_another_library_is_told():
    said = run("libc.so.6")
    assert said.startswith("UnsupportedError|xdpctl needs libbpf 1.0 or newer")
