"""A snapshot of the running kernel: the whole machine in few questions, and the rest of the answer when some fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kernels import CHANNELS_OF_VETH, GRO_STARTS_NAPI, NETDEV, TCX

from xdpctl.errors import NetlinkError, NotFoundError
from xdpctl.host import collect as collecting
from xdpctl.host import jsonform, namespace
from xdpctl.host.collect import collect
from xdpctl.host.model import RedirectEntry
from xdpctl.netlink import links, netns, rtnl, wire

pytestmark = pytest.mark.kernel

XDP = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define MAP(kind, size, name) \
  struct { __uint(type, kind); __uint(max_entries, size); __type(key, __u32); __type(value, __u32); } \
  name SEC(".maps");
MAP(BPF_MAP_TYPE_DEVMAP, 8, ports)
MAP(BPF_MAP_TYPE_CPUMAP, 1, cpus)
MAP(BPF_MAP_TYPE_PROG_ARRAY, 2, jumps)
SEC("xdp") int xpass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int xplain(struct xdp_md *ctx) { return bpf_redirect(7, 0); }
SEC("xdp") int xmapped(struct xdp_md *ctx) { return bpf_redirect_map(&ports, 3, 0); }
SEC("xdp") int xcpus(struct xdp_md *ctx) { return bpf_redirect_map(&cpus, 0, 0); }
SEC("xdp") int xjumps(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 1); return XDP_PASS; }
char _license[] SEC("license") = "GPL";
"""

