"""The picture of a real data path: the founding story broken and cured, maps, promises, a saved snapshot."""

import os
import secrets
import shutil
import struct
from pathlib import Path

import pytest
from attachments import HEADER
from deployments import apply_file, destroy, forget_all
from kernels import GRO_STARTS_NAPI

from xdpctl.bpf.link import link_xdp
from xdpctl.bpf.object import Object
from xdpctl.host.collect import collect
from xdpctl.netlink import interfaces, netns
from xdpctl.trace import frames

pytestmark = pytest.mark.kernel

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MODE_NATIVE = 1 << 2
"""XDP_FLAGS_DRV_MODE (include/uapi/linux/if_link.h)."""


@pytest.fixture
def story(world):
    """eth (wire outside) and veth_xxx0, whose other end veth_yyy0 is in a container with GRO off."""
    here, there = world.namespace(), world.namespace()
    world.veth("eth", "wire", netns_a=here, netns_b=there)
    world.veth("veth_xxx0", "veth_yyy0", netns_a=here, netns_b=there)
    for one in ("wire", "veth_yyy0"):
        world.run("ethtool", "-K", one, "gro", "off", netns=there)
    return here, there


def cure(world, xdpctl, there):
    """What a veth needs at its other end."""
    if GRO_STARTS_NAPI:
        world.run("ethtool", "-K", "veth_yyy0", "gro", "on", netns=there)
    else:
        xdpctl("attach", "--netns", there, "--mode", "native", "veth_yyy0", "builtin:pass", check=True)


def redirects(document):
    return [one for one in document["edges"] if one["kind"] == "redirect"]


def shown(xdpctl, here, *more):
    return xdpctl("topology", "--netns", here, "--json", *more, check=True).json()


def test_the_founding_story_is_a_broken_edge_with_its_finding_and_a_proven_one_after_the_fix(
    story, world, xdpctl
):
    here, there = story
    obj = "builtin:redirect"
    xdpctl("attach", "--netns", here, "--force", "--set", "target_ifindex=veth_xxx0", "eth", obj, check=True)
    (edge,) = redirects(shown(xdpctl, here))
    assert (edge["source"], edge["target"], edge["state"]) == (f"{here}:eth", f"{here}:veth_xxx0", "broken")
    assert [one["id"] for one in edge["findings"]] == ["redirect.veth-peer-napi"]
    tree = xdpctl("topology", "--netns", here, check=True).stdout
    assert "✗ broken: redirects to veth_xxx0" in tree
    assert "1 redirect: 1 broken" in tree

    cure(world, xdpctl, there)
    (edge,) = redirects(shown(xdpctl, here))
    assert (edge["state"], edge["findings"], edge["mode"]) == ("proven", [], "native")
    xdpctl("detach", "--netns", here, "eth", check=True)
    assert redirects(shown(xdpctl, here)) == []


@pytest.mark.skipif(
    shutil.which("dot") is None, reason="Graphviz is not installed: tests/unit checks its input"
)
def test_a_picture_is_drawn_and_put_in_place_when_it_is_whole(story, xdpctl, tmp_path):
    here, _there = story
    target = tmp_path / "path.svg"
    xdpctl("topology", "--netns", here, "--svg", str(target), check=True)
    text = target.read_text()
    assert "veth_xxx0" in text
    assert text.rstrip().endswith("</svg>")
    assert [one.name for one in tmp_path.glob("*.svg*")] == ["path.svg"]
    assert xdpctl("topology", "--svg", str(tmp_path / "no" / "path.svg")).returncode == 2


def test_without_graphviz_it_is_said_what_to_install_and_the_rest_works(story, xdpctl, tmp_path):
    here, _there = story
    without = {"PATH": str(tmp_path)}
    done = xdpctl("topology", "--netns", here, "--svg", "path.svg", env=without)
    assert done.returncode == 9
    assert "apt-get install graphviz" in done.stderr
    assert xdpctl("topology", "--netns", here, "--dot", env=without, check=True).stdout.startswith("digraph")
    done = xdpctl("topology", "--dot", "--json", env=without)
    assert done.returncode == 2


