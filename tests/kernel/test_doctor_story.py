"""The founding story through the command line: redirects into a veth whose peer, in another namespace, has GRO off."""

import json
import os
from pathlib import Path

import pytest
from kernels import GRO_STARTS_NAPI, LIVE_FRAMES, LOST

pytestmark = pytest.mark.kernel


@pytest.fixture
def story(world):
    """eth (wire in another namespace) redirects to veth_xxx0, whose other end is veth_yyy0 in a container."""
    here, there, outside = world.namespace(), world.namespace(), world.namespace()
    world.veth("eth", "wire", netns_a=here, netns_b=outside)
    world.veth("veth_xxx0", "veth_yyy0", netns_a=here, netns_b=there)
    return here, there


def failures(done):
    return [one for one in done.json()["findings"] if one["status"] == "fail"]


def gro(world, name, netns):
    text = world.run("ethtool", "-k", name, netns=netns).stdout
    return next(line.split()[1] for line in text.splitlines() if line.startswith("generic-receive-offload"))


def test_doctor_names_the_peer_its_namespace_and_the_line_from_both_ends(story, xdpctl):
    here, there = story
    for name, netns in (("veth_xxx0", here), ("veth_yyy0", there)):
        done = xdpctl("doctor", name, "--netns", netns, "--json")
        assert done.returncode == 1
        found = [one for one in failures(done) if "veth_yyy0" in one["fix"][0]["argv"]]
        assert len(found) == 1
        finding = found[0]
        assert finding["id"] == "redirect.veth-peer-napi"
        assert finding["interface"] == name
        assert finding["netns"] == netns
        assert finding["errno"] == LOST[0]
        if not GRO_STARTS_NAPI:
            assert finding["fix"][0]["argv"][:2] == ["xdpctl", "attach"], "GRO gives no NAPI yet"
            continue
        assert finding["fix"] == [
            {
                "argv": ["ethtool", "-K", "veth_yyy0", "gro", "on"],
                "netns": there,
                "flaps_link": False,
                "inverse": ["ethtool", "-K", "veth_yyy0", "gro", "off"],
                "note": None,
            }
        ]
        assert any("veth_yyy0" in one["source"] for one in finding["evidence"])


def test_the_fix_line_can_be_typed_as_it_stands(story, xdpctl, world):
    here, there = story
    done = xdpctl("doctor", "eth", "--netns", here, "--redirect-to", "veth_xxx0")
    assert done.returncode == 1
    (line,) = [one for one in done.stdout.splitlines() if one.strip().startswith("fix:")]
    line = line.partition("   # ")[0]
    if GRO_STARTS_NAPI:
        assert line.split("fix: ")[1] == f"ip netns exec {there} ethtool -K veth_yyy0 gro on"
    world.run("sh", "-c", line.split("fix: ")[1])
    assert xdpctl("doctor", "eth", "--netns", here, "--redirect-to", "veth_xxx0").returncode == 0


