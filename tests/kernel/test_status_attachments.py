"""`xdpctl status` shows every attachment, whoever made it, in every namespace, and says what it may not see."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

import pytest
from attachments import agree, attach, detach, tc, xdp
from kernels import RELEASE, TCX

from xdpctl.attach.status import status
from xdpctl.bpf.link import link_tcx
from xdpctl.bpf.object import Object
from xdpctl.bpf.program import program_by_id, run
from xdpctl.errors import AttachError
from xdpctl.libbpf import uapi
from xdpctl.libbpf.library import lib
from xdpctl.netlink import netns as namespaces

pytestmark = pytest.mark.kernel

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")

KEYS = {
    "interface", "netns", "ifindex", "hook", "mode", "via", "program", "link_id", "pin", "owner",
    "since", "loaded_at", "run_count", "run_time_ns", "priority",
}  # fmt: skip


@pytest.fixture(scope="module")
def passing(compile_c):
    return compile_c(xdp("pass"), "pass")


@pytest.fixture(scope="module")
def shaping(compile_c):
    return compile_c(tc("shape"), "shape")


def pair(world, netns=None):
    inside = world.namespace(netns)
    world.veth("va", "vb", netns_a=inside, netns_b=inside)
    return inside


@pytest.mark.shared(4)
def test_json_has_these_keys_and_no_others(world, xdpctl, passing):
    inside = pair(world)
    (made,) = attach(passing, "va", netns=inside)
    answer = xdpctl("status", "--netns", inside, "--json", check=True).json()
    assert set(answer) == {"attachments"}
    (one,) = answer["attachments"]
    assert set(one) == KEYS
    assert set(one["program"]) == {"id", "name", "tag"}
    assert one["program"] == {"id": made.program.id, "name": "pass", "tag": made.program.tag}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one["since"])
    detach("va", netns=inside)


@pytest.mark.shared(4)
def test_interfaces_are_chosen_by_name(world, xdpctl, passing):
    inside = pair(world)
    attach(passing, "v*", netns=inside)
    answer = xdpctl("status", "--json", netns=inside, check=True).json()["attachments"]
    assert [one["netns"] for one in answer] == [inside, inside], "it has one, under /run/netns"
    (one,) = xdpctl("status", "va", "--json", netns=inside, check=True).json()["attachments"]
    assert one["interface"] == "va"
    refused = xdpctl("status", "vc", netns=inside)
    assert refused.returncode == 2
    assert "no such interface: vc" in refused.stderr
    assert "hint: there is lo, va, vb" in refused.stderr
    detach("v*", netns=inside)


@pytest.mark.shared(4)
def test_all_namespaces_at_once(world, xdpctl, passing, shaping):
    red, blue = pair(world), pair(world)
    attach(passing, "va", netns=red)
    attach(shaping, "vb", netns=blue, hook="egress")
    # the same ifindex and the same object in two namespaces are kept apart
    attach(passing, "va", netns=blue)
    seen = {
        (one["netns"], one["interface"], one["hook"], one["link_id"] is not None, one["owner"])
        for one in xdpctl("status", "--all-netns", "--json", check=True).json()["attachments"]
    }
    assert {
        (red, "va", "xdp", True, "xdpctl"),  # by link: Linux 5.9
        (blue, "vb", "tcx-egress" if TCX else "clsact-egress", TCX, "xdpctl"),
        (blue, "va", "xdp", True, "xdpctl"),
    } <= seen
    plain = xdpctl("status", "--all-netns", check=True).stdout
    assert plain.splitlines()[0].split()[:3] == ["INTERFACE", "NETNS", "HOOK"]
    assert red in plain
    detach("va", netns=red)
    detach("v*", netns=blue)


def test_programs_of_others_are_shown_as_theirs(world, passing, shaping):
    inside = pair(world)
    world.ip(f"link set dev vb xdpgeneric obj {passing} sec xdp", inside)
    with Object.open(shaping) as obj, namespaces.enter(inside):
        obj.load()
        index = socket.if_nametoindex("va")
        if not TCX:
            shown = {(one["interface"], one["hook"]): one["owner"] for one in agree(world, inside)}
            assert shown == {("vb", "xdp"): "other"}
            return
        lib().bpf_prog_attach_opts(obj.program("shape").fd, index, uapi.TCX_EGRESS, None)
        with link_tcx(obj.program("shape").fd, index, uapi.TCX_INGRESS) as link:
            shown = {(one["interface"], one["hook"]): one for one in agree(world, inside)}
            assert {one["owner"] for one in shown.values()} == {"other"}
            assert {one["since"] for one in shown.values()} == {None}
            assert shown["vb", "xdp"]["mode"] == "generic"
            assert shown["va", "tcx-ingress"]["link_id"] == link.id
            assert shown["va", "tcx-egress"]["link_id"] is None
    with pytest.raises(AttachError, match="without a link"):
        detach("va", netns=inside, foreign=True, hook="egress")


@pytest.mark.shared(4)
def test_runs_are_counted_while_statistics_are_on(world, passing):
    inside = pair(world)
    attach(passing, "va", netns=inside)
    (quiet,) = status(netns=inside).attachments
    statistics = lib().bpf_enable_stats(0)  # as the sysctl, but ends with this descriptor
    try:
        with program_by_id(quiet.program.id) as program:
            run(program.fd, bytes(64), repeat=7)
        (counted,) = status(netns=inside).attachments
    finally:
        os.close(statistics)
    assert counted.run_count - (quiet.run_count or 0) >= 7
    assert counted.run_time_ns > 0
    detach("va", netns=inside)


def test_without_capabilities_it_shows_what_the_kernel_lets_anybody_see(world, xdpctl, passing, shaping):
    inside = pair(world)
    (made,) = attach(passing, "va", netns=inside, mode="generic")
    attach(shaping, "va", netns=inside, hook="ingress")
    done = world.run(
        "nsenter", f"--net=/run/netns/{inside}", *WITHOUT_CAPABILITIES,
        sys.executable, "-m", "xdpctl.cli", "status", "--json",
    )  # fmt: skip
    one, *rest = json.loads(done.stdout)["attachments"]
    assert [each["hook"] for each in rest] == ([] if TCX else ["clsact-ingress"]), "anybody may list filters"
    assert (one["interface"], one["hook"], one["mode"]) == ("va", "xdp", "generic")
    assert one["program"] == {"id": made.program.id, "name": "pass", "tag": made.program.tag}, (
        "from our record"
    )
    told = (
        ("link", made.link_id) if RELEASE >= (6, 1) else (None, None)
    )  # an unprivileged caller may not open it
    assert (one["owner"], one["via"], one["link_id"]) == ("xdpctl", *told), "from its pin"
    assert "CAP_SYS_ADMIN" in done.stderr
    assert "tcx programs are not told" in done.stderr, (
        "without capabilities nobody can see that there are none"
    )
    assert "CAP_NET_ADMIN" in done.stderr
    detach("va", netns=inside, all=True)


@pytest.mark.shared
@pytest.mark.parametrize("command", ["status", "attach"])
def test_a_run_imports_nothing_slow(world, passing, command):
    inside = pair(world)
    words = ["status"] if command == "status" else ["attach", "va", str(passing)]
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{inside}", sys.executable, "-X", "importtime", "-m", "xdpctl.cli", *words],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    loaded = {
        line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert "xdpctl.attach.observe" in loaded
    slow = {"pyroute2", "rich", "elftools", "pydantic", "asyncio"}
    assert loaded & slow == set()
    if command == "attach":
        detach("va", netns=inside)