CLS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int seen(struct __sk_buff *skb) { return 0; }
char _license[] SEC("license") = "GPL";
"""


def named(taken, space, name):
    return taken.named(name, taken.namespace_named(space).inode)


def pin_programs(world, folder, built):
    """Load every program of an object into the private bpffs."""
    world.run(
        "bpftool",
        "prog",
        "loadall",
        str(built),
        f"/sys/fs/bpf/{folder}",
        "pinmaps",
        f"/sys/fs/bpf/{folder}-maps",
    )
    return {
        path.name: json.loads(world.run("bpftool", "-j", "prog", "show", "pinned", str(path)).stdout)["id"]
        for path in Path(f"/sys/fs/bpf/{folder}").iterdir()
    }


def test_peers_are_found_across_namespaces_whoever_looks(world):
    names = [world.namespace() for _ in range(4)]
    for place, name in enumerate(names):
        world.veth(f"a{place}", f"b{place}", netns_a=name, netns_b=names[(place + 1) % 4])
    world.veth("same0", "same1", netns_a=names[0], netns_b=names[0])
    taken = collect(netns="all")
    for place, name in enumerate(names):
        here, there = named(taken, name, f"a{place}"), named(taken, names[(place + 1) % 4], f"b{place}")
        assert taken.peer(here) == there
        assert taken.peer(there) == here
    assert taken.peer(named(taken, names[0], "same0")).name == "same1"
    # the same from inside a namespace that is none of the machine's first
    with netns.enter(names[2]):
        inside = collect(netns="all")
    assert inside.namespace_named(None).name == names[2]
    assert inside.peer(named(inside, names[0], "a0")).name == "b0"


def test_a_peer_in_a_namespace_not_looked_at_is_unknown(world):
    one, two = world.namespace(), world.namespace()
    world.veth("a0", "b0", netns_a=one, netns_b=two)
    taken = collect(netns=one)
    assert [space.name for space in taken.namespaces] == [one]
    link = named(taken, one, "a0")
    assert link.peer.netns is None
    assert link.peer.nsid is not None
    assert taken.peer(link) is None
    with netns.enter(two):
        peer = next(each.ifindex for each in rtnl.links() if each.name == "b0")
    assert link.peer.ifindex == peer


def test_questions_grow_with_namespaces_and_not_with_links(world, monkeypatch):
    # others make and remove namespaces on this machine meanwhile: count the questions about ours
    def ours(**_which):
        return [netns.find(name) for name in world.namespaces]

    monkeypatch.setattr(collecting.netns, "discover", ours)

    def asked():
        before = wire.Socket.total_sent
        taken = collect(netns="all")
        return wire.Socket.total_sent - before, sum(1 for _ in taken.links())

    one, two = world.namespace(), world.namespace()
    world.veth("first", "second", netns_a=one, netns_b=two)
    asked()  # what is asked once of a kernel
    few, links_before = asked()
    with netns.enter(one):
        for number in range(100):
            links.create_veth(f"a{number}", f"b{number}", peer_netns=two)
            links.set_up(f"a{number}")
    many, links_after = asked()
    assert links_after == links_before + 200
    assert many == few
    for _ in range(3):
        world.namespace()
    more, _links = asked()
    assert more > many


def test_mode_kind_queues_and_features_are_those_of_the_link(world):
    one = world.namespace()
    world.veth("v0", "v1", netns_a=one, netns_b=one, numrxqueues=4, numtxqueues=3)
    if CHANNELS_OF_VETH:
        world.run("ethtool", "-L", "v0", "rx", "2", "tx", "1", netns=one)
    world.run("ethtool", "-K", "v1", "gro", "on", netns=one)
    for words in (
        "link add br0 type bridge",
        "link set v1 master br0",
        "link add mv0 link v0 type macvlan",
        "tuntap add tap0 mode tap",
    ):
        world.ip(words, one)
    taken = collect(netns=one, statistics_of=["v0"])
    v0, v1 = named(taken, one, "v0"), named(taken, one, "v1")
    assert (v0.kind, v0.driver, v0.mtu, v0.up) == ("veth", "veth", 1500, True)
    assert (v0.num_rx_queues, v0.num_tx_queues) == (4, 3)
    if CHANNELS_OF_VETH:
        assert (v0.real_rx_queues, v0.real_tx_queues) == (2, 1)
        assert (v0.channels.rx, v0.channels.rx_max) == (2, 4)
    else:
        assert (v0.real_rx_queues, v0.real_tx_queues, v0.channels) == (None, None, None), (
            "another namespace's"
        )
    assert v1.feature("rx-gro").wanted
    assert v0.feature("rx-gro").active is not GRO_STARTS_NAPI, "on by default while it meant nothing"
    assert v0.feature("rx-lro").fixed
    # fewer rx queues than the peer has tx queues: no XDP here, yet the peer's GRO makes it a redirect target
    assert v0.xdp_features == (0x44 if NETDEV else None)
    assert v0.statistics["peer_ifindex"] == v1.ifindex
    assert v1.statistics is None
    assert taken.lowers(named(taken, one, "br0")) == (v1,)
    assert taken.uppers(v0) == (named(taken, one, "mv0"),)
    assert named(taken, one, "tap0").tun.type == "tap"
    assert named(taken, one, "tap0").tun.queues == 0
    assert [qdisc.kind for qdisc in v0.qdiscs] == ["noqueue"]
    assert taken.namespace_named(one).label == one


def test_attached_programs_and_their_redirects_are_told(world, compile_c):
    one = world.namespace()
    for number in range(5):
        world.veth(f"v{number}", f"p{number}", netns_a=one, netns_b=one)
    ids = pin_programs(world, "set", compile_c(XDP, "snapshot_xdp"))
    attached = {"v0": "xpass", "v1": "xplain", "v2": "xmapped", "v3": "xcpus", "v4": "xjumps"}
    for link, program in attached.items():
        world.run(
            "bpftool",
            "net",
            "attach",
            "xdpdrv",
            "pinned",
            f"/sys/fs/bpf/set/{program}",
            "dev",
            link,
            netns=one,
        )
    with netns.enter(one):
        target = next(each.ifindex for each in rtnl.links() if each.name == "v0")
    maps = "/sys/fs/bpf/set-maps"
    # a devmap entry is looked up in the namespace of whoever writes it
    world.run(
        "bpftool",
        "map",
        "update",
        "pinned",
        f"{maps}/ports",
        "key",
        "3",
        "0",
        "0",
        "0",
        "value",
        str(target),
        "0",
        "0",
        "0",
        netns=one,
    )
    world.run(
        "bpftool",
        "map",
        "update",
        "pinned",
        f"{maps}/cpus",
        "key",
        "0",
        "0",
        "0",
        "0",
        "value",
        "64",
        "0",
        "0",
        "0",
    )
    world.run(
        "bpftool",
        "map",
        "update",
        "pinned",
        f"{maps}/jumps",
        "key",
        "1",
        "0",
        "0",
        "0",
        "value",
        "pinned",
        "/sys/fs/bpf/set/xmapped",
    )
    taken = collect(netns=one)
    for link, program in attached.items():
        assert named(taken, one, link).xdp.native == ids[program]
        assert taken.programs[ids[program]].name == program
    assert {program: taken.redirect_calls[ids[program]] for program in attached.values()} == {
        "xpass": False,
        "xplain": True,
        "xmapped": True,
        "xcpus": True,
        "xjumps": True,  # through its tail call
    }
    ports = next(iter(taken.redirects[ids["xmapped"]]))
    assert ports == RedirectEntry(ports.map_id, "ports", "devmap", 3, target, None)
    assert taken.redirects[ids["xjumps"]] == (ports,)
    assert [(each.map_type, each.key, each.ifindex) for each in taken.redirects[ids["xcpus"]]] == [
        ("cpumap", 0, None)
    ]
    assert taken.redirects[ids["xplain"]] == ()
    assert taken.problems == ()
    assert jsonform.load(jsonform.text(jsonform.dump(taken))) == taken


def test_which_link_holds_a_program_is_told_where_it_is_certain(world, compile_c):
    from xdpctl.bpf.link import link_xdp
    from xdpctl.bpf.object import Object

    one, two = world.namespace(), world.namespace()
    for name in (one, two):  # fresh namespaces: equal ifindexes in both
        world.veth("v0", "p0", netns_a=name, netns_b=name)
    with Object.open(compile_c(XDP, "snapshot_held"), pin_root=Path("/sys/fs/bpf/held")) as opened:
        opened.load()
        programs = [opened.programs[name].fd for name in ("xpass", "xplain")]
        with netns.enter(one):
            first = link_xdp(programs[0], rtnl_index("v0"), 4)
        try:
            taken = collect(netns="all")
            held = named(taken, one, "v0").xdp
            assert (held.native_link_id, held.generic_link_id) == (first.id, None)
            with netns.enter(two):
                other = link_xdp(programs[1], rtnl_index("v0"), 4)
            try:
                taken = collect(netns="all")
                assert named(taken, one, "v0").xdp.native_link_id == first.id
                assert named(taken, two, "v0").xdp.native_link_id == other.id
            finally:
                other.close()
            with netns.enter(two):
                other = link_xdp(programs[0], rtnl_index("v0"), 4)
            try:
                taken = collect(netns="all")
                assert named(taken, one, "v0").xdp.native_link_id is None
                assert any("does not say whose" in problem.why for problem in taken.problems)
            finally:
                other.close()
        finally:
            first.close()


def rtnl_index(name):
    return next(each.ifindex for each in rtnl.links() if each.name == name)


def test_tc_hooks_of_clsact_and_tcx_are_told(world, compile_c):
    from xdpctl.bpf.link import link_tcx
    from xdpctl.bpf.object import Object
    from xdpctl.libbpf import uapi

    one = world.namespace()
    world.veth("v0", "p0", netns_a=one, netns_b=one)
    built = compile_c(CLS, "snapshot_tc")
    world.run("tc", "qdisc", "add", "dev", "v0", "clsact", netns=one)
    world.run(
        "tc",
        "filter",
        "add",
        "dev",
        "v0",
        "egress",
        "pref",
        "7",
        "bpf",
        "da",
        "obj",
        str(built),
        "sec",
        "tc",
        netns=one,
    )
    if not TCX:
        (hook,) = named(collect(netns=one), one, "v0").tc
        assert (hook.hook, hook.priority) == ("clsact-egress", 7)
        return
    with Object.open(built, pin_root=Path("/sys/fs/bpf/tc")) as opened:
        opened.programs["seen"].set_type("sched_cls", uapi.TCX_INGRESS)
        opened.load()
        with netns.enter(one):
            link = link_tcx(opened.programs["seen"].fd, rtnl_index("p0"), uapi.TCX_INGRESS)
        try:
            number, taken = link.id, collect(netns=one)
        finally:
            link.close()
    (clsact,) = named(taken, one, "v0").tc
    assert (clsact.hook, clsact.priority, clsact.handle, clsact.link_id) == ("clsact-egress", 7, 1, None)
    (tcx,) = named(taken, one, "p0").tc
    assert (tcx.hook, tcx.program_name, tcx.link_id) == ("tcx-ingress", "seen", number)


def test_links_that_vanish_meanwhile_cost_nothing(world, monkeypatch):
    one = world.namespace()
    for number in range(20):
        world.veth(f"a{number}", f"b{number}", netns_a=one, netns_b=one, up=False)
    true_qdiscs = namespace.tc.qdiscs

    def qdiscs_after_a_removal(route):
        links.delete("a3")
        links.delete("a4")
        links.create_veth("late0", "late1")
        return true_qdiscs(route)

    monkeypatch.setattr(namespace.tc, "qdiscs", qdiscs_after_a_removal)
    taken = collect(netns=one, statistics_of=["a3", "a5"])
    assert named(taken, one, "a5").statistics
    gone = named(taken, one, "a3")
    assert (gone.features, gone.qdiscs, gone.statistics) == (None, (), None)
    assert named(taken, one, "a5").features
    assert named(taken, one, "late0") is None


def test_a_namespace_that_ends_meanwhile_is_left_out(world, monkeypatch):
    one, two = world.namespace(), world.namespace()
    true_open = netns.open_nsfs

    def open_after_removal(ref):
        if ref.name == one and Path(f"/run/netns/{one}").exists():
            world.run("ip", "netns", "del", one)
        return true_open(ref)

    monkeypatch.setattr(collecting.netns, "open_nsfs", open_after_removal)
    names = [space.name for space in collect(netns="all").namespaces]
    assert two in names
    assert one not in names


def test_one_failing_dump_leaves_the_rest_of_the_answer(world, monkeypatch):
    one = world.namespace()
    world.veth("v0", "v1", netns_a=one, netns_b=one)

    def refuse(*_arguments):
        raise NetlinkError("listing channels: ENODEV (No such device)", errno=19)

    monkeypatch.setattr(namespace.channels, "channels", refuse)
    monkeypatch.setattr(namespace.netdev, "napis", refuse)
    taken = collect(netns=one)
    link = named(taken, one, "v0")
    assert link.napis is None
    assert link.channels is None if not CHANNELS_OF_VETH else link.channels.rx == 1  # link by link instead
    assert link.features
    assert {problem.what for problem in taken.problems} == {f"netns {one} channels", f"netns {one} NAPIs"} - (
        set() if NETDEV else {f"netns {one} NAPIs"}
    )


def test_an_absent_namespace_is_named(world):
    with pytest.raises(NotFoundError):
        collect(netns="nowhere-at-all")


def unprivileged(*argv):
    python_path = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            *argv,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
    )


def test_without_privilege_the_own_namespace_is_told_and_the_rest_is_a_problem(world):
    other = world.namespace()
    world.veth("v0", "v1", netns_b=other)
    try:
        done = unprivileged("-m", "xdpctl.cli", "snapshot")
    finally:
        world.ip("link del v0")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    taken = jsonform.load(done.stdout)
    v0 = taken.named("v0", taken.namespace_named(None).inode)
    assert v0.features["rx-gro"].wanted is not GRO_STARTS_NAPI, "off by default since it means something"
    assert (v0.xdp_features is not None) is NETDEV
    assert (v0.channels is not None) is CHANNELS_OF_VETH
    assert v0.peer.netns is None
    assert taken.caller.capabilities == ()
    what = {problem.what: problem.why for problem in taken.problems}
    assert "CAP_SYS_ADMIN" in what[f"netns {other}"]
    assert "CAP_SYS_ADMIN" in what["loaded programs"]
    assert taken.programs == {}


def test_the_command_writes_what_doctor_can_read(world, xdpctl, tmp_path):
    one = world.namespace()
    world.veth("v0", "v1", netns_a=one, netns_b=one)
    done = xdpctl("snapshot", check=True)
    taken = jsonform.load(done.stdout)
    assert named(taken, one, "v0") is not None
    assert "network namespaces" in done.stderr
    address = named(taken, one, "v0").address
    only = xdpctl("snapshot", "--netns", one, "--redact", "-o", tmp_path / "host.json", check=True)
    assert only.stdout == ""
    hidden = jsonform.read(tmp_path / "host.json")
    assert [space.name for space in hidden.namespaces] == [one]
    assert address not in (tmp_path / "host.json").read_text()
    counted = jsonform.load(xdpctl("snapshot", "--netns", one, "--statistics", "v0", check=True).stdout)
    assert "peer_ifindex" in named(counted, one, "v0").statistics


def test_the_command_names_what_is_wrong(world, xdpctl):
    one = world.namespace()
    done = xdpctl("snapshot", "--netns", one[:-1] + "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert one in done.stderr
    assert xdpctl("snapshot", "--netns", one, "--all-netns").returncode == 2
    assert xdpctl("snapshot", "-o", "/nowhere/host.json").returncode == 2


def test_a_process_without_a_named_namespace_is_labelled_by_pid(world):
    held = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    try:
        deadline = time.monotonic() + 5
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{held.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        taken = collect(netns="all")
        found = taken.namespace_named(f"pid:{held.pid}")
        assert [link.name for link in found.links] == ["lo"]
    finally:
        held.kill()
        held.wait()
