"""Our struct layouts and numbers are those of the C headers.

The headers are those installed, or those below XDPCTL_LIBBPF_HEADERS (a folder with bpf/ and linux/ in it). Older ones
know fewer fields than our tables: these may only lie where the headers have nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess

import pytest

from xdpctl.bpf import program
from xdpctl.libbpf import info, opts, syscalls, uapi

HEADERS = """
#include <stdio.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
"""
STRUCTS = {f"struct {name}": cls for cls, name in {**opts.C_NAMES, **info.C_NAMES}.items()}


def paths(cls, prefix=""):
    """(C path, offset, size) of each field; unions and nested structs by their members."""
    for name, kind in cls._fields_:
        if name.startswith("_"):
            continue
        where = getattr(cls, name)
        if issubclass(kind, ctypes.Union):  # anonymous in ours, and so are its members' prefixes
            for path, offset, size in paths(kind):
                yield prefix + path, where.offset + offset, size
        elif issubclass(kind, ctypes.Structure):
            for path, offset, size in paths(kind, f"{name}."):
                yield prefix + path, where.offset + offset, size
        else:
            yield prefix + name, where.offset, where.size


def numbers():
    """(C name, value) of every constant and name of `uapi`."""
    for name, value in vars(uapi).items():
        if isinstance(value, int) and name.isupper():
            yield (name if re.match("BPF_|XDP_FLAGS", name) else f"BPF_{name}"), value
    for prefix, names in (
        ("BPF_PROG_TYPE_", uapi.PROG_TYPES),
        ("BPF_MAP_TYPE_", uapi.MAP_TYPES),
        ("BPF_LINK_TYPE_", uapi.LINK_TYPES),
        ("BPF_", uapi.ATTACH_TYPES),
    ):
        yield from ((prefix + name.upper(), number) for number, name in enumerate(names))
    for number, mode in enumerate(("NONE", "DRV", "SKB", "HW", "MULTI")):
        yield f"XDP_ATTACHED_{mode}", number
    yield "BPF_PROG_QUERY", syscalls.BPF_PROG_QUERY
    yield "BPF_LINK_CREATE", syscalls.BPF_LINK_CREATE


ATTR = {
    "link_create": (
        syscalls.LinkCreateAttr,
        {"relative": "tcx.relative_id", "expected_revision": "tcx.expected_revision"},
    ),
    "query": (syscalls.QueryAttr, {}),
}


def questions():
    """One line of C for each thing to know, each printing ``key value``."""
    for c_name, cls in STRUCTS.items():
        yield f'printf("sizeof {c_name}=%zu\\n", sizeof({c_name}));'
        for path, _, _ in paths(cls):
            yield f'printf("offset {c_name}.{path}=%zu\\n", offsetof({c_name}, {path}));'
            yield f'printf("size {c_name}.{path}=%zu\\n", sizeof((({c_name} *)0)->{path}));'
    for member, (cls, names) in ATTR.items():
        for path, _, _ in paths(cls):
            c_path = f"{member}.{names.get(path, path)}"
            yield f'printf("offset attr.{member}.{path}=%zu\\n", offsetof(union bpf_attr, {c_path}));'
    for field in ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex"):
        yield f'printf("offset xdp_md.{field}=%zu\\n", offsetof(struct xdp_md, {field}));'
    yield 'printf("sizeof __sk_buff=%zu\\n", sizeof(struct __sk_buff));'
    yield 'printf("offset __sk_buff.ifindex=%zu\\n", offsetof(struct __sk_buff, ifindex));'
    for name, _ in numbers():
        yield f'printf("number {name}=%lld\\n", (long long)({name}));'


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    """What the headers say: {key: number}, without what they don't know."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "a C compiler is part of the test set-up"
    folder = tmp_path_factory.mktemp("abi")
    other = os.environ.get("XDPCTL_LIBBPF_HEADERS")
    command = [compiler, "-w", *(["-I", other] if other else []), "probe.c"]
    lines = list(questions())
    for _ in range(9):  # clang tells of an unknown struct anew once its first mention is gone
        source = HEADERS + "int main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
        (folder / "probe.c").write_text(source)
        done = subprocess.run(
            [*command, "-fmax-errors=0" if "clang" not in compiler else "-ferror-limit=0", "-o", "probe"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode == 0:
            break
        first = len(HEADERS.splitlines()) + 2
        unknown = {
            int(number) - first
            for number in re.findall(r"^probe\.c:(\d+):\d+: error", done.stderr, re.MULTILINE)
        }
        assert unknown, done.stderr
        lines = [line for number, line in enumerate(lines) if number not in unknown]
    else:
        pytest.fail(done.stderr)
    printed = subprocess.run(
        [folder / "probe"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    found = {key: int(value) for key, _, value in (line.rpartition("=") for line in printed.splitlines())}
    assert len(found) > 300
    return found


@pytest.mark.parametrize("c_name", STRUCTS, ids=lambda name: name.split()[1])
def test_a_struct_has_the_layout_of_the_headers(headers, c_name):
    cls = STRUCTS[c_name]
    whole = headers.get(f"sizeof {c_name}")
    if whole is None:
        since = {"struct bpf_prog_detach_opts": (1, 3), "struct bpf_get_fd_by_id_opts": (1, 1)}
        assert c_name in since, f"{c_name} is in no header"
        return
    taken, unknown = set(), []
    for path, offset, size in paths(cls):
        where = headers.get(f"offset {c_name}.{path}")
        if where is None:
            unknown.append((path, offset, size))
            continue
        assert (where, headers[f"size {c_name}.{path}"]) == (offset, size), path
        taken.update(range(offset, offset + size) if "." not in path else ())
    for path, offset, size in unknown:  # beyond what the headers know, or where they have padding
        assert taken.isdisjoint(range(offset, offset + size)), (
            f"{path} is not in the headers, but lies on a field"
        )
        assert cls in info.C_NAMES or "." in path or path in cls.since, f"{path} is in no header"
    if unknown:
        assert ctypes.sizeof(cls) >= whole
    elif cls is not info.LinkInfo:  # of its union we have only members that we read
        assert ctypes.sizeof(cls) == whole


def test_the_union_of_a_system_call_has_our_fields(headers):
    for member, (cls, _) in ATTR.items():
        for path, offset, _ in paths(cls):
            where = headers.get(f"offset attr.{member}.{path}")
            assert where in (None, offset), f"{member}.{path}"
    assert headers["offset attr.query.prog_cnt"] == syscalls.QueryAttr.prog_cnt.offset


def test_contexts_of_test_runs_are_laid_out_as_the_kernel_has_them(headers):
    assert headers["offset xdp_md.ingress_ifindex"] == 12
    assert program.XDP_MD.size == headers["offset xdp_md.egress_ifindex"] + 4
    assert headers["sizeof __sk_buff"] == program.SK_BUFF_SIZE
    assert headers["offset __sk_buff.ifindex"] == program.SK_BUFF_IFINDEX


def test_every_number_is_that_of_the_headers(headers):
    wrong = {name: value for name, value in numbers() if headers.get(f"number {name}", value) != value}
    assert not wrong


def test_only_numbers_newer_than_the_headers_are_unknown_to_them(headers):
    for prefix, names in (("BPF_PROG_TYPE_", uapi.PROG_TYPES), ("BPF_MAP_TYPE_", uapi.MAP_TYPES)):
        known = [f"number {prefix}{name.upper()}" in headers for name in names]
        assert known == sorted(known, reverse=True), prefix
        assert sum(known) > 25
