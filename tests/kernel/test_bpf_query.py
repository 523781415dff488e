"""Listings show what is loaded, whoever loaded it, and name the capability they lack."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xdpctl.bpf import failure, query
from xdpctl.bpf.object import Object
from xdpctl.errors import AttachError
from xdpctl.libbpf import uapi

pytestmark = pytest.mark.kernel

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int listed(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def object_file(compile_c):
    return compile_c(SOURCE, "listed")


def test_programs_come_by_id_and_go_with_their_holder(object_file):
    with Object.open(object_file) as opened:
        opened.load()
        mine = opened.programs["listed"].info()
        ids = [one.id for one in query.programs()]
        assert mine.id in ids
        assert ids == sorted(ids)


def test_bpftool_lists_the_same_programs(object_file, world):
    import json

    with Object.open(object_file) as opened:
        opened.load()
        mine = opened.programs["listed"].info()
        theirs = next(
            one
            for one in json.loads(world.run("bpftool", "-j", "prog", "show").stdout)
            if one["id"] == mine.id
        )
        assert (theirs["type"], theirs["tag"], theirs["bytes_xlated"]) == (
            mine.type,
            mine.tag,
            mine.xlated_len,
        )


@pytest.mark.needs("tcx")
def test_a_device_that_is_not_there_has_no_tcx_to_query():
    with pytest.raises(AttachError, match="query tcx_ingress of ifindex 999999: ENODEV"):
        query.tcx_query(999999, uapi.TCX_INGRESS)


@pytest.mark.needs("tcx")
def test_lo_of_a_new_namespace_has_an_empty_hook():
    found = query.tcx_query(1, uapi.TCX_EGRESS)
    assert found.entries == ()


def test_this_process_lacks_no_capability_and_is_in_no_user_namespace():
    assert failure.lacks(*failure.CAPABILITIES) == []
    assert not failure.in_user_namespace()


UNPRIVILEGED = """
import os, socket, encodings.idna, contextlib, difflib
import xdpctl.bpf.refusal, xdpctl.bpf.features
from pathlib import Path
from xdpctl.bpf import link, net, pins, query
from xdpctl.bpf.object import Object
from xdpctl.errors import PrivilegeError
opened = Object.open({path!r})
unloaded = Object.open({path!r})
opened.load()
fd = opened.programs["listed"].fd
os.setresuid(65534, 65534, 65534)
for name, call in {{
    "load": unloaded.load,
    "programs": lambda: list(query.programs()),
    "maps": lambda: list(query.maps()),
    "links": lambda: list(query.links()),
    "open": lambda: query.open_id("program", 1),
    "attach": lambda: net.xdp_attach(1, fd, 2),
    "clsact": lambda: net.tc_hook_create(1),
    "tcx": lambda: query.tcx_query(1, 46),
}}.items():
    try:
        call()
        print(name, "worked")
    except PrivilegeError as why:
        print(name, why.capability)
"""


def test_without_privilege_each_call_names_the_capability(object_file):
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED.format(path=str(object_file))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [
        "load CAP_BPF and CAP_NET_ADMIN",
        "programs CAP_SYS_ADMIN",
        "maps CAP_SYS_ADMIN",
        "links CAP_SYS_ADMIN",
        "open CAP_SYS_ADMIN",
        "attach CAP_NET_ADMIN",
        "clsact CAP_NET_ADMIN",
        "tcx CAP_NET_ADMIN",
    ], done.stderr