MAPS = (
    HEADER
    + """
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
ports SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }
cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 2); __type(key, __u32); __type(value, __u32); }
socks SEC(".maps");
__u32 chosen = 0;
SEC("xdp") int spread(struct xdp_md *c)
{
    if (c->rx_queue_index == 7)
        return bpf_redirect_map(&cpus, 0, 0);
    if (c->rx_queue_index == 6)
        return bpf_redirect_map(&socks, 0, 0);
    return bpf_redirect_map(&ports, c->rx_queue_index & 3, 0);
}
SEC("xdp") int changing(struct xdp_md *c) { return bpf_redirect(chosen, 0); }
SEC("xdp") int back(struct xdp_md *c) { return bpf_redirect(c->ingress_ifindex, 0); }
"""
)


def test_devmap_cpumap_and_xskmap_are_edges_of_the_program_that_owns_them(story, xdpctl, compile_c):
    here, _there = story
    with netns.enter(here), Object.open(compile_c(MAPS)) as obj:
        obj.load()
        index = interfaces.ifindex("veth_xxx0")
        for key in (0, 1, 3):
            obj.maps["ports"].update(struct.pack("=I", key), struct.pack("=I", index))
        obj.maps["cpus"].update(bytes(4), struct.pack("=I", 64))
        with link_xdp(obj.programs["spread"].fd, interfaces.ifindex("eth"), MODE_NATIVE):
            document = shown(xdpctl, here)
    labels = {one["id"]: one["label"] for one in document["ends"]}
    told = {
        (one["via"], labels.get(one["target"], one["target"]), one["state"]) for one in redirects(document)
    }
    assert told == {
        ("devmap ports[0-1,3]", f"{here}:veth_xxx0", "broken"),
        ("cpumap cpus[0]", "CPU 0", "proven"),
        ("xskmap socks", "AF_XDP sockets", "unknown"),
    }
    assert len(document["namespaces"]) == 2, "the other end of the pair is elsewhere"


def test_a_plain_redirect_is_read_from_the_variable_that_holds_its_target_now(story, compile_c):
    here, _there = story
    with netns.enter(here), Object.open(compile_c(MAPS)) as obj:
        obj.load()
        eth, target = interfaces.ifindex("eth"), interfaces.ifindex("veth_xxx0")
        numbers = {name: obj.programs[name].info().id for name in ("changing", "back", "spread")}
        data = next(one for name, one in obj.maps.items() if name.endswith((".bss", ".data")))
        data.update(bytes(4), struct.pack("=I", target))
        with link_xdp(obj.programs["changing"].fd, eth, MODE_NATIVE):
            taken = collect(netns=here, probes=())
            (found,) = taken.redirect_targets[numbers["changing"]]
            assert found.ifindex == target
            assert data.name in found.read_from
        with link_xdp(obj.programs["back"].fd, eth, MODE_NATIVE):
            (found,) = collect(netns=here, probes=()).redirect_targets[numbers["back"]]
            assert found.ifindex is None, "it is the frame that tells"
        with link_xdp(obj.programs["spread"].fd, eth, MODE_NATIVE):
            taken = collect(netns=here, probes=())
            assert taken.redirect_targets[numbers["spread"]] == ()
            maps = {(one.type, one.name) for one in taken.redirect_maps[numbers["spread"]]}
            assert maps == {("devmap", "ports"), ("cpumap", "cpus"), ("xskmap", "socks")}


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_tc_redirect_is_proven_into_a_device_that_is_up_and_broken_into_one_that_is_down(
    story, world, xdpctl, up
):
    here, there = story
    world.ip("link set veth_xxx0 " + ("up" if up else "down"), here)
    obj = "builtin:tc_redirect"
    asked = ("--hook", "ingress", "--set", "target_ifindex=veth_xxx0", "eth", obj)
    xdpctl("attach", "--netns", here, *asked, check=True)
    (edge,) = redirects(shown(xdpctl, here))
    assert (edge["target"], edge["state"]) == (f"{here}:veth_xxx0", "proven" if up else "broken")
    if not up:
        assert edge["why"] == "frames are lost: veth_xxx0 is down"
    mark = secrets.token_bytes(8)
    with netns.enter(there), frames.Port("wire") as wire, frames.Port("veth_yyy0") as out:
        for _ in range(3):
            wire.send(frames.ethernet(mark))
        assert out.count(mark, expect=3, seconds=2 if up else 0.2) == (3 if up else 0)
    xdpctl("detach", "--netns", here, "eth", check=True)