def test_fix_switches_gro_on_and_checks_that_it_helped(story, xdpctl, world):
    here, there = story
    done = xdpctl("doctor", "eth", "--netns", here, "--redirect-to", "veth_xxx0", "--fix", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    (fixed,) = done.json()["fixed"]
    assert fixed["helped"]
    if GRO_STARTS_NAPI:
        assert gro(world, "veth_yyy0", there) == "on"
        assert gro(world, "veth_xxx0", here) == "off", "only what was asked for"
    else:
        assert "xdp" in world.ip("link show veth_yyy0", there)
        assert "xdp" not in world.ip("link show veth_xxx0", here), "only what was asked for"


def test_fix_takes_back_what_did_not_help(story, xdpctl, world, tmp_path, monkeypatch):
    here, _there = story
    useless = tmp_path / "ethtool"
    useless.write_text('#!/bin/sh\necho "$@" >> ' + str(tmp_path / "said") + "\n")
    useless.chmod(0o755)

    done = xdpctl(
        *("doctor", "eth", "--netns", here, "--redirect-to", "veth_xxx0", "--fix", "--yes", "--json"),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    (fixed,) = done.json()["fixed"]
    if not GRO_STARTS_NAPI:
        assert (done.returncode, fixed["helped"]) == (0, True), "the fix is a program, ethtool isn't asked"
        assert not (tmp_path / "said").exists()
        return
    assert done.returncode == 1
    assert not fixed["helped"]
    assert (tmp_path / "said").read_text().splitlines() == ["-K veth_yyy0 gro on", "-K veth_yyy0 gro off"]


def test_without_a_terminal_fix_wants_yes(story, xdpctl):
    done = xdpctl("doctor", "veth_xxx0", "--netns", story[0], "--fix")
    assert done.returncode == 2
    assert "--yes" in done.stderr


def test_generic_redirect_is_fine_and_says_so(story, xdpctl):
    done = xdpctl(
        "doctor", "eth", "--netns", story[0], "--redirect-to", "veth_xxx0", "--mode", "generic", "--json"
    )
    assert done.returncode == 0
    assert [one["status"] for one in done.json()["findings"]] == ["ok"]


def test_the_whole_host_only_warns_until_a_redirect_is_live(story, xdpctl):
    _here, _ = story
    done = xdpctl("doctor", "--json")
    assert done.returncode == 0
    warned = [one for one in done.json()["findings"] if one["id"] == "redirect.veth-peer-napi"]
    assert {one["interface"] for one in warned} >= {"veth_xxx0", "veth_yyy0"}
    assert {one["status"] for one in warned} == {"warn"}


def test_probe_measures_what_doctor_inferred(story, xdpctl, world):
    here, there = story
    asked = ("doctor", "eth", "--netns", here, "--redirect-to", "veth_xxx0", "--probe", "--json")
    before = xdpctl(*asked)
    if not LIVE_FRAMES:
        (told,) = [one for one in before.json()["findings"] if one["id"].startswith("probe.")]
        assert (told["id"], told["status"]) == ("probe.not-proven", "unknown")
        return
    assert before.returncode == 1
    lost = next(one for one in before.json()["findings"] if one["id"].startswith("probe."))
    assert (lost["id"], lost["errno"], lost["shows_in"]) == (
        "probe.lost",
        *LOST,
    )
    world.run("ethtool", "-K", "veth_yyy0", "gro", "on", netns=there)
    after = xdpctl(*asked)
    assert after.returncode == 0, after.stdout
    assert after.json()["findings"][0]["id"] == "probe.delivered"


def test_a_snapshot_answers_elsewhere_as_the_machine_does(story, xdpctl, tmp_path):
    here, _there = story
    taken = xdpctl("snapshot", check=True).stdout
    (tmp_path / "host.json").write_text(taken)
    asked = ("doctor", "veth_xxx0", "--netns", here, "--json")
    live, saved = xdpctl(*asked), xdpctl(*asked, "--snapshot", str(tmp_path / "host.json"))
    assert saved.returncode == 1
    assert saved.json()["findings"] == live.json()["findings"]


def test_a_broken_snapshot_ends_with_a_word(xdpctl, tmp_path):
    (tmp_path / "host.json").write_text('{"schema": 1, "namesp')
    done = xdpctl("doctor", "--snapshot", str(tmp_path / "host.json"))
    assert done.returncode == 2
    assert "host.json" in done.stderr


def test_an_interface_of_another_namespace_is_pointed_to(story, xdpctl):
    done = xdpctl("doctor", "veth_yyy0", netns=story[0])
    assert done.returncode == 2
    assert f"--netns {story[1]}" in done.stderr


def test_all_netns_finds_it_wherever_it_is(story, xdpctl):
    done = xdpctl("doctor", "veth_yyy0", "--all-netns", "--json", netns=story[0])
    assert done.returncode == 1
    # redirects of programs that others run in namespaces of their own are told as well
    assert {one["netns"] for one in done.json()["findings"] if one["netns"] in story} == {story[1]}


PLAIN = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
const volatile int target = 0;
SEC("xdp") int out(struct xdp_md *ctx) { return bpf_redirect(target, 0); }
char LICENSE[] SEC("license") = "GPL";
"""


def test_an_object_is_judged_by_where_its_settings_redirect_it(story, xdpctl, compile_c):
    obj = compile_c(PLAIN)
    here, _there = story
    asked = ("doctor", "eth", "--netns", here, "--prog", str(obj), "--json")
    untold = xdpctl(*asked)
    assert untold.returncode == 0
    assert [one["id"] for one in untold.json()["findings"]] == ["redirect.target-not-told"]
    told = xdpctl(*asked, "--set", "target=veth_xxx0")
    assert told.returncode == 1
    assert [one["id"] for one in failures(told)] == ["redirect.veth-peer-napi"]
    probed = xdpctl(*asked, "--set", "target=veth_xxx0", "--probe")
    assert probed.json()["findings"][0]["id"] == ("probe.lost" if LIVE_FRAMES else "probe.not-proven")


def test_attach_stops_before_it_would_lose_frames_and_force_goes_on(story, xdpctl, compile_c):
    obj = compile_c(PLAIN)
    here, there = story
    asked = ("attach", "--netns", here, "--set", "target=veth_xxx0", "eth", str(obj))
    stopped = xdpctl(*asked)
    assert stopped.returncode == 6
    assert "veth_yyy0" in stopped.stderr
    if GRO_STARTS_NAPI:
        assert f"ip netns exec {there} ethtool -K veth_yyy0 gro on" in stopped.stderr
    else:
        assert f"xdpctl attach --netns {there} --mode native veth_yyy0 builtin:pass" in stopped.stderr
    assert xdpctl("status", "--netns", here, "--json").json()["attachments"] == []
    forced = xdpctl(*asked, "--force")
    assert forced.returncode == 0, forced.stderr
    xdpctl("detach", "--netns", here, "eth", check=True)


def test_attach_fix_clears_the_way_first(story, xdpctl, compile_c, world):
    obj = compile_c(PLAIN)
    here, there = story
    done = xdpctl("attach", "--netns", here, "--set", "target=veth_xxx0", "--fix", "--yes", "eth", str(obj))
    assert done.returncode == 0, done.stderr
    assert gro(world, "veth_yyy0", there) == "on"
    probed = xdpctl("doctor", "eth", "--netns", here, "--probe", "--json")
    assert probed.json()["findings"][0]["id"] == "probe.delivered", probed.stdout
    xdpctl("detach", "--netns", here, "eth", check=True)


def test_a_live_devmap_makes_the_whole_host_fail(story, xdpctl, compile_c, world):
    source = PLAIN.replace(
        'SEC("xdp")',
        """struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4); __type(key, __u32);
           __type(value, __u32); } ports SEC(".maps");
           SEC("xdp")""",
    ).replace("bpf_redirect(target, 0)", "bpf_redirect_map(&ports, 0, 0)")
    here, _there = story
    attached = xdpctl("attach", "--netns", here, "--json", "eth", str(compile_c(source)))
    assert attached.returncode == 0, attached.stderr
    assert "redirect.empty-slot" in attached.stderr
    program = attached.json()["attachments"][0]["program"]["id"]
    shown = json.loads(world.run("bpftool", "-j", "prog", "show", "id", str(program)).stdout)
    index = int(world.run("cat", "/sys/class/net/veth_xxx0/ifindex", netns=here, check=False).stdout or 0)
    index = index or int(world.ip("-o link show veth_xxx0", here).split(":")[0])
    key, value = ["key", "0", "0", "0", "0"], [str(one) for one in index.to_bytes(4, "little")]
    for number in shown["map_ids"]:
        info = json.loads(world.run("bpftool", "-j", "map", "show", "id", str(number)).stdout)
        if info["type"] == "devmap":
            world.run("bpftool", "map", "update", "id", str(number), *key, "value", *value, netns=here)
    done = xdpctl("doctor", "--json")
    assert done.returncode == 1
    assert [(one["id"], one["interface"]) for one in failures(done)] == [
        ("redirect.veth-peer-napi", "veth_xxx0")
    ]
    xdpctl("detach", "--netns", here, "eth", check=True)


def test_a_refusal_is_explained_by_the_rule_that_matches(world, xdpctl):
    here, there = world.namespace(), world.namespace()
    world.veth("va", "vb", netns_a=here, netns_b=there)
    world.ip("link set vb mtu 9000", there)

    obj = Path(__file__).resolve().parents[2] / "build/bpf/pass.bpf.o"
    if not obj.exists():
        world.run("make", "-C", str(obj.parents[2]), "build")
    done = xdpctl("attach", "--netns", here, "va", str(obj))
    assert done.returncode == 6
    assert "attach.veth-peer-mtu" in done.stderr
    assert f"ip netns exec {there} ip link set dev vb mtu 3506" in done.stderr
    forced = xdpctl("attach", "--netns", here, "--force", "va", str(obj))
    assert forced.returncode == 6
    assert forced.stderr.count("attach.veth-peer-mtu") == 2, "foreseen, and explained afterwards"


def test_a_fix_in_the_namespace_that_was_named_is_typed_from_where_the_caller_is(world, xdpctl):
    here = world.namespace()
    world.veth("va", "vb", netns_a=here, netns_b=here)
    world.ip("link set vb mtu 9000", here)
    obj = str(Path(__file__).resolve().parents[2] / "build/bpf/pass.bpf.o")
    done = xdpctl("attach", "--netns", here, "va", obj)
    assert done.returncode == 6
    assert f"fix: ip netns exec {here} ip link set dev vb mtu 3506" in done.stderr
    inside = xdpctl("attach", "va", obj, netns=here)
    assert inside.returncode == 6
    assert "fix: ip link set dev vb mtu 3506" in inside.stderr