def test_a_saved_snapshot_gives_the_same_picture_elsewhere(story, xdpctl, tmp_path):
    here, _there = story
    obj = "builtin:redirect"
    xdpctl("attach", "--netns", here, "--force", "--set", "target_ifindex=veth_xxx0", "eth", obj, check=True)
    live = shown(xdpctl, here)
    (tmp_path / "host.json").write_text(xdpctl("snapshot", check=True).stdout)
    xdpctl("detach", "--netns", here, "eth", check=True)
    saved = shown(xdpctl, here, "--from", str(tmp_path / "host.json"))
    assert saved["edges"] == live["edges"]
    assert saved["interfaces"] == live["interfaces"]
    (tmp_path / "cut.json").write_text('{"schema": 1, "names')
    assert xdpctl("topology", "--from", str(tmp_path / "cut.json")).returncode == 2


def test_a_filter_shows_an_interface_and_what_it_is_connected_with(story, xdpctl):
    here, there = story
    document = shown(xdpctl, here, "--iface", "e*")
    assert {one["id"] for one in document["interfaces"]} == {f"{here}:eth", f"{there}:wire"}
    assert xdpctl("topology", "--netns", here, "--iface", "nosuch").returncode == 2
    assert xdpctl("topology", "--netns", "nosuch").returncode == 2


def test_a_deployments_promise_is_kept_while_its_program_is_there_and_open_without_it(
    story, world, xdpctl, tmp_path
):
    here, there = story
    text = (CONFIGS / "veth-redirect.toml").read_text()
    text = text.replace("[[interface]]\n", f'[[interface]]\nnetns = "{here}"\n')
    text = text.replace("[[redirect]]", f'[[redirect]]\nnetns = "{here}"').replace(
        '"../', f'"{CONFIGS.parent}/'
    )
    (tmp_path / "veth-redirect.toml").write_text(text)
    if not GRO_STARTS_NAPI:  # there `ensure` has no setting that would do
        cure(world, xdpctl, there)
    try:
        apply_file(tmp_path / "veth-redirect.toml", source="eth", target="veth_xxx0")
        (edge,) = redirects(shown(xdpctl, here))
        assert (edge["deployments"], edge["state"]) == (["veth-redirect"], "proven")
        xdpctl("detach", "--netns", here, "eth", check=True)
        (edge,) = redirects(shown(xdpctl, here))
        assert (edge["deployments"], edge["state"]) == (["veth-redirect"], "promised")
        assert edge["why"] == "no program is attached to eth now"
        destroy("veth-redirect")
        assert redirects(shown(xdpctl, here)) == []
    finally:
        forget_all()


def test_completion_offers_interfaces_and_namespaces(story, xdpctl):
    here, _there = story

    def offered(words):
        done = xdpctl(
            env={
                "_XDPCTL_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
            }
        )
        return done.stdout.split()

    assert "veth_xxx0" in offered(f"xdpctl topology --netns {here} --iface veth")
    assert here in offered(f"xdpctl topology --netns {here[:3]}")
    assert os.environ.get("_XDPCTL_COMPLETE") is None
